import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec
from tunix.models.gemma3.model import ModelConfig
from tunix.utils import sharding_utils

from nblib.models.abstract import (
    abstractly,
    named_config,
    sharded_as_on_accelerators,
    trainable_model,
)
from nblib.models.lora import LoraConfig, get_lora_model
from nblib.models.published import GEMMA, ModelNotFound

TWO = LoraConfig(rank=2, alpha=2.0)
EIGHT = AbstractMesh((8, 1), ("fsdp", "tp"))


def leaves(model):
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {path: variable.get_value() for path, variable in flat}


@pytest.mark.parametrize("name", GEMMA)
def test_a_published_model_is_configured_without_its_weights(name):
    config = named_config(name)
    assert config.num_layers == {"270m": 18, "1b": 26}[name.split("-")[1]]
    assert (config.num_embed, config.param_dtype) == (262_144, jnp.float32)
    expected = ModelConfig.gemma3_1b_it() if "1b" in name else ModelConfig.gemma3_270m()
    assert config.embed_dim == expected.embed_dim
    assert config.global_base_frequency == expected.global_base_frequency


def test_the_embedded_model_is_configured_by_its_folder():
    assert named_config("embedded").embed_dim == 160
    with pytest.raises(ModelNotFound, match="'gemma4' is no folder, GGUF file or known name"):
        named_config("gemma4")


def test_a_factor_is_in_the_configuration():
    for name in ("gemma3-270m", "embedded"):
        assert named_config(name).global_scale_factor == 1.0
        assert named_config(name, rope_factor=4).global_scale_factor == 4.0


@pytest.mark.parametrize("rank", [2, -1])
def test_leaves_are_those_of_the_real_model(rank, new_model, mesh):
    base = new_model(num_layers=2)
    config, lora = base.config, LoraConfig(rank=rank, alpha=2.0)
    (model,) = abstractly(lambda: (trainable_model(config, lora),), EIGHT)
    real = base if rank == -1 else get_lora_model(base, mesh, lora)
    found, expected = leaves(model), leaves(real)
    assert found.keys() == expected.keys()
    for path, leaf in found.items():
        assert isinstance(leaf, jax.ShapeDtypeStruct)
        assert (leaf.shape, leaf.dtype) == (expected[path].shape, expected[path].dtype)


def test_weights_are_split_where_the_mesh_divides_them(tiny_config):
    (model,) = abstractly(lambda: (trainable_model(tiny_config, TWO),), EIGHT)
    split = {path: leaf.sharding.spec for path, leaf in leaves(model).items()}
    assert split["embedder", "input_embedding"] == PartitionSpec("tp", "fsdp")
    assert "fsdp" in split["layers", 0, "mlp", "up_proj", "kernel"]
    three = AbstractMesh((3, 1), ("fsdp", "tp"))
    (odd,) = abstractly(lambda: (trainable_model(tiny_config, TWO),), three)
    assert all("fsdp" not in leaf.sharding.spec for leaf in leaves(odd).values())


def test_activations_are_split_as_on_a_tpu_and_only_within(mesh):
    def constraints():
        with mesh:
            split = jax.make_jaxpr(lambda x: sharding_utils.shard(x, ("fsdp", None)))
            return str(split(jnp.ones((2, 2)))).count("sharding_constraint")

    assert constraints() == 0
    with sharded_as_on_accelerators():
        assert constraints() == 1
    assert constraints() == 0
