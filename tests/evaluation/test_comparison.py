"""Several stages compared, by hand."""

import json

import pytest

from nblib.evaluation.answers import score_answers
from nblib.evaluation.candidates import Candidate
from nblib.evaluation.comparison import (
    comparable,
    compare_stages,
    comparison_metrics,
    confusion,
    failure_counts,
    failure_kind,
    first_items,
    paired_by_group,
    schema_failures,
)
from nblib.files import to_jsonable
from nblib.tasks.extraction import EXTRACTION
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
            "group": str(1 + index % 2),
        }
        | fields
        for index, completion in enumerate(completions)
    ]
    return score_answers(name, answers, GSM8K)


def three_stages():
    return (
        stage("base", [PLAIN, PLAIN, "5", "none"]),
        stage("sft", [RIGHT, WRONG, WRONG, WRONG]),
        stage("grpo", [RIGHT, RIGHT, RIGHT, WRONG]),
    )


def test_every_earlier_stage_against_the_last_in_both_rates():
    compared = compare_stages(three_stages(), GSM8K)
    assert (compared.base, compared.tuned) == ("base", "grpo")
    assert [(gain.over, gain.paired.metric, gain.paired.difference) for gain in compared.gains] == [
        ("base", "answer_accuracy", 0.75),  # in the form the base has none
        ("sft", "answer_accuracy", 0.5),
        ("base", "lenient_accuracy", 0.25),  # but it knew two of four
        ("sft", "lenient_accuracy", 0.5),
    ]


def test_the_gain_of_all_items_stands_before_those_of_the_groups():
    gains = paired_by_group(three_stages(), GSM8K)
    assert [(name, one.n, one.difference) for name, one in gains.items()] == [
        *(("all", 4, 0.75), ("1", 2, 1.0), ("2", 2, 0.5))
    ]
    assert paired_by_group((), GSM8K) == {}


def test_by_group_and_by_length_hold_every_item_once():
    compared = compare_stages(three_stages(), GSM8K)
    assert {group: one.n for group, one in compared.by_group.items()} == {"1": 2, "2": 2}
    assert {name: one.n for name, one in compared.by_length.items()} == {
        "3 to 4 words": 1,
        "5 to 6 words": 1,
        "7 to 8 words": 1,
        "9 to 9 words": 1,
    }


def test_questions_of_one_length_are_one_group():
    same = [stage(name, [PLAIN] * 5, question="How many?") for name in ("a", "b")]
    compared = compare_stages(same, GSM8K)
    assert {name: one.n for name, one in compared.by_length.items()} == {"2 to 2 words": 5}
    assert compared.gains[0].paired.p_value == 1.0


def test_right_given_the_form_leaves_out_a_stage_without_the_form():
    given = compare_stages(three_stages(), GSM8K).given_form
    assert list(given) == ["sft", "grpo"]
    assert (given["sft"]["n"], given["sft"]["answer_accuracy"]) == (4, 0.25)


def test_regressions_name_the_item_and_the_stage_that_had_it():
    stages = (stage("base", [PLAIN, PLAIN]), stage("sft", [WRONG, RIGHT]))
    assert compare_stages(stages, GSM8K).regressions == (("item/0", "base"),)


@pytest.mark.parametrize("names", [["one"], ["one", "one"]])
def test_one_stage_or_one_name_is_refused(names):
    with pytest.raises(ValueError, match="expected at least two, each with its own name"):
        compare_stages([stage(name, [RIGHT]) for name in names], GSM8K)


def test_failures_by_the_first_rule_a_cut_text_is_truncated():
    (cut,) = stage("x", ["<reasoning>so"], truncated=True).records
    assert failure_kind(cut, GSM8K) == "truncated"
    (whole,) = stage("x", [RIGHT], truncated=True).records
    assert failure_kind(whole, GSM8K) is None
    counts = failure_counts(three_stages(), GSM8K)
    assert counts == {
        "base": {"missing tag": 4, "wrong answer": 0},
        "sft": {"missing tag": 0, "wrong answer": 3},
        "grpo": {"missing tag": 0, "wrong answer": 1},
    }


def test_schema_failures_are_those_of_the_form_alone():
    unreadable = "<reasoning>so</reasoning><answer>four</answer>"
    failures = schema_failures([stage("sft", [RIGHT, WRONG, PLAIN, unreadable])], GSM8K)
    assert [(one["id"], one["broke"]) for one in failures] == [
        ("item/2", "missing tag"),
        ("item/3", "unreadable number"),
    ]
    assert failures[0]["completion"] == PLAIN
    percent = stage("sft", ["<reasoning>so</reasoning><answer>4%</answer>"])
    assert schema_failures([percent], GSM8K)[0]["details"] == {"right_without_percent_sign": True}


