"""How an answer is written: each format renders a completion and parses one.

XML is what the models are taught; HASH is GSM8K's own form, in which a base model is asked. The
parsers read the whole string with `str.find` and `str.count`: strict, linear in its length, and
without the searching patterns that let public graders accept preambles and second answers.
A format says where the answer stands; whether it is a number is for `scoring`.

BOXED and LAST_NUMBER, for completions of other people's models, have files of their own; `FORMATS`
holds all by name.
"""

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


def _render_xml(reasoning: str, answer: str) -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>{answer}</answer>"


def _parse_xml(text: str) -> Parsed:
    failure = _xml_failure(text)
    positions = [text.find(tag) for tag in _TAGS]
    reasoning = _only_block(text, "<reasoning>", "</reasoning>")
    return Parsed(
        strict=failure is None,
        tags_in_order=-1 not in positions and positions == sorted(positions),
        reasoning=reasoning.strip() if reasoning is not None else None,
        answer=_only_block(text, "<answer>", "</answer>"),
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
    _, closed, after = rest.partition("</answer>")
    if not closed:  # a tag that was not found leaves nothing for the next one
        return "order"
    if before.strip() or between.strip() or after.strip():
        return "text outside"
    return None if reasoning.strip() else "empty reasoning"


def _only_block(text: str, opening: str, closing: str) -> str | None:
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    block, closed, _ = text.partition(opening)[2].partition(closing)
    return block if closed else None


def _render_hash(reasoning: str, answer: str) -> str:
    return f"{reasoning}\n{_HASH} {answer}"


def _parse_hash(text: str) -> Parsed:
    steps, found, rest = text.partition(_HASH)
    answer, _, after = rest.partition("\n")
    own_line = bool(found) and not steps.rpartition("\n")[2].strip()
    once = bool(found) and _HASH not in rest
    failure = _hash_failure(steps, after, found=bool(found), once=once, own_line=own_line)
    return Parsed(
        strict=failure is None,
        tags_in_order=own_line and bool(steps.strip()),
        reasoning=steps.strip() if once else None,
        answer=answer if once else None,
        preamble=False,  # the steps come first: there is no place before them
        failure=failure,
    )


def _hash_failure(steps: str, after: str, *, found: bool, once: bool, own_line: bool) -> str | None:
    """The first rule broken of: steps, then one last line "#### N"."""
    return first_broken(
        (found, "missing tag"),
        (once, "repeated tag"),
        (own_line, "tag inside a line"),
        (not after.strip(), "text outside"),
        (bool(steps.strip()), "empty reasoning"),
    )


XML = AnswerFormat(name="xml", system_prompt=SYSTEM_PROMPT, render=_render_xml, parse=_parse_xml)
HASH = AnswerFormat(name="hash", system_prompt="", render=_render_hash, parse=_parse_hash)

FORMATS: Mapping[str, AnswerFormat] = MappingProxyType(
    {one.name: one for one in (XML, HASH, BOXED, LAST_NUMBER)}
)
