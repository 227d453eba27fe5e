"""Attention that costs less than Tunix's: a KV cache written in place, no mask in training.

Each class replaces Tunix's in a model's layers while the model is traced (`attention_of`). Weights
and adapters act as they do in Tunix's own, and the results are the same up to rounding.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tunix.models.gemma3.model import (
    Attention,
    AttentionType,
    Gemma3,
    RematConfig,
    apply_rope,
)
from tunix.utils import sharding_utils

from nblib.models.adapted_feed_forward import feed_forward_of
from nblib.models.causal_attention import Segments, attend, causal_attention, head_rows
from nblib.models.lora import LORA_PARAMETER, multiplied_out


class InPlaceAttention(Attention):
    """Attention over a KV cache that is written in place; XLA copies Tunix's at every step.

    It need not copy `k, v [B * K, C, H]`, because they are multiplied as they are stored. The
    tokens are written from position `begin` of the cache on; a local layer's cache may be a ring.
    """

    def block(
        self,
        x: Float[Array, "B T D"],
        segment_pos: Int[Array, "B T"],
        cache: Any,
        attn_mask: Bool[Array, "B T C"],
    ) -> tuple[Any, Float[Array, "B T D"]]:
        """Return the cache with the tokens' keys and values, and the attention's output."""
        query, key, value = _projected(self, x, segment_pos)
        begin, slots = cache["begin"], cache["k"].shape[1]
        keys, values = (
            jax.lax.dynamic_update_slice(old, head_rows(new), (0, begin % slots, 0))
            for old, new in ((cache["k"], key), (cache["v"], value))
        )
        position, window = jnp.arange(slots), _window(self)
        if slots < attn_mask.shape[2]:  # a ring: what is written last, or one to ring - 1 before
            last = begin + x.shape[1] - 1
            position = last - (last - position) % slots
            attn_mask = jnp.take(attn_mask, position, axis=2, mode="clip") & (position >= 0)
        if window is not None:
            first = begin + jnp.arange(x.shape[1]) - window + 1
            attn_mask &= position >= first[:, None]
        output = attend(query, keys, values, attn_mask)
        return {"k": keys, "v": values}, self.attn_vec_einsum(output)


class CausalAttention(Attention):
    """Attention of training, which needs no mask: `models.causal_attention`.

    What Tunix hands on as its mask are the segments.
    """

    def block(
        self,
        x: Float[Array, "B T D"],
        segment_pos: Int[Array, "B T"],
        cache: None,
        attn_mask: Segments,
    ) -> tuple[None, Float[Array, "B T D"]]:
        """Return no cache, and the attention's output."""
        query, key, value = _projected(self, x, segment_pos)
        output = causal_attention(query, key, value, attn_mask, window=_window(self))
        output = self.attn_vec_einsum(output)
        return None, sharding_utils.shard(output, self.shd_config.act_btd)


def attention_of(model: nnx.Module, kind: type[Attention]) -> AbstractContextManager[None]:
    """Exchange the attention class of a model's layers for a call."""
    return _of_class([layer.attn for layer in model.layers], kind)


@contextmanager
def _of_class(modules: Sequence[nnx.Module], kind: type[nnx.Module]) -> Iterator[None]:
    def become(kinds: Iterable[type[nnx.Module]]) -> None:
        for module, one in zip(modules, kinds, strict=True):
            object.__setattr__(module, "__class__", one)  # nnx would note it as a new attribute

    own = [type(module) for module in modules]
    become([kind] * len(own))
    try:
        yield
    finally:
        become(own)


def hidden_states(
    model: Gemma3,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    *,
    prefixes: Int[Array, "B T"] | None = None,
    remat: bool = False,
) -> Float[Array, "B T D"]:
    """Return the states after the final norm; `unembed` makes logits of them.

    Tunix's Gemma 3 returns the logits `[B, T, V]` of all positions at once: with Gemma's vocabulary
    of 262,144 they are most of a step's memory. From the states they can be had in chunks.

    A token attends to those before it in its own segment, and in the one that `prefixes` names. The
    whole model is called, because adapters act only within its call: layers called one by one would
    silently be the base's. Its logits are not used, so that a compiled program does not compute
    them. `remat` is gradient checkpointing: the backward pass keeps each layer's input and computes
    the rest again. Adapters: see `multiplied_out`, and where they are not, `feed_forward_of`.
    """
    model = multiplied_out(model)
    seen = Segments(segments, prefixes, None if prefixes is None else positions)
    with (
        _recomputed_layers(model, remat),
        attention_of(model, CausalAttention),
        _adapted_feed_forward(model),
    ):
        return called(model, tokens, positions, None, seen)[0]


def called(
    model: Gemma3,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    cache: Any,
    attention_mask: Bool[Array, "B T C"] | Segments,
) -> tuple[Float[Array, "B T D"], Any]:
    """Call a model; return its states after the final norm, and the new KV cache."""
    forward = nnx.capture(model, nnx.Intermediate)
    (_, cache), sown = forward(tokens, positions, cache, attention_mask, output_hidden_states=True)
    (hidden,) = sown["all_hidden_states"]  # Tunix's name; it sows the last ones only
    return hidden, cache


def unembed(embedding: Float[Array, "V D"], hidden: Float[Array, "N D"]) -> Float[Array, "N V"]:
    """Return the logits of hidden states.

    XLA's product for CPUs takes half as long again when the embedding is its second factor; the
    barrier keeps XLA from exchanging the factors.
    """

    def embedding_first(embedding: Array, hidden: Array) -> Array:
        return jax.lax.optimization_barrier(embedding @ hidden.T).T

    return jax.lax.platform_dependent(
        embedding, hidden, cpu=embedding_first, default=lambda one, other: other @ one.T
    )


@contextmanager
def _recomputed_layers(model: Gemma3, remat: bool) -> Iterator[None]:
    """Set the model's remat for one call: Tunix's sampler cannot run a model that has it set."""
    before = model.config.remat_config
    model.config.remat_config = RematConfig.DECODER if remat else before
    try:
        yield
    finally:
        model.config.remat_config = before


def _adapted_feed_forward(model: Gemma3) -> AbstractContextManager[None]:
    """Exchange the feed-forward class of a model's layers for a call, where it has adapters."""
    if not nnx.state(model, LORA_PARAMETER):
        return nullcontext()
    return _of_class([layer.mlp for layer in model.layers], feed_forward_of(model.lora_scale))


def _projected(
    attention: Attention, x: Float[Array, "B T D"], positions: Int[Array, "B T"]
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    """Return queries, scaled, keys and values; the first two are rotated."""
    if attention.use_qkv_einsum:
        query, key, value = attention.qkv_einsum(x)
    else:
        query, (key, value) = attention.q_einsum(x), attention.kv_einsum(x)
    query, key, value = (
        sharding_utils.shard(one, attention.shd_config.act_btnh) for one in (query, key, value)
    )
    rotated = partial(
        apply_rope,
        positions=positions,
        head_dim=attention.head_dim,
        base_frequency=attention.rope_base_frequency,
        scale_factor=attention.rope_scale_factor,
    )
    query = rotated(attention._query_norm(query)) * attention.query_pre_attn_scalar
    return query, rotated(attention._key_norm(key)), value


def _window(attention: Attention) -> int | None:
    """Return how many keys a query sees, its own included; None for all."""
    local = attention.attn_type == AttentionType.LOCAL_SLIDING
    return attention.sliding_window_size if local else None
