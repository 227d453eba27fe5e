r"""MATH's form: the steps, then the answer as `\boxed{N}`.

Source: Hendrycks et al. 2021, https://arxiv.org/abs/2103.03874. Public graders take the last box
of several; here a completion with two says two things. TeX is not evaluated: what is taken off the
answer is how TeX writes a plain number, and `\frac{1}{2}` is left as it is.
"""

import re

from nblib.tasks.answer_format import AnswerFormat, Parsed, first_broken

_BOX = r"\boxed"
_BRACE_OR_ESCAPE = re.compile(r"[{}]|\\.", re.DOTALL)  # "\{" is text and opens nothing
_FORMULA = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"))
_ENDING = re.compile(r"(?:[\s$.,;:!?…。*_`'\")\]]|\\[)\]])*+")
# "\$18", "5\%", "1,\!200", "1{,}200", "18\text{ apples}". The first group is what stays: of "\\$"
# the second backslash escapes nothing, and the brace of "\{" opens nothing.
_TEX = re.compile(
    r"(\\[\\{}])|\\([$%])|(,)\\!|\{(,)\}|\\(?:text|textbf|mathrm|mathbf)\{([^{}\\]*+)\}"
)


def without_tex(number: str) -> str:
    r"""A number as plain text writes it.

    Example:
        >>> without_tex(r"\$1{,}200\text{ a day}")
        '$1,200 a day'
    """
    return _TEX.sub(r"\1\2\3\4\5", number) if "\\" in number or "{" in number else number


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
    )
    return Parsed(
        strict=failure is None,
        tags_in_order=end is not None and bool(reasoning),
        reasoning=reasoning if once else None,
        answer=without_tex(rest[:end]) if once and end is not None else None,
        preamble=False,  # the steps come first: there is no place before them
        failure=failure,
    )


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
