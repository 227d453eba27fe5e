import pytest

from nblib.evaluation.answers import score_answers
from nblib.evaluation.comparable import comparable
from nblib.tasks.gsm8k import GSM8K


def stage(name, ids=("a", "b", "c"), **fields):
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


def compared(*stages, from_files=(), allow_mismatch=False):
    return comparable(stages, GSM8K, from_files=from_files, allow_mismatch=allow_mismatch)


def test_the_same_items_pass_as_they_are():
    one, two = stage("one"), stage("two")
    assert compared(one, two, from_files=["two"]) == ((one, two), ())


def test_models_asked_here_may_have_prompts_of_their_own():
    assert compared(stage("one"), stage("two", prompt="another"))[1] == ()


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
        compared(stage("one"), stage("two", **other), from_files=["two"])
    assert "--allow-mismatch" in str(refused.value)


def test_a_mismatch_that_is_allowed_compares_the_common_items_and_says_so():
    stages, said = compared(
        stage("one"), stage("two", ids=("b", "c", "d")), stage("three"), allow_mismatch=True
    )
    assert [[record["id"] for record in one.records] for one in stages] == [["b", "c"]] * 3
    assert [one.metrics["n"] for one in stages] == [2, 2, 2]
    assert len(said) == 2 and said[0].startswith("one and two: 2 items are in one of them only")


def test_an_item_with_another_reference_is_left_out():
    mixed = [*stage("x", ids=("a",)).records, *stage("x", ids=("b", "c"), reference="5").records]
    stages, _ = compared(stage("one"), score_answers("two", mixed, GSM8K), allow_mismatch=True)
    assert [record["id"] for record in stages[0].records] == ["a"]


def test_nothing_in_common_is_refused_even_so():
    with pytest.raises(ValueError, match="no item is in all of one, two"):
        compared(stage("one", ids=("a",)), stage("two", ids=("b",)), allow_mismatch=True)
