"""The scorer of answers that are one number, in any `AnswerFormat`.

It scores one completion, for reward and evaluation alike. Rates over many, with their intervals,
are in `evaluation`; rewards are weighted views of the Score made here, never a second parser.
"""

import re
from fractions import Fraction

from nblib.tasks.formats import LAST_NUMBER, XML, AnswerFormat, Parsed
from nblib.tasks.numbers import number_text, parse_number
from nblib.tasks.task import Metric, Score

METRICS = (
    Metric(name="format_accuracy", meaning="the whole completion has the strict form"),
    Metric(name="tag_order_accuracy", meaning="both tag pairs, reasoning before answer"),
    Metric(name="answer_extractable", meaning="a number can be read from the answer"),
    Metric(name="answer_accuracy", meaning="the number is right"),
    Metric(name="joint_accuracy", meaning="strict form and right number"),
    Metric(name="preamble_rate", meaning="text before the first tag", better="lower"),
    Metric(name="lenient_accuracy", meaning="the last number is right, in any form"),
)
_PERCENT = re.compile(r"\\?%|\b(?:per ?cent|percentage)\b", re.IGNORECASE)


def score(completion: str, reference: str, *, answer_format: AnswerFormat = XML) -> Score:
    """Score a completion against the reference number; numbers compare by value ("18.0" is 18).

    A reference may be a worked solution: what stands after its last "####" is then meant.
    `details["right_without_percent_sign"]` is there where a completion is wrong only because "5%"
    is not read as 5.

    Example:
        >>> one = score("<reasoning>2 * 9 = 18</reasoning><answer>$18.00</answer>", "18")
        >>> one.values["joint_accuracy"], one.answer
        (True, '18')

    Raises ValueError where the reference is not one number.
    """
    is_text = isinstance(reference, str)  # of a foreign file it may be anything
    expected = parse_number(reference.rpartition("####")[2]) if is_text else None
    if expected is None:
        raise ValueError(f"unreadable reference {reference!r}: expected one number, such as '18'")
    parsed = answer_format.parse(completion)
    number = _only_number(parsed)
    right = number == expected
    last = number if answer_format is LAST_NUMBER else _only_number(LAST_NUMBER.parse(completion))
    bare = completion if right else _PERCENT.sub("", completion)
    percent = bare != completion and _only_number(answer_format.parse(bare)) == expected
    wrong = "unreadable number" if number is None else None if right else "wrong answer"
    return Score(
        values={
            "format_accuracy": parsed.strict,
            "tag_order_accuracy": parsed.tags_in_order,
            "answer_extractable": number is not None,
            "answer_accuracy": right,
            "joint_accuracy": parsed.strict and right,
            "preamble_rate": parsed.preamble,
            "lenient_accuracy": last == expected,
        },
        answer=None if number is None else number_text(number),
        failure=parsed.failure or wrong,
        details={"right_without_percent_sign": True} if percent else {},
    )


def _only_number(parsed: Parsed) -> Fraction | None:
    """Return the one number that all answers say, None where they say none or several."""
    numbers = set(map(parse_number, parsed.answers))
    return numbers.pop() if len(numbers) == 1 else None
