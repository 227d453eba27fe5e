"""Models without weights, shape, dtype and sharding alone: to compile for devices elsewhere.

A leaf is sharded as Tunix's loader and trainer shard it on the real devices.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.interpreters import pxla
from jax.sharding import NamedSharding, PartitionSpec
from tunix.models.gemma3.model import Gemma3, ModelConfig
from tunix.utils import sharding_utils

from nblib.models.config_file import read_config
from nblib.models.lora import ALL_WEIGHTS, LoraConfig, with_adapters
from nblib.models.published import GEMMA, find_model

_Modules = TypeVar("_Modules")


def named_config(name: str, *, dtype: type | str = jnp.float32) -> ModelConfig:
    """Return the configuration of a model by name or folder; a published one is not downloaded.

    Raises ModelNotFound for an unknown name.
    """
    published = name.rpartition(":")[2]
    if published not in GEMMA:
        return read_config(find_model(name), dtype=jnp.dtype(dtype))
    # Tunix calls the 1b without tuning _pt, the 270m without it nothing.
    built = (
        published.replace("-", "_").replace("gemma3_1b", "gemma3_1b_pt").replace("_pt_it", "_it")
    )
    config: ModelConfig = getattr(ModelConfig, built)()
    config.param_dtype = jnp.dtype(dtype)
    return config


def trainable_model(config: ModelConfig, lora: LoraConfig) -> Gemma3:
    """Return what `get_trainable_model` trains, over fresh weights; for `abstractly`."""
    base = Gemma3(config, rngs=nnx.Rngs(0))
    return base if lora.rank == ALL_WEIGHTS else with_adapters(base, lora)


def abstractly(build: Callable[[], _Modules], mesh: jax.sharding.Mesh) -> _Modules:
    """Return the modules that `build` makes, with no array in them, placed on the mesh.

    An axis that the mesh does not divide is not split.
    """
    modules: Any = nnx.eval_shape(build)

    def placed(leaf: jax.ShapeDtypeStruct, axes: PartitionSpec) -> jax.ShapeDtypeStruct:
        split = [
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for size, axis in zip(leaf.shape, (*axes, *[None] * len(leaf.shape)), strict=False)
        ]
        sharding = NamedSharding(mesh, PartitionSpec(*split))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    for module in modules:
        state = nnx.state(module)
        nnx.update(module, jax.tree.map(placed, state, nnx.get_partition_spec(state)))
    return modules


@contextmanager
def sharded_as_on_accelerators() -> Iterator[None]:
    """Let Tunix's models state how activations are split: where jax sees a CPU they do not."""
    before = sharding_utils.shard

    def shard(x: jax.Array, axes: tuple[str | None, ...], eager: bool = False) -> jax.Array:
        mesh = pxla.thread_resources.env.physical_mesh
        if mesh.empty:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))

    sharding_utils.shard = shard
    try:
        yield
    finally:
        sharding_utils.shard = before
