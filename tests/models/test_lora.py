from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tunix.sft.peft_trainer import TrainingInput

from nblib.models import attention, lora
from nblib.models.gemma3 import load_model, parameter_count, save_model
from nblib.models.lora import (
    ALL_WEIGHTS,
    LORA_PARAMETER,
    LoraConfig,
    get_lora_model,
    get_trainable_model,
    merge_lora,
    multiplied_out,
)
from nblib.training.loss import model_inputs, next_token_loss

HEADS = {
    "mqa": {"num_heads": 2, "num_kv_heads": 1},
    "gqa": {"num_heads": 4, "num_kv_heads": 2},
    "fused": {"num_heads": 2, "num_kv_heads": 2},
}
RANK, ALPHA = 2, 3.0  # their ratio is not 1, so a forgotten factor shows
LORA = LoraConfig(rank=RANK, alpha=ALPHA)


def adapters(model):
    return dict(nnx.to_flat_state(nnx.state(model, LORA_PARAMETER)))


def fill(model):
    """Give every second adapter, at first zero, random values."""
    rng = np.random.default_rng(0)
    for path, adapter in adapters(model).items():
        if str(path[-1]).endswith("_lora_b"):
            shape = adapter.get_value().shape
            adapter.set_value(jax.numpy.asarray(0.1 * rng.normal(size=shape), "float32"))


@pytest.mark.parametrize("heads", HEADS)
def test_adapt_and_merge(heads, new_model, logits, mesh, tokenizer, tmp_path):
    base = new_model(num_layers=2, **HEADS[heads])
    before = [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(base))]
    answers = logits(base)
    model = get_lora_model(base, mesh, LORA)
    np.testing.assert_allclose(logits(model), answers, atol=1e-5)  # fresh adapters change nothing

    fill(model)
    adapted = logits(model)
    assert np.abs(adapted - answers).max() > 0.1
    merged = merge_lora(model, LORA)
    np.testing.assert_allclose(logits(merged), adapted, atol=1e-5)
    assert parameter_count(merged, LORA_PARAMETER) == 0
    np.testing.assert_array_equal(logits(model), adapted)  # the adapted one is left as it is
    np.testing.assert_array_equal(logits(base), answers)
    after = jax.tree.leaves(nnx.state(base))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))

    save_model(merged, tokenizer, tmp_path / "export", manifest={})
    loaded = load_model(tmp_path / "export", tokenizer, mesh=mesh)
    np.testing.assert_array_equal(logits(loaded), logits(merged))


def test_adapters_sit_on_all_six_projections(new_model, mesh):
    base = new_model(num_layers=1)
    model = get_lora_model(base, mesh, LORA)
    modules = {str(path[-2]) for path in adapters(model)}
    assert modules == {
        *("q_einsum", "kv_einsum", "attn_vec_einsum", "gate_proj", "up_proj", "down_proj")
    }
    # Rank times (inputs + outputs): q 16+16, k and v 16+16, o 16+16, gate, up and down 16+32.
    assert parameter_count(model, LORA_PARAMETER) == RANK * (3 * 32 + 3 * 48)
    assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(nnx.state(model)))


@pytest.mark.parametrize(
    ("heads", "rank"),
    [*((heads, 12) for heads in HEADS), ("gqa", 2)],
    ids=[*HEADS, "beside the weights"],
)
def test_adapters_train_as_in_qwix(heads, rank, new_model, mesh, monkeypatch):
    """Of rank 12 they are half of the weights that they adapt, and are multiplied out."""
    model = get_lora_model(
        new_model(num_layers=2, **HEADS[heads]), mesh, LoraConfig(rank=rank, alpha=ALPHA)
    )
    fill(model)
    assert (multiplied_out(model) is model) == (rank == 2)
    tokens = jnp.arange(4, 24).reshape(2, 10)
    batch = TrainingInput(input_tokens=tokens, input_mask=jnp.ones(tokens.shape))

    def learnt():
        wrt = nnx.DiffState(0, LORA_PARAMETER)
        step = nnx.jit(nnx.value_and_grad(next_token_loss, argnums=wrt))
        return step(model, **model_inputs(batch))

    loss, gradient = learnt()
    monkeypatch.setattr(attention, "multiplied_out", lambda model: model)
    monkeypatch.setattr(attention, "_adapted_feed_forward", lambda model: nullcontext())
    expected, expected_gradient = learnt()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    leaves = [dict(nnx.to_flat_state(tree)) for tree in (gradient, expected_gradient)]
    assert leaves[0].keys() == leaves[1].keys() == adapters(model).keys()
    for path, leaf in leaves[0].items():
        given, wanted = (np.asarray(one) for one in (leaf[...], leaves[1][path][...]))
        assert np.abs(wanted).max() > 1e-4, path
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-6)


