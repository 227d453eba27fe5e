import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.rl.algo_core import grpo_loss_fn
from tunix.rl.common import compute_per_token_logps
from tunix.rl.grpo.grpo_learner import TrainExample

from nblib.models import causal_attention
from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model
from nblib.training import loss as module
from nblib.training.cluster import _algorithm
from nblib.training.grpo_config import GrpoConfig
from nblib.training.policy_batch import policy_batch
from nblib.training.policy_loss import completion_log_probs, grpo_loss

PROMPT, COMPLETION, VOCABULARY, GROUP = 6, 9, 544, 4
FIGURES = ("kl", "entropy", "pg_clipfrac")
SIGNS = np.array([1, -1, 1, 1])  # of the advantages of a group
CONFIG = GrpoConfig(
    steps=1, prompts_per_step=2, num_generations=GROUP, max_prompt_length=PROMPT,
    max_new_tokens=COMPLETION, learning_rate=1e-3, save_interval="1 min",
)  # fmt: skip
ROWS = 1  # of a micro-batch


@pytest.fixture(autouse=True)
def short_rows(monkeypatch):
    """Rows for about two completions, parts of 5 tokens, and chunks of logits."""
    monkeypatch.setattr(GrpoConfig, "row_length", 20)
    monkeypatch.setattr(causal_attention, "_LEAST", 5)
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 10)


def example_of(groups=2, *, old=False, reference=False, completion=COMPLETION):
    """Prompts padded on the left, completions of many lengths; one of them is empty."""
    rng = np.random.default_rng(0)
    rows = groups * GROUP
    prompts = rng.integers(4, VOCABULARY, (groups, PROMPT)).repeat(GROUP, axis=0)
    completions = rng.integers(4, VOCABULARY, (rows, completion))
    prompts[:GROUP, :3] = 0
    for row, length in enumerate(rng.integers(1, completion, rows)):
        completions[row, length:] = 0
    completions[0] = rng.integers(4, VOCABULARY, completion)
    completions[1] = np.where(np.arange(completion) < 4, completions[0] + 1, 0)
    completions[2] = 0
    # Near the untrained model's log-probabilities of about -6: some ratios are clipped.
    noise = [rng.normal(-6.3, 1.0, (rows, completion)).astype(np.float32) for _ in range(2)]
    noise[0][:2] -= SIGNS[:2, None]  # a good row's ratios are above 1, a bad one's below
    return TrainExample(
        prompt_ids=jnp.asarray(prompts),
        prompt_mask=jnp.asarray(prompts != 0),
        completion_ids=jnp.asarray(completions),
        completion_mask=jnp.asarray(completions != 0),
        advantages=jnp.asarray(np.abs(rng.normal(size=rows)) * np.resize(SIGNS, rows), "f4"),
        old_per_token_logps=jnp.asarray(noise[0]) if old else None,
        ref_per_token_logps=jnp.asarray(noise[1]) if reference else None,
    )


def configured(**changes):
    return replace(CONFIG, **changes)


def algorithm_of(config):
    algorithm = _algorithm(config)
    algorithm.temperature = config.temperature  # Tunix's learner sets it from the rollout's
    return algorithm


def learnt_from(policy, batch, config, wrt=nnx.Param):
    """Loss, figures and gradient."""
    learnt = nnx.value_and_grad(grpo_loss, argnums=nnx.DiffState(0, wrt), has_aux=True)
    algorithm = algorithm_of(config)
    return nnx.jit(lambda model, batch: learnt(model, batch, algorithm))(policy, batch)


@pytest.fixture(scope="module")
def policy(new_model):
    return new_model(seed=3, num_layers=1)


@pytest.fixture(scope="module")
def windowed(new_model):
    """A local layer, whose window is shorter than a prompt and its completion, and a global one."""
    return new_model(seed=3, alternating=True)


@pytest.fixture(scope="module")
def adapted(new_model, mesh):
    """Adapters that change something, over an embedding that is frozen."""
    model = get_lora_model(new_model(seed=3, num_layers=1), mesh, LoraConfig(rank=2, alpha=4.0))
    noise = np.random.default_rng(1)
    adapters = nnx.state(model, LORA_PARAMETER)
    nnx.update(
        model, jax.tree.map(lambda one: noise.normal(0, 0.1, one.shape).astype("f4"), adapters)
    )
    return model


