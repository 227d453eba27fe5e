"""The hidden states before the unembedding, from which a training computes logits in chunks.

Tunix's Gemma 3 returns the logits `[B, T, V]` of all positions at once: with Gemma's vocabulary of
262,144 they are most of a step's memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tunix.models.gemma3.model import Gemma3, RematConfig

from nblib.models.attention import CausalAttention, attention_of
from nblib.models.lora import multiplied_out


def hidden_states(
    model: Gemma3,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    attention_mask: Bool[Array, "B T T"],
    *,
    remat: bool = False,
) -> Float[Array, "B T D"]:
    """Return the states after the final norm; `model.embedder.decode` makes logits of them.

    The mask must be causal. The whole model is called, because adapters act only within its call:
    layers called one by one would silently be the base's. Its logits are not used, so that a
    compiled program does not compute them. `remat` is gradient checkpointing: the backward pass
    keeps each layer's input and computes the rest again. Adapters: see `multiplied_out`.
    """
    model = multiplied_out(model)
    forward = nnx.capture(model, nnx.Intermediate)
    with _recomputed_layers(model, remat), attention_of(model, CausalAttention):
        _, sown = forward(tokens, positions, None, attention_mask, output_hidden_states=True)
    (hidden,) = sown["all_hidden_states"]  # Tunix's name; it sows the last ones only
    return hidden


@contextmanager
def _recomputed_layers(model: Gemma3, remat: bool) -> Iterator[None]:
    """Set the model's remat for one call: Tunix's sampler cannot run a model that has it set."""
    before = model.config.remat_config
    model.config.remat_config = RematConfig.DECODER if remat else before
    try:
        yield
    finally:
        model.config.remat_config = before
