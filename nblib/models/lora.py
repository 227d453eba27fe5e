"""LoRA adapters on Gemma 3 through qwix, and merging them back.

qwix is touched here only. LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from tunix.models.gemma3.model import Gemma3

from nblib.models.gemma3 import parameter_count
from nblib.models.processes import on_mesh

# All six projections of a layer (tunix's GRPO demo); qwix matches the whole path.
TARGETS = ".*q_einsum|.*kv_einsum|.*attn_vec_einsum|.*gate_proj|.*up_proj|.*down_proj"
LORA_PARAMETER = nnx.LoRAParam
ALL_WEIGHTS = -1  # as a rank: no adapters
# How the two adapters of a module make its weight's change: contracted axes, rank, other axes.
_MERGE = {
    "q_einsum": "dr,rnh->ndh",
    "kv_einsum": "dr,rckh->ckdh",
    "qkv_einsum": "dr,rsnh->sndh",
    "attn_vec_einsum": "nhr,rd->nhd",
}
_MERGE_LINEAR = "dr,rf->df"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Rank and alpha of the adapters; the change of a weight is `alpha / rank * A B`.

    Rank -1 (`ALL_WEIGHTS`) stands for a training without adapters. ValueError for other values
    that are not positive.
    """

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if (self.rank < 1 and self.rank != ALL_WEIGHTS) or self.alpha <= 0:
            raise ValueError(f"LoRA rank {self.rank} and alpha {self.alpha} must be positive")


def get_lora_model(
    base: Gemma3, mesh: jax.sharding.Mesh, lora: LoraConfig, *, seed: int = 0
) -> Gemma3:
    """Return `base` with fresh adapters on all projections; at first it answers as `base` does.

    The adapters are fp32 over a base of any dtype. They are sharded last, because qwix traces the
    model with a batch of two, which a mesh of eight cannot split.
    Raises ValueError for rank -1, and when no module matched (a silent full fine-tune otherwise).
    """
    if lora.rank == ALL_WEIGHTS:
        raise ValueError(f"LoRA rank {lora.rank} means all weights: use get_trainable_model")
    graphdef, weights = nnx.split(base)

    @jax.jit
    def make(weights: nnx.State) -> tuple[nnx.GraphDef[Gemma3], nnx.State]:
        model = with_adapters(nnx.merge(graphdef, weights), lora, seed=seed)
        return nnx.graphdef(model), nnx.state(model, LORA_PARAMETER)

    # One program: outside of it a hundred operations of qwix would be compiled one by one.
    adapted, adapters = make(weights)
    if not adapters:
        raise ValueError(f"no module of the model matches {TARGETS!r}: nothing to adapt")
    model = nnx.merge(adapted, weights, adapters)
    with mesh:
        state = nnx.state(model)
        shardings = nnx.get_named_sharding(state, mesh)
        nnx.update(model, jax.tree.map(on_mesh, state, shardings))
    return model


def with_adapters(base: Gemma3, lora: LoraConfig, *, seed: int = 0) -> Gemma3:
    """Return `base` with fresh adapters in fp32, not yet sharded."""
    provider = _Adapters(module_path=TARGETS, rank=lora.rank, alpha=lora.alpha)
    model = qwix.apply_lora_to_model(base, provider, rngs=nnx.Rngs(seed), **base.get_model_input())
    adapters = nnx.state(model, LORA_PARAMETER)
    nnx.update(model, jax.tree.map(lambda weight: weight.astype(jnp.float32), adapters))
    model.lora_scale = lora.alpha / lora.rank  # kept when the model is split and merged, or cloned
    return model


class _Adapters(qwix.LoraProvider):
    """qwix's adapters, kept in fp32 beside weights of any dtype; outputs keep the inputs' dtype.

    In bf16 a small update is lost: at a learning rate of 3e-6 under one entry of a hundred moved.
    """

    def einsum(self, einsum_str: str, *operands: Any, **options: Any) -> jax.Array:
        return super().einsum(einsum_str, *operands, **options).astype(operands[0].dtype)

    def dot_general(self, lhs: jax.Array, *others: Any, **options: Any) -> jax.Array:
        return super().dot_general(lhs, *others, **options).astype(lhs.dtype)


