"""Scores computed by hand, one for each thing that public graders get wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.formats import HASH
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


@pytest.mark.parametrize("answer", ["3 + 4 = 7", "12:30", "5%", "", "nan", "18 or 19"])
def test_what_is_not_one_number_is_neither_extractable_nor_right(answer: str):
    for reference in ("3", "5", "7", "12", "18", "0"):
        unread = score(xml(answer), reference)
        assert unread.format
        assert (unread.extractable, unread.correct, unread.answer) == (False, False, None)
        assert unread.failure == "unreadable number"


def test_two_answer_blocks_are_no_answer():
    twice = score(xml("18") + "<answer>18</answer>", "18")
    assert (twice.format, twice.extractable, twice.correct) == (False, False, False)
    assert twice.failure == "repeated tag"


def test_a_number_outside_the_block_is_not_read():
    assert not score("<answer></answer>18<reasoning>x</reasoning>", "18").extractable
    assert not score("<reasoning>18</reasoning>", "18").extractable


def test_the_format_is_a_parameter():
    assert score("2 * 9 = 18\n#### 18", "18", answer_format=HASH).joint
    assert not score("2 * 9 = 18\n#### 18", "18").extractable
    assert not score(xml("18"), "18", answer_format=HASH).extractable


@pytest.mark.parametrize("reference", ["", "eighteen", "5%", "1,20"])
def test_an_unreadable_reference_is_an_error_that_shows_it(reference: str):
    with pytest.raises(ValueError, match="unreadable reference") as error:
        score(xml("18"), reference)
    assert repr(reference) in str(error.value)


@given(st.text() | st.text("<>/answer reasoning0123456789.,-$#\n"))
def test_any_completion_has_a_consistent_score(completion: str):
    for one in (score(completion, "18"), score(completion, "18", answer_format=HASH)):
        assert one.joint == (one.format and one.correct)
        assert one.extractable == (one.answer is not None)
        assert one.correct == (one.answer == "18")
        assert one.joint == (one.failure is None)
