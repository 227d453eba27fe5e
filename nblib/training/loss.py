"""The next-token loss with integer labels, in fp32, from logits that exist a chunk at a time.

Tunix's default loss builds logits, log-softmax and a one-hot, each `[B, T, V]`. Here a chunk's
logits are made, scored and dropped, for the tokens that the mask counts alone. Where the embedding
is frozen they are made once: the forward pass finds the hidden states' gradient too, as fused
linear cross-entropies do (Liger, https://arxiv.org/abs/2410.10989).

Both losses are the mean negative log-likelihood over the counted tokens, so a long completion
weighs more than a short one. It makes no difference whether examples stand in rows of their own or
packed behind each other, in one batch or in several (`as_one_batch`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Shaped
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import TrainingInput
from tunix.sft.utils import build_positions_from_mask

from nblib.models.attention import hidden_states
from nblib.models.mesh import current_mesh, current_platform
from nblib.tokens.tokenizer import BOS_ID, PAD_ID

# Positions of one device. Measured on CPUs: with 256 tokens of Gemma's vocabulary of 262,144 at a
# time the products are as fast as with 1,024, less of the last chunk is padding, and the logits are
# a quarter of a GiB. GPUs have no more to share either.
CHUNK_POSITIONS = 256
# Where devices share the embedding, XLA gathers it again for every chunk, with every setting that
# was tried: on a TPU v5e in about as long as the product of 2,048 positions takes. Smaller chunks
# would wait for it. These are 2 GiB of bf16.
TPU_CHUNK_POSITIONS = 4096

TokenScores = tuple[Float[Array, "..."], Float[Array, "..."]]  # log-probabilities, entropies
Score = Callable[..., TokenScores]  # of embedding, hidden, labels
Compute = Callable[..., tuple[Any, Any]]


def model_inputs(batch: TrainingInput) -> dict[str, jax.Array]:
    """Return the loss function's arguments for a batch; PeftTrainer calls it inside jit.

    Each BOS begins an example: positions restart there, and no token attends to the example before.
    A sliding window is cut by distance in the row, which within an example is that in the text.

        input_tokens    <bos> 8 9 <bos> 7 <pad>
        positions         0   1 2   0   1   1
        segments          2   2 2   3   3   0
    """
    padding_mask = batch.input_tokens != PAD_ID
    begins = batch.input_tokens == BOS_ID
    positions = build_positions_from_mask(padding_mask)
    first = jax.lax.cummax(jnp.where(begins, positions, 0), axis=1)
    example = 1 + jnp.cumsum(begins, axis=1)  # what stands before the first BOS is one too
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": positions - first,
        "segments": jnp.where(padding_mask, example, 0),
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
    segments: Int[Array, "B T"],
    remat: bool = False,
) -> Float[Array, ""]:
    """Return the sum of the tokens' negative log-likelihoods, in nats, times their masks.

    Position t predicts token t + 1, so the mask of token 0 never counts. `remat`: `hidden_states`.
    """
    hidden = hidden_states(model, input_tokens, positions, segments, remat=remat)
    mask = input_mask[:, 1:]
    log_probs, _ = token_scores(model, hidden[:, :-1], input_tokens[:, 1:], mask != 0)
    return -jnp.sum(log_probs * mask)


def next_token_loss(
    model: Gemma3,
    input_tokens: Int[Array, "B T"],
    input_mask: Float[Array, "B T"],
    positions: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    remat: bool = False,
) -> Float[Array, ""]:
    """Return the mean negative log-likelihood, in nats, of the tokens whose mask is 1.

    As `weighted_loss`; a batch without any counted token has loss 0.
    """
    total = weighted_loss(model, input_tokens, input_mask, positions, segments, remat)
    return total / jnp.maximum(jnp.sum(input_mask[:, 1:]), 1.0)


def token_scores(
    model: Gemma3,
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    counted: Bool[Array, "B T"],
    *,
    temperature: float = 1.0,
) -> TokenScores:
    """Return the labels' log-probabilities and the entropies, in nats; 0 where not counted.

    The entropy carries no gradient. Where the model has adapters its embedding is frozen: then a
    position's gradient is its cotangent times a direction that the forward pass finds beside the
    logits, which are not made again. It is the gradient of the hidden states alone; jax refuses to
    take one of the embedding. Where that is trained, the backward pass makes each chunk's logits
    again.
    """
    structure, embedding = nnx.split(model.embedder)
    frozen = bool(nnx.state(model, nnx.LoRAParam))

    def score(embedding: nnx.State, hidden: Array, labels: Array) -> TokenScores:
        logits = nnx.merge(structure, embedding).decode(hidden)
        logits = logits.astype(jnp.float32) / temperature
        return label_log_probs(logits, labels), entropy(jax.lax.stop_gradient(logits))

    scores = _frozen_embedding_scores if frozen else _trained_embedding_scores
    return scores(score, embedding, hidden, labels, counted)


def _frozen_embedding_scores(
    score: Score, embedding: nnx.State, hidden: Array, labels: Array, counted: Array
) -> TokenScores:
    def both(_: None, hidden: Array, labels: Array) -> tuple[None, tuple[TokenScores, Array]]:
        log_probs, pull, entropies = jax.vjp(
            lambda hidden: score(embedding, hidden, labels), hidden, has_aux=True
        )
        # No position depends on another, so the gradient of their sum holds each one's own.
        return None, ((log_probs, entropies), *pull(jnp.ones_like(log_probs)))

    @jax.custom_vjp
    def scores(hidden: Array) -> TokenScores:
        return _forward_scores(score, embedding, hidden, labels, counted)

    def forward(hidden: Array) -> tuple[TokenScores, Array]:
        return _in_chunks(both, None, counted, hidden, labels)[1]

    def backward(directions: Array, cotangents: TokenScores) -> tuple[Array]:
        return ((cotangents[0][..., None] * directions).astype(directions.dtype),)

    scores.defvjp(forward, backward)
    return scores(hidden)


def _trained_embedding_scores(
    score: Score, embedding: nnx.State, hidden: Array, labels: Array, counted: Array
) -> TokenScores:
    @jax.custom_vjp
    def scores(embedding: nnx.State, hidden: Array) -> TokenScores:
        return _forward_scores(score, embedding, hidden, labels, counted)

    def forward(*inputs: Any) -> tuple[TokenScores, Any]:
        return scores(*inputs), inputs

    def backward(inputs: Any, cotangents: TokenScores) -> tuple[nnx.State, Array]:
        embedding, hidden = inputs

        def pulled(total: Any, hidden: Array, labels: Array, cotangent: Array) -> Any:
            _, pull, _ = jax.vjp(partial(score, labels=labels), embedding, hidden, has_aux=True)
            of_embedding, of_hidden = pull(cotangent)
            return jax.tree.map(jnp.add, total, of_embedding), of_hidden

        nothing = jax.tree.map(jnp.zeros_like, embedding)
        cotangent = jnp.where(counted, cotangents[0], 0)  # uncounted ones share the last chunk
        return _in_chunks(pulled, nothing, counted, hidden, labels, cotangent)

    scores.defvjp(forward, backward)
    return scores(embedding, hidden)


def _forward_scores(
    score: Score, embedding: nnx.State, hidden: Array, labels: Array, counted: Array
) -> TokenScores:
    def scores(_: None, *chunk: Array) -> tuple[None, TokenScores]:
        return None, score(embedding, *chunk)

    return _in_chunks(scores, None, counted, hidden, labels)[1]


def _in_chunks(
    compute: Compute, carry: Any, counted: Bool[Array, "B T"], *arrays: Shaped[Array, "B T ..."]
) -> tuple[Any, Any]:
    """Compute figures of the counted positions, a chunk at a time; the others get 0.

    `compute(carry, *chunks)` returns the next carry, and the figures of the chunk's positions. The
    counted ones are moved to the front of each device's own rows, and chunks of others are skipped:

        counted    0 1 0 1 0 0 1 0 0 0 0 0
        order      1 3 6 0 | 2 4 5 7 | 8 9 10 11        of chunks of 4 one is computed
    """
    rows, length = counted.shape
    groups, most = _groups_and_chunk(rows)
    positions = rows // groups * length
    size = -(-positions // -(-positions // most))
    order = jnp.argsort(~counted.reshape(groups, positions), axis=1)
    counted_first, *moved = (
        _picked(one.reshape(groups, positions, *one.shape[2:]), order) for one in (counted, *arrays)
    )
    found: list[Any] = []
    for begin in range(0, positions, size):  # no loop of XLA's: it counts one turn's operations
        chunk = [array[:, begin : begin + size] for array in moved]
        if found:  # one after the other, or all their logits exist at once
            chunk, found[-1], carry = jax.lax.optimization_barrier((chunk, found[-1], carry))
        carry, figures = _if_any(jnp.any(counted_first[:, begin]), compute, carry, chunk)
        found.append(figures)
    places = jnp.argsort(order, axis=1)

    def in_place(*parts: Array) -> Array:
        figures = _picked(jnp.concatenate(parts, axis=1), places)
        figures = figures.reshape(rows, length, *figures.shape[2:])
        return jnp.where(counted.reshape(rows, length, *[1] * (figures.ndim - 2)), figures, 0)

    return carry, jax.tree.map(in_place, *found)


def _groups_and_chunk(rows: int) -> tuple[int, int]:
    """Return how many devices share the rows, and how many positions each may have in a chunk."""
    devices = current_mesh().shape["fsdp"]
    groups = 1 if rows % devices else devices  # Tunix splits the rows only where that is even
    return groups, TPU_CHUNK_POSITIONS if current_platform() == "tpu" else CHUNK_POSITIONS


def _picked(
    values: Shaped[Array, "G N ..."], places: Int[Array, "G N"]
) -> Shaped[Array, "G N ..."]:
    places = places.reshape(*places.shape, *[1] * (values.ndim - 2))
    return jnp.take_along_axis(values, places, axis=1)


def _if_any(
    anything: Bool[Array, ""], compute: Compute, carry: Any, chunk: Sequence[Array]
) -> tuple[Any, Any]:
    """Return `compute(carry, *chunk)`, or where nothing counts the carry and zeros."""

    def skip(carry: Any, *chunk: Array) -> tuple[Any, Any]:
        _, figures = jax.eval_shape(compute, carry, *chunk)
        return carry, jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), figures)

    return jax.lax.cond(anything, compute, skip, carry, *chunk)


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
