"""Attention in parts is Tunix's: values and gradients, local and global layers, packed rows.

So are the hidden states, with and without adapters and gradient checkpointing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.models.gemma3.model import Attention, RematConfig
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.models import attention as module
from nblib.models.attention import hidden_states
from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model
from nblib.tokens.tokenizer import BOS_ID
from nblib.training.loss import model_inputs

ROWS = np.random.default_rng(0).integers(4, 544, (3, 41))  # four parts of 11, the last shorter
ROWS[:, 0] = ROWS[0, 9] = ROWS[0, 30] = BOS_ID  # three examples in a row, and one
ROWS[1, 35:] = 0


@pytest.fixture
def parts(monkeypatch):
    """Short parts; returns the sizes of those that were computed: queries, keys."""
    monkeypatch.setattr(module, "_LEAST", 4)
    sizes, really = [], module._attend

    def counted(attention, query, keys, *arguments, **options):
        sizes.append((query.shape[1], keys.shape[1]))
        return really(attention, query, keys, *arguments, **options)

    monkeypatch.setattr(module, "_attend", counted)
    return sizes


def weighted(hidden, mask):
    """One figure of all the states that are not padding."""
    weights = jax.random.normal(jax.random.key(0), hidden.shape)
    return (hidden * weights * mask[..., None]).sum()


@pytest.mark.parametrize("heads", [(2, 1), (4, 2), (2, 2)])
def test_values_and_gradients_are_tunix_own(new_model, parts, heads):
    model = new_model(alternating=True, num_heads=heads[0], num_kv_heads=heads[1])
    batch = type("Batch", (), {"input_tokens": ROWS, "input_mask": ROWS != 0})
    given = model_inputs(batch)
    inputs = (given["input_tokens"], given["positions"])
    mask = given["attention_mask"]

    def ours(model):
        return weighted(hidden_states(model, *inputs, mask), ROWS != 0)

    def tunix(model):
        forward = nnx.capture(model, nnx.Intermediate)
        _, sown = forward(*inputs, None, mask, output_hidden_states=True)
        return weighted(sown["all_hidden_states"][0], ROWS != 0)

    (value, gradients), (expected, theirs) = (
        nnx.jit(nnx.value_and_grad(call))(model) for call in (ours, tunix)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4 * np.abs(other).max())
    window, whole = [(11, 11), (11, 22), (11, 26), (8, 23)], [(11, 11), (11, 22), (11, 33), (8, 41)]
    assert parts == window + whole


def test_a_model_attends_as_before_after_a_call(new_model):
    model = new_model(num_layers=1)
    with pytest.raises(TypeError):
        hidden_states(model, None, None, None)
    assert type(model.layers[0].attn) is Attention


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
