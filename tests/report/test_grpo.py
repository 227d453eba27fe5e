from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nblib.evaluation.paired import Paired
from nblib.report.grpo import grpo_lead, grpo_verdicts, rollout_samples

from nblib.training.session import Trained

TRAINED = Trained(steps=120, planned=150, resumed_at=0)
PAIRED = Paired(
    rate="answer_accuracy",
    n=400,
    both_right=150,
    only_first=10,
    only_second=50,
    neither=190,
    difference=0.10,
    ci95=(0.065, 0.1375),
    p_value=0.00015,
)


def stages(*, form=1.0, cut_before=0.01, cut_after=0.01):
    return {
        "base": {"format_accuracy": 0.9, "answer_accuracy": 0.4, "truncation_rate": cut_before},
        "tuned": {"format_accuracy": form, "answer_accuracy": 0.5, "truncation_rate": cut_after},
    }


def judged(*, gain_target=0.10, difference=0.10, p_value=0.01, **changes):
    paired = replace(PAIRED, difference=difference, p_value=p_value)
    return grpo_verdicts(stages(**changes), paired, gain_target=gain_target)


def test_all_targets_met_at_their_limits():
    verdicts = judged(form=0.98, cut_before=0.0, cut_after=0.02)
    assert [(v.name, v.target, v.measured, v.met) for v in verdicts] == [
        ("answer accuracy gained", "at least 0.1", "0.1", True),
        ("p, exact McNemar", "at most 0.01", "0.01", True),
        ("strict format, tuned", "at least 0.98", "0.98", True),
        ("truncation risen by", "at most 0.02", "0.02", True),
    ]


@pytest.mark.parametrize(
    ("place", "changes", "advice"),
    [
        (0, {"difference": 0.0975}, "NUM_STEPS"),
        (0, {"difference": -0.10}, "alarms"),
        (0, {"gain_target": 0.15}, "flat_groups"),
        (1, {"p_value": 0.011}, "EVAL_SAMPLES"),
        (2, {"form": 0.979}, "weight of the format"),
        (3, {"cut_after": 0.04}, "REWARD_TRUNCATED"),
    ],
)
def test_each_target_can_be_missed_alone(place, changes, advice):
    verdicts = judged(**changes)
    assert [v.met for v in verdicts] == [index != place for index in range(4)]
    assert advice in verdicts[place].advice


def test_truncation_is_judged_against_v1s():
    *_, rise = judged(cut_before=0.30, cut_after=0.31)
    assert rise.met and rise.measured == "0.01"


def test_the_lead_says_what_was_gained_and_how_sure_it_is():
    assert grpo_lead(stages(), PAIRED, TRAINED) == (
        "GRPO trained the policy for 120 of 150 steps (the session was over). Right "
        "answers went from 40.0% to 50.0% on the same 400 held-out questions: +10.0 points "
        "[+6.5, +13.8], exact McNemar p = 0.00015."
    )


def test_the_lead_shows_a_loss_with_its_sign():
    lost = replace(PAIRED, difference=-0.02, ci95=(-0.05, 0.01), p_value=0.25)
    assert ": -2.0 points [-5.0, +1.0], exact McNemar p = 0.25." in grpo_lead(
        stages(), lost, TRAINED
    )


def test_the_lead_without_an_evaluation():
    assert grpo_lead({}, None, TRAINED) == (
        "GRPO trained the policy for 120 of 150 steps (the session was over); "
        "nothing was evaluated (EVAL_AT_END is off)."
    )


def drawn(steps, *, each=4):
    return [{"step": step, "completion": f"{step}/{n}"} for step in steps for n in range(each)]


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [
        (range(1, 102), 6, [1, 21, 41, 61, 81, 101]),
        (range(1, 102), 2, [1, 101]),
        (range(1, 102), 1, [1]),
        ((2, 5, 9), 3, [2, 5, 9]),
        ((2, 5, 9), 6, [2, 5, 9]),
        ((7,), 6, [7]),
        ((9, 2, 5), 2, [2, 9]),
    ],
)
def test_samples_are_spread_from_the_first_step_to_the_last(steps, count, expected):
    assert [one["step"] for one in rollout_samples(drawn(steps), count=count, seed=0)] == expected


def test_samples_follow_their_seed():
    rollouts = drawn(range(1, 21), each=50)
    first = rollout_samples(rollouts, count=6, seed=0)
    assert rollout_samples(rollouts, count=6, seed=0) == first
    assert rollout_samples(rollouts, count=6, seed=1) != first


def test_samples_are_copies_and_none_of_nothing():
    rollouts = drawn((1,), each=1)
    (one,) = rollout_samples(rollouts, count=3, seed=0)
    one["completion"] = "changed"
    assert rollouts[0]["completion"] == "1/0"
    assert rollout_samples([], count=3, seed=0) == []
    assert rollout_samples(rollouts, count=0, seed=0) == []


@given(st.sets(st.integers(0, 500), min_size=1), st.integers(1, 30), st.integers(0, 9))
def test_samples_of_any_training(steps, count, seed):
    rollouts = drawn(steps, each=2)
    found = rollout_samples(rollouts, count=count, seed=seed)
    assert all(one in rollouts for one in found)
    shown = [one["step"] for one in found]
    assert shown == sorted(set(shown)) and len(shown) == min(count, len(steps))
    assert shown[0] == min(steps) and (count == 1 or shown[-1] == max(steps))
