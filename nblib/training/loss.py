"""The next-token loss with integer labels, in fp32.

Tunix's default loss builds a one-hot of `[B, T, V]` in fp32 and takes the log-softmax in the
logits' dtype; this one gathers the label's logit instead. Both are the mean negative log-likelihood
over the tokens that the mask counts.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tunix.sft.peft_trainer import TrainingInput
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.tokens.tokenizer import PAD_ID


def model_inputs(batch: TrainingInput) -> dict[str, jax.Array]:
    """Return the loss function's arguments for a batch; PeftTrainer calls it inside jit."""
    padding_mask = batch.input_tokens != PAD_ID
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": build_positions_from_mask(padding_mask),
        "attention_mask": make_causal_attn_mask(padding_mask),
    }


def next_token_loss(
    model: nnx.Module,
    input_tokens: Int[Array, "B T"],
    input_mask: Float[Array, "B T"],
    positions: Int[Array, "B T"],
    attention_mask: Bool[Array, "B T T"],
) -> Float[Array, ""]:
    """Return the mean negative log-likelihood, in nats, of the tokens whose mask is 1.

    Position t predicts token t + 1, so the mask of token 0 never counts. A batch without any
    counted token has loss 0.
    """
    logits, _ = model(input_tokens, positions, None, attention_mask)
    logits = logits[:, :-1].astype(jnp.float32)
    labels = input_tokens[:, 1:]
    mask = input_mask[:, 1:]
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - label_logits
    return jnp.sum(losses * mask) / jnp.maximum(jnp.sum(mask), 1.0)
