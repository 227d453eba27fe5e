"""Rates and their Wilson intervals, by hand."""

import json
import subprocess
import sys
from dataclasses import replace
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nblib.evaluation.metrics import RATES, ScoreCounter, stage_metrics
from nblib.tasks.scoring import Score

NOTHING = Score(
    format=False,
    tag_order=False,
    extractable=False,
    correct=False,
    joint=False,
    preamble=False,
    truncated=False,
    answer=None,
    failure="missing tag",
)


def test_the_contract_names_its_rates():
    assert RATES == (
        "format_accuracy",
        "tag_order_accuracy",
        "answer_extractable",
        "answer_accuracy",
        "joint_accuracy",
        "preamble_rate",
        "truncation_rate",
    )
    expected = {"n", *RATES, *(f"{rate}_ci95" for rate in RATES)}
    assert set(stage_metrics([NOTHING])) == expected


@pytest.mark.parametrize(
    ("rate", "field"),
    [
        ("format_accuracy", "format"),
        ("tag_order_accuracy", "tag_order"),
        ("answer_extractable", "extractable"),
        ("answer_accuracy", "correct"),
        ("joint_accuracy", "joint"),
        ("preamble_rate", "preamble"),
        ("truncation_rate", "truncated"),
    ],
)
def test_each_rate_counts_its_own_field(rate: str, field: str):
    one_of_four = [replace(NOTHING, **{field: True}), NOTHING, NOTHING, NOTHING]
    metrics = stage_metrics(one_of_four)
    assert metrics["n"] == 4
    assert {name: metrics[name] for name in RATES} == {
        name: 0.25 if name == rate else 0.0 for name in RATES
    }


def test_interval_of_a_published_run():
    # 58 of 400 correct: scoring notes of the public GRPO demo, 14.5 % [11.4, 18.3].
    scores = [replace(NOTHING, correct=index < 58) for index in range(400)]
    assert stage_metrics(scores)["answer_accuracy_ci95"] == pytest.approx([0.114, 0.183], abs=5e-4)


def wilson(rate: float, n: int, z: float = 1.959963984540054) -> list[float]:
    centre = rate + z * z / (2 * n)
    half = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_interval_is_wilsons_holds_its_rate_and_is_plain_json(hits: list[bool]):
    metrics = stage_metrics([replace(NOTHING, format=hit) for hit in hits])
    low, high = metrics["format_accuracy_ci95"]
    assert type(low) is type(high) is float  # a numpy scalar would print as one in tables
    assert 0 <= low <= metrics["format_accuracy"] <= high <= 1
    assert [low, high] == pytest.approx(wilson(sum(hits) / len(hits), len(hits)), abs=1e-9)
    assert json.loads(json.dumps(metrics)) == metrics


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1319])
def test_interval_is_scipys(n: int):
    for hits in {0, 1, n // 3, n // 2, n - 1, n}:
        scores = (replace(NOTHING, format=index < hits) for index in range(n))
        expected = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
        low, high = stage_metrics(scores)["format_accuracy_ci95"]
        assert [low, high] == pytest.approx([expected.low, expected.high], abs=1e-12)
        assert (low == 0, high == 1) == (hits == 0, hits == n)


def test_no_scores_are_an_error():
    with pytest.raises(ValueError, match="0 scores"):
        stage_metrics([])
    with pytest.raises(ValueError, match="0 scores"):
        ScoreCounter().metrics()


def test_a_counter_gives_the_metrics_of_the_scores_so_far():
    scores = [replace(NOTHING, format=index % 3 == 0) for index in range(7)]
    counter = ScoreCounter()
    for n, one in enumerate(scores, start=1):
        counter.add(one)
        assert counter.n == n
        assert counter.metrics() == stage_metrics(scores[:n])


def test_failures_are_counted_the_most_frequent_first():
    counter = ScoreCounter()
    for failure in ("wrong answer", None, "order", "wrong answer", None, None, "missing tag"):
        counter.add(replace(NOTHING, failure=failure))
    expected = {"wrong answer": 2, "missing tag": 1, "order": 1}
    assert list(counter.failures().items()) == list(expected.items())


def test_counting_needs_no_scipy():
    code = "import sys, nblib.evaluation.metrics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_of_what_is_unknown_of_one_score_there_is_no_rate():
    metrics = stage_metrics([NOTHING, replace(NOTHING, truncated=None)])
    assert (metrics["truncation_rate"], metrics["truncation_rate_ci95"]) == (None, None)
    assert metrics["preamble_rate"] == 0.0
    assert json.loads(json.dumps(metrics)) == metrics
