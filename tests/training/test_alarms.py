"""Every alarm driven by a history of its own, and none by a healthy one."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Metric
from nblib.training import alarms
from nblib.training.alarms import WINDOW
from nblib.training.rollouts import step_signals

LONG = 4 * WINDOW


def check_alarms(records, task=GSM8K):
    return alarms.check_alarms(records, task)


def new_alarms(records):
    return alarms.new_alarms(records, GSM8K)


def healthy(step: int, **changed: Any) -> dict[str, Any]:
    """Return the record of one step of a run of `LONG` steps that learns."""
    done = step / LONG
    right = 0.4 + 0.3 * done
    return {
        "step": step,
        "loss": 0.0,
        "learning_rate": 1e-4,
        "grad_norm": 0.3,
        "kl": 0.05 * done,
        "entropy": 0.4 - 0.15 * done,
        "clip_share": 0.0,
        "reward": 0.2 + right,
        "reward_std": 0.4,
        "terms": {"answer_accuracy": right, "format_accuracy": 0.99},
        "zero_variance_groups": 0.3 + 0.1 * done,
        "truncation_rate": 0.02,
        "preamble_rate": 0.0,
        "format_accuracy": 0.99,
        "answer_accuracy": right,
        "completion_tokens": 60 - 5 * done,
        "longest": 90,
        "tokens": 5000,
        "seconds": 4.0,
        "rollout_seconds": 2.0,
        "compilations": 30 if step <= 2 else 0,
        "alarms": [],
        **changed,
    }


def run(steps: int = LONG, *, probe: tuple[float, float] = (0.4, 0.7), **curves: Any):
    """Return the records of a run; a curve is a figure of every step, or step -> figure."""
    records: list[dict[str, Any]] = [{"step": 0, "probe_accuracy": probe[0]}]
    for step in range(1, steps + 1):
        changed = {key: curve(step) if callable(curve) else curve for key, curve in curves.items()}
        records.append(healthy(step, **changed))
        if step % WINDOW == 0:
            share = step / LONG
            accuracy = (1 - share) * probe[0] + share * probe[1]
            records.append({"step": step, "probe_accuracy": accuracy})
    return records


def names(records: list[dict[str, Any]]) -> list[str]:
    return list(check_alarms(records))


def of_rewards(reward: float) -> dict[str, Any]:
    """Return the signals of a step in which every completion earns the same."""
    rewards = np.full((3, 4), reward)
    no = np.zeros((3, 4), bool)
    metrics = {"preamble_rate": no, "format_accuracy": ~no, "answer_accuracy": no}
    return step_signals(rewards, {"steps": rewards}, metrics, np.full((3, 4), 60), no)


def test_a_healthy_run_has_no_alarm_at_any_step():
    records = run()
    for end in range(len(records) + 1):
        assert check_alarms(records[:end]) == {}
        assert new_alarms(records[:end]) == {}


def late(good: float, bad: float):
    """Return a figure that is good at first and bad in the last window."""
    return lambda step: bad if step > LONG - WINDOW else good


UNHEALTHY = [
    ("zero-variance groups", {"zero_variance_groups": 0.75}, "75%", "DIFFICULTY_FILTER"),
    ("truncation", {"truncation_rate": 0.25}, "25%", "MAX_NEW_TOKENS"),
    ("truncation", {"truncation_rate": late(0.02, 0.15)}, "at the start 2%", "'truncated' in REW"),
    ("truncation", {"truncation_rate": late(0.0, 0.15)}, "at the start 0%", "MAX_NEW_TOKENS"),
    ("truncation", {"truncation_rate": late(0.0, 0.5)}, "50%", "MAX_NEW_TOKENS"),
    ("length drift", {"completion_tokens": late(60, 95)}, "95 tokens", "'brevity' in REWARDS"),
    ("length drift", {"completion_tokens": late(60, 35)}, "35 tokens", "'brevity' in REWARDS"),
    ("length drift", {"completion_tokens": late(60, math.nan)}, "nan tokens", "BETA"),
    ("KL", {"kl": late(0.1, 0.4)}, "0.40 nats", "BETA"),
    ("KL", {"kl": late(0.1, math.nan)}, "nan nats", "LEARNING_RATE"),
    (
        *("preamble rate", {"preamble_rate": late(0.0, 0.1)}),
        *("10% (text before the first tag)", "'format_accuracy' in REWARDS"),
    ),
    (
        *("reward without answers", {"probe": (0.4, 0.4)}),
        *("answer accuracy went from 40.0% to 40.0%", "besides 'answer_accuracy'"),
    ),
    ("entropy collapse", {"entropy": late(0.4, 0.05)}, "0.050 nats", "TEMPERATURE"),
    ("no reward", {"reward": 0.0, "reward_std": 0.0}, "10 steps", "MODEL"),
    (
        *("form falling", {"format_accuracy": late(0.99, 0.8)}),
        *("format accuracy fell from 99% to 80%", "'format_accuracy' in REWARDS"),
    ),
    ("recompiling", {"compilations": 1}, "10 of the last 10 steps", "MAX_PROMPT_LENGTH"),
]


@pytest.mark.parametrize(("name", "curves", "figure", "cure"), UNHEALTHY)
def test_each_alarm_has_its_history(name: str, curves: dict[str, Any], figure: str, cure: str):
    ((found, message),) = check_alarms(run(**curves)).items()
    assert found == name
    assert figure in message and cure in message


def test_every_alarm_is_driven():
    known = {alarm["name"] for alarm in alarms._alarms(GSM8K)}
    assert {name for name, *_ in UNHEALTHY} == known


def test_a_cure_names_parameters_that_the_notebook_has():
    source = (Path(__file__).parents[2] / "notebooks" / "v2_grpo.py").read_text()
    for _, curves, *_ in UNHEALTHY:
        (message,) = check_alarms(run(**curves)).values()
        named = set(re.findall(r"\b[A-Z]{4,}(?:_[A-Z]+)*\b", message))
        assert named and all(f"\n{name} = " in source for name in named), named


def test_alarms_go_by_the_metrics_that_the_task_has():
    reached = Metric(name="slot_f1", meaning="slots {found}", kind="mean")
    task = replace(
        GSM8K,
        metrics=(
            *(reached, Metric(name="schema_valid", meaning="the schema holds")),
            Metric(name="refusal_rate", meaning="{no} answer", better="lower"),
            Metric(name="noise", meaning="other words", kind="mean", better="lower"),
        ),
        **{"headline": "slot_f1", "form": "schema_valid", "fallback": "", "targets": ()},
        reward_weights={"slot_f1": 1.0},
    )
    own = {"slot_f1": 0.6, "schema_valid": late(0.99, 0.8), "refusal_rate": 0.2, "noise": 0.5}
    found = check_alarms(run(zero_variance_groups=0.9, **own, probe=(0.4, 0.4)), task=task)
    assert list(found) == [
        *("zero-variance groups", "reward without answers", "refusal rate", "form falling")
    ]
    for message, said in zip(
        found.values(),
        ("slot f1 is 60%: the prompts are too easy", "slot f1 went from", "20% ({no} answer)",
         "schema valid fell from"),
        strict=True,
    ):  # fmt: skip
        assert said in message


def test_rewards_that_are_always_zero():
    always_zero = of_rewards(0.0)
    found = names(run(**always_zero, probe=(0.0, 0.0)))
    assert found == ["zero-variance groups", "no reward"]


def test_rewards_that_are_zero_on_average_only_raise_nothing():
    penalties = of_rewards(0.0) | {"reward_std": 0.4, "zero_variance_groups": 0.1}
    assert names(run(**penalties, probe=(0.4, 0.4))) == []


def test_rewards_that_are_always_equal_have_no_variance_and_are_not_zero():
    always_equal = of_rewards(0.2)
    assert names(run(**always_equal, probe=(0.0, 0.0))) == ["zero-variance groups"]


def test_the_cure_of_zero_variance_groups_depends_on_why_rewards_are_equal():
    easy = check_alarms(run(zero_variance_groups=0.9, answer_accuracy=0.97))["zero-variance groups"]
    hard = check_alarms(run(zero_variance_groups=0.9, answer_accuracy=0.01))["zero-variance groups"]
    assert "too easy" in easy and "too hard" in hard


def test_a_reward_for_format_only_is_no_progress():
    form = {"reward": lambda step: 0.2 * step / LONG, "format_accuracy": lambda step: step / LONG}
    assert names(run(**form, answer_accuracy=0.1, probe=(0.1, 0.1))) == ["reward without answers"]


def test_rewards_after_the_newest_probe_are_not_held_against_it():
    records = [record for record in run(probe=(0.4, 0.4)) if record["step"] < 2 * WINDOW]
    assert names(records + [healthy(step) for step in range(2 * WINDOW, LONG)]) == []


def test_nothing_is_said_before_there_is_a_window():
    bad = {
        "zero_variance_groups": 1.0,
        "truncation_rate": 1.0,
        "preamble_rate": 1.0,
        "kl": 9.0,
        "reward": 0.0,
        "reward_std": 0.0,
    }
    assert names(run(WINDOW - 1, **bad)) == []
    assert names(run(WINDOW, **bad)) == [
        *("zero-variance groups", "no reward", "truncation", "KL", "preamble rate")
    ]


def test_what_is_compared_with_the_start_waits_for_a_second_window():
    bad = {"entropy": lambda step: 0.4 if step <= WINDOW else 0.0}
    assert names(run(2 * WINDOW - 1, **bad)) == []
    assert names(run(2 * WINDOW, **bad)) == ["entropy collapse"]


def test_a_figure_that_is_not_measured_raises_nothing():
    assert names(run(kl=None, entropy=None, answer_accuracy=None)) == []
    bare = [{"step": step, "reward": 0.5} for step in range(1, LONG)]
    assert names(bare) == []
    assert check_alarms([]) == {}


def test_a_resumed_run_may_compile_again():
    resumed_at = 2 * WINDOW
    once_more = {"compilations": lambda step: 9 if step - resumed_at in (1, 2) else 0}
    assert names(run(**once_more)[: resumed_at + 6]) == []
    assert names(run(6, compilations=1)) == ["recompiling"]


def announce(records: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Replay a run as the trainer does: only the record of a step is looked at, and then marked."""
    history: list[dict[str, Any]] = []
    said = []
    for record in records:
        history.append({key: value for key, value in record.items() if key != "alarms"})
        if "reward" in record:
            begun = list(new_alarms(history))
            history[-1]["alarms"] = begun
            said += [(record["step"], name) for name in begun]
    return said


def test_an_alarm_is_announced_once_and_again_after_it_cleared():
    bad = range(15, 25), range(45, 56)
    kl = run(80, kl=lambda step: 0.5 if any(step in steps for steps in bad) else 0.0)
    assert announce(kl) == [(21, "KL"), (51, "KL")]


def test_an_alarm_that_a_probe_sets_off_is_announced_with_the_next_step():
    said = announce(run(3 * WINDOW, probe=(0.4, 0.3), reward=lambda step: step / LONG))
    assert said == [(2 * WINDOW + 1, "reward without answers")]


def test_a_probe_may_set_an_alarm_off_again():
    records = run(6 * WINDOW, reward=lambda step: step / LONG, completion_tokens=60)
    for record in records:
        if "probe_accuracy" in record:
            record["probe_accuracy"] = {30: 0.9, 40: 0.9}.get(record["step"], 0.4)
    assert announce(records) == [(21, "reward without answers"), (51, "reward without answers")]


def test_an_alarm_that_was_never_announced_is_new():
    records = run(**{"kl": 1.0})
    assert list(new_alarms(records)) == ["KL"]
    for record in records[:-2]:
        record["alarms"] = ["KL"] if record["step"] == WINDOW else []
    assert new_alarms(records) == {}