def test_answers_that_do_not_say_whether_they_were_cut():
    stages = (stage("file", [PLAIN, RIGHT]), stage("other", [RIGHT, RIGHT]))
    for each in stages:
        assert each.metrics["truncation_rate"] is None
        assert each.metrics["truncation_rate_ci95"] is None
        assert [record["truncated"] for record in each.records] == [None, None]
    content = to_jsonable(comparison_metrics(compare_stages(stages, GSM8K), stages, GSM8K))
    assert content["tuned"]["truncation_rate"] is None
    assert failure_counts(stages, GSM8K)["file"] == {"missing tag": 1}


def test_the_file_names_base_and_tuned_and_is_json():
    stages = three_stages()
    compared = compare_stages(stages, GSM8K)
    content = to_jsonable(comparison_metrics(compared, stages, GSM8K, settings={"k": 1}))
    assert json.loads(json.dumps(content)) == content
    assert (content["base"]["stage"], content["tuned"]["stage"]) == ("base", "grpo")
    assert content["tuned"]["answer_accuracy"] == 0.75
    assert content["paired"]["gains"][0]["p_holm"] <= 1
    assert content["failures"]["sft"] == {"missing tag": 0, "wrong answer": 3}
    assert (content["forgetting"], content["settings"]) == ([], {"k": 1})


def slot_stage(slots, name, completions):
    answers = [
        {"id": f"item/{index}", "question": "q", "group": f"kind {10 - index}"}
        | {"completion": completion, "reference": {"x": 1}}
        for index, completion in enumerate(completions)
    ]
    return score_answers(name, answers, slots)


def test_a_task_with_a_mean_and_no_fallback_is_compared_in_its_headline(slots):
    base = slot_stage(slots, "base", ['{"x": 1}', "x is 1", '{"x": 1, "y": 2}'])
    tuned = slot_stage(slots, "tuned", ['{"x": 2}', '{"x": 1}', '{"x": 1, "y": 2}'])
    compared = compare_stages((base, tuned), slots)
    (gain,) = compared.gains
    assert (compared.metric, gain.paired.metric, gain.paired.kind) == ("slot_f1", "slot_f1", "mean")
    assert (gain.paired.only_first, gain.paired.only_second) == (1, 1)
    assert gain.paired.difference == 0 and gain.p_holm == gain.paired.p_value > 0.9
    assert list(compared.by_group) == ["kind 8", "kind 9", "kind 10"]
    assert compared.given_form["base"]["n"] == 2
    assert compared.given_form["base"]["slot_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert compared.regressions == (("item/0", "base"),)
    assert compared.smallest == float("inf")  # three items could not show anything
    failures = schema_failures((base, tuned), slots)
    assert [(one["id"], one["stage"], one["broke"]) for one in failures] == [
        ("item/1", "base", "no object")
    ]
    assert failures[0]["details"] == {"right": 0, "empty": False}
    assert failure_counts((base, tuned), slots)["tuned"] == {"wrong slots": 2, "no object": 0}
    content = to_jsonable(comparison_metrics(compared, (base, tuned), slots))
    assert json.loads(json.dumps(content)) == content


def items(name, ids=("a", "b", "c"), **fields):
    answers = [
        {
            "id": id_,
            "question": f"question {id_}",
            "prompt": f"prompt {id_}",
            "completion": "<reasoning>so</reasoning><answer>4</answer>",
            "reference": "4",
            "max_new_tokens": 64,
        }
        | fields
        for id_ in ids
    ]
    return score_answers(name, answers, GSM8K)


def made_comparable(*stages, from_files=(), allow_mismatch=False):
    sources = {name: "p.jsonl" for name in from_files}
    candidates = [Candidate(name=s.name, source=sources.get(s.name, "m")) for s in stages]
    return comparable(stages, GSM8K, candidates, allow_mismatch=allow_mismatch)


def test_the_same_items_pass_as_they_are():
    one, two = items("one"), items("two")
    assert made_comparable(one, two, from_files=["two"]) == ((one, two), ())


def test_models_asked_here_may_have_prompts_of_their_own():
    assert made_comparable(items("one"), items("two", prompt="another"))[1] == ()


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"prompt": "another"}, "one and two: 3 items have another prompt, such as 'a'"),
        ({"max_new_tokens": 65}, "one and two: max_new_tokens is 64, and 65"),
        ({"max_new_tokens": None}, "max_new_tokens is 64, and None"),
        ({"ids": ("a", "b", "d")}, "2 items are in one of them only .2 in both."),
        ({"question": "another"}, "3 items have another question or reference, such as 'a'"),
        ({"reference": "5"}, "3 items have another question or reference"),
    ],
)
def test_a_file_that_differs_is_refused_with_what_differs(other, problem):
    with pytest.raises(ValueError, match=problem) as refused:
        made_comparable(items("one"), items("two", **other), from_files=["two"])
    assert "--allow-mismatch" in str(refused.value)


