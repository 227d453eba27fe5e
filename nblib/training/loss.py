"""The next-token loss with integer labels, in fp32, and what the model reads of a batch.

Tunix's default loss builds logits, log-softmax and a one-hot, each `[B, T, V]`; this one scores the
labels chunk by chunk (`unembedding`). Both are the mean negative log-likelihood over the tokens
that the mask counts, so a long completion weighs more than a short one, and it makes no difference
whether examples stand in rows of their own or packed behind each other, in one batch or in several
(`as_one_batch`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import TrainingInput
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.models.hidden import hidden_states
from nblib.tokens.tokenizer import BOS_ID, PAD_ID
from nblib.training.unembedding import CHUNK_POSITIONS, label_log_probs, score_positions


def model_inputs(batch: TrainingInput) -> dict[str, jax.Array]:
    """Return the loss function's arguments for a batch; PeftTrainer calls it inside jit.

    Each BOS begins an example: positions restart there, and no token sees the example before. Tunix
    cuts the window of its local layers from this mask by distance in the row, which within an
    example is distance in the text.

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

    The mean of their `weighted_loss` is the `next_token_loss` of all their rows, and so is its
    gradient.

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
    chunk_positions: int = CHUNK_POSITIONS,
) -> Float[Array, ""]:
    """Return the sum of the tokens' negative log-likelihoods, in nats, times their masks.

    Position t predicts token t + 1, so the mask of token 0 never counts.
    `remat`: see `hidden_states`; `chunk_positions`: `score_positions`.
    """
    hidden = hidden_states(model, input_tokens, positions, attention_mask, remat=remat)
    log_probs = score_positions(
        label_log_probs,
        model.embedder.decode,
        hidden[:, :-1],
        input_tokens[:, 1:],
        chunk_positions=chunk_positions,
    )
    return -jnp.sum(log_probs * input_mask[:, 1:])


def next_token_loss(
    model: Gemma3,
    input_tokens: Int[Array, "B T"],
    input_mask: Float[Array, "B T"],
    positions: Int[Array, "B T"],
    attention_mask: Bool[Array, "B T T"],
    remat: bool = False,
    chunk_positions: int = CHUNK_POSITIONS,
) -> Float[Array, ""]:
    """Return the mean negative log-likelihood, in nats, of the tokens whose mask is 1.

    As `weighted_loss`; a batch without any counted token has loss 0.
    """
    total = weighted_loss(
        model, input_tokens, input_mask, positions, attention_mask, remat, chunk_positions
    )
    return total / jnp.maximum(jnp.sum(input_mask[:, 1:]), 1.0)