def by_tunix(policy, example, temperature):
    """Log-probability of each completion token as Tunix has it, and the entropy by its logits."""
    log_probs, logits = compute_per_token_logps(
        *nnx.split(policy), example.prompt_ids, example.completion_ids, pad_id=0, eos_id=1,
        return_logits=True, temperature=temperature,
    )  # fmt: skip
    log_distribution = jax.nn.log_softmax(logits)
    return log_probs, -(jnp.exp(log_distribution) * log_distribution).sum(-1)


@pytest.mark.parametrize(
    ("trained", "config", "given", "share"),
    [
        ("windowed", configured(), {}, True),
        ("adapted", configured(temperature=0.7), {"old": True}, False),
        ("adapted", configured(beta=0.3, kl="low_var_kl"), {"reference": True}, True),
        ("adapted", configured(loss="dr-grpo", beta=0.3, kl="mse_kl", epsilon=0.4),
         {"old": True, "reference": True}, True),
        ("policy", configured(loss="gspo-token", beta=0.3, kl="kl"),
         {"old": True, "reference": True}, False),
    ],
)  # fmt: skip
def test_equals_tunix_own_loss_figures_and_gradient(
    request, monkeypatch, trained, config, given, share
):
    policy = request.getfixturevalue(trained)
    if not share:
        monkeypatch.setattr("nblib.training.policy_batch.SHARING_LENGTH", 0)
        monkeypatch.setattr("nblib.training.policy_loss.SHARING_LENGTH", 0)
    wrt = LORA_PARAMETER if trained == "adapted" else nnx.Param
    example, algorithm = example_of(**given), algorithm_of(config)

    def theirs(model):
        return grpo_loss_fn(model, example, algorithm, pad_id=0, eos_id=1)

    batch = policy_batch(example, config, rows=ROWS)
    assert 1 < batch.weights.any(axis=(0, 2)).sum() < batch.weights.shape[1]
    (loss, figures), gradients = learnt_from(policy, batch, config, wrt)
    learnt = nnx.value_and_grad(theirs, argnums=nnx.DiffState(0, wrt), has_aux=True)
    (expected, their_figures), their_gradients = nnx.jit(learnt)(policy)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
    assert set(figures) == set(FIGURES)
    means = {name: float(total / tokens) for name, (total, tokens) in figures.items()}
    for name in ("kl", "pg_clipfrac"):
        assert means[name] == pytest.approx(float(their_figures[name]), rel=1e-4), name
    log_probs, entropies = by_tunix(policy, example, config.temperature)
    by_token = np.average(entropies, weights=example.completion_mask)
    assert means["entropy"] == pytest.approx(by_token, rel=1e-4)
    if "old" in given:
        assert 0 < means["pg_clipfrac"] < 1
        above, below = ratios_outside(log_probs, example, algorithm)
        assert above[0] and below[1]  # so both clips are at work
    leaves = [jax.tree.leaves(tree) for tree in (gradients, their_gradients)]
    assert max(np.abs(leaf).max() for leaf in leaves[1]) > 1e-3
    for leaf, their_leaf in zip(*leaves, strict=True):
        np.testing.assert_allclose(leaf, their_leaf, rtol=1e-4, atol=2e-6)


def ratios_outside(log_probs, example, algorithm):
    """In how many tokens of each row the policy's ratio is above the clip, and below it."""
    log_ratio = np.where(example.completion_mask, log_probs - example.old_per_token_logps, 0)
    if algorithm.loss_algo == "gspo-token":
        tokens = np.maximum(example.completion_mask.sum(-1), 1)
        log_ratio = log_ratio.sum(-1, keepdims=True) / tokens[:, None]
    ratio, epsilon = np.exp(log_ratio), algorithm.epsilon
    return (ratio > 1 + epsilon).sum(-1), (ratio < 1 - epsilon).sum(-1)


@pytest.mark.parametrize(("loss", "most"), [("grpo", np.exp(20.0)), ("gspo-token", np.exp(10.0))])
def test_a_ratio_beyond_all_measure_is_limited_as_in_tunix(policy, loss, most):
    config = configured(loss=loss)
    example = example_of(1)
    example = replace(
        example,
        old_per_token_logps=jnp.full(example.completion_ids.shape, -50.0),
        advantages=jnp.array([0.0, -1.0, 0.0, 0.0]),
    )
    (found, _), _ = learnt_from(policy, policy_batch(example, config, rows=ROWS), config)
    expected, _ = grpo_loss_fn(policy, example, algorithm_of(config), pad_id=0, eos_id=1)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert float(found) == pytest.approx(most / 3, rel=1e-4)  # of three rows that are not empty


