"""How an answer is written: each format renders a completion and parses one.

XML is what the models are taught; HASH is GSM8K's own form, in which a base model is asked. The
parsers read the whole string with `str.find` and `str.count`: strict, linear in its length, and
without the searching patterns that let public graders accept preambles and second answers.
A format says where answers stand; whether they are one number is for `scoring`.

BOXED and LAST_NUMBER, for completions of other people's models, have files of their own; `FORMATS`
holds all by name.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from nblib.tasks.answer_format import AnswerFormat, Parsed, first_broken
from nblib.tasks.formats_boxed import BOXED
from nblib.tasks.formats_last_number import LAST_NUMBER

SYSTEM_PROMPT = (
    "Work it out inside <reasoning></reasoning>,"
    " then give just the number inside <answer></answer>."
)
_TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
_HASH = "####"
_NUMERAL = re.compile(r"\d")


def _render_xml(reasoning: str, answer: str) -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>{answer}</answer>"


def _parse_xml(text: str) -> Parsed:
    failure = _xml_failure(text)
    positions = [text.find(tag) for tag in _TAGS]
    reasoning = _blocks(text, "<reasoning>", "</reasoning>")
    return Parsed(
        strict=failure is None,
        tags_in_order=-1 not in positions and positions == sorted(positions),
        reasoning=reasoning[0].strip() if len(reasoning) == 1 else None,
        answers=_blocks(text, "<answer>", "</answer>"),
        preamble=bool(text.partition("<reasoning>")[0].strip()),
        failure=failure,
    )


def _xml_failure(text: str) -> str | None:
    r"""The first rule broken of \A\s*<reasoning>...</reasoning>\s*<answer>...</answer>\s*\Z."""
    counts = [text.count(tag) for tag in _TAGS]
    if 0 in counts:
        return "missing tag"
    if counts != [1, 1, 1, 1]:
        return "repeated tag"
    before, _, rest = text.partition("<reasoning>")
    reasoning, _, rest = rest.partition("</reasoning>")
    between, _, rest = rest.partition("<answer>")
    answer, closed, after = rest.partition("</answer>")
    if not closed:  # a tag that was not found leaves nothing for the next one
        return "order"
    if before.strip() or between.strip() or after.strip():
        return "text outside"
    if not reasoning.strip():
        return "empty reasoning"
    return None if answer.strip() else "empty answer"


def _blocks(text: str, opening: str, closing: str) -> tuple[str, ...]:
    """The text of every block, in order; none at all where the tags do not alternate."""
    before, *rest = text.split(opening)
    if closing in before or any(part.count(closing) != 1 for part in rest):
        return ()
    return tuple(part.partition(closing)[0] for part in rest)


def _render_hash(reasoning: str, answer: str) -> str:
    return f"{reasoning}\n{_HASH} {answer}"


def _parse_hash(text: str) -> Parsed:
    steps, *marked = text.split(_HASH)
    lines = tuple(part.partition("\n")[0] for part in marked)
    once = len(marked) == 1
    own_line = bool(marked) and not steps.rpartition("\n")[2].strip()
    failure = first_broken(  # of: steps, then one last line "#### N"
        (bool(marked), "missing tag"),
        (once, "repeated tag"),
        (own_line, "tag inside a line"),
        (once and not marked[0].partition("\n")[2].strip(), "text outside"),
        (bool(steps.strip()), "empty reasoning"),
        (once and bool(lines[0].strip()), "empty answer"),
    )
    return Parsed(
        strict=failure is None,
        tags_in_order=own_line and bool(steps.strip()),
        reasoning=steps.strip() if once else None,
        # "####" with words alone behind it is a heading of Markdown, such as "#### Answer:".
        answers=lines if once else tuple(filter(_NUMERAL.search, lines)),
        preamble=False,  # the steps come first: there is no place before them
        failure=failure,
    )


XML = AnswerFormat(name="xml", system_prompt=SYSTEM_PROMPT, render=_render_xml, parse=_parse_xml)
HASH = AnswerFormat(name="hash", system_prompt="", render=_render_hash, parse=_parse_hash)

FORMATS: Mapping[str, AnswerFormat] = MappingProxyType(
    {one.name: one for one in (XML, HASH, BOXED, LAST_NUMBER)}
)
