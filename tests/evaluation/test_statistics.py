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
    influence,
    metric_figures,
    paired_by,
    paired_comparison,
    slot_figures,
    smallest_difference,
    stage_metrics,
    weighted_figures,
)
from nblib.files import to_jsonable
from nblib.tasks.extraction import EXTRACTION, score
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example, Metric

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


# Means of parts: a record counts by how many it has.


def weighted_records(pairs, metric="slot_f1"):
    """Return records with these values and weights of a metric, and nothing else to tell."""
    return [
        {"id": f"item/{place}", "reference": place, "schema_valid": True, "prose": False}
        | {metric: value, "weights": {metric: weight}}
        for place, (value, weight) in enumerate(pairs)
    ]


def test_a_record_counts_by_its_weight_in_a_mean_and_once_in_a_rate(slots):
    # 1 of 1, 6 of 12 and 0 of 3: 7 of 16; the mean of the three would be 1/2.
    pairs = weighted_records([(1.0, 1), (0.5, 12), (0.0, 3)])
    pairs[0] |= {"prose": True, "weights": {"slot_f1": 1, "prose": 100}}
    metrics = stage_metrics(pairs, slots)
    assert metrics["slot_f1"] == pytest.approx(7 / 16)
    assert metrics["prose"] == pytest.approx(1 / 3)
    low, high = metrics["slot_f1_ci95"]
    assert 0 <= low <= 7 / 16 <= high <= 1
    assert stage_metrics(pairs[::-1], slots) == metrics
    assert json.loads(json.dumps(metrics)) == metrics


def test_without_a_weight_a_record_counts_once(slots):
    pairs = weighted_records([(1.0, 5), (0.5, 5), (0.0, 5)])
    once = [{**one, "weights": weights} for one, weights in zip(pairs, ({}, None, {}), strict=True)]
    plain = [{name: value for name, value in one.items() if name != "weights"} for one in pairs]
    alike = [stage_metrics(records, slots) for records in (pairs, once, plain)]
    assert alike[0] == alike[1] == alike[2]
    assert alike[0]["slot_f1_ci95"] == list(mean_interval([1.0, 0.5, 0.0]))


def test_a_metric_whose_weights_are_all_0_is_none(slots):
    metrics = stage_metrics(weighted_records([(1.0, 0), (0.0, 0)]), slots)
    assert (metrics["slot_f1"], metrics["slot_f1_ci95"]) == (None, None)
    assert (metrics["n"], metrics["schema_valid"]) == (2, 1)
    metrics = stage_metrics(weighted_records([(1.0, 0), (0.25, 4), (0.0, 0)]), slots)
    assert metrics["slot_f1"] == pytest.approx(0.25)  # what weighs nothing counts nothing


def extraction_record(completion, reference):
    one = score(completion, Example(id="", prompt="", completion="", reference=reference))
    return {"weights": one.weights, "slots": one.slots, **one.values}


def test_slots_of_records_by_hand():
    records = [
        extraction_record('{"a": "x", "b": [1, 2]}', {"a": "x", "b": [1, 3]}),  # a 1; b 1, 1 wrong
        extraction_record('{"a": null}', {"a": "x"}),  # a 1 omitted
        extraction_record('{"a": "x"}', {"a": None}),  # a 1 invented
        extraction_record("oops", {"a": None, "b": [1, 2, 3]}),  # b 3 omitted
        extraction_record('{"c": null}', {"c": None}),
    ]
    metrics = stage_metrics(records, EXTRACTION)
    assert metrics["slot_precision"] == pytest.approx(2 / 4)
    assert metrics["slot_recall"] == pytest.approx(2 / 7)
    assert metrics["slot_f1"] == pytest.approx(4 / 11)
    assert metrics["list_recall"] == pytest.approx(1 / 5)
    assert metrics["invented"] == pytest.approx(1 / 2)  # of a and of c; one could not be read
    assert (metrics["grounded"], metrics["grounded_ci95"]) == (None, None)
    a, b, c = (metrics["slots"][name] for name in "abc")
    assert (a["n"], a["precision"], a["recall"], a["f1"]) == (2, 1 / 2, 1 / 2, 1 / 2)
    assert (b["n"], b["precision"], b["recall"], b["f1"]) == (5, 1 / 2, 1 / 5, pytest.approx(2 / 7))
    assert (c["n"], c["precision"], c["recall"], c["f1"]) == (0, None, None, None)
    assert (a["omitted"], a["invented"], b["wrong"], c["true_null"]) == (1, 1, 1, 1)
    assert c["f1_ci95"] is None and b["f1_ci95"][0] <= b["f1"] <= b["f1_ci95"][1]
    assert "slots" not in stage_metrics([{**one, "slots": {}} for one in records], EXTRACTION)
    assert json.loads(json.dumps(metrics)) == metrics


COUNTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("correct", "wrong", "omitted", "invented"), st.integers(0, 9))
)


