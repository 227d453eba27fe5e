"""The share of right sums in a text: "12 * 3 = 36" is right, "12 * 3 = 35" is not.

A term of a reward, for worked solutions: it reads what is written, not the question.
"""

import re
from fractions import Fraction
from itertools import pairwise

from nblib.tasks.numbers import parse_number

_MAX_OPERATIONS = 16  # in one sum, so that a hostile completion costs no time
_MAX_PARTS = 8  # after equals signs
_SIGN = "[-+\N{MINUS SIGN}]?"
_DIGITS = r"(?:[0-9]++(?:,[0-9]++)*+(?:\.[0-9]++)?+|\.[0-9]++)"
_NUMBER = f"{_SIGN}[$€£]?{_SIGN}{_DIGITS}"
# No sign after an x: "3x+7=22" is an equation, not 3 times +7.
_OPERATOR = "(?:[-+*/×÷–\N{MINUS SIGN}]|x(?! *[-+\N{MINUS SIGN}]))"
# All that arithmetic is written with, so that a part of a longer expression is not taken for a
# sum: "(2 + 2) * 3 = 12" does not hold "2 * 3 = 12". A point or comma before a digit alone, and
# an x that no letter touches; other ones end a sentence or belong to a word.
_ARITHMETIC = re.compile(
    "(?:[-0-9$€£+*/×÷–\N{MINUS SIGN}=()%^ ]|[.,](?=[0-9])|(?<![^\\W\\d_])x(?![^\\W\\d_]))+"
)
_OPERATIONS = f"(?: *+{_OPERATOR} *+{_NUMBER})"
_SUM = re.compile(
    rf" *+\(? *+(?P<parts>{_NUMBER}{_OPERATIONS}{{1,{_MAX_OPERATIONS}}}"
    rf"(?: *+= *+{_NUMBER}{_OPERATIONS}{{0,{_MAX_OPERATIONS}}}){{1,{_MAX_PARTS}}})"
    r" *+\)? *+"
)
_OPERATION = re.compile(rf" *+(?P<operator>{_OPERATOR}) *+(?P<number>{_NUMBER})")


def right_sums(text: str) -> float:
    """Return the share of the sums "a + b = c" in the text that are right; 0 where there is none.

    Products go before sums. A sum that is worked out, "47 + 38 = 70 + 15 = 85", is one for each
    equals sign. Not counted is what cannot be read surely: inner brackets, percentages, powers, a
    sum that does not end in a number, words between the numbers. A rounded result is not right;
    nor is a division by zero or a misplaced comma.
    """
    verdicts = [
        (value := _value(left)) is not None and value == _value(right)
        for run in _ARITHMETIC.finditer(text)
        # "y+3+4=9": the first number is not the first one
        if not (run[0][0] != " " and text[: run.start()][-1:].isalnum())
        and (found := _SUM.fullmatch(run[0]))
        for left, right in _equalities(found["parts"])
    ]
    return sum(verdicts) / len(verdicts) if verdicts else 0.0


def _equalities(parts: str) -> list[tuple[str, str]]:
    """Return both sides of every equals sign; none where the last side is a sum itself."""
    sides = [side.strip() for side in parts.split("=")]
    return list(pairwise(sides)) if re.fullmatch(_NUMBER, sides[-1]) else []


def _value(expression: str) -> Fraction | None:
    """The value of "a + b * c", None where a number is unreadable or a divisor is 0."""
    addends = [Fraction(0)]
    for operation in _OPERATION.finditer(f"+{expression}"):
        operator, number = operation["operator"], parse_number(operation["number"])
        if number is None or (operator in "/÷" and number == 0):
            return None
        if operator in "*x×":
            addends[-1] *= number
        elif operator in "/÷":
            addends[-1] /= number
        else:
            addends.append(number if operator == "+" else -number)
    return sum(addends, Fraction(0))
