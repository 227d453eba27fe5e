"""Tunix's attention, computed in ways that cost less: the same sums, in another order and place.

Each class takes the place of Tunix's in a model's layers while the model is traced; its weights and
its adapters act as they do in Tunix's own.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tunix.models.gemma3.model import K_MASK, Attention, AttentionType, apply_rope
from tunix.utils import sharding_utils

_PARTS = 4  # of a row
_LEAST = 64  # tokens of a part


class InPlaceAttention(Attention):
    """Attention over a cache that is written where it lies; XLA copies Tunix's at every step.

    That is for its form, `k, v [B * K, C, H]`: it is multiplied as it is stored. The tokens are
    written from its place `begin` on.
    """

    def block(
        self,
        x: Float[Array, "B T D"],
        segment_pos: Int[Array, "B T"],
        cache: Any,
        attn_mask: Bool[Array, "B T C"],
    ) -> tuple[Any, Float[Array, "B T D"]]:
        """Return the cache with the tokens' keys and values, and what the tokens read in it."""
        query, key, value = _projected(self, x, segment_pos)
        begin = cache["begin"]
        keys, values = (
            jax.lax.dynamic_update_slice(old, _rows(new), (0, begin, 0))
            for old, new in ((cache["k"], key), (cache["v"], value))
        )
        read = _read(self, query, keys, values, attn_mask, ahead=begin)
        return {"k": keys, "v": values}, self.attn_vec_einsum(read)


class CausalAttention(Attention):
    """Attention in parts of a row: for a mask that is causal, as it is in training.

    A part's tokens are not compared with those after it, nor in a local layer with those before
    the window: at four parts three eighths less work, and as much less memory at a time.
    """

    def block(
        self,
        x: Float[Array, "B T D"],
        segment_pos: Int[Array, "B T"],
        cache: None,
        attn_mask: Bool[Array, "B T T"],
    ) -> tuple[None, Float[Array, "B T D"]]:
        """Return no cache, and what the tokens read of one another."""
        query, key, value = _projected(self, x, segment_pos)
        keys, values, length = _rows(key), _rows(value), x.shape[1]
        size = max(_LEAST, -(-length // _PARTS))
        parts = []
        for begin in range(0, length, size):
            own = slice(begin, min(begin + size, length))
            local = self.attn_type == AttentionType.LOCAL_SLIDING
            first = max(0, begin - self.sliding_window_size + 1) if local else 0
            seen = slice(first, own.stop)
            parts.append(
                _read(
                    self,
                    query[:, own],
                    keys[:, seen],
                    values[:, seen],
                    attn_mask[:, own, seen],
                    ahead=begin - first,
                )
            )
        output = self.attn_vec_einsum(jnp.concatenate(parts, axis=1))
        return None, sharding_utils.shard(output, self.shd_config.act_btd)


@contextmanager
def attention_of(model: nnx.Module, kind: type[Attention]) -> Iterator[None]:
    """Let a model's layers attend by another class for a call."""

    def attend_by(kinds: Iterable[type[Attention]]) -> None:
        for layer, one in zip(model.layers, kinds, strict=True):
            object.__setattr__(layer.attn, "__class__", one)  # nnx would note it as a new attribute

    own = [type(layer.attn) for layer in model.layers]
    attend_by([kind] * len(own))
    try:
        yield
    finally:
        attend_by(own)


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


def _rows(heads: Float[Array, "B T K H"]) -> Float[Array, "R T H"]:
    """Return each row's heads as rows of their own: R = B * K."""
    batch, length, count, width = heads.shape
    return heads.swapaxes(1, 2).reshape(batch * count, length, width)


def _read(
    attention: Attention,
    query: Float[Array, "B T N H"],
    keys: Float[Array, "R C H"],
    values: Float[Array, "R C H"],
    mask: Bool[Array, "B T C"],
    *,
    ahead: int | Int[Array, ""],
) -> Float[Array, "B T N H"]:
    """Return what the queries read; the first of them stands at place `ahead` of the keys."""
    batch, tokens, count, width = query.shape
    heads, length = len(keys) // batch, keys.shape[1]
    if attention.attn_type == AttentionType.LOCAL_SLIDING:
        first = ahead + jnp.arange(tokens) - attention.sliding_window_size + 1
        mask = mask & (jnp.arange(length) >= first[:, None])
    grouped = query.reshape(batch, tokens, heads, -1, width).swapaxes(1, 2)
    logits = jnp.einsum("RQH,RCH->RQC", grouped.reshape(batch * heads, -1, width), keys)
    logits = logits.reshape(batch, heads, tokens, -1, length)
    shares = jax.nn.softmax(jnp.where(mask[:, None, :, None], logits, K_MASK), axis=-1)
    shares = shares.astype(values.dtype).reshape(batch * heads, -1, length)
    read = jnp.einsum("RQC,RCH->RQH", shares, values)
    read = read.reshape(batch, heads, tokens, -1, width).swapaxes(1, 2)
    return read.reshape(batch, tokens, count, width)
