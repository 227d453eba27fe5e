"""Records counted by hand, and two stages paired, against statsmodels on random tables."""

import json
import subprocess
import sys
from math import inf, sqrt
from operator import itemgetter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from nblib.evaluation.intervals import mean_difference_test, mean_interval, smallest_detectable
from nblib.evaluation.statistics import (
    holm,
    in_order,
    metric_figures,
    paired_by,
    paired_comparison,
    smallest_difference,
    stage_metrics,
)
from nblib.files import to_jsonable
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Metric

NAMES = GSM8K.metric_names
NOTHING = dict.fromkeys(NAMES, False) | {"truncated": False}
RIGHT = GSM8K.metric("answer_accuracy")
F1 = Metric(name="f1", meaning="F1 of the slots", kind="mean")


def test_every_metric_of_the_task_has_its_interval_and_truncation_too():
    names = (*NAMES, "truncation_rate")
    expected = {"n", *names, *(f"{name}_ci95" for name in names)}
    assert set(stage_metrics([NOTHING], GSM8K)) == expected


@pytest.mark.parametrize("name", [*NAMES, "truncated"])
def test_each_rate_counts_its_own_values(name: str):
    metrics = stage_metrics([NOTHING | {name: True}, NOTHING, NOTHING, NOTHING], GSM8K)
    assert metrics["n"] == 4
    rates = {each: metrics[each] for each in (*NAMES, "truncation_rate")}
    counted = "truncation_rate" if name == "truncated" else name
    assert rates == {each: 0.25 if each == counted else 0.0 for each in rates}


def wilson(rate: float, n: int, z: float = 1.959963984540054) -> list[float]:
    centre = rate + z * z / (2 * n)
    half = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_interval_is_wilsons_holds_its_rate_and_is_plain_json(hits: list[bool]):
    metrics = stage_metrics([NOTHING | {"format_accuracy": hit} for hit in hits], GSM8K)
    low, high = metrics["format_accuracy_ci95"]
    assert type(low) is type(high) is float  # a numpy scalar would print as one in tables
    assert 0 <= low <= metrics["format_accuracy"] <= high <= 1
    assert [low, high] == pytest.approx(wilson(sum(hits) / len(hits), len(hits)), abs=1e-9)
    assert json.loads(json.dumps(metrics)) == metrics


def test_a_mean_has_the_bootstraps_interval_and_a_rate_better_low_is_a_rate(slots):
    values = [1.0, 0.5, 0.5, 0, 1]
    records = [{"slot_f1": value, "schema_valid": True, "prose": False} for value in values]
    metrics = stage_metrics(records, slots)
    assert (metrics["n"], metrics["slot_f1"]) == (5, 0.6)
    assert metrics["slot_f1_ci95"] == list(mean_interval(values))
    assert metrics["prose_ci95"] == pytest.approx(wilson(0, 5), abs=1e-9)
    assert (metrics["truncation_rate"], metrics["truncation_rate_ci95"]) == (None, None)
    assert stage_metrics(records[::-1], slots) == metrics
    assert json.loads(json.dumps(metrics)) == metrics


def test_no_records_are_an_error():
    with pytest.raises(ValueError, match="0 records"):
        stage_metrics([], GSM8K)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slot_f1": 1.5}, "item 'a': slot_f1 is 1.5, expected a number in 0..1"),
        ({"slot_f1": float("nan")}, "slot_f1 is nan"),
        ({"slot_f1": True}, "slot_f1 is True, expected a number in 0..1"),
        ({"slot_f1": None}, "slot_f1 is None"),
        ({"prose": 0.5}, "prose is 0.5, expected true or false"),
        ({"prose": 1}, "prose is 1, expected true or false"),
        ({"truncated": "no"}, "truncated is 'no', expected true or false"),
    ],
)
def test_a_value_that_a_metric_cannot_have_is_named_with_its_item(slots, change, message):
    record = {"id": "a", "slot_f1": 0.5, "schema_valid": True, "prose": False}
    with pytest.raises(ValueError, match=message):
        stage_metrics([record, record | change], slots)


def test_of_what_is_unknown_of_one_record_there_is_no_rate():
    metrics = stage_metrics([NOTHING, NOTHING | {"truncated": None}], GSM8K)
    assert (metrics["truncation_rate"], metrics["truncation_rate_ci95"]) == (None, None)
    assert metrics["preamble_rate"] == 0.0
    assert json.loads(json.dumps(metrics)) == metrics


def test_counting_needs_neither_numpy_nor_scipy():
    code = "import sys, nblib.evaluation.statistics; print({'numpy', 'scipy'} & {*sys.modules})"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"set()\n"


def test_groups_are_in_order_of_their_numbers():
    assert in_order(["10", "9.5", "-1", "2"]) == ["-1", "2", "9.5", "10"]
    assert in_order(["9 to 10 words", "20 to 31 words"]) == ["9 to 10 words", "20 to 31 words"]
    assert in_order(["b", "", "a", "3", "a10", "a9"]) == ["", "3", "a", "a9", "a10", "b"]


def records(values, metric=RIGHT, groups=None):
    return [
        {"id": f"item/{index}", "reference": str(index), metric.name: value, "group": group}
        for index, (value, group) in enumerate(
            zip(values, groups or [""] * len(values), strict=True)
        )
    ]


def two_stages(both, only_first, only_second, neither):
    pairs = [(True, True)] * both + [(True, False)] * only_first
    pairs += [(False, True)] * only_second + [(False, False)] * neither
    first, second = zip(*pairs, strict=True)
    return records(first), records(second)


