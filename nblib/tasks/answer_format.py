"""What an answer's format is: how it renders a completion, and what it says of one.

The formats themselves, by name, are in `formats`.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a completion holds, as far as its format says.

    Attributes:
        strict: The whole completion is in the format and nothing stands outside it.
        tags_in_order: Every mark is there and the first of each comes in the right order.
        reasoning: Text of the one reasoning block, stripped; None where there is not exactly one.
        answers: Text of each answer block, in order; none where a mark stands where none belongs.
        preamble: Text stands before the reasoning.
        failure: The first rule broken, None where strict.
    """

    strict: bool
    tags_in_order: bool
    reasoning: str | None
    answers: tuple[str, ...]
    preamble: bool
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class AnswerFormat:
    """One way to write an answer: `parse(render(reasoning, answer))` is strict.

    Attributes:
        name: What it is called in records.
        system_prompt: What asks a model for it; empty where nothing does.
        render: (reasoning, answer) -> completion text.
        parse: Completion text -> Parsed; never raises, and takes time linear in the text.
    """

    name: str
    system_prompt: str
    render: Callable[[str, str], str]
    parse: Callable[[str], Parsed]


def first_broken(*rules: tuple[bool, str]) -> str | None:
    """Return the name of the first rule that is not kept; None where all are."""
    for kept, name in rules:
        if not kept:
            return name
    return None
