r"""MATH's form: the steps, then the answer as `\boxed{N}`.

Source: Hendrycks et al. 2021, https://arxiv.org/abs/2103.03874. Public graders take the last box
of several; here two boxes are one answer only where they hold the same number.
"""

import re

from nblib.tasks.answer_format import AnswerFormat, Parsed, first_broken

_BOX = r"\boxed"
_BRACE_OR_ESCAPE = re.compile(r"[{}]|\\.", re.DOTALL)  # "\{" is text and opens nothing
_FORMULA = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"))
_ENDING = re.compile(r"(?:[\s$.,;:!?…。*_`'\")\]]|\\[)\]])*+")


def _render(reasoning: str, answer: str) -> str:
    return f"{reasoning}\n{_BOX}{{{answer}}}"


def _parse(text: str) -> Parsed:
    before, found, rest = text.partition(_BOX + "{")
    once = bool(found) and text.count(_BOX) == 1
    end = _closing_brace(rest) if found else None
    after = "" if end is None else rest[end + 1 :]
    reasoning = _before_formula(before.rstrip(), after).strip()
    failure = first_broken(
        (bool(found), "missing tag"),
        (once, "repeated tag"),
        (end is not None, "unbalanced braces"),
        (_ENDING.fullmatch(after) is not None, "text outside"),
        (bool(reasoning), "empty reasoning"),
        (bool(rest[:end].strip()), "empty answer"),
    )
    return Parsed(
        strict=failure is None,
        tags_in_order=end is not None and bool(reasoning),
        reasoning=reasoning if once else None,
        answers=_answers(text),
        preamble=False,  # the steps come first: there is no place before them
        failure=failure,
    )


def _answers(text: str) -> tuple[str, ...]:
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
    render=_render,
    parse=_parse,
)
