from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from tunix.models.gemma3.model import Gemma3

from nblib.training.optimizers import NAMES, TrainerConfig, build_optimizer

RATE = 0.01
MATRICES = ("attn_vec_einsum", "q_einsum", "kv_einsum", "gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        # Two steps of warm-up; then a cosine over six, whose end is the eighth step's.
        ((0.3, 0.0), [0.5, 1, 0.93301, 0.75, 0.5, 0.25, 0.06699]),
        ((0.3, 0.2), [0.5, 1, 0.94641, 0.8, 0.6, 0.4, 0.25359]),
        ((0.0, 1.0), [1] * 7),
    ],
)
def test_every_step_of_the_schedule_has_a_rate_above_zero(shares, expected):
    warmup, final = shares
    config = TrainerConfig(learning_rate=RATE, warmup_share=warmup, final_share=final)
    schedule = config.schedule(7)
    np.testing.assert_allclose(
        [schedule(step) for step in range(7)], RATE * np.array(expected), rtol=1e-4
    )


def test_a_single_step_has_the_peak():
    assert float(TrainerConfig(learning_rate=RATE).schedule(1)(0)) == pytest.approx(RATE)


def test_unknown_name():
    with pytest.raises(ValueError, match=f"'sgd' is unknown: expected one of {', '.join(NAMES)}"):
        TrainerConfig(learning_rate=RATE, optimizer="sgd")


def one_step(**options):
    """The optimizer of a training of one update, which is made at the peak rate."""
    return build_optimizer(TrainerConfig(learning_rate=RATE, **options), updates=1)


def named(tree):
    """Return a tree's arrays by their paths as text."""
    return {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def is_matrix(name):
    return any(f"'{matrix}'" in name for matrix in MATRICES)


@pytest.fixture(scope="module")
def first_step(compilation_cache, tiny_config):
    """Muon's state and its first updates, by parameter, for random gradients."""
    config = replace(tiny_config, num_layers=1, num_heads=4, num_kv_heads=2)
    model = nnx.eval_shape(lambda: Gemma3(config, rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, "f4"), nnx.state(model, nnx.Param))
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("float32"), params)
    optimizer = one_step(optimizer="muon")
    state = optimizer.init(params)
    updates, _ = jax.jit(optimizer.update)(gradients, state, params)
    return state, named(params), named(gradients), named(updates)


def test_muon_has_the_matrices_and_adam_the_rest(first_step):
    state, params, _, _ = first_step
    inner = optax.tree_utils.tree_get(state, "inner_states")
    muon, adam = (
        sorted(name for name, one in named(inner[kind]).items() if ".mu" in name and one.shape)
        for kind in ("muon", "adam")
    )
    assert len(muon) == 6 and all(map(is_matrix, muon))
    assert not any(map(is_matrix, adam))
    assert len(muon) + len(adam) == len(params)
    assert any("input_embedding" in name for name in adam)


def test_adams_first_update_is_half_the_rate_against_the_gradients_sign(first_step):
    _, _, gradients, updates = first_step
    size = 0.5 * RATE * (0.9 * 0.1 / (1 - 0.9**2) + 1)  # with Nesterov's look ahead
    rest = [name for name in updates if not is_matrix(name)]
    assert len(rest) == len(updates) - 6
    for name in rest:
        large = np.abs(gradients[name]) > 0.1
        np.testing.assert_allclose(
            updates[name][large], -size * np.sign(gradients[name][large]), rtol=1e-2
        )


@pytest.mark.parametrize(
    ("module", "shape", "order", "matrix"),
    [  # of the width 16, 4 heads and 2 of keys and values, each of 8, and 32 in the MLP
        ("q_einsum", (4, 16, 8), (1, 0, 2), (16, 4 * 8)),
        ("kv_einsum", (2, 2, 16, 8), (0, 1, 2, 3), (2, 2, 16, 8)),  # each head by itself
        ("attn_vec_einsum", (4, 8, 16), (0, 1, 2), (4 * 8, 16)),
        ("gate_proj", (16, 32), (0, 1), (16, 32)),
        ("up_proj", (16, 32), (0, 1), (16, 32)),
        ("down_proj", (32, 16), (0, 1), (32, 16)),
    ],
)
def test_muons_update_turns_all_directions_of_a_matrix_by_the_same(
    first_step, module, shape, order, matrix
):
    _, _, gradients, updates = first_step
    (name,) = [name for name in updates if f"'{module}'" in name]
    assert updates[name].shape == shape
    before, after = (
        np.transpose(tree[name], order).reshape(matrix) for tree in (gradients, updates)
    )
    left, sizes, right = np.linalg.svd(before, full_matrices=False)
    assert (sizes.max(-1) / sizes.min(-1)).min() > 3
    turned = left @ right  # the gradient with all its singular values 1
    similarity = -np.sum(turned * after) / (np.linalg.norm(turned) * np.linalg.norm(after))
    assert similarity > 0.97, similarity
    # About 0.2, as of AdamW.
    assert 0.15 * RATE < np.sqrt(np.mean(updates[name] ** 2)) < 0.25 * RATE


def test_gradients_are_clipped_by_their_global_norm():
    # Weights of 0 have no decay; Adam's first moment is a tenth of the clipped gradient.
    optimizer = one_step()
    params = {"w": np.zeros(2, np.float32)}
    state = optimizer.init(params)
    _, state = optimizer.update({"w": np.array([3.0, 4.0], np.float32)}, state, params)
    np.testing.assert_allclose(optax.tree_utils.tree_get(state, "mu")["w"], [0.06, 0.08], rtol=1e-5)


def test_weight_decay_reaches_adamw():
    optimizer = one_step(weight_decay=0.5)
    params = {"w": np.array([2.0], np.float32)}
    updates, _ = optimizer.update({"w": np.zeros(1, np.float32)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], [-RATE * 0.5 * 2.0], rtol=1e-5)
