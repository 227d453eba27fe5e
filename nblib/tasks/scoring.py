"""The one scorer: a completion against a reference number, for reward and evaluation alike.

It judges one completion. Rates over many, with their intervals, are in `evaluation.metrics`;
rewards are weighted views of the Score made here, never a second parser.
"""

from dataclasses import dataclass

from nblib.tasks.formats import XML, AnswerFormat
from nblib.tasks.numbers import number_text, parse_number


class UnreadableReference(ValueError):
    """The reference is not one readable number: nothing can be scored against it."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one completion did right, each question on its own.

    Attributes:
        format: Strictly in the format, nothing outside.
        tag_order: All tags there, reasoning before answer; a preamble does no harm.
        extractable: One number can be read from the answer, the same one from every mark.
        correct: That number equals the reference.
        joint: Format and number are both right.
        preamble: Text stands before the reasoning.
        truncated: Generation stopped at its length limit; None where that is unknown.
        answer: The number read, in canonical text; None where there is none.
        failure: The first rule broken; None exactly where `joint` holds.
    """

    format: bool
    tag_order: bool
    extractable: bool
    correct: bool
    joint: bool
    preamble: bool
    truncated: bool | None
    answer: str | None
    failure: str | None


def score(
    completion: str,
    reference: str,
    *,
    answer_format: AnswerFormat = XML,
    truncated: bool | None = False,
) -> Score:
    """Score a completion against the reference number; numbers compare by value ("18.0" is 18).

    Example:
        >>> score("<reasoning>2 * 9 = 18</reasoning><answer>$18.00</answer>", "18").joint
        True

    Raises:
        UnreadableReference: The reference is not one number; a ValueError.
    """
    expected = parse_number(reference)
    if expected is None:
        raise UnreadableReference(
            f"unreadable reference {reference!r}: expected one number, such as '18'"
        )
    parsed = answer_format.parse(completion)
    numbers = {parse_number(answer) for answer in parsed.answers}
    number = numbers.pop() if len(numbers) == 1 else None
    correct = number == expected
    return Score(
        format=parsed.strict,
        tag_order=parsed.tags_in_order,
        extractable=number is not None,
        correct=correct,
        joint=parsed.strict and correct,
        preamble=parsed.preamble,
        truncated=truncated,
        answer=None if number is None else number_text(number),
        failure=parsed.failure or _answer_failure(readable=number is not None, correct=correct),
    )


def _answer_failure(*, readable: bool, correct: bool) -> str | None:
    if not readable:
        return "unreadable number"
    return None if correct else "wrong answer"
