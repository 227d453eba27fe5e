"""Rows of the table of examples, checked slot by slot before they are learnt from.

A row that does not fit is refused, by its id and slot, and never mended: a strong model's answer is
the gold here. Also said is how much of the gold is left where a page's HTML was cleaned.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nblib.files import shown
from nblib.sources.rows import Row, control_piece
from nblib.tasks.comparators import normalized
from nblib.tasks.json_text import read_json_text
from nblib.tasks.leaves import is_empty
from nblib.tasks.slots import Slots, read_slots

ANSWER = "answer"  # the slot of an answer that is one word
_SHOWN = 5  # refused rows named in a summary
_FIELDS = {
    "prompt": "a text of whole characters, not an empty one",
    "response": "an object of slots, or one word",
    "slot_specs": "an object: slot -> how it is filled and compared",
    "system_prompt": "a text, or nothing",
}


class Record(BaseModel):
    """What a row must hold, by `sources.examples_table`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    prompt: str = Field(min_length=1)
    response: dict[str, Any] | str
    slot_specs: dict[str, Any] = {}
    system_prompt: str | None = None

    @property
    def slots(self) -> Slots:
        """The slots as values; ValueError names one that cannot be read."""
        return read_slots(self.slot_specs)


@dataclass(kw_only=True)
class SlotGold:
    """The right values of a slot: how many rows have it, and how many of them say nothing.

    Of its verbatim texts, how many stand in the page as it came, and in what was kept of it.
    """

    rows: int = 0
    null: int = 0
    in_page: int = 0
    kept: int = 0
    verbatim: int = 0


@dataclass(frozen=True, kw_only=True)
class CheckedRows:
    """Rows that can be learnt from, and why the others cannot."""

    rows: tuple[Row, ...]
    refused: tuple[str, ...]  # one line each: "row shop/train/3: slot price: ..."
    gold: Mapping[tuple[str, str], "SlotGold"]  # (kind of page, slot) -> what its values are

    def __str__(self) -> str:
        """How many rows are there, and the first of those that were refused."""
        lines = [f"{len(self.rows)} rows, {len(self.refused)} refused", *self.refused[:_SHOWN]]
        if len(self.refused) > _SHOWN:
            lines.append(f"... and {len(self.refused) - _SHOWN} more")
        return "\n".join(lines)


def normalise_extractions(rows: Sequence[Row]) -> CheckedRows:
    """Return the rows that fit, and a line for each that does not."""
    kept, refused = list[Row](), list[str]()
    gold: dict[tuple[str, str], SlotGold] = {}
    for row in rows:
        try:
            record = read_record(row)
        except ValueError as error:
            refused.append(str(error))
            continue
        kept.append(row)
        if isinstance(record.response, dict):
            _count(row, record, record.response, gold)
    return CheckedRows(rows=tuple(kept), refused=tuple(refused), gold=gold)


def read_record(row: Row) -> Record:
    """Return a row's content; ValueError names the row, and the slot, of what does not fit."""
    try:
        record = Record.model_validate(row.fields)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        came = shown(row.fields[name]) if name in row.fields else "missing"
        raise ValueError(f"{row.named}: {name} is {came}, expected {_FIELDS[name]}") from error
    try:
        _check(record.response, record.slots)
        _check_texts(record)
    except ValueError as error:
        raise ValueError(f"{row.named}: {error}") from error
    return record


def _check(response: Mapping[str, Any] | str, slots: Slots) -> None:
    if isinstance(response, str):
        _check_word(response, slots)
        return
    if not slots:
        raise ValueError(
            "slot_specs is empty, expected a specification for each slot of the response"
        )
    for name in dict.fromkeys((*slots, *response)):
        if name not in slots:
            raise ValueError(f"slot {name}: in the response, but not in slot_specs")
        if name not in response:
            raise ValueError(
                f"slot {name}: missing in the response; give null where the page does not say it"
            )
    problem = slots.validator.problem(response)
    if problem is not None:
        raise ValueError(f"slot {problem.path}: {problem.message}")


def _check_word(response: str, slots: Slots) -> None:
    is_word = bool(response.strip()) and not set("{[\n") & set(response)
    if not is_word or slots.keys() - {ANSWER}:
        problem = "" if is_word or not response else f" ({read_json_text(response).problem})"
        expected = "an object of slots" if slots.keys() - {ANSWER} else _FIELDS["response"]
        raise ValueError(f"response is {shown(response)}, expected {expected}{problem}")
    words = slots[ANSWER].enum if ANSWER in slots else None
    if words and response not in words:
        raise ValueError(
            f"slot {ANSWER}: {shown(response)} is none of {', '.join(map(str, words))}"
        )


def _check_texts(record: Record) -> None:
    """Refuse what no model could read or write: half a character, NaN, a turn of the chat."""
    answer = record.response if isinstance(record.response, dict) else {ANSWER: record.response}
    parts = {"prompt": record.prompt, "system_prompt": record.system_prompt or ""}
    for name, value in (*parts.items(), *((f"slot {slot}", one) for slot, one in answer.items())):
        text = json.dumps(value, ensure_ascii=False)
        problem, piece = read_json_text(text).problem, control_piece(text)
        if piece is not None:
            problem = f"{piece!r} is no text but controls the chat"
        if problem is not None:
            raise ValueError(f"{name}: {problem}")


def _count(
    row: Row,
    record: Record,
    response: Mapping[str, Any],
    gold: dict[tuple[str, str], SlotGold],
) -> None:
    pages = [normalized(page) for page in (row.fields.get("html", record.prompt), record.prompt)]
    for name, slot in record.slots.items():
        value, found = response[name], gold.setdefault((row.group, name), SlotGold())
        found.rows += 1
        found.null += is_empty(value)
        if slot.verbatim and isinstance(value, str) and not is_empty(value):
            found.verbatim += 1
            found.in_page += normalized(value) in pages[0]
            found.kept += normalized(value) in pages[1]
