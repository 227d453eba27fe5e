"""Log-probabilities and entropies of tokens, from logits that exist a few positions at a time.

A chunk's logits are made, scored and dropped, and made once more in the backward pass; the full
`[B, T, V]` exists in neither. Scores are fp32 for every dtype of the model.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import pxla
from jaxtyping import Array, Float, Int

# Of the rows of one device: 2 GiB of bf16 for Gemma's 262,144 tokens. Where devices share the
# embedding, XLA gathers it again for every chunk, with every setting that was tried: on a TPU v5e
# in about as long as the product of 2,048 positions takes. Smaller chunks would wait for it.
CHUNK_POSITIONS = 4096


def score_positions(
    score: Callable[[Float[Array, "B C V"], Int[Array, "B C"]], Any],
    decode: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    *,
    chunk_positions: int = CHUNK_POSITIONS,
) -> Any:
    """Return `score(decode(hidden), labels)`, computed chunk by chunk along T.

    Args:
        score: gives one figure a position, or a tuple of such; each becomes `[B, T]`.
        decode: the unembedding; `model.embedder.decode`.
        hidden: what it reads.
        labels: the token that each position is to predict.
        chunk_positions: of a device's rows together; at least one of each row is taken.
    """
    rows, length, _ = hidden.shape
    count = -(-length // max(1, chunk_positions * _devices_sharing(rows) // rows))
    size = -(-length // count)

    @jax.checkpoint
    def score_chunk(chunk: Array, labels: Array) -> Any:
        return score(decode(chunk), labels)

    scores: list[Any] = []
    for begin in range(0, length, size):  # no loop of XLA's: it counts one turn's operations only
        chunk = hidden[:, begin : begin + size]
        if scores:  # one after the other, forwards and backwards, or all their logits exist at once
            chunk, scores[-1] = jax.lax.optimization_barrier((chunk, scores[-1]))
        scores.append(score_chunk(chunk, labels[:, begin : begin + size]))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *scores)


def _devices_sharing(rows: int) -> int:
    """Return among how many devices Tunix splits the rows: those of its mesh, if that is even."""
    devices = pxla.thread_resources.env.physical_mesh.shape.get("fsdp", 1)
    return devices if rows % devices == 0 else 1


def label_log_probs(
    logits: Float[Array, "... V"], labels: Int[Array, "..."]
) -> Float[Array, "..."]:
    """Return the log-probability of each label, in nats."""
    logits = logits.astype(jnp.float32)
    ids = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1)
    # Not by index: XLA for TPUs would keep the logits in fp32 for that alone.
    label_logits = jnp.sum(logits, axis=-1, where=ids == labels[..., None])
    return label_logits - jax.nn.logsumexp(logits, axis=-1)


def entropy(logits: Float[Array, "... V"]) -> Float[Array, "..."]:
    """Return the entropy of each distribution, in nats."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
