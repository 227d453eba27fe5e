r"""How an answer is written: each form renders a completion and parses one.

    xml          <reasoning>2 * 9 = 18</reasoning><answer>18</answer>   what the models are taught
    hash         2 * 9 = 18 \n #### 18                  GSM8K's own, in which a base model is asked
    boxed        2 * 9 = 18 \boxed{18}                  MATH's, for other people's models
    last-number  2 * 9 = 18                             no form at all

A parser judges the whole text, in time linear in its length: patterns that search let public
graders accept preambles and second answers. A form says where answers stand; whether they are one
number is for `scoring`.
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from nblib.tasks.numbers import TYPESET_SPACES

SYSTEM_PROMPT = (
    "Work it out inside <reasoning></reasoning>,"
    " then give just the number inside <answer></answer>."
)


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a completion holds, as far as its form says.

    Attributes:
        failure: The first rule broken; None where the whole completion has the form.
        tags_in_order: Every mark is there and the first of each comes in the right order.
        answers: Text of each answer block, in order; none where a mark stands where none belongs.
        preamble: Text stands before the reasoning; only XML has a mark there.
    """

    failure: str | None
    tags_in_order: bool
    answers: tuple[str, ...]
    preamble: bool = False

    @property
    def strict(self) -> bool:
        """Whether the whole completion is in the form, with nothing outside it."""
        return self.failure is None


@dataclass(frozen=True, kw_only=True)
class AnswerFormat:
    """One way to write an answer: `parse(render(reasoning, answer))` is strict.

    `parse` never raises. An empty `system_prompt` asks for nothing.
    """

    name: str
    system_prompt: str = ""
    template: str
    parse: Callable[[str], Parsed]

    def render(self, reasoning: str, answer: str) -> str:
        """Return a whole completion."""
        return self.template.format(reasoning=reasoning, answer=answer)


def _first_broken(*rules: tuple[bool, str]) -> str | None:
    """Return the name of the first rule that is not kept; None where all are."""
    return next((name for kept, name in rules if not kept), None)


_TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


def _parse_xml(text: str) -> Parsed:
    r"""Strict is \s*<reasoning>...</reasoning>\s*<answer>...</answer>\s*, text in both blocks.

    >>> _parse_xml("Okay. <reasoning>2 * 9 = 18</reasoning><answer>18</answer>").failure
    'text outside'
    """
    counts = [text.count(tag) for tag in _TAGS]
    positions = [text.find(tag) for tag in _TAGS]
    once, in_order = counts == [1, 1, 1, 1], positions == sorted(positions)
    parts = re.split("|".join(_TAGS), text) if once and in_order else [""] * 5
    before, reasoning, between, answer, after = parts
    return Parsed(
        failure=_first_broken(
            (0 not in counts, "missing tag"),
            (once, "repeated tag"),
            (in_order, "order"),
            (not (before + between + after).strip(), "text outside"),
            (bool(reasoning.strip()), "empty reasoning"),
            (bool(answer.strip()), "empty answer"),
        ),
        tags_in_order=in_order and 0 not in counts,
        answers=_answer_blocks(text),
        preamble=bool(text.partition("<reasoning>")[0].strip()),
    )


def _answer_blocks(text: str) -> tuple[str, ...]:
    """The text of every block, in order; none at all where the tags do not alternate."""
    before, *rest = text.split("<answer>")
    if "</answer>" in before or any(part.count("</answer>") != 1 for part in rest):
        return ()
    return tuple(part.partition("</answer>")[0] for part in rest)


XML = AnswerFormat(
    name="xml",
    system_prompt=SYSTEM_PROMPT,
    template="<reasoning>\n{reasoning}\n</reasoning>\n<answer>{answer}</answer>",
    parse=_parse_xml,
)


def _parse_hash(text: str) -> Parsed:
    """Strict is: steps, then one last line "#### N"."""
    steps, *marked = text.split("####")
    lines = tuple(part.partition("\n")[0] for part in marked)
    once = len(marked) == 1
    own_line = bool(marked) and not steps.rpartition("\n")[2].strip()
    return Parsed(
        failure=_first_broken(
            (bool(marked), "missing tag"),
            (once, "repeated tag"),
            (own_line, "tag inside a line"),
            (once and not marked[0].partition("\n")[2].strip(), "text outside"),
            (bool(steps.strip()), "empty reasoning"),
            (once and bool(lines[0].strip()), "empty answer"),
        ),
        tags_in_order=own_line and bool(steps.strip()),
        # "####" with words alone behind it is a heading of Markdown, such as "#### Answer:".
        answers=lines if once else tuple(line for line in lines if re.search(r"\d", line)),
    )