def get_trainable_model(
    base: Gemma3, mesh: jax.sharding.Mesh, lora: LoraConfig, *, seed: int = 0
) -> Gemma3:
    """Return `base` with adapters, or for rank -1 a copy of it to be trained in full.

    `base` itself is left as it is, to serve as the reference.
    Raises ValueError as `get_lora_model` does, and for rank -1 over weights that are not fp32.
    """
    if lora.rank == ALL_WEIGHTS:
        check_dtype(base.config.param_dtype)
        return nnx.clone(base)
    return get_lora_model(base, mesh, lora, seed=seed)


def check_dtype(dtype: type | str) -> None:
    """Refuse, by a ValueError, a dtype in which not all weights can be trained."""
    if jnp.dtype(dtype) != jnp.float32:
        raise ValueError(
            f"weights in {jnp.dtype(dtype).name} cannot all be trained, as small updates would be "
            "lost: set DTYPE float32, or a LORA_RANK above 0"
        )


def trainable_count(model: Gemma3) -> int:
    """Return how many weights a trainer changes: the adapters' if there are any, else all."""
    return parameter_count(model, LORA_PARAMETER) or parameter_count(model)


def merge_lora(model: Gemma3, lora: LoraConfig) -> Gemma3:
    """Return a plain Gemma3 with the adapters added to the weights; all its weights are fp32.

    `model` is left as it is; for rank -1 it is returned. ValueError when it holds no adapters.
    """
    return model if lora.rank == ALL_WEIGHTS else _merged(model, lora.alpha / lora.rank)


def multiplied_out(model: Gemma3) -> Gemma3:
    """Return the model with its adapters merged, where that makes training cheaper.

    A token costs two multiplications for every frozen weight (forwards, back) and three for every
    trained one. With the adapters multiplied out first they cost nothing and their weights cost
    three: less work when the adapters are more than a third of these. The function is the same, and
    its gradient still ends in the adapters. A bf16 model is returned as it is, because its weights
    would lose what small adapters say; so is one without adapters.
    """
    adapters = {path[:-1] for path, _ in nnx.to_flat_state(nnx.state(model, LORA_PARAMETER))}
    if not adapters or model.config.param_dtype != jnp.float32:
        return model
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    trained = parameter_count(model, LORA_PARAMETER)
    adapted = sum(variable.size for path, variable in flat if path[:-1] in adapters) - trained
    return _merged(model, model.lora_scale) if adapted < 3 * trained else model


def _merged(model: Gemma3, scale: float) -> Gemma3:
    flat = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    merged = {}
    for path, variable in flat.items():
        name = str(path[-1])
        if name.endswith(("_lora_a", "_lora_b")):
            continue
        weight = variable.get_value().astype(jnp.float32)
        if (*path[:-1], f"{name}_lora_a") in flat:
            a = flat[*path[:-1], f"{name}_lora_a"].get_value().astype(jnp.float32)
            b = flat[*path[:-1], f"{name}_lora_b"].get_value().astype(jnp.float32)
            equation = _MERGE.get(str(path[-2]), _MERGE_LINEAR)
            # By itself a TPU multiplies fp32 in bf16.
            change = jnp.einsum(equation, a, b, precision=jax.lax.Precision.HIGHEST)
            weight += scale * change
        merged[path] = variable.replace(weight)
    if len(merged) == len(flat):
        raise ValueError("the model holds no adapters: there is nothing to merge")
    config = replace(model.config, param_dtype=jnp.float32)
    plain = nnx.eval_shape(lambda: Gemma3(config, rngs=nnx.Rngs(0)))
    nnx.update(plain, nnx.from_flat_state(list(merged.items())))
    return plain
