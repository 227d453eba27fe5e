"""No form at all: the answer is the last number of the text.

Meant as lm-evaluation-harness' `flexible-extract` is, whose pattern `(-?[$0-9.,]{2,})|(-?[0-9]+)`
(https://github.com/EleutherAI/lm-evaluation-harness, tasks/gsm8k) takes "-5" from "10-5", nothing
but the point from "18 ..", and 30 from "12:30". Only where the number stands is said here, with
all that would change its value; what it is worth, and whether it is one, says `numbers`. That costs
something: 20 of GSM8K's 1,319 test solutions end in a percentage, "= 20%", and their answer is 20.
"""

import re
from collections import deque

from nblib.tasks.answer_format import AnswerFormat, Parsed
from nblib.tasks.numbers import TYPESET_SPACES

_SIGN = r"[-+\u2010-\u2013\u2212\uff0d]"  # and dashes, which `parse_number` refuses
# Control and direction characters: what a reader sees beside them need not be what stands there.
_UNSEEN = r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
# A space of typeset text or of TeX.
_THIN = rf"(?:[{TYPESET_SPACES}]|\\[,:; ])"
_SPACE = rf"(?: |{_THIN})"
# What a number goes on through, so that "12:30", "1'200", "1e5", "1_000", "10^400" and "1 1/2" are
# read as a whole, and refused by `parse_number`, and not as 30, 200, 5, 0, 400 and 1/2.
_JOINT = (
    rf"(?:[.,:/_'\u2019]|{_THIN}|,\\!|\{{,\}}"
    r"|\^\{?[-+]?|(?<=[0-9][eE])[-+]| (?=[0-9]++/[0-9]))"
)
_DIGITS = r"\d[^\W_]*+"  # of every script, and the letters that touch them: "5k" is not 5
# "9 500", the first digit being read already; but of "A4 500" and "2019 300" the last number is one
# of three digits.
_THOUSANDS = r"(?:(?<![^\W\d_]\d)\d{0,2}+(?: [0-9]{3}(?!\d))++)?+"
_NUMBER = re.compile(
    # Not an exponent, nor the rest of one: in "18 m^25" the last number is 18.
    rf"\d(?<!\d\d)(?<!\^\d)(?<!\^\{{\d){_THOUSANDS}[^\W_]*+(?:{_JOINT}{_DIGITS})*+"
    rf"(?:{_SPACE}?\\?%|{_UNSEEN})?+"
)
# Sign, currency, sign, leading point. A hyphen that touches a word is none: "10-5", "covid-19".
_PREFIX = re.compile(
    rf"(?:(?<![\w)\]}}%^.-]){_SIGN})?(?:\\?[$€£]{_SPACE}?{_SIGN}?)?(?:(?<![\w.])\.)?{_UNSEEN}?\Z"
)
_PREFIX_SIZE = 8  # characters that it matches at most


def _render(reasoning: str, answer: str) -> str:
    return f"{reasoning}\n{answer}"


def _parse(text: str) -> Parsed:
    found = deque(_NUMBER.finditer(text), maxlen=1)
    if not found:
        return _NO_NUMBER
    first_digit, end = found[0].span()
    prefix = _PREFIX.search(text, max(0, first_digit - _PREFIX_SIZE), first_digit)
    start = prefix.start() if prefix else first_digit
    return Parsed(
        strict=True,
        tags_in_order=True,
        reasoning=text[:start].strip(),
        answers=(text[start:end],),
        preamble=False,
        failure=None,
    )


_NO_NUMBER = Parsed(
    strict=False,
    tags_in_order=False,
    reasoning=None,
    answers=(),
    preamble=False,
    failure="no number",
)
LAST_NUMBER = AnswerFormat(name="last-number", system_prompt="", render=_render, parse=_parse)
