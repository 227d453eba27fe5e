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
from tunix.rl.grpo.drgrpo_learner import DrGRPOConfig
from tunix.rl.grpo.grpo_learner import GRPOConfig, TrainExample

from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model
from nblib.training import loss as module
from nblib.training.policy_loss import completion_log_probs, completion_scores, grpo_loss

PROMPT, COMPLETION, VOCABULARY = 6, 9, 544
FIGURES = ("kl", "entropy", "pg_clipfrac")
SIGNS = np.array([1, -1, 1, 1])  # of the advantages


def example_of(rows, *, old=False, reference=False, completion=COMPLETION):
    """Prompts padded on the left, completions on the right, one of them empty."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(4, VOCABULARY, (rows, PROMPT))
    completions = rng.integers(4, VOCABULARY, (rows, completion))
    prompts[0, :3] = 0
    completions[1, 4:] = 0
    completions[2] = 0
    # Near the untrained model's log-probabilities of about -6: some ratios are clipped.
    noise = [rng.normal(-6.3, 1.0, (rows, completion)).astype(np.float32) for _ in range(2)]
    noise[0][:2] -= SIGNS[:2, None]  # a good row's ratios are above 1, a bad one's below
    return TrainExample(
        prompt_ids=jnp.asarray(prompts),
        prompt_mask=jnp.asarray(prompts != 0),
        completion_ids=jnp.asarray(completions),
        completion_mask=jnp.asarray(completions != 0),
        advantages=jnp.asarray(np.abs(rng.normal(size=rows)) * SIGNS[np.arange(rows) % 4], "f4"),
        old_per_token_logps=jnp.asarray(noise[0]) if old else None,
        ref_per_token_logps=jnp.asarray(noise[1]) if reference else None,
    )


def configured(config, temperature=1.0):
    config.temperature = temperature  # Tunix's learner sets it from the rollout's
    return config


@pytest.fixture(scope="module")
def policy(new_model):
    return new_model(seed=3, num_layers=1)


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
    ("trained", "config", "given"),
    [
        ("policy", configured(GRPOConfig(beta=0.0)), {}),
        ("adapted", configured(GRPOConfig(beta=0.0), temperature=0.7), {"old": True}),
        ("policy", configured(GRPOConfig(beta=0.0), temperature=0.7), {"old": True}),
        ("adapted", configured(GRPOConfig(beta=0.3, kl_loss_mode="low_var_kl")),
         {"reference": True}),
        ("adapted", configured(DrGRPOConfig(beta=0.3, kl_loss_mode="mse_kl", epsilon=0.4)),
         {"old": True, "reference": True}),
        ("adapted", configured(GRPOConfig(beta=0.3, kl_loss_mode="kl", loss_algo="gspo-token")),
         {"old": True, "reference": True}),
        ("policy", configured(GRPOConfig(beta=0.3, kl_loss_mode="kl", loss_algo="gspo-token")),
         {"old": True, "reference": True}),
    ],
)  # fmt: skip
def test_equals_tunix_own_loss_figures_and_gradient(request, monkeypatch, trained, config, given):
    policy = request.getfixturevalue(trained)
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 10)
    wrt = nnx.DiffState(0, LORA_PARAMETER if trained == "adapted" else nnx.Param)
    example = example_of(4, **given)

    def ours(model):
        return grpo_loss(model, example, config, pad_id=0)

    def theirs(model):
        return grpo_loss_fn(model, example, config, pad_id=0, eos_id=1)

    both = nnx.jit(
        lambda model: [
            nnx.value_and_grad(f, argnums=wrt, has_aux=True)(model) for f in (ours, theirs)
        ]
    )
    ((loss, figures), gradients), ((expected, their_figures), their_gradients) = both(policy)
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
        above, below = ratios_outside(log_probs, example, config)
        assert above[0] and below[1]  # so both clips are at work
    leaves = [jax.tree.leaves(tree) for tree in (gradients, their_gradients)]
    assert max(np.abs(leaf).max() for leaf in leaves[1]) > 1e-3
    for leaf, their_leaf in zip(*leaves, strict=True):
        np.testing.assert_allclose(leaf, their_leaf, rtol=1e-4, atol=1e-6)


def ratios_outside(log_probs, example, config):
    """In how many tokens of each row the policy's ratio is above the clip, and below it."""
    log_ratio = np.where(example.completion_mask, log_probs - example.old_per_token_logps, 0)
    if config.loss_algo == "gspo-token":
        tokens = np.maximum(example.completion_mask.sum(-1), 1)
        log_ratio = log_ratio.sum(-1, keepdims=True) / tokens[:, None]
    ratio, epsilon = np.exp(log_ratio), config.epsilon
    return (ratio > 1 + epsilon).sum(-1), (ratio < 1 - epsilon).sum(-1)


