"""Attention in parts is Tunix's: values and gradients, local and global layers, packed rows.

So are the hidden states, with and without adapters and gradient checkpointing.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from tunix.models.gemma3.model import Attention, RematConfig
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.models import causal_attention as module
from nblib.models.attention import hidden_states
from nblib.models.causal_attention import Segments, causal_attention
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
    sizes, really = [], module.attend

    def counted(query, keys, *arguments):
        sizes.append((query.shape[1], keys.shape[1]))
        return really(query, keys, *arguments)

    monkeypatch.setattr(module, "attend", counted)
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
    segments = given["segments"]
    mask = make_causal_attn_mask(ROWS != 0) & (segments[:, :, None] == segments[:, None, :])

    def ours(model):
        return weighted(hidden_states(model, *inputs, segments), ROWS != 0)

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


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("length", [48, 41])
def test_blocks_of_queries_are_the_parts_whole(monkeypatch, window, length):
    """Blocks of 5 in parts of 11 or 12, in packed rows, with the gradients of all three."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(2, length, 4, 8), (2, length, 2, 8), (2, length, 2, 8)]
    given = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=False)]
    segments = jnp.asarray([[1] * 9 + [2] * (length - 9), [3] * (length - 6) + [0] * 6])

    def weighted_sum(*given):
        output = causal_attention(*given, Segments(segments), window=window)
        return (output * jax.random.normal(keys[3], output.shape)).sum()

    def both():  # a new function, or jax would reuse the first trace
        return jax.jit(jax.value_and_grad(partial(weighted_sum), argnums=(0, 1, 2)))(*given)

    monkeypatch.setattr(module, "_LEAST", 4)
    expected = both()
    monkeypatch.setattr(module, "_QUERIES", 5)
    found = both()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_no_mask_of_a_long_row_is_ever_made(new_model):
    """8,192 tokens: no array has all queries and all keys, in either pass."""
    graph, state = nnx.split(new_model(alternating=True))
    tokens = jnp.ones((1, 8192), jnp.int32)

    def loss(model):
        return hidden_states(model, tokens, tokens, tokens).sum()

    traced = str(jax.make_jaxpr(lambda state: nnx.grad(loss)(nnx.merge(graph, state)))(state))
    assert "512,8192]" in traced  # a block's mask
    assert "8192,8192]" not in traced


@pytest.mark.parametrize(
    ("length", "heads", "window"),
    [(300, (4, 1), None), (300, (2, 2), 150), (256, (2, 1), 150)],
    ids=["long", "long and local", "short, of whole tiles"],
)
def test_the_kernel_of_tpus_is_the_parts(monkeypatch, mesh, length, heads, window):
    """Interpreted, as there is no TPU: packed rows, of its tiles of 128 and others."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(2, length, count, 128) for count in (*heads, heads[1])]
    query, key, value = map(jax.random.normal, keys, shapes)
    segments = jnp.asarray([[1] * 190 + [2] * 110, [3] * 240 + [0] * 60])[:, :length]

    def weighted_sum(*given):
        output = causal_attention(*given, Segments(segments), window=window)
        return (output * (segments != 0)[..., None, None]).sum()

    def both():  # a new function, or jax would reuse the first trace
        call = jax.jit(jax.value_and_grad(partial(weighted_sum), argnums=(0, 1, 2)))
        return call(query / 128**0.5, key, value)

    expected = both()
    monkeypatch.setattr(module, "SHARING_LENGTH", 256)
    monkeypatch.setattr(module, "_TILE", 128)
    monkeypatch.setattr(module, "current_platform", lambda: "tpu")
    made = splash.make_splash_mha_single_device
    monkeypatch.setattr(
        splash, "make_splash_mha_single_device", lambda *a, **b: made(*a, interpret=True, **b)
    )
    assert module.takes_kernel(length, 128)
    with mesh:
        found = both()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_model_attends_as_before_after_a_call(new_model):
    model = new_model(num_layers=1)
    with pytest.raises(TypeError):
        hidden_states(model, None, None, None)
    assert type(model.layers[0].attn) is Attention


TOKENS = np.random.default_rng(0).integers(4, 544, (2, 24))
TOKENS[1, 20:] = 0
TEXT = TOKENS != 0  # what padding attends to is of no account
INPUTS = (TOKENS, build_positions_from_mask(TEXT), np.int32(TEXT))


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
    np.testing.assert_allclose(ours[TEXT], logits(model)[TEXT], atol=1e-5)


def test_adapters_act(adapted, new_model, logits):
    ours = nnx.jit(lambda model: model.embedder.decode(hidden_states(model, *INPUTS)))(adapted)
    np.testing.assert_allclose(ours[TEXT], logits(adapted)[TEXT], atol=1e-5)
    assert np.abs(ours - logits(new_model(num_layers=2)))[TEXT].max() > 0.1


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