def test_a_mismatch_that_is_allowed_compares_the_common_items_and_says_so():
    stages, said = made_comparable(
        items("one"), items("two", ids=("b", "c", "d")), items("three"), allow_mismatch=True
    )
    assert [[record["id"] for record in one.records] for one in stages] == [["b", "c"]] * 3
    assert [one.metrics["n"] for one in stages] == [2, 2, 2]
    assert len(said) == 2 and said[0].startswith("one and two: 2 items are in one of them only")


def test_an_item_with_another_reference_is_left_out():
    mixed = [*items("x", ids=("a",)).records, *items("x", ids=("b", "c"), reference="5").records]
    stages, _ = made_comparable(
        items("one"), score_answers("two", mixed, GSM8K), allow_mismatch=True
    )
    assert [record["id"] for record in stages[0].records] == ["a"]


def test_nothing_in_common_is_refused_even_so():
    with pytest.raises(ValueError, match="no item is in all of one, two"):
        made_comparable(items("one", ids=("a",)), items("two", ids=("b",)), allow_mismatch=True)


def test_the_first_items_are_counted_again():
    stages = three_stages()
    few = first_items(stages, GSM8K, 2)
    assert [one.metrics["n"] for one in few] == [2, 2, 2]
    assert [one.metrics["answer_accuracy"] for one in few] == [0.0, 0.5, 1.0]
    assert [one.records for one in few] == [stage.records[:2] for stage in stages]


def words(name, *answered):
    """A stage of items that are answered by one word: (right, completion) each."""
    answers = [
        {"id": f"w/{n}", "question": "?", "completion": completion, "reference": right}
        for n, (right, completion) in enumerate(answered)
    ]
    return score_answers(name, answers, EXTRACTION)


def test_answers_of_one_word_are_counted_by_what_was_right():
    asked = words(
        "tuned",
        *(("YES", "YES"), ("YES", " NO\n"), ("YES", "yes it is"), ("NO", "NO"), ("NO", "")),
        *(("Blog post", "blog  POST"), ("Blog post", "NO"), ("Blog post", "Shop")),
        ({"name": "Mug"}, '{"name": "YES"}'),  # no answer of one word
    )
    assert confusion(asked) == {
        "Blog post": {"Blog post": 1, "NO": 1, "something else": 1},
        "NO": {"NO": 1, "something else": 1},
        "YES": {"YES": 1, "NO": 1, "something else": 1},
    }
    assert [*confusion(asked)] == ["Blog post", "NO", "YES"]
    assert confusion(words("tuned", ({"a": 1}, "{}"))) == {}


def test_a_model_that_writes_anything_makes_no_columns():
    anything = words("base", *(("a shop", f"text {n}") for n in range(50)), ("a blog", "a blog"))
    assert confusion(anything) == {"a blog": {"a blog": 1}, "a shop": {"something else": 50}}


def extraction_stage(name, *completions):
    """A stage of two pages: one slot is asked of the first, a list of nine of the second."""
    references = ({"a": "x"}, {"a": [*range(9)]})
    answers = [
        {"id": str(place), "question": "Read it.", "completion": completion, "reference": reference}
        for place, (completion, reference) in enumerate(zip(completions, references, strict=True))
    ]
    return score_answers(name, answers, EXTRACTION)


def test_a_mean_of_parts_is_compared_and_given_the_form_counted_by_its_parts():
    none = extraction_stage("none", "oops", "oops")
    base = extraction_stage("base", '{"a": "y"}', '{"a": [0, 1, 2, 3, 4, 5, 6, 7, 8]}')
    tuned = extraction_stage("tuned", '{"a": "x"}', '{"a": [0, 1, 2]}')
    compared = compare_stages([base, tuned], EXTRACTION)
    # 9 of 10 and 10; of 4 answered and 10 wanted 4 are right: not 1 / 2 and (1 + 1 / 2) / 2.
    assert base.metrics["slot_f1"] == pytest.approx(18 / 20)
    assert tuned.metrics["slot_f1"] == pytest.approx(8 / 14)
    (gain,) = compared.gains
    assert gain.paired.difference == pytest.approx(8 / 14 - 18 / 20)
    for one in (base, tuned):
        assert compared.given_form[one.name]["slot_f1"] == one.metrics["slot_f1"]
    assert none.metrics["slot_precision"] is None
    assert compare_stages([none, tuned], EXTRACTION).gains[0].paired.difference == pytest.approx(
        8 / 14
    )
