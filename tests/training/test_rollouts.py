"""The log of the completions, and their figures by hand."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nblib.training import rollouts
from nblib.training.rollouts import group_advantages, step_signals


def records(step, count=2):
    return [{"step": step, "id": f"p{number}", "reward": 1.0} for number in range(count)]


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Add records to a log in this test's folder; the steps that are kept."""
    monkeypatch.setattr(rollouts, "KEEP_FULL", 2)

    def steps():
        return [record["step"] for record in rollouts.read_rollouts(SimpleNamespace(path=tmp_path))]

    return partial(rollouts.append_rollouts, tmp_path), steps


def test_the_log_turns_over_and_keeps_the_newest(log, tmp_path, monkeypatch):
    append, steps = log
    monkeypatch.setattr(rollouts, "LIMIT_BYTES", 60)
    for step in range(1, 8):
        append(records(step))  # two records pass the limit: a file a step
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rollouts.6.jsonl",
        "rollouts.7.jsonl",
    ]
    assert steps() == [6, 6, 7, 7]


def test_what_a_killed_run_drew_too_much_is_forgotten(log, tmp_path, monkeypatch):
    append, steps = log
    monkeypatch.setattr(rollouts, "LIMIT_BYTES", 150)
    for step in range(1, 6):
        append(records(step))
    rollouts.forget_rollouts_after(tmp_path, 3)
    assert steps() == [1, 1, 2, 2, 3, 3]
    append(records(4))
    assert steps()[-2:] == [4, 4]


def signals(rewards: list[list[float]], **changed: Any) -> dict[str, Any]:
    shape = np.shape(rewards)
    arrays = {
        "terms": {"correct": np.array(rewards, float)},
        "tokens": np.full(shape, 5),
        "truncated": np.zeros(shape, bool),
        "metrics": {"right": np.zeros(shape, bool)},
    }
    return step_signals(np.array(rewards, float), **{**arrays, **changed})


def test_signals_by_hand():
    found = step_signals(
        rewards=np.array([[1.2, 0.2], [0.2, 0.2], [1.2, 1.0]]),
        terms={
            "correct": np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]),
            "format": np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]),
        },
        metrics={
            "slot_f1": np.array([[1.0, 0.5], [0.0, 0.0], [1.0, 1.0]]),
            "preamble_rate": np.array([[False, False], [False, False], [True, True]]),
        },
        tokens=np.array([[10, 20], [30, 40], [50, 60]], np.int32),
        truncated=np.array([[False, False], [False, False], [False, True]]),
    )
    assert found == {
        "reward": pytest.approx(4 / 6),
        "reward_std": pytest.approx(math.sqrt(4.0 / 6 - (4 / 6) ** 2)),
        "terms": {"correct": pytest.approx(3 / 6), "format": pytest.approx(5 / 6)},
        "zero_variance_groups": pytest.approx(1 / 3),
        "truncation_rate": pytest.approx(1 / 6),
        "slot_f1": pytest.approx(3.5 / 6),
        "preamble_rate": pytest.approx(2 / 6),
        "completion_tokens": 35.0,
        "longest": 60,
    }
    assert all(type(value) in (float, int, dict) for value in found.values())


def test_rewards_that_differ_by_rounding_alone_have_no_variance():
    assert signals([[0.1 + 0.2, 0.3], [0.3, 0.3 + 1e-6]])["zero_variance_groups"] == 0.5


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="finite, got nan"):
        signals([[0.0, math.nan]])


def test_an_advantage_is_what_stands_out_of_its_own_group():
    rewards = np.array([[1.0, 0.0, 0.0, 1.0], [1.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]])
    expected = [[0.5, -0.5, -0.5, 0.5], [0.75, -0.25, -0.25, -0.25], [0.0] * 4]
    np.testing.assert_allclose(group_advantages(rewards, scaled=False), expected, atol=1e-12)
    deviations = np.array([[3**-0.5], [0.5], [1.0]])  # with n - 1
    np.testing.assert_allclose(group_advantages(rewards), expected / deviations, rtol=1e-5)


@pytest.mark.parametrize("reward", [0.2, 1.15])
def test_a_zero_variance_group_has_no_advantage_not_even_by_rounding(reward):
    assert not group_advantages(np.full((1, 6), reward)).any()
