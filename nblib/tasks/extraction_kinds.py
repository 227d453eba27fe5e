r"""Kinds of pages: how pages of one task with the same slots are asked, and what answers them.

    task         productpage_extractor
    instruction  "Read the product as JSON: name, price.\n\n", behind which the page follows
    slot_specs   {"name": {"type": "string"}, "price": {"type": "number"}}
    json_schema  {"type": "object", "required": ["name", "price"], ...}; of a classifier its words

A tuned model's package lists the kinds that it was trained on, so that a page can be asked as the
examples were. An instruction is what the examples' prompts begin with alike; where they do not, a
page can only be asked by a prompt of its own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from nblib.sources.html_text import before_tags
from nblib.sources.rows import Row
from nblib.tasks.extraction import answer_schema
from nblib.tasks.task import Example

# An instruction ends at an empty line; a label may stand before each page: "Request: ".
_INSTRUCTION = re.compile(r".*\n\n(?:[A-Z][^\n:]{0,20}: )?", re.DOTALL)


class PageKind(BaseModel):
    """Pages that are asked alike.

    Attributes:
        task: Its slug.
        slot_specs: How its slots are filled and compared; a classifier may have none.
        system_prompt: Before the instruction; "" is none.
        instruction: What stands before the page; None where the examples do not show one.
        json_schema: Of the answer; None where it is one of `words`.
        words: Of which the answer is one; () where it is an object.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    slot_specs: dict[str, Any]
    system_prompt: str
    instruction: str | None
    json_schema: dict[str, Any] | None
    words: tuple[str, ...]

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.json_schema is None) != bool(self.words):
            raise ValueError(f"kind {self.task}: expected either a json_schema or words")
        return self

    def question(self, id_: str, prompt: str, **own: Any) -> Example:
        """Return a page's question as an example without a reference; `own` is the row's."""
        given = {"slot_specs": self.slot_specs, "system_prompt": self.system_prompt, **own}
        return question(id_, prompt, group=self.task, word=(*self.words, "")[0], **given)


@dataclass(frozen=True, kw_only=True)
class PageKinds:
    """The kinds that a model was trained on, and a line for each that no grammar can answer."""

    kinds: tuple[PageKind, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        """How many kinds there are, and what is left out."""
        bare = sum(one.instruction is not None for one in self.kinds)
        line = f"{len(self.kinds)} kinds of pages, {bare} with an instruction for any page"
        return "\n".join((line, *(f"left out: {one}" for one in self.left_out)))


def question(id_: str, prompt: str, *, group: str, word: str = "", **own: Any) -> Example:
    """Return a question without a reference; its answer is an object, or one word like `word`."""
    return Example(id=id_, prompt=prompt, completion="", reference=word or {}, group=group, **own)


def page_kinds(examples: Sequence[Example], rows: Sequence[Row]) -> PageKinds:
    """Return the kinds of examples; `rows`, the examples' and others, hold their pages' HTML."""
    pages = {row.id: row.fields.get("html") for row in rows}
    grouped: dict[tuple[str, str, bool], list[Example]] = {}
    for one in examples:
        key = (one.group, json.dumps(one.slot_specs), isinstance(one.reference, str))
        grouped.setdefault(key, []).append(one)
    kinds, left_out = [], []
    for alike in grouped.values():
        try:
            kinds.append(_kind(alike, [pages.get(one.id) for one in alike]))
        except ValueError as error:
            left_out.append(f"{alike[0].group}: {error}")
    return PageKinds(kinds=tuple(kinds), left_out=tuple(left_out))


def _kind(alike: Sequence[Example], pages: Sequence[str | None]) -> PageKind:
    """Return the kind of examples; ValueError where their answers cannot be bound by a grammar."""
    first = alike[0]
    is_word = isinstance(first.reference, str)
    # Without a right value: no page's type, or length, may become that of the others.
    form = answer_schema(
        question(
            first.id,
            "",
            group=first.group,
            word=str(first.reference) if is_word else "",
            slot_specs=first.slot_specs,
        )
    )
    systems = {one.system_prompt or "" for one in alike}
    is_asked_alike = len(systems) == 1
    return PageKind(
        task=first.group,
        slot_specs=dict(first.slot_specs),
        system_prompt=systems.pop() if is_asked_alike else "",
        instruction=_instruction([one.prompt for one in alike], pages) if is_asked_alike else None,
        json_schema=dict(form) if isinstance(form, Mapping) else None,
        words=() if isinstance(form, Mapping) else tuple(form),
    )


def _instruction(prompts: Sequence[str], pages: Sequence[str | None]) -> str | None:
    """Return what stands before every page; None where the prompts do not show it."""
    both = zip(prompts, pages, strict=True)
    heads = {before_tags(page) if page else prompt for prompt, page in both}
    if len(heads) == 1:  # of HTML all that stands before the first tag; one text says nothing
        return heads.pop() if all(pages) else None
    found = _INSTRUCTION.match(_common_start(min(heads), max(heads)))
    return found[0] if found else None


def _common_start(first: str, last: str) -> str:
    """Return what two texts begin with; where they are the first and last of many, all do."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(one for one, _ in alike)
