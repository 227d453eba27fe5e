import itertools
import os
import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from tunix.rl.rl_cluster import RLCluster

from nblib.files import read_jsonl
from nblib.models.attention import hidden_states
from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import Reward
from nblib.tasks.task import Example
from nblib.tokens.tokenizer import PAD_ID, stop_tokens
from nblib.training import grpo as module
from nblib.training import policy_loss
from nblib.training.checkpoints import ForeignCheckpoint
from nblib.training.grpo import prompt_order, train_grpo
from nblib.training.grpo_config import GrpoConfig
from nblib.training.rollouts import read_rollouts
from nblib.training.session import Trained, TrainingDiverged, TrainingStopped

CONFIG = GrpoConfig(
    learning_rate=2e-3,
    steps=3,
    prompts_per_step=2,
    num_generations=4,
    max_prompt_length=32,
    max_new_tokens=8,
    save_interval="1 step",
)
TASK = GSM8K.variants["hash"]  # whose prompts are short


def asking(question, id="p0"):
    return Example(id=id, prompt=question, completion="So\n#### 1", reference="1")


QUESTIONS = [asking(f"{number} + 1?", id=f"p{number}") for number in range(5)]


def earned(reward):
    score = TASK.score("#### 2", QUESTIONS[0])
    return Reward(reward=reward, terms={"length": reward}, score=score)


def long_is_good(example, completion, tokens, truncated):
    return earned(len(completion) / 8)  # in characters: an untrained model is always cut


@pytest.fixture(scope="module")
def train(new_model, tokenizer, mesh):
    """Train a tiny policy: `train(folder, config, reward_fn=..., **arguments)`."""

    def start(folder, config=CONFIG, *, reward_fn=long_is_good, lora=True, model=None, **arguments):
        model = model or new_model(num_layers=1)
        policy = get_lora_model(model, mesh, LoraConfig(rank=2, alpha=4.0)) if lora else model
        reference = arguments.pop("reference", model if config.beta else None)
        examples = arguments.pop("examples", QUESTIONS)
        given = {"hashes": {"data": "five"}, "mesh": mesh, **arguments}
        asked = (tokenizer, TASK, examples, reward_fn, config, run_in(folder))
        return train_grpo(policy, reference, *asked, **given)

    return start


@pytest.fixture
def run(train, tmp_path):
    """Train in this test's folder, or another one."""
    return lambda config=CONFIG, *, folder=tmp_path, **arguments: train(folder, config, **arguments)


