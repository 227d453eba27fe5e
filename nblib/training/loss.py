"""The next-token loss with integer labels, in fp32, from logits that exist a chunk at a time.

Tunix's default loss builds logits, log-softmax and a one-hot, each `[B, T, V]`. Here a chunk's
logits are made, scored and dropped, and made once more in the backward pass. Both are the mean
negative log-likelihood over the tokens that the mask counts, so a long completion weighs more than
a short one. It makes no difference whether examples stand in rows of their own or packed behind
each other, in one batch or in several (`as_one_batch`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import pxla
from jaxtyping import Array, Bool, Float, Int
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import TrainingInput
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.models.attention import hidden_states
from nblib.tokens.tokenizer import BOS_ID, PAD_ID

# Of a device's rows together, at least one of each row: 2 GiB of bf16 for Gemma's 262,144 tokens.
# Where devices share the embedding, XLA gathers it again for every chunk, with every setting that
# was tried: on a TPU v5e in about as long as the product of 2,048 positions takes. Smaller chunks
# would wait for it.
CHUNK_POSITIONS = 4096


def model_inputs(batch: TrainingInput) -> dict[str, jax.Array]:
    """Return the loss function's arguments for a batch; PeftTrainer calls it inside jit.

    Each BOS begins an example: positions restart there, and no token attends to the example before.
    Tunix cuts its sliding window from this mask by distance in the row, which within an example is
    distance in the text.

        input_tokens    <bos> 8 9 <bos> 7 <pad>
        positions         0   1 2   0   1   1
    """
    padding_mask = batch.input_tokens != PAD_ID
    begins = batch.input_tokens == BOS_ID
    example = jnp.cumsum(begins, axis=1)
    positions = build_positions_from_mask(padding_mask)
    first = jax.lax.cummax(jnp.where(begins, positions, 0), axis=1)
    same_example = example[:, :, None] == example[:, None, :]
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": positions - first,
        "attention_mask": make_causal_attn_mask(padding_mask) & same_example,
    }


def as_one_batch(batches: Sequence[TrainingInput]) -> list[TrainingInput]:
    """Return the batches with weights for masks, so that together they are worth one batch.

    The mean of their `weighted_loss` is the `next_token_loss` of all their rows; so are gradients.

        masks      [[0 1 0 0]], [[0 1 1 1]]    four tokens in two batches: each weighs 2 / 4
        weights    [[0 .5 0 0]], [[0 .5 .5 .5]]
    """
    learnt = sum(float(np.sum(batch.input_mask[:, 1:])) for batch in batches)
    weight = np.float32(len(batches) / max(learnt, 1.0))
    return [batch.replace(input_mask=batch.input_mask * weight) for batch in batches]


def weighted_loss(
    model: Gemma3,
    input_tokens: Int[Array, "B T"],
    input_mask: Float[Array, "B T"],
    positions: Int[Array, "B T"],
    attention_mask: Bool[Array, "B T T"],
    remat: bool = False,
) -> Float[Array, ""]:
    """Return the sum of the tokens' negative log-likelihoods, in nats, times their masks.

    Position t predicts token t + 1, so the mask of token 0 never counts. `remat`: `hidden_states`.
    """
    hidden = hidden_states(model, input_tokens, positions, attention_mask, remat=remat)
    log_probs = score_positions(
        label_log_probs, model.embedder.decode, hidden[:, :-1], input_tokens[:, 1:]
    )
    return -jnp.sum(log_probs * input_mask[:, 1:])


def next_token_loss(
    model: Gemma3,
    input_tokens: Int[Array, "B T"],
    input_mask: Float[Array, "B T"],
    positions: Int[Array, "B T"],
    attention_mask: Bool[Array, "B T T"],
    remat: bool = False,
) -> Float[Array, ""]:
    """Return the mean negative log-likelihood, in nats, of the tokens whose mask is 1.

    As `weighted_loss`; a batch without any counted token has loss 0.
    """
    total = weighted_loss(model, input_tokens, input_mask, positions, attention_mask, remat)
    return total / jnp.maximum(jnp.sum(input_mask[:, 1:]), 1.0)


def score_positions(
    score: Callable[[Float[Array, "B C V"], Int[Array, "B C"]], Any],
    decode: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
) -> Any:
    """Return `score(decode(hidden), labels)`, computed chunk by chunk along T.

    `score` gives one figure a position, or a tuple of such: each becomes `[B, T]`. `decode` is the
    unembedding, `model.embedder.decode`.
    """
    rows, length, _ = hidden.shape
    devices = pxla.thread_resources.env.physical_mesh.shape.get("fsdp", 1)
    if rows % devices:
        devices = 1  # Tunix splits the rows only where that is even
    count = -(-length // max(1, CHUNK_POSITIONS * devices // rows))
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