HASH = AnswerFormat(name="hash", template="{reasoning}\n#### {answer}", parse=_parse_hash)

_BOX = r"\boxed"
_BRACE_OR_ESCAPE = re.compile(r"[{}]|\\.", re.DOTALL)  # "\{" is text and opens nothing
_FORMULA = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"))
_ENDING = re.compile(r"(?:[\s$.,;:!?…。*_`'\")\]]|\\[)\]])*+")


def _parse_boxed(text: str) -> Parsed:
    r"""Strict is: steps, then one \boxed{N}, and behind it only what ends a formula or a sentence.

    Source: Hendrycks et al. 2021, https://arxiv.org/abs/2103.03874. Public graders take the last
    box of several; here several are one answer only where they hold the same number.
    """
    before, found, rest = text.partition(_BOX + "{")
    once = bool(found) and text.count(_BOX) == 1
    end = _closing_brace(rest) if found else None
    after = "" if end is None else rest[end + 1 :]
    reasoning = _before_formula(before.rstrip(), after).strip()
    return Parsed(
        failure=_first_broken(
            (bool(found), "missing tag"),
            (once, "repeated tag"),
            (end is not None, "unbalanced braces"),
            (_ENDING.fullmatch(after) is not None, "text outside"),
            (bool(reasoning), "empty reasoning"),
            (bool(rest[:end].strip()), "empty answer"),
        ),
        tags_in_order=end is not None and bool(reasoning),
        answers=_boxes(text),
    )


def _boxes(text: str) -> tuple[str, ...]:
    """The text of every box; none at all where one is left open, holds another or has no brace."""
    _, *boxes = text.split(_BOX + "{")
    ends = [end for box in boxes if (end := _closing_brace(box)) is not None]
    if len(ends) != text.count(_BOX):
        return ()
    return tuple(box[:end] for box, end in zip(boxes, ends, strict=True))


def _closing_brace(text: str) -> int | None:
    """Where the brace closes that was opened just before the text; None where it does not."""
    depth = 1
    for match in _BRACE_OR_ESCAPE.finditer(text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def _before_formula(before: str, after: str) -> str:
    """The text before the box, without what opens a formula around it: "$" alone is no step."""
    for opening, closing in _FORMULA:
        if before.endswith(opening) and closing in after:
            return before.removesuffix(opening)
    return before


BOXED = AnswerFormat(
    name="boxed",
    system_prompt=r"Reason step by step, then put just the number inside \boxed{}.",
    template="{reasoning}\n\\boxed{{{answer}}}",
    parse=_parse_boxed,
)

_SIGN = r"[-+\u2010-\u2013\u2212\uff0d]"  # and dashes, which `parse_number` refuses
# Control and direction characters: what a reader sees beside them need not be what stands there.
_UNSEEN = r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
_THIN = rf"(?:[{TYPESET_SPACES}]|\\[,:; ])"  # a space of typeset text or of TeX
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


def _parse_last_number(text: str) -> Parsed:
    """Find the last number, with all that would change its value; strict is any text with one.

    lm-evaluation-harness' `flexible-extract`, `(-?[$0-9.,]{2,})|(-?[0-9]+)`, takes "-5" from
    "10-5", nothing but the point from "18 ..", and 30 from "12:30"
    (https://github.com/EleutherAI/lm-evaluation-harness, tasks/gsm8k). Being strict costs
    something: 20 of GSM8K's 1,319 test solutions end in a percentage, "= 20%", their answer is 20.
    """
    found = deque(_NUMBER.finditer(text), maxlen=1)
    if not found:
        return Parsed(failure="no number", tags_in_order=False, answers=())
    first_digit, end = found[0].span()
    prefix = _PREFIX.search(text, max(0, first_digit - _PREFIX_SIZE), first_digit)
    start = prefix.start() if prefix else first_digit
    return Parsed(failure=None, tags_in_order=True, answers=(text[start:end],))


LAST_NUMBER = AnswerFormat(
    name="last-number", template="{reasoning}\n{answer}", parse=_parse_last_number
)
