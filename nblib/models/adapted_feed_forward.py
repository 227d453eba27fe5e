"""A layer's feed-forward with LoRA adapters: wide activations are read and written less often.

qwix computes x W + s (x A) B in three products. Gemma 3 1B has 6,912 activations a token here, and
each product that reads or writes them is bound by memory. So the adapter's narrow side is put
beside the weight, and the wide side is in one product:

    wide outputs (gate, up)    [x, x A] [W; s B]
    wide inputs (down)         [y, z] = x [W, A], then y + s z B

So do the backward passes. The results are the same up to rounding. Weights that devices share are
gathered once: without remat they are kept, whole, for the backward pass.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from tunix.models.gemma3.model import FeedForward
from tunix.utils import sharding_utils


@cache
def feed_forward_of(scale: float) -> type[FeedForward]:
    """Return the class for adapters that act with a scale, alpha / rank."""

    class AdaptedFeedForward(FeedForward):
        def block(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
            names = self.config.shd_config
            _, across = names.ffw_weight_df  # as the activations are split; the rest is gathered
            gate, up = (
                _adapted(module, x, scale, (None, across))
                for module in (self.gate_proj, self.up_proj)
            )
            activations = sharding_utils.shard(nnx.gelu(gate) * up, names.act_btf)
            return _adapted(self.down_proj, activations, scale, (across, None))

    return AdaptedFeedForward


def _adapted(
    module: nnx.Linear, x: Float[Array, "B T D"], scale: float, split: tuple[str | None, str | None]
) -> Float[Array, "B T F"]:
    weight, a, b = (
        getattr(module, name).get_value() for name in ("kernel", "kernel_lora_a", "kernel_lora_b")
    )
    weight = sharding_utils.shard(weight, split)
    a = sharding_utils.shard(a.astype(x.dtype), (split[0], None))
    b = sharding_utils.shard((scale * b).astype(x.dtype), (None, split[1]))
    return _product(x, weight, a, b)


@jax.custom_vjp
def _product(
    x: Float[Array, "B T D"], weight: Float[Array, "D F"], a: Array, b: Array
) -> Float[Array, "B T F"]:
    """Return x W + (x A) B. The weight is frozen: it gets no gradient."""
    return _forward(x, weight, a, b)[0]


def _forward(x: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Any]:
    if _is_widening(weight):
        inner = x @ a
        output = jnp.concatenate([x, inner], axis=-1) @ jnp.concatenate([weight, b])
    else:
        both = x @ jnp.concatenate([weight, a], axis=1)
        output, inner = jnp.split(both, [weight.shape[1]], axis=-1)
        output += inner @ b
    return output, (x, inner, weight, a, b)


def _backward(kept: Any, d_output: Array) -> tuple[Array, None, Array, Array]:
    x, inner, weight, a, b = kept
    if _is_widening(weight):
        both = d_output @ jnp.concatenate([weight, b]).T
        d_x, d_inner = jnp.split(both, [len(weight)], axis=-1)
        d_x += d_inner @ a.T
    else:
        d_inner = d_output @ b.T
        both = jnp.concatenate([d_output, d_inner], axis=-1)
        d_x = both @ jnp.concatenate([weight, a], axis=1).T
    d_a = jnp.einsum("BTD,BTR->DR", x, d_inner)
    d_b = jnp.einsum("BTR,BTF->RF", inner, d_output)
    return d_x, None, d_a, d_b


_product.defvjp(_forward, _backward)


def _is_widening(weight: Float[Array, "D F"]) -> bool:
    return weight.shape[0] < weight.shape[1]