def trained_batches(monkeypatch):
    """What the trainer is given, as it is given it."""
    batches, update = [], RLCluster.update_actor

    def watched(cluster, examples, *others):
        batches.extend(jax.device_get(examples))
        update(cluster, examples, *others)

    monkeypatch.setattr(RLCluster, "update_actor", watched)
    return batches


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """A run that nothing disturbs: its folder, and what was trained."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder)


def run_in(folder):
    return SimpleNamespace(path=folder, checkpoints=folder / "checkpoints", parameters={})


def steps_of(folder):
    return [record for record in read_jsonl(folder / "metrics.jsonl") if "loss" in record]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps 0"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"num_generations": 1}, "a group of one has no advantage"),
        ({"loss": "ppo"}, "loss 'ppo' is unknown: expected one of grpo, dr-grpo, gspo-token"),
        ({"kl": "k2"}, "kl 'k2' is unknown"),
        ({"beta": -0.1}, "beta -0.1"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"num_iterations": 2, "temperature": 0.9}, "num_iterations 2 needs temperature 1.0"),
        ({"batch_tokens": 0}, "batch_tokens 0 must be at least 1"),
        ({"save_interval": "often"}, "SAVE_INTERVAL 'often'"),
    ],
)
def test_what_cannot_train_is_refused_with_the_reason(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(CONFIG, **changes)


def test_each_epoch_asks_every_prompt_once_in_an_order_of_its_own():
    order = prompt_order(6, per_step=4, steps=6, seed=1)
    assert order.shape == (6, 4)
    epochs = order.reshape(4, 6)
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    np.testing.assert_array_equal(order, prompt_order(6, per_step=4, steps=6, seed=1))
    np.testing.assert_array_equal(order[:3], prompt_order(6, per_step=4, steps=3, seed=1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"examples": QUESTIONS[:1]}, "1 prompts are fewer than prompts_per_step 2"),
        ({"examples": [*QUESTIONS, asking("1 + 1 is what, " * 9, id="b")]}, "prompt b has"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(run, changes, said):
    with pytest.raises(ValueError, match=said):
        run(**changes)


def test_a_kl_term_needs_a_reference(run):
    with pytest.raises(ValueError, match=r"beta 0.1 needs a reference"):
        run(replace(CONFIG, beta=0.1), reference=None)


def test_a_record_a_step_and_every_completion_kept(whole):
    folder, policy = whole
    records = steps_of(folder)
    assert [*policy.history] == read_jsonl(folder / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3]
    assert policy == Trained(steps=3, planned=3, resumed_at=0)
    rollouts = read_rollouts(run_in(folder))
    assert len(rollouts) == 3 * 2 * 4
    for record in records:
        drawn = [one for one in rollouts if one["step"] == record["step"]]
        rewards = np.array([one["reward"] for one in drawn]).reshape(2, 4)
        assert record["reward"] == pytest.approx(rewards.mean())
        assert record["terms"] == {"length": pytest.approx(rewards.mean())}
        assert {name: record[name] for name in TASK.metric_names} == earned(0.0).score.values
        assert record["tokens"] == sum(one["tokens"] for one in drawn)
        assert record["kl"] is None and record["entropy"] > 0
        assert 0 < record["rollout_seconds"] < record["seconds"]
        for group in range(2):
            members = [one for one in drawn if one["group"] == group]
            assert len({one["id"] for one in members}) == 1
            assert sum(one["advantage"] for one in members) == pytest.approx(0, abs=1e-3)


def test_remat_learns_the_same_and_leaves_the_sampler_able_to_write(
    run, whole, tmp_path, monkeypatch
):
    asked = []

    def recorded(*inputs, remat, **prefixes):
        asked.append(remat)
        return hidden_states(*inputs, remat=remat, **prefixes)

    monkeypatch.setattr(policy_loss, "hidden_states", recorded)
    run(replace(CONFIG, remat=True))
    assert set(asked) == {True}
    for one, other in zip(steps_of(tmp_path), steps_of(whole[0]), strict=True):
        for name in ("loss", "grad_norm", "entropy"):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name


def test_nothing_is_compiled_after_the_first_step(run, tmp_path):
    run(replace(CONFIG, steps=5, num_iterations=2, beta=0.1))
    compiled = [record["compilations"] for record in steps_of(tmp_path)]
    assert compiled[0] > 0
    assert compiled[2:] == [0, 0, 0], compiled  # the second one shards what the first returned


def test_reference_and_policy_score_alike_before_the_first_update(run, tmp_path, monkeypatch):
    monkeypatch.setattr(RLCluster, "get_ref_per_token_logps", None)  # Tunix's hold all logits
    monkeypatch.setattr(RLCluster, "get_old_per_token_logps", None)
    run(replace(CONFIG, steps=2, beta=0.1, temperature=0.7), folder=tmp_path / "kl")
    run(replace(CONFIG, steps=1, num_iterations=2), folder=tmp_path / "old")
    kl = [record["kl"] for record in steps_of(tmp_path / "kl")]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[1] > 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "dr-grpo", "num_iterations": 2},
        {"loss": "gspo-token", "beta": 0.1, "kl": "kl"},
        {"prompts_per_step": 4, "batch_tokens": 64, "beta": 0.1, "kl": "mse_kl"},
    ],
    ids=str,
)
def test_each_variant_trains(run, tmp_path, changes):
    config = replace(CONFIG, steps=2, **changes)
    policy = run(config)
    records = steps_of(tmp_path)
    assert [record["step"] for record in records] == [1, 2]
    assert all(np.isfinite(record["loss"]) for record in records)
    assert all((record["kl"] is not None) == (config.beta > 0) for record in records)
    moved = [np.abs(leaf).max() for leaf in jax.tree.leaves(nnx.state(policy.model, nnx.LoRAParam))]
    assert min(moved) > 0  # B begins at zero


def test_groups_that_teach_nothing_cost_nothing_and_change_nothing(run, tmp_path, monkeypatch):
    def equal_in_some_groups(example, completion, tokens, truncated):
        odd = int(example.id[1:]) % 2
        return long_is_good(example, completion, tokens, truncated) if odd else earned(0.7)

    batches = trained_batches(monkeypatch)
    config = replace(CONFIG, steps=2, prompts_per_step=4)
    policies = {
        tokens: run(
            replace(config, batch_tokens=tokens),
            reward_fn=equal_in_some_groups,
            folder=tmp_path / str(tokens),
        )
        for tokens in (64, 1024)  # a row at a time; all at once
    }
    assert [batch.weights.shape for batch in batches] == [(1, 16, 64)] * 2 + [(16, 1, 64)] * 2
    for batch in batches:  # of 16 completions those of two groups or so are there
        assert 0 < np.count_nonzero(batch.weights) < 16 * 8
        assert not batch.advantages[batch.weights == 0].any()
    weights = [
        jax.tree.leaves(nnx.state(policy.model, LORA_PARAMETER)) for policy in policies.values()
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for record, expected in zip(
        *(steps_of(tmp_path / str(tokens)) for tokens in policies), strict=True
    ):
        assert 0 < record["zero_variance_groups"] < 1
        for name in ("loss", "grad_norm"):
            assert record[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-6), name
        assert record["entropy"] == pytest.approx(expected["entropy"], rel=0.05)  # of the computed


def test_the_stop_token_is_trained_whichever_was_drawn(
    run, new_model, tokenizer, tmp_path, monkeypatch
):
    model = new_model(num_layers=1)
    stops = stop_tokens(tokenizer)
    embedding = model.embedder.input_embedding
    likely = jax.numpy.zeros(embedding.shape[1]).at[0].set(8)
    embedding.set_value(embedding.get_value().at[np.array(stops)].set(likely))
    batches = trained_batches(monkeypatch)
    run(replace(CONFIG, steps=1, prompts_per_step=5, num_generations=8), model=model)
    (batch,), ends = batches, set()
    tokens, segments = (one.reshape(-1, 64) for one in (batch.tokens, batch.segments))
    learnt = batch.weights.reshape(-1, 64) != 0
    for row, part in {(row, segments[row, column]) for row, column in np.argwhere(learnt)}:
        *text, last = tokens[row][learnt[row] & (segments[row] == part)]
        assert not set(text) & {*stops, PAD_ID}
        ends.add(int(last))
    assert ends >= {*stops}
    cut = [record["truncated"] for record in read_rollouts(run_in(tmp_path))]
    assert len(cut) == 40 and np.mean(cut) < 0.5


def test_a_step_that_teaches_nothing_has_no_figures(run, tmp_path, capsys):
    run(replace(CONFIG, steps=1), reward_fn=lambda *_: earned(0.7))
    (record,) = steps_of(tmp_path)
    assert record["zero_variance_groups"] == 1
    assert record["loss"] == 0
    assert record["entropy"] is None
    assert record["clip_share"] is None
    said = capsys.readouterr().out
    assert "step     1 of 1  reward 0.700  answer accuracy 0.0%  zero-variance groups 100%" in said
    assert "entropy -" in said


def test_all_weights_are_trained_without_adapters(run, new_model):
    before = jax.tree.leaves(nnx.state(new_model(num_layers=1)))
    after = jax.tree.leaves(nnx.state(run(replace(CONFIG, steps=1), lora=False).model))
    assert sum(bool(np.any(a != b)) for a, b in zip(before, after, strict=True)) > 5


def test_the_reference_stays_as_it_was(run, new_model, logits, mesh, tokenizer, tmp_path):
    reference = new_model(num_layers=1)
    before = logits(reference)
    policy = get_lora_model(reference, mesh, LoraConfig(rank=2, alpha=4.0))
    trained = train_grpo(
        policy, reference, tokenizer, TASK, QUESTIONS, long_is_good, replace(CONFIG, beta=0.1),
        run_in(tmp_path), hashes={}, mesh=mesh,
    )  # fmt: skip
    np.testing.assert_array_equal(logits(reference), before)
    assert np.abs(logits(trained.model) - before).max() > 1e-3


def test_the_probe_sees_the_policy_as_it_is_trained(run, tmp_path, logits):
    seen = []

    def probe(model):
        seen.append(logits(model))
        return len(seen) / 10

    run(replace(CONFIG, probe_every=2), probe=probe)
    probes = [one for one in read_jsonl(tmp_path / "metrics.jsonl") if "probe_accuracy" in one]
    assert [one["step"] for one in probes] == [0, 2, 3]
    assert [one["probe_accuracy"] for one in probes] == [0.1, 0.2, 0.3]
    assert all(np.any(a != b) for a, b in itertools.pairwise(seen))


def test_an_alarm_is_said_and_kept(run, tmp_path, capsys):
    run(replace(CONFIG, steps=11), reward_fn=lambda *_: earned(0.0))
    records = steps_of(tmp_path)
    names = [name for record in records for name in record["alarms"]]
    assert {"zero-variance groups", "no reward"} <= set(names)
    assert len(names) == len(set(names))  # each is announced once
    assert "ALARM, step 10: " in capsys.readouterr().out


def test_a_session_that_ends_is_gone_on_with(run, whole, tmp_path):

    def terminated(*completion):
        os.kill(os.getpid(), signal.SIGTERM)
        return long_is_good(*completion)

    with pytest.raises(TrainingStopped, match="SIGTERM: saved at step 1 of 3"):
        run(reward_fn=terminated)
    stopped = run()
    assert stopped.resumed_at == 1
    assert_same_adapters(stopped.model, whole[1].model)
    again = run()  # nothing is left to do
    assert again.resumed_at == 3
    assert_same_adapters(again.model, whole[1].model)
    assert read_rollouts(run_in(tmp_path)) == read_rollouts(run_in(whole[0]))


def test_a_deadline_ends_cleanly_and_sessions_of_one_step_get_to_the_end(run, whole, capsys):
    for done in (0, 1, 2):
        policy = run(deadline_s=0.0)
        assert policy == Trained(steps=done + 1, planned=3, resumed_at=done)
    assert "saved at step 2 of 3, 1 are left" in capsys.readouterr().out
    assert_same_adapters(policy.model, whole[1].model)


def test_checkpoints_of_other_parameters_are_refused(run, whole):
    with pytest.raises(ForeignCheckpoint, match="num_generations"):
        run(replace(CONFIG, num_generations=2), folder=whole[0])
    with pytest.raises(ForeignCheckpoint, match="data"):
        run(folder=whole[0], hashes={"data": "other"})


def test_a_diverged_training_stops_and_another_goes_on(run, tmp_path, monkeypatch):
    norms = iter([1.0, 1.0, np.inf])
    with monkeypatch.context() as patch:
        patch.setattr(module, "weights_norm", lambda model: next(norms))
        with pytest.raises(TrainingDiverged) as stopped:
            run(folder=tmp_path / "diverged", resume_from="")
    source = tmp_path / "diverged" / "checkpoints"
    first, last = str(stopped.value).splitlines()
    assert first.startswith("training diverged at step 3: weights norm inf. ")
    assert f"The last good checkpoint is 1 in {source}." in first
    assert last == f"  -p RESUME_FROM {source} -p LEARNING_RATE 0.001"
    assert [path.name for path in (source / "actor").iterdir()] == ["1"]
    changed = replace(CONFIG, learning_rate=1e-3, beta=0.1)
    policy = run(changed, folder=tmp_path / "on", resume_from=str(source))
    assert policy == Trained(steps=3, planned=3, resumed_at=1)
    assert [record["step"] for record in steps_of(tmp_path / "on")] == [2, 3]


def test_a_learning_rate_beyond_all_measure_diverges_and_leaves_nothing(run, tmp_path):
    with pytest.raises(TrainingDiverged, match="at step 1: weights norm inf"):
        run(replace(CONFIG, learning_rate=1e30))
    assert list((tmp_path / "checkpoints" / "actor").iterdir()) == []


def assert_same_adapters(ours, expected):
    for mine, wanted in zip(
        jax.tree.leaves(nnx.state(ours, LORA_PARAMETER)),
        jax.tree.leaves(nnx.state(expected, LORA_PARAMETER)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("sign", [1, -1], ids=["long", "short"])
def test_what_is_rewarded_comes_within_a_few_steps(run, tmp_path, sign):
    """The gradient is right, for either sign: pieces of more characters, or of fewer."""

    def wanted(example, completion, tokens, truncated):
        return earned(sign * len(completion) / 8)

    config = replace(CONFIG, learning_rate=5e-2, steps=16, save_interval="9 min")
    run(config, reward_fn=wanted, lora=False)
    rewards = [record["reward"] for record in steps_of(tmp_path)]
    first, last = np.mean(rewards[:6]), np.mean(rewards[-6:])
    assert last - first > 0.5, rewards
