"""Tunix's Gemma 3 and Hugging Face's: which weight is which tensor, and how the axes differ.

Tunix keeps heads apart (N queries, K keys, of H), Hugging Face writes every projection [out, in]:

    q_einsum         [N, D, H]      self_attn.q_proj    [N*H, D]
    kv_einsum        [2, K, D, H]   self_attn.k_proj    [K*H, D]   and the same for v_proj
    attn_vec_einsum  [N, H, D]      self_attn.o_proj    [D, N*H]
    gate_proj        [D, F]         mlp.gate_proj       [F, D]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array
from tunix.models.gemma3.model import Gemma3, ModelConfig

# A module of a layer, and its projections in the order of its first axis.
PROJECTIONS: Mapping[str, tuple[str, ...]] = {
    "q_einsum": ("self_attn.q_proj",),
    "kv_einsum": ("self_attn.k_proj", "self_attn.v_proj"),
    "qkv_einsum": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn_vec_einsum": ("self_attn.o_proj",),
    "gate_proj": ("mlp.gate_proj",),
    "up_proj": ("mlp.up_proj",),
    "down_proj": ("mlp.down_proj",),
}
_OTHERS = {
    "embedder": "embed_tokens",
    "final_norm": "norm",
    "_query_norm": "self_attn.q_norm",
    "_key_norm": "self_attn.k_norm",
    "pre_attention_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_ffw_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

WeightPath = tuple[Any, ...]  # of a weight in a model: ("layers", 0, "attn", "q_einsum", "w")


def weights_of(model: nnx.Module) -> list[tuple[WeightPath, nnx.Variable]]:
    """Return a model's weights with their paths, in the order of these."""
    return list(nnx.to_flat_state(nnx.state(model, nnx.Param)))


def to_hugging_face(weights: Iterable[tuple[WeightPath, Array]]) -> dict[str, Array]:
    """Return weights, by path, as Hugging Face's tensors, by name."""
    tensors = {}
    for path, weight in weights:
        module = path[-2]
        head = f"model.layers.{path[1]}." if path[0] == "layers" else "model."
        names = PROJECTIONS.get(module) or (_OTHERS[module],)
        for name, tensor in zip(names, out_in(weight, module), strict=True):
            tensors[f"{head}{name}.weight"] = tensor
    return tensors


def out_in(weight: Array, module: str) -> Sequence[Array]:
    """Return each projection of a module's weight as [out, in]; other weights as they are."""
    if module not in PROJECTIONS:
        return [weight]
    if weight.ndim == 2 or module == "attn_vec_einsum":  # D F, or N H D
        return [weight.reshape(-1, weight.shape[-1]).T]
    *_, heads, width, head_dim = weight.shape
    split = weight.reshape(-1, heads, width, head_dim).swapaxes(-1, -2)
    return split.reshape(len(split), -1, width)


@cache
def out_in_shape(shape: tuple[int, ...], module: str) -> tuple[int, ...]:
    """Return the shape of each tensor that `out_in` makes of a weight of this shape."""
    weight = jax.ShapeDtypeStruct(shape, np.float32)
    return jax.eval_shape(lambda whole: out_in(whole, module)[0], weight).shape


def from_out_in(tensors: Sequence[np.ndarray], module: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the module's weight, of Tunix's `shape`, that `out_in` makes these tensors of."""
    if len(shape) == 2 or module == "attn_vec_einsum":
        return tensors[0].T.reshape(shape)
    *_, heads, width, head_dim = shape
    return np.stack(tensors).reshape(-1, heads, head_dim, width).swapaxes(-1, -2).reshape(shape)


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all tensors of a Gemma 3 in Hugging Face's layout."""
    single = replace(config, num_layers=1)  # all layers have the same shapes
    weights = weights_of(nnx.eval_shape(lambda: Gemma3(single, rngs=nnx.Rngs(0))))
    paths, leaves = [path for path, _ in weights], [one.get_value() for _, one in weights]

    def tensors(leaves: list[Array]) -> dict[str, Array]:
        return to_hugging_face(zip(paths, leaves, strict=True))

    shapes = {name: tensor.shape for name, tensor in jax.eval_shape(tensors, leaves).items()}
    return {
        name.replace("layers.0.", f"layers.{layer}."): shape
        for layer in range(config.num_layers)
        for name, shape in shapes.items()
    }