def test_counts_difference_and_p_by_hand():
    # 1 against 5 of 6: 2 (C(6,0) + C(6,1)) / 2^6 = 14/64.
    paired = paired_comparison(*two_stages(3, 1, 5, 1), RIGHT)
    assert (paired.n, paired.metric, paired.kind) == (10, "answer_accuracy", "rate")
    assert (paired.both_right, paired.only_first) == (3, 1)
    assert (paired.only_second, paired.neither) == (5, 1)
    assert paired.difference == pytest.approx(0.4)  # 8 of 10 against 4 of 10
    assert paired.p_value == pytest.approx(14 / 64)


def test_a_mean_by_hand():
    first, second = [0.5, 1.0, 0.0, 0.25], [1.0, 1.0, 0.5, 0.0]
    paired = paired_comparison(records(first, F1), records(second, F1), F1)
    assert (paired.metric, paired.kind, paired.n) == ("f1", "mean", 4)
    assert (paired.only_first, paired.only_second) == (1, 2)
    assert (paired.both_right, paired.neither) == (None, None)
    assert paired.difference == pytest.approx((0.5 + 0 + 0.5 - 0.25) / 4)
    assert (paired.ci95, paired.p_value) == mean_difference_test([0.5, 0, 0.5, -0.25])
    assert json.loads(json.dumps(to_jsonable(paired))) == to_jsonable(paired)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any), st.randoms(use_true_random=False))
def test_swapped_stages_and_another_order_of_the_items(table, random):
    first, second = two_stages(*table)
    paired = paired_comparison(first, second, RIGHT)
    back = paired_comparison(second, first, RIGHT)
    assert back.difference == -paired.difference
    assert back.p_value == pytest.approx(paired.p_value)
    assert (back.only_first, back.only_second) == (paired.only_second, paired.only_first)
    assert paired.ci95[0] <= paired.difference <= paired.ci95[1]
    random.shuffle(second)
    assert paired_comparison(first, second, RIGHT) == paired


def test_a_hundred_random_tables_agree_with_statsmodels():
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(1, 200))
        first, second = rng.random((2, n)) < rng.random((2, 1))
        paired = paired_comparison(records(first.tolist()), records(second.tolist()), RIGHT)
        table = [
            [int((first & second).sum()), int((first & ~second).sum())],
            [int((~first & second).sum()), int((~first & ~second).sum())],
        ]
        assert [[paired.both_right, paired.only_first], [paired.only_second, paired.neither]] == (
            table
        )
        assert paired.p_value == pytest.approx(mcnemar(table, exact=True).pvalue)
        found = metric_figures(RIGHT, first.tolist())["answer_accuracy_ci95"]
        expected = proportion_confint(int(first.sum()), n, method="wilson")
        assert found == pytest.approx(expected, abs=1e-12)


def test_other_items_are_refused_by_name():
    both = records([True, False, True])
    for first, second, message in (
        (both, both[:2], r"second stage lacks 1 items .* 'item/2'"),
        (both[:2], both, r"first stage lacks 1 items .* 'item/2'"),
        (both, [*both, both[1]], "'item/1' repeats in the second stage"),
        (
            both,
            [both[0], {**both[1], "reference": "7"}, both[2]],
            r"'item/1' has the reference '1' .* '7' in the second",
        ),
        ([], both, "first stage has no records"),
    ):
        with pytest.raises(ValueError, match=message):
            paired_comparison(first, second, RIGHT)
    with pytest.raises(ValueError, match="'item/0': f1 is None, expected a number"):
        paired_comparison(both, both, F1)


def test_by_group_lowest_first_and_without_items_of_none():
    groups = ["10", "9", "10", "", "9"]
    first = records([False, False, True, True, True], groups=groups)
    second = records([True, False, True, False, True], groups=groups)
    by_group = paired_by(itemgetter("group"), first, second[::-1], RIGHT)
    assert list(by_group) == ["9", "10"]
    assert [(one.n, one.only_second, one.both_right) for one in by_group.values()] == [
        (2, 0, 1),
        (2, 1, 1),
    ]
    with pytest.raises(ValueError, match="lacks"):
        paired_by(itemgetter("group"), first, second[1:], RIGHT)


def test_it_goes_into_json_as_it_is():
    content = to_jsonable(paired_comparison(*two_stages(3, 1, 5, 1), RIGHT))
    assert json.loads(json.dumps(content)) == content
    assert content["ci95"] == list(content["ci95"])


def test_smallest_difference_goes_by_how_far_the_stages_differ():
    stages = two_stages(300, 40, 60, 0)
    assert smallest_difference(*stages, RIGHT) == smallest_detectable(400, 0.25)
    same = two_stages(400, 0, 0, 0)
    assert smallest_difference(*same, RIGHT) == smallest_detectable(400, 1 / 400) == inf
    halves = records([0.5] * 100, F1)
    # All differences are 0: what is left are the -1 and 1 of the test, sqrt(2 / 101).
    expected = smallest_detectable(100, sqrt(2 / 101), kind="mean")
    assert smallest_difference(halves, halves, F1) == pytest.approx(expected)


def test_holm_agrees_with_statsmodels():
    rng = np.random.default_rng(1)
    for count in range(1, 101, 9):
        values = rng.random(count) ** 3
        expected = multipletests(values, method="holm")[1]
        assert holm(values.tolist()) == pytest.approx(expected)
    assert holm([]) == []