@settings(max_examples=50, deadline=None)
@given(st.lists(COUNTS, min_size=1, max_size=20))
def test_figures_of_a_slot_are_those_of_its_sums(records):
    (figures,) = slot_figures({"a": records}).values()
    sums = {
        name: sum(one.get(name, 0) for one in records)
        for name in ("correct", "wrong", "omitted", "invented")
    }
    answered = sums["correct"] + sums["wrong"] + sums["invented"]
    expected = sums["correct"] + sums["wrong"] + sums["omitted"]
    assert figures["n"] == expected
    both = answered + expected
    for name, of in (("precision", answered), ("recall", expected), ("f1", both)):
        right = sums["correct"] * (2 if name == "f1" else 1)
        assert figures[name] == (pytest.approx(right / of) if of else None)
        low, high = figures[f"{name}_ci95"] or (None, None)
        assert (
            (low is None)
            if not of
            else (0 <= low <= figures[name] + 1e-9 <= high + 2e-9 <= 1 + 2e-9)
        )
    if figures["precision"] and figures["recall"]:
        mean = 2 / (1 / figures["precision"] + 1 / figures["recall"])
        assert figures["f1"] == pytest.approx(mean)


WEIGHTED = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 30).map(float)), min_size=1, max_size=30
)


def ratio(values):
    whole = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / whole if whole else 0.0


@given(WEIGHTED)
def test_the_mean_of_the_influences_is_the_weighted_mean(values):
    shares = influence(values)
    assert sum(shares) / len(shares) == pytest.approx(ratio(values), abs=1e-9)
    doubled = influence([(value, 2 * weight) for value, weight in values])
    assert doubled == pytest.approx(shares)  # weights count by their proportions
    if len({weight for _, weight in values}) == 1 and values[0][1]:
        assert shares == [value for value, _ in values]


def test_influences_by_hand():
    # R = 0.25; 2 * w (v - R) / 4: 0.5 * 0.75 and 1.5 * -0.25.
    assert influence([(1.0, 1), (0.0, 3)]) == pytest.approx([0.625, -0.125])
    assert influence([(0.5, 0), (0.2, 7)]) == pytest.approx([0.2, 0.2])


def simulated(rng, n, gain=0.0):
    """Return values and weights of records: the larger ones are the harder ones."""
    sizes = rng.choice([1, 2, 3, 20], size=n, p=[0.3, 0.3, 0.3, 0.1])
    chances = np.where(sizes == 20, 0.3, 0.8) + gain
    chances = np.clip(chances + rng.normal(0, 0.1, n), 0, 1)
    return [(float(rng.binomial(k, p) / k), float(k)) for k, p in zip(sizes, chances, strict=True)]


def test_the_interval_of_a_weighted_mean_covers_it_and_that_of_a_plain_one_does_not():
    rng = np.random.default_rng(0)
    truth = ratio(simulated(rng, 400_000))
    covered, plain, runs = 0, 0, 200
    for _ in range(runs):
        values = simulated(rng, 80)
        low, high = weighted_figures(F1, values)["f1_ci95"]
        covered += low <= truth <= high
        low, high = metric_figures(F1, [value for value, _ in values])["f1_ci95"]
        plain += low <= truth <= high
    assert 0.88 <= covered / runs <= 0.99  # 0.95 is meant
    assert plain / runs < 0.2  # it is about the mean of the records


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 12))
def test_paired_the_difference_is_that_of_the_pooled_ratios(data, count):
    sides = [
        data.draw(
            st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30)), min_size=count, max_size=count)
        )
        for _ in range(2)
    ]
    first, second = (weighted_records(side, "f1") for side in sides)
    paired = paired_comparison(first, second, F1)
    assert paired.difference == pytest.approx(ratio(sides[1]) - ratio(sides[0]), abs=1e-9)
    assert paired.ci95[0] <= paired.difference <= paired.ci95[1]
    assert (paired.p_value < 0.05) == (not paired.ci95[0] <= 0 <= paired.ci95[1])
    back = paired_comparison(second, first, F1)
    assert back.difference == pytest.approx(-paired.difference)
    assert paired_comparison(first[::-1], second, F1).difference == pytest.approx(paired.difference)
    values, others = ([value for value, _ in side] for side in sides)
    higher = sum(b > a for a, b in zip(values, others, strict=True))
    assert (paired.n, paired.only_second) == (count, higher)


def test_paired_a_difference_of_ratios_is_found_about_as_often_as_it_should():
    rng, runs = np.random.default_rng(1), 100
    wrong, found = 0, 0
    for _ in range(runs):
        first, same, better = (
            weighted_records(simulated(rng, 80, gain), "f1") for gain in (0.0, 0.0, 0.3)
        )
        wrong += paired_comparison(first, same, F1).p_value < 0.05
        found += paired_comparison(first, better, F1).p_value < 0.05
    assert wrong / runs <= 0.12  # 0.05 is meant
    assert found / runs >= 0.8
