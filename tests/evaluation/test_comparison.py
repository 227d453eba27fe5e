"""Several stages compared: by hand, and against statsmodels on random tables."""

import json

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from nblib.evaluation.comparison import (
    compare_stages,
    comparison_lead,
    comparison_metrics,
    failure_counts,
    failure_kind,
    holm,
    schema_failures,
)
from nblib.evaluation.evaluate import score_stage
from nblib.evaluation.metrics import rate_metrics
from nblib.evaluation.paired import paired_comparison
from nblib.files import to_jsonable
from nblib.tasks.gsm8k import GSM8K

RIGHT, WRONG, PLAIN = (
    "<reasoning>so</reasoning><answer>4</answer>",
    "<reasoning>so</reasoning><answer>5</answer>",
    "It is 4",
)


def stage(name, completions, **fields):
    answers = [
        {
            "id": f"item/{index}",
            "question": "How many pens " + "and more " * index,
            "completion": completion,
            "reference": "4",
            "level": 1 + index % 2,
        }
        | fields
        for index, completion in enumerate(completions)
    ]
    return score_stage(name, answers, GSM8K)


def three_stages():
    return (
        stage("base", [PLAIN, PLAIN, "5", "none"]),
        stage("sft", [RIGHT, WRONG, WRONG, WRONG]),
        stage("grpo", [RIGHT, RIGHT, RIGHT, WRONG]),
    )


def test_every_earlier_stage_against_the_last_in_both_rates():
    compared = compare_stages(three_stages())
    assert (compared.base, compared.tuned) == ("base", "grpo")
    assert [(gain.over, gain.paired.rate, gain.paired.difference) for gain in compared.gains] == [
        ("base", "answer_accuracy", 0.75),  # in the form the base has none
        ("sft", "answer_accuracy", 0.5),
        ("base", "lenient_accuracy", 0.25),  # but it knew two of four
        ("sft", "lenient_accuracy", 0.5),
    ]


def test_groups_by_level_and_by_length_hold_every_item_once():
    compared = compare_stages(three_stages())
    assert {level: one.n for level, one in compared.by_level.items()} == {1: 2, 2: 2}
    assert {name: one.n for name, one in compared.by_length.items()} == {
        "3 to 4 words": 1,
        "5 to 6 words": 1,
        "7 to 8 words": 1,
        "9 to 9 words": 1,
    }


def test_questions_of_one_length_are_one_group():
    same = [stage(name, [PLAIN] * 5, question="How many?") for name in ("a", "b")]
    compared = compare_stages(same)
    assert {name: one.n for name, one in compared.by_length.items()} == {"2 to 2 words": 5}
    assert compared.gains[0].paired.p_value == 1.0


def test_right_given_the_form_leaves_out_a_stage_without_the_form():
    given = compare_stages(three_stages()).given_format
    assert list(given) == ["sft", "grpo"]
    assert (given["sft"]["n"], given["sft"]["answer_accuracy"]) == (4, 0.25)


def test_regressions_name_the_item_and_the_stage_that_had_it():
    stages = (stage("base", [PLAIN, PLAIN]), stage("sft", [WRONG, RIGHT]))
    assert compare_stages(stages).regressions == (("item/0", "base"),)


@pytest.mark.parametrize("names", [["one"], ["one", "one"]])
def test_one_stage_or_one_name_is_refused(names):
    with pytest.raises(ValueError, match="expected at least two, each with its own name"):
        compare_stages([stage(name, [RIGHT]) for name in names])


def test_failures_by_the_first_rule_a_cut_text_is_truncated():
    (cut,) = stage("x", ["<reasoning>so"], truncated=True).records
    assert failure_kind(cut) == "truncated"
    (whole,) = stage("x", [RIGHT], truncated=True).records
    assert failure_kind(whole) is None
    counts = failure_counts(three_stages())
    assert counts == {
        "base": {"missing tag": 4, "wrong answer": 0},
        "sft": {"missing tag": 0, "wrong answer": 3},
        "grpo": {"missing tag": 0, "wrong answer": 1},
    }


def test_schema_failures_are_those_of_the_form_alone():
    unreadable = "<reasoning>so</reasoning><answer>four</answer>"
    failures = schema_failures([stage("sft", [RIGHT, WRONG, PLAIN, unreadable])])
    assert [(one["id"], one["broke"]) for one in failures] == [
        ("item/2", "missing tag"),
        ("item/3", "unreadable number"),
    ]
    assert failures[0]["completion"] == PLAIN


def test_answers_that_do_not_say_whether_they_were_cut():
    stages = (stage("file", [PLAIN, RIGHT]), stage("other", [RIGHT, RIGHT]))
    for each in stages:
        assert each.metrics["truncation_rate"] is None
        assert each.metrics["truncation_rate_ci95"] is None
        assert [record["truncated"] for record in each.records] == [None, None]
    content = to_jsonable(comparison_metrics(compare_stages(stages), stages))
    assert content["tuned"]["truncation_rate"] is None
    assert failure_counts(stages)["file"] == {"missing tag": 1}


def test_the_file_names_base_and_tuned_and_is_json():
    stages = three_stages()
    content = to_jsonable(comparison_metrics(compare_stages(stages), stages, settings={"k": 1}))
    assert json.loads(json.dumps(content)) == content
    assert (content["base"]["stage"], content["tuned"]["stage"]) == ("base", "grpo")
    assert content["tuned"]["answer_accuracy"] == 0.75
    assert content["paired"]["gains"][0]["p_holm"] <= 1
    assert content["settings"] == {"k": 1}


def test_the_lead_says_what_the_form_hides():
    stages = three_stages()
    said = comparison_lead(compare_stages(stages), stages)
    assert "from 0.0% (base) to 100.0% (grpo) on the same 4 held-out questions" in said
    assert "changed by +25.0 points" in said and "from 50.0% to 75.0%" in said


def test_a_hundred_random_tables_agree_with_statsmodels():
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(1, 200))
        first, second = rng.random((2, n)) < rng.random((2, 1))
        pairs = [
            [
                {"id": str(index), "reference": "4", "correct": bool(flag)}
                for index, flag in enumerate(flags)
            ]
            for flags in (first, second)
        ]
        paired = paired_comparison(*pairs)
        table = [
            [int((first & second).sum()), int((first & ~second).sum())],
            [int((~first & second).sum()), int((~first & ~second).sum())],
        ]
        assert [[paired.both_right, paired.only_first], [paired.only_second, paired.neither]] == (
            table
        )
        assert paired.p_value == pytest.approx(mcnemar(table, exact=True).pvalue)
        wilson = proportion_confint(int(first.sum()), n, method="wilson")
        assert rate_metrics("r", first.tolist())["r_ci95"] == pytest.approx(wilson, abs=1e-12)


def test_holm_agrees_with_statsmodels():
    rng = np.random.default_rng(1)
    for count in range(1, 101, 9):
        values = rng.random(count) ** 3
        expected = multipletests(values, method="holm")[1]
        assert holm(values.tolist()) == pytest.approx(expected)
    assert holm([]) == []