def test_adapters_are_multiplied_out_only_where_that_is_less_work(new_model, mesh):
    base = new_model(num_layers=1)
    assert multiplied_out(base) is base
    # All six: 16 x 16 four times, 16 x 32 three times; a third of 2,560 weights is rank 3.6.
    small, large = (
        get_lora_model(base, mesh, LoraConfig(rank=rank, alpha=ALPHA)) for rank in (3, 4)
    )
    assert multiplied_out(small) is small
    assert parameter_count(multiplied_out(large), LORA_PARAMETER) == 0
    rounded = get_lora_model(
        in_bf16(new_model(num_layers=1)), mesh, LoraConfig(rank=4, alpha=ALPHA)
    )
    assert multiplied_out(rounded) is rounded


def in_bf16(model):
    nnx.update(model, jax.tree.map(lambda w: w.astype("bfloat16"), nnx.state(model)))
    model.config.param_dtype = jnp.bfloat16
    return model


def test_adapters_over_bf16_weights_are_fp32_and_so_is_what_they_are_merged_to(
    new_model, logits, mesh
):
    base = in_bf16(new_model(num_layers=2))
    model = get_lora_model(base, mesh, LORA)
    assert {leaf.dtype for leaf in jax.tree.leaves(adapters(model))} == {jnp.dtype("float32")}
    fill(model)
    assert model.embedder.input_embedding.dtype == logits(model).dtype == jnp.bfloat16
    merged = merge_lora(model, LORA)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(merged))} == {jnp.dtype("float32")}
    assert merged.config.param_dtype == jnp.float32
    rounding, change = (
        np.abs(logits(merged) - logits(other).astype("float32")).mean() for other in (model, base)
    )
    assert change > 5 * rounding  # what the adapters do survives


def test_an_update_too_small_for_bf16_moves_adapters_over_bf16_weights(new_model, mesh):
    model = get_lora_model(in_bf16(new_model(num_layers=1)), mesh, LORA)
    path, adapter = next(one for one in adapters(model).items() if one[0][-1].endswith("_lora_a"))
    before = np.array(adapter.get_value())
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=LORA_PARAMETER)
    gradients = jax.tree.map(lambda w: 1e-4 * w, nnx.state(model, LORA_PARAMETER))
    optimizer.update(model, gradients)
    after = np.array(adapters(model)[path].get_value())
    np.testing.assert_allclose(after, before * (1 - 1e-4), rtol=1e-6)


def test_weights_in_bf16_are_not_all_trained(new_model, mesh):
    with pytest.raises(ValueError, match=r"bfloat16 cannot all be trained.*set DTYPE float32"):
        get_trainable_model(
            in_bf16(new_model(num_layers=1)), mesh, LoraConfig(rank=ALL_WEIGHTS, alpha=1.0)
        )


@pytest.mark.parametrize(("rank", "alpha"), [(0, 1.0), (-2, 1.0), (2, 0.0)])
def test_rank_and_alpha_must_be_positive(rank, alpha):
    with pytest.raises(ValueError, match=rf"rank {rank} and alpha {alpha} must be positive"):
        LoraConfig(rank=rank, alpha=alpha)


def test_all_weights_are_no_adapters(new_model, mesh):
    with pytest.raises(ValueError, match="LoRA rank -1 means all weights: use get_trainable_model"):
        get_lora_model(new_model(num_layers=1), mesh, LoraConfig(rank=ALL_WEIGHTS, alpha=1.0))


def test_targets_that_match_nothing_are_refused(new_model, mesh, monkeypatch):
    monkeypatch.setattr(lora, "TARGETS", "attention")
    with pytest.raises(ValueError, match="no module of the model matches 'attention'"):
        get_lora_model(new_model(num_layers=1), mesh, LORA)


def test_merging_a_model_without_adapters_is_refused(new_model):
    with pytest.raises(ValueError, match="holds no adapters"):
        merge_lora(new_model(num_layers=1), LORA)