@pytest.mark.parametrize(
    ("algorithm", "most"), [("grpo", np.exp(20.0)), ("gspo-token", np.exp(10.0))]
)
def test_a_ratio_beyond_all_measure_is_limited_as_in_tunix(policy, algorithm, most):
    config = configured(GRPOConfig(beta=0.0, loss_algo=algorithm))
    example = example_of(4)
    example = replace(
        example,
        old_per_token_logps=jnp.full(example.completion_ids.shape, -50.0),
        advantages=jnp.array([0.0, -1.0, 0.0, 0.0]),
    )
    loss, _ = grpo_loss(policy, example, config, pad_id=0)
    expected, _ = grpo_loss_fn(policy, example, config, pad_id=0, eos_id=1)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss) == pytest.approx(most / 3, rel=1e-4)  # of the three rows that are not empty


def flat(example):
    return replace(example, advantages=jnp.zeros_like(example.advantages))


def test_where_nothing_was_earned_above_anything_else_nothing_is_computed(policy):
    config = configured(GRPOConfig(beta=0.0))

    @nnx.jit
    def learnt(model, example):
        loss = partial(grpo_loss, pad_id=0)
        return nnx.value_and_grad(loss, has_aux=True)(model, example, config)

    (loss, figures), gradient = learnt(policy, flat(example_of(4)))
    assert float(loss) == 0
    assert set(figures) == set(FIGURES)
    assert all(figure.tolist() == [0, 0] for figure in figures.values())  # of no token
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))
    (_, figures), gradient = learnt(policy, example_of(4))
    assert all(figure[1] == 2 * 9 + 4 for figure in figures.values())  # one of four is empty
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "config",
    [
        configured(GRPOConfig(beta=0.3)),
        configured(DrGRPOConfig(beta=0.3)),
        configured(GRPOConfig(beta=0.3, loss_algo="gspo-token")),
    ],
    ids=("grpo", "dr-grpo", "gspo-token"),
)
def test_micro_batches_are_worth_their_rows_in_one_batch(policy, config):
    example = example_of(8, old=True, reference=True)
    whole = jax.tree.map(lambda rows: rows[3:7], example)
    whole = replace(whole, completion_mask=whole.completion_mask.at[0, 2:].set(False))
    learnt = nnx.jit(
        lambda model, example: nnx.value_and_grad(partial(grpo_loss, pad_id=0), has_aux=True)(
            model, example, config
        )
    )
    parts = [
        learnt(policy, jax.tree.map(lambda rows, part=part: rows[part], whole))
        for part in (slice(0, 2), slice(2, 4))
    ]
    (loss, figures), gradient = learnt(policy, whole)
    (mean_loss, sums), mean_gradient = jax.tree.map(lambda *both: sum(both) / 2, *parts)
    assert float(loss) == pytest.approx(float(mean_loss), rel=1e-5)
    for name in FIGURES:
        np.testing.assert_allclose(figures[name], 2 * sums[name], rtol=1e-5)
    for leaf, mean in zip(*map(jax.tree.leaves, (gradient, mean_gradient)), strict=True):
        np.testing.assert_allclose(leaf, mean, rtol=1e-4, atol=1e-6)


def test_a_kl_term_is_trained_without_any_advantage(policy):
    config = configured(GRPOConfig(beta=0.3))
    example = flat(example_of(4, reference=True))
    learnt = nnx.value_and_grad(partial(grpo_loss, pad_id=0), has_aux=True)
    (loss, _), gradient = nnx.jit(lambda model: learnt(model, example, config))(policy)
    assert float(loss) != 0
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_scores_are_those_of_tunix(policy):
    example = example_of(3)
    arguments = (example.prompt_ids, example.completion_ids)
    mask = example.completion_mask.at[0, :2].set(False)
    found = nnx.jit(completion_scores, static_argnames=("pad_id", "temperature"))(
        policy, *arguments, mask, pad_id=0, temperature=0.5
    )
    for scores, expected in zip(found, by_tunix(policy, example, 0.5), strict=True):
        np.testing.assert_allclose(scores, np.where(mask, expected, 0), atol=1e-5)


def test_log_probs_of_a_bf16_model_are_fp32(policy):
    example = example_of(3)
    arguments = (example.prompt_ids, example.completion_ids)
    exact = completion_log_probs(policy, *arguments, pad_id=0, temperature=0.5)
    rounded = nnx.clone(policy)
    nnx.update(rounded, jax.tree.map(lambda w: w.astype("bfloat16"), nnx.state(rounded)))
    found = completion_log_probs(rounded, *arguments, pad_id=0, temperature=0.5)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, atol=0.2)
    assert (found != found.astype(jnp.bfloat16)).any()


def test_no_step_holds_the_logits_of_all_completions(policy):
    example = example_of(64, completion=122)

    def largest_array(loss):
        step = nnx.jit(nnx.value_and_grad(loss, has_aux=True))
        program = step.lower(policy).compile().as_text()
        shapes = re.findall(r"f32\[([\d,]+)\]", program)
        return max(np.prod([int(size) for size in shape.split(",")]) for shape in shapes)

    config = configured(GRPOConfig(beta=0.0))
    theirs = largest_array(lambda model: grpo_loss_fn(model, example, config, 0, 1))
    ours = largest_array(lambda model: grpo_loss(model, example, config, pad_id=0))
    assert theirs >= 64 * 122 * VOCABULARY
    assert ours < 0.6 * 64 * 122 * VOCABULARY
