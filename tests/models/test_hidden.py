import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.models.gemma3.model import RematConfig
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.models.hidden import hidden_states
from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model

TOKENS = np.random.default_rng(0).integers(4, 544, (2, 24))
TOKENS[1, 20:] = 0
INPUTS = (TOKENS, build_positions_from_mask(TOKENS != 0), make_causal_attn_mask(TOKENS != 0))


@pytest.fixture(scope="module")
def adapted(new_model, mesh):
    """A model whose adapters change what it says."""
    model = get_lora_model(new_model(num_layers=2), mesh, LoraConfig(rank=2, alpha=4.0))
    nnx.update(model, jax.tree.map(lambda leaf: leaf + 0.05, nnx.state(model, LORA_PARAMETER)))
    return model


def first_of_each(model, remat):
    return jnp.mean(hidden_states(model, *INPUTS, remat=remat)[..., 0])


def gradients(model, kind, remat):
    step = nnx.jit(nnx.grad(first_of_each, argnums=nnx.DiffState(0, kind)), static_argnums=1)
    return jax.tree.leaves(step(model, remat))


def test_their_logits_are_the_models_own(new_model, logits):
    model = new_model()
    ours = nnx.jit(lambda model: model.embedder.decode(hidden_states(model, *INPUTS)))(model)
    np.testing.assert_allclose(ours, logits(model), atol=1e-5)


def test_adapters_act(adapted, new_model, logits):
    ours = nnx.jit(lambda model: model.embedder.decode(hidden_states(model, *INPUTS)))(adapted)
    np.testing.assert_allclose(ours, logits(adapted), atol=1e-5)
    assert np.abs(ours - logits(new_model(num_layers=2))).max() > 0.1


@pytest.mark.parametrize("kind", [nnx.Param, LORA_PARAMETER])
def test_remat_changes_no_gradient(adapted, kind):
    kept, computed_again = (gradients(adapted, kind, remat) for remat in (False, True))
    assert max(np.abs(gradient).max() for gradient in kept) > 1e-3
    for one, other in zip(kept, computed_again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_remat_computes_each_layer_once_more(adapted):
    graph, state = nnx.split(adapted)

    def programs(remat):
        step = nnx.grad(first_of_each, argnums=nnx.DiffState(0, LORA_PARAMETER))
        return str(jax.make_jaxpr(lambda state: step(nnx.merge(graph, state), remat))(state))

    blocks = [programs(remat).count("differentiated=True") for remat in (False, True)]
    assert blocks == [0, adapted.config.num_layers]


def test_the_model_stays_as_it_was(adapted):
    before, _ = nnx.split(adapted)
    hidden_states(adapted, *INPUTS, remat=True)
    assert nnx.split(adapted)[0] == before


def test_remat_ends_with_a_call_that_fails(adapted):
    with pytest.raises(TypeError):
        hidden_states(nnx.clone(adapted), None, None, None, remat=True)
    assert adapted.config.remat_config == RematConfig.NONE
