"""Scores computed by hand, one for each thing that public graders get wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.formats import BOXED, HASH, LAST_NUMBER, XML
from nblib.tasks.numbers import parse_number
from nblib.tasks.scoring import METRICS, score
from nblib.tasks.task import Score


def xml(answer: str, reasoning: str = "steps") -> str:
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


FORMAT, ORDER, EXTRACTABLE, RIGHT, JOINT, PREAMBLE, LENIENT = (metric.name for metric in METRICS)


def says(one: Score, *names: str) -> tuple[float, ...]:
    return tuple(one.values[name] for name in names)


def test_right_in_every_way():
    assert score(xml("18"), "18") == Score(
        values={
            "format_accuracy": True,
            "tag_order_accuracy": True,
            "answer_extractable": True,
            "answer_accuracy": True,
            "joint_accuracy": True,
            "preamble_rate": False,
            "lenient_accuracy": True,
        },
        answer="18",
        failure=None,
    )


def test_a_preamble_breaks_the_format_and_nothing_else():
    one = score("Okay. " + xml("18"), "18")
    assert says(one, FORMAT, ORDER, EXTRACTABLE, RIGHT, JOINT, PREAMBLE, LENIENT) == (
        *(False, True, True, True, False, True, True),
    )
    assert (one.answer, one.failure, one.details) == ("18", "text outside", {})


def test_cut_off_before_the_answer():
    one = score("<reasoning>16 - 3", "18")
    assert not any(one.values.values())
    assert (one.answer, one.failure) == (None, "missing tag")


def test_the_lenient_metric_takes_the_last_number_whatever_the_form():
    for completion, right in (("so 18", True), (xml("18"), True), ("18 of 19", False), ("", False)):
        assert says(score(completion, "18"), LENIENT) == (right,), completion
        assert says(score(completion, "18", answer_format=HASH), LENIENT) == (right,)
    bare = score("so 18", "18", answer_format=LAST_NUMBER)
    assert says(bare, FORMAT, RIGHT, LENIENT) == (True, True, True)


@pytest.mark.parametrize(
    ("completion", "reference", "only_for_the_sign"),
    [(xml("5%"), "5", True), (r"\boxed{5\%}", "5", False), (xml("5 percent"), "5", True),
     (xml("5%"), "6", False), (xml("5"), "5", False), ("5%", "5", False)],
)  # fmt: skip
def test_an_answer_that_is_wrong_only_by_its_percent_sign_says_so(
    completion, reference, only_for_the_sign
):
    details = score(completion, reference).details
    assert details == ({"right_without_percent_sign": True} if only_for_the_sign else {})


def test_a_reference_may_be_a_worked_solution():
    for reference in ("18", "steps #### 18", "9 * 2 = 17\n#### 17\nNo:\n#### 18"):
        assert says(score(xml("18"), reference), JOINT) == (True,)
        assert says(score(xml("17"), reference), RIGHT) == (False,)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("$ 18", "18"),
        ("118 000", "118000"),
        ("40000", r"40,\!000"),
        ("18", r"18\text{ units}"),
        ("15.48", r"\$15.48"),
        ("46", r"46^\circ"),
        (r"46^{\circ}", "46"),
        ("18.0", "18"),
        ("$18", "18"),
        (" 18 ", "18"),
        ("18 apples", "18"),
        ("1,200", "1200"),
        ("1200", "1,200"),
        ("-5", "-5"),
        ("0", "0"),
        ("1/2", "0.5"),
    ],
)
def test_equal_numbers_are_right_however_they_are_written(answer: str, reference: str):
    assert says(score(xml(answer), reference), JOINT) == (True,)


@pytest.mark.parametrize(
    ("answer", "reference", "read"),
    [("-5", "5", "-5"), ("1,200", "1", "1200"), ("0.333", "1/3", "0.333"), ("18.5", "18", "18.5")],
)
def test_other_numbers_are_wrong(answer: str, reference: str, read: str):
    wrong = score(xml(answer), reference)
    assert says(wrong, EXTRACTABLE, RIGHT, JOINT) == (True, False, False)
    assert (wrong.answer, wrong.failure) == (read, "wrong answer")


@pytest.mark.parametrize("answer", ["3 + 4 = 7", "12:30", "5%", "nan", "18 or 19"])
def test_what_is_not_one_number_is_neither_extractable_nor_right(answer: str):
    for reference in ("3", "5", "7", "12", "18", "0"):
        unread = score(xml(answer), reference)
        assert says(unread, FORMAT) == (True,)
        assert (*says(unread, EXTRACTABLE, RIGHT), unread.answer) == (False, False, None)
        assert unread.failure == "unreadable number"


def test_an_empty_answer_is_not_the_format():
    for completion, answer_format in (
        ("<reasoning>x</reasoning><answer></answer>", XML),
        ("x\n#### ", HASH),
        (r"x \boxed{}", BOXED),
    ):
        empty = score(completion, "18", answer_format=answer_format)
        assert says(empty, FORMAT, ORDER, EXTRACTABLE) == (False, True, False)
        assert empty.failure == "empty answer"


@pytest.mark.parametrize(
    ("completion", "answer_format"),
    [
        (xml("18") + "<answer>$18.0</answer>", XML),
        ("steps\n#### Final answer: #### 18", HASH),
        ("steps #### 18\nSo\n#### 18.", HASH),
        ("#### Steps\n#### Answer\n#### 18", HASH),
    ],
)
def test_marks_with_the_same_number_are_one_answer_and_no_strict_form(completion, answer_format):
    twice = score(completion, "18", answer_format=answer_format)
    assert says(twice, FORMAT, EXTRACTABLE, RIGHT, JOINT) == (False, True, True, False)
    assert (twice.answer, twice.failure) == ("18", "repeated tag")


@pytest.mark.parametrize(
    ("completion", "answer_format"),
    [
        (xml("18") + "<answer>19</answer>", XML),
        (xml("18") + "<answer></answer>", XML),
        (xml("18") + "</answer>", XML),
        ("steps\n#### 18\n#### 19", HASH),
        ("steps\n#### 18\n#### 18 or 19", HASH),
        ("steps\n#### Step 1\n#### 18", HASH),
        ("steps\n#### one\n#### two", HASH),
    ],
)
def test_marks_that_say_two_things_are_no_answer(completion, answer_format):
    for reference in ("18", "19"):
        twice = score(completion, reference, answer_format=answer_format)
        assert says(twice, FORMAT, EXTRACTABLE, RIGHT) == (False, False, False)
        assert twice.failure == "repeated tag"


def test_a_number_outside_the_block_is_not_read():
    assert says(score("<answer></answer>18<reasoning>x</reasoning>", "18"), EXTRACTABLE) == (False,)
    assert says(score("<reasoning>18</reasoning>", "18"), EXTRACTABLE) == (False,)


def test_the_format_is_a_parameter():
    assert says(score("2 * 9 = 18\n#### 18", "18", answer_format=HASH), JOINT) == (True,)
    assert says(score("2 * 9 = 18\n#### 18", "18"), EXTRACTABLE) == (False,)
    assert says(score(xml("18"), "18", answer_format=HASH), EXTRACTABLE) == (False,)


@pytest.mark.parametrize(
    "reference",
    ["", "eighteen", "5%", "1,20", "6x", "-668i", r"\frac{10}{11}", "118 00", "18 ####", 18, None],
)
def test_an_unreadable_reference_is_an_error_that_shows_it(reference):
    with pytest.raises(ValueError, match="unreadable reference") as error:
        score(xml("18"), reference)
    assert repr(reference) in str(error.value)


NUMBERS = ["18", "$ 18", "1 200", r"1\,200", "6x", "9 50", "5%", r"46^\circ", r"18\text{ m}", "18m"]


@given(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
def test_references_are_read_as_completions_are(answer: str, reference: str):
    """In every format, so that no spelling is a number on one side only."""
    for answer_format in (XML, HASH, BOXED, LAST_NUMBER):
        completion = answer_format.render("steps:", answer)
        read = score(completion, "1", answer_format=answer_format).answer
        if read is None or (answer_format.name == "last-number" and parse_number(answer) is None):
            continue
        try:
            right = score(completion, reference, answer_format=answer_format).values[RIGHT]
        except ValueError:
            assert parse_number(reference) is None
        else:
            assert right == (parse_number(reference) == parse_number(answer))


@given(st.text() | st.text("<>/answer reasoning0123456789.,-$#\n"))
def test_any_completion_has_a_consistent_score(completion: str):
    for one in (score(completion, "18"), score(completion, "18", answer_format=HASH)):
        form, extractable, right, joint = says(one, FORMAT, EXTRACTABLE, RIGHT, JOINT)
        assert joint == (form and right)
        assert extractable == (one.answer is not None)
        assert right == (one.answer == "18")
        assert joint == (one.failure is None)
        assert all(type(value) is bool for value in one.values.values())