def with_equal_rewards(example, groups):
    """The example, with so many of its groups, the first ones, of advantages that are rounded."""
    advantages = np.array(example.advantages)
    advantages[: groups * GROUP] = 1e-8
    return replace(example, advantages=jnp.asarray(advantages))


def test_zero_variance_groups_are_not_computed_but_count_in_the_mean(policy):
    example = with_equal_rewards(example_of(), 1)
    batch = policy_batch(example, CONFIG, rows=ROWS)
    (loss, figures), _ = learnt_from(policy, batch, CONFIG)
    expected, _ = grpo_loss_fn(policy, example, algorithm_of(CONFIG), pad_id=0, eos_id=1)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
    computed = int(example.completion_mask[GROUP:].sum())
    assert all(figure[1] == computed for figure in figures.values())

    (loss, figures), gradient = learnt_from(
        policy, policy_batch(with_equal_rewards(example, 2), CONFIG, rows=ROWS), CONFIG
    )
    assert float(loss) == 0
    assert all(figure.tolist() == [0, 0] for figure in figures.values())  # of no token
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("loss", "beta"), [("grpo", 0.0), ("dr-grpo", 0.3), ("gspo-token", 0.0)])
def test_the_update_does_not_depend_on_how_a_batch_is_cut_or_ordered(policy, loss, beta):
    config = configured(loss=loss, beta=beta)
    example = example_of(3, old=True, reference=beta > 0)
    if not beta:
        example = with_equal_rewards(example, 1)
    groups = np.array([2, 0, 1])
    order = (groups[:, None] * GROUP + np.array([3, 1, 0, 2])).ravel()
    turned = jax.tree.map(lambda rows: rows[order], example)
    (expected, sums), gradient = learnt_from(policy, policy_batch(example, config, rows=8), config)
    batch = policy_batch(turned, config, rows=1)
    (found, figures), other = learnt_from(policy, batch, config)
    assert float(found) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
    for name in FIGURES:
        np.testing.assert_allclose(figures[name], sums[name], rtol=1e-5)
    for one, two in zip(*map(jax.tree.leaves, (gradient, other)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=2e-6)


def test_a_kl_term_is_trained_without_any_advantage(policy):
    config = configured(beta=0.3)
    example = with_equal_rewards(example_of(reference=True), 2)
    (loss, figures), gradient = learnt_from(policy, policy_batch(example, config, rows=2), config)
    assert float(loss) != 0
    assert figures["kl"][1] == example.completion_mask.sum()
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient))


def log_probs_of(policy, example, temperature):
    arrays = np.asarray(example.prompt_ids), np.asarray(example.completion_ids)
    config = configured(batch_tokens=60)
    return completion_log_probs(policy, *arrays, config, temperature=temperature)


def test_log_probabilities_are_those_of_tunix(policy):
    example = example_of()
    expected, _ = by_tunix(policy, example, 0.5)
    found = log_probs_of(policy, example, 0.5)
    np.testing.assert_allclose(found, np.where(example.completion_mask, expected, 0), atol=1e-5)


def test_log_probs_of_a_bf16_model_are_fp32(policy):
    example = example_of()
    exact = log_probs_of(policy, example, 0.5)
    rounded = nnx.clone(policy)
    nnx.update(rounded, jax.tree.map(lambda w: w.astype("bfloat16"), nnx.state(rounded)))
    found = log_probs_of(rounded, example, 0.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=0.2)
    assert (found != found.astype(jnp.bfloat16)).any()


def test_no_step_holds_the_logits_of_all_completions(policy, monkeypatch):
    monkeypatch.setattr(GrpoConfig, "row_length", 128)
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 256)
    example, algorithm = example_of(16, completion=122), algorithm_of(CONFIG)

    def largest_array(loss):
        step = nnx.jit(nnx.value_and_grad(loss, has_aux=True))
        program = step.lower(policy).compile().as_text()
        shapes = re.findall(r"f32\[([\d,]+)\]", program)
        return max(np.prod([int(size) for size in shape.split(",")]) for shape in shapes)

    batch = policy_batch(example, CONFIG, rows=64)
    theirs = largest_array(partial(grpo_loss_fn, train_example=example, algo_config=algorithm,
                                   pad_id=0, eos_id=1))  # fmt: skip
    ours = largest_array(lambda model: grpo_loss(model, batch, algorithm))
    assert theirs >= 64 * 122 * VOCABULARY
    assert ours < 0.6 * 64 * 122 * VOCABULARY
