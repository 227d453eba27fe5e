"""Models without weights, to compile for devices that are not here.

A leaf has shape, dtype and the sharding that Tunix's loader and trainer give it on real devices.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.interpreters import pxla
from jax.sharding import NamedSharding, PartitionSpec
from tunix.models.gemma3.model import Gemma3, ModelConfig
from tunix.utils import sharding_utils

from nblib.models.config_file import read_config, scaled
from nblib.models.lora import ALL_WEIGHTS, LoraConfig, with_adapters
from nblib.models.published import GEMMA, find_model

_Modules = TypeVar("_Modules")


def named_config(
    name: str, *, dtype: type | str = jnp.float32, rope_factor: float = 0
) -> ModelConfig:
    """Return the configuration of a model by name or folder; a published one is not downloaded.

    `rope_factor` is for `config_file.scaled`: 0 is the model's own.
    Raises ModelNotFound for an unknown name.
    """
    published = name.rpartition(":")[2]
    if published not in GEMMA:
        return scaled(read_config(find_model(name), dtype=jnp.dtype(dtype)), rope_factor)
    # Tunix names the 1b without instruction tuning _pt, the 270m has no suffix.
    name = {"gemma3-1b": "gemma3-1b-pt"}.get(published, published)
    config: ModelConfig = getattr(ModelConfig, name.replace("-", "_"))()
    config.param_dtype = jnp.dtype(dtype)
    return scaled(config, rope_factor)


def trainable_model(config: ModelConfig, lora: LoraConfig) -> Gemma3:
    """Return what `get_trainable_model` trains, over fresh weights; for `abstractly`."""
    base = Gemma3(config, rngs=nnx.Rngs(0))
    return base if lora.rank == ALL_WEIGHTS else with_adapters(base, lora)


def abstractly(build: Callable[[], _Modules], mesh: jax.sharding.Mesh) -> _Modules:
    """Return the modules that `build` makes, without arrays, each leaf sharded over the mesh.

    A dimension that its mesh axis does not divide is not split.
    """
    modules: Any = nnx.eval_shape(build)

    def sharded(leaf: jax.ShapeDtypeStruct, axes: PartitionSpec) -> jax.ShapeDtypeStruct:
        split = [
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for size, axis in zip_longest(leaf.shape, axes)
        ]
        sharding = NamedSharding(mesh, PartitionSpec(*split))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    for module in modules:
        state = nnx.state(module)
        nnx.update(module, jax.tree.map(sharded, state, nnx.get_partition_spec(state)))
    return modules


@contextmanager
def sharded_as_on_accelerators() -> Iterator[None]:
    """Let Tunix's models constrain how activations are sharded, which on a CPU they leave out."""
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
