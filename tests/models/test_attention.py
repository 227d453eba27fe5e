"""Attention in parts is Tunix's: values and gradients, local and global layers, packed rows."""

import jax
import numpy as np
import pytest
from flax import nnx
from tunix.models.gemma3.model import Attention

from nblib.models import attention as module
from nblib.models.hidden import hidden_states
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
