"""Scores computed by hand, one for each thing that public graders get wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.formats import BOXED, FORMATS, HASH
from nblib.tasks.numbers import parse_number
from nblib.tasks.scoring import Score, score


def xml(answer: str, reasoning: str = "steps") -> str:
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


def test_right_in_every_way():
    assert score(xml("18"), "18") == Score(
        format=True,
        tag_order=True,
        extractable=True,
        correct=True,
        joint=True,
        preamble=False,
        truncated=False,
        answer="18",
        failure=None,
    )


def test_a_preamble_breaks_the_format_and_nothing_else():
    assert score("Okay. " + xml("18"), "18") == Score(
        format=False,
        tag_order=True,
        extractable=True,
        correct=True,
        joint=False,
        preamble=True,
        truncated=False,
        answer="18",
        failure="text outside",
    )


def test_cut_off_before_the_answer():
    assert score("<reasoning>16 - 3", "18", truncated=True) == Score(
        format=False,
        tag_order=False,
        extractable=False,
        correct=False,
        joint=False,
        preamble=False,
        truncated=True,
        answer=None,
        failure="missing tag",
    )


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
    assert score(xml(answer), reference).joint


@pytest.mark.parametrize(
    ("answer", "reference", "read"),
    [("-5", "5", "-5"), ("1,200", "1", "1200"), ("0.333", "1/3", "0.333"), ("18.5", "18", "18.5")],
)
def test_other_numbers_are_wrong(answer: str, reference: str, read: str):
    wrong = score(xml(answer), reference)
    assert (wrong.extractable, wrong.correct, wrong.joint) == (True, False, False)
    assert (wrong.answer, wrong.failure) == (read, "wrong answer")


@pytest.mark.parametrize("answer", ["3 + 4 = 7", "12:30", "5%", "nan", "18 or 19"])
def test_what_is_not_one_number_is_neither_extractable_nor_right(answer: str):
    for reference in ("3", "5", "7", "12", "18", "0"):
        unread = score(xml(answer), reference)
        assert unread.format
        assert (unread.extractable, unread.correct, unread.answer) == (False, False, None)
        assert unread.failure == "unreadable number"


def test_an_empty_answer_is_not_the_format():
    for completion, answer_format in (
        ("<reasoning>x</reasoning><answer></answer>", FORMATS["xml"]),
        ("x\n#### ", HASH),
        (r"x \boxed{}", BOXED),
    ):
        empty = score(completion, "18", answer_format=answer_format)
        assert (empty.format, empty.tag_order, empty.extractable) == (False, True, False)
        assert empty.failure == "empty answer"


@pytest.mark.parametrize(
    ("completion", "answer_format"),
    [
        (xml("18") + "<answer>$18.0</answer>", FORMATS["xml"]),
        ("steps\n#### Final answer: #### 18", HASH),
        ("steps #### 18\nSo\n#### 18.", HASH),
        ("#### Steps\n#### Answer\n#### 18", HASH),
    ],
)
def test_marks_with_the_same_number_are_one_answer_and_no_strict_form(completion, answer_format):
    twice = score(completion, "18", answer_format=answer_format)
    assert (twice.format, twice.extractable, twice.correct, twice.answer) == (
        False,
        True,
        True,
        "18",
    )
    assert (twice.joint, twice.failure) == (False, "repeated tag")


@pytest.mark.parametrize(
    ("completion", "answer_format"),
    [
        (xml("18") + "<answer>19</answer>", FORMATS["xml"]),
        (xml("18") + "<answer></answer>", FORMATS["xml"]),
        (xml("18") + "</answer>", FORMATS["xml"]),
        ("steps\n#### 18\n#### 19", HASH),
        ("steps\n#### 18\n#### 18 or 19", HASH),
        ("steps\n#### Step 1\n#### 18", HASH),
        ("steps\n#### one\n#### two", HASH),
    ],
)
def test_marks_that_say_two_things_are_no_answer(completion, answer_format):
    for reference in ("18", "19"):
        twice = score(completion, reference, answer_format=answer_format)
        assert (twice.format, twice.extractable, twice.correct) == (False, False, False)
        assert twice.failure == "repeated tag"


def test_a_number_outside_the_block_is_not_read():
    assert not score("<answer></answer>18<reasoning>x</reasoning>", "18").extractable
    assert not score("<reasoning>18</reasoning>", "18").extractable


def test_the_format_is_a_parameter():
    assert score("2 * 9 = 18\n#### 18", "18", answer_format=HASH).joint
    assert not score("2 * 9 = 18\n#### 18", "18").extractable
    assert not score(xml("18"), "18", answer_format=HASH).extractable


@pytest.mark.parametrize(
    "reference", ["", "eighteen", "5%", "1,20", "6x", "-668i", r"\frac{10}{11}", "118 00"]
)
def test_an_unreadable_reference_is_an_error_that_shows_it(reference: str):
    with pytest.raises(ValueError, match="unreadable reference") as error:
        score(xml("18"), reference)
    assert repr(reference) in str(error.value)


NUMBERS = ["18", "$ 18", "1 200", r"1\,200", "6x", "9 50", "5%", r"46^\circ", r"18\text{ m}", "18m"]


@given(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
def test_references_are_read_as_completions_are(answer: str, reference: str):
    """In every format, so that no spelling is a number on one side only."""
    for answer_format in FORMATS.values():
        completion = answer_format.render("steps:", answer)
        read = score(completion, "1", answer_format=answer_format).answer
        if read is None or (answer_format.name == "last-number" and parse_number(answer) is None):
            continue
        try:
            right = score(completion, reference, answer_format=answer_format).correct
        except ValueError:
            assert parse_number(reference) is None
        else:
            assert right == (parse_number(reference) == parse_number(answer))


@given(st.text() | st.text("<>/answer reasoning0123456789.,-$#\n"))
def test_any_completion_has_a_consistent_score(completion: str):
    for one in (score(completion, "18"), score(completion, "18", answer_format=HASH)):
        assert one.joint == (one.format and one.correct)
        assert one.extractable == (one.answer is not None)
        assert one.correct == (one.answer == "18")
        assert one.joint == (one.failure is None)
