"""Values that a person looks at: a table to be marked, and what the marks change.

    id,task,slot,gold,answer,why,mark
    shop/7,product,price,12.5,12.50001,wrong; base_grammar had it right,right
    shop/9,product,stock,true,null,omitted; base_grammar had it right,gold is wrong

`right` accepts the answer besides the gold; `gold is wrong` leaves the slot, or a row of one word,
out of the evaluation; `wrong` changes nothing, as no mark does. Gold and answer are JSON, so that a
spreadsheet leaves them as they are. A mark is found again by its id and slot.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from nblib.files import parse_json, shown, write_text
from nblib.tasks.extraction_rows import ANSWER
from nblib.tasks.task import Example

RIGHT, WRONG, GOLD_IS_WRONG = "right", "wrong", "gold is wrong"
MARKS = (RIGHT, WRONG, GOLD_IS_WRONG)
REVIEW_FILE = "review.csv"
_BOM = "\ufeff"  # by which a spreadsheet knows the encoding
_NAMED = 5  # ids in a note


@dataclass(frozen=True, kw_only=True)
class ReviewRow:
    """One value to be looked at; `gold` and `answer` are values as JSON has them."""

    id: str
    task: str
    slot: str
    gold: Any
    answer: Any
    why: str
    mark: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What a mark belongs to."""
        return self.id, self.slot, json.dumps(self.answer)


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """Examples as a review leaves them.

    Attributes:
        examples: Those that are asked.
        counts: What was done -> how often.
        unknown: Marked ids, or slots, that are not among the examples.
    """

    examples: tuple[Example, ...]
    counts: Mapping[str, int]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        """What the marks changed, and which belong to no example here."""
        if not (self.unknown or any(self.counts.values())):
            return "no marks of a review change anything"
        line = "review: " + ", ".join(f"{count} {what}" for what, count in self.counts.items())
        if not self.unknown:
            return line
        more = ", ..." if len(self.unknown) > _NAMED else ""
        named = ", ".join(self.unknown[:_NAMED]) + more
        return f"{line}\n{len(self.unknown)} marks are of no row that is asked: {named}"


def read_review(path: Path) -> tuple[ReviewRow, ...]:
    """Return the rows of a review, marked or not.

    Commas or semicolons part the columns. Raises OSError where the file cannot be read,
    ValueError, by file and line, for a column that is missing, an unknown mark, and an answer that
    is no JSON.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        delimiter = ";" if head.count(";") > head.count(",") else ","
        reader = csv.DictReader(file, delimiter=delimiter)
        names = [one.name for one in fields(ReviewRow)]
        missing = [name for name in names if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: lacks the columns {', '.join(missing)}")
        return tuple(_row(f"{path}:{reader.line_num}", one) for one in reader)


def write_review(path: Path, rows: Iterable[ReviewRow]) -> tuple[ReviewRow, ...]:
    """Write rows to be marked, and return them; the marks of a file that is there are kept.

    Raises ValueError where that file is no review.
    """
    old = read_review(path) if path.exists() else ()
    marked = {one.key: one for one in old if one.mark}
    every = {one.key: one for one in rows}
    new = {
        key: replace(one, mark=marked[key].mark) if key in marked else one
        for key, one in every.items()
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(ReviewRow)], lineterminator="\n")
    writer.writeheader()
    for one in (*new.values(), *(marked[key] for key in marked if key not in new)):
        values = {name: _json(getattr(one, name)) for name in ("gold", "answer")}
        writer.writerow(asdict(one) | values)
    write_text(path, _BOM + text.getvalue())
    return tuple(new.values())


def apply_review(rows: Sequence[ReviewRow], examples: Sequence[Example]) -> Reviewed:
    """Return examples as the marks of a review leave them."""
    marked = [one for one in rows if one.mark]
    of_example: dict[str, list[ReviewRow]] = {}
    for one in marked:
        of_example.setdefault(one.id, []).append(one)
    counts = {"accepted": 0, "slots left out": 0, "rows left out": 0}
    kept, known = list[Example](), set[tuple[str, str]]()
    for example in examples:
        own = [one for one in of_example.get(example.id, ()) if one.slot in _slots(example)]
        known.update((one.id, one.slot) for one in own)
        changed = _changed(example, own, counts)
        if changed is not None:
            kept.append(changed)
    unknown = (f"{one.id} {one.slot}" for one in marked if (one.id, one.slot) not in known)
    return Reviewed(examples=tuple(kept), counts=counts, unknown=tuple(unknown))


def _changed(example: Example, rows: Sequence[ReviewRow], counts: dict[str, int]) -> Example | None:
    """Return an example as its marks leave it, None where nothing of it is right."""
    specs = {name: dict(spec) for name, spec in _slots(example).items()}
    left_out = {one.slot for one in rows if one.mark == GOLD_IS_WRONG}
    if left_out == specs.keys():
        counts["rows left out"] += 1
        return None
    for name in left_out:
        specs[name]["counted"] = False
    counts["slots left out"] += len(left_out)
    for one in rows:
        if one.mark == RIGHT and one.slot not in left_out:
            specs[one.slot]["accept"] = [*specs[one.slot].get("accept", ()), one.answer]
            counts["accepted"] += 1
    is_changed = any(one.mark != WRONG for one in rows)
    return replace(example, slot_specs=specs) if is_changed else example


def _slots(example: Example) -> Mapping[str, Mapping[str, Any]]:
    """Return the specification of each slot; that of a word says which words there are."""
    if not isinstance(example.reference, str):
        return example.slot_specs
    word: dict[str, Any] = {"type": "string", "nullable": False}
    words = {"enum": ["YES", "NO"]} if example.reference in ("YES", "NO") else {}
    return {ANSWER: example.slot_specs.get(ANSWER, word | words)}


def _row(place: str, values: Mapping[str, str | None]) -> ReviewRow:
    texts = {name: (values[name] or "").strip() for name in ("id", "task", "slot", "why", "mark")}
    mark = texts.pop("mark").casefold()
    if mark not in ("", *MARKS):
        expected = ", ".join(map(repr, MARKS))
        raise ValueError(f"{place}: mark is {shown(mark)}, expected one of {expected}, or nothing")
    read = {name: _value(place, name, values[name] or "") for name in ("gold", "answer")}
    return ReviewRow(**texts, **read, mark=mark)


def _value(place: str, name: str, text: str) -> Any:
    if text in ("TRUE", "FALSE"):  # as some spreadsheets write them
        text = text.lower()
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{place}: {name} is {shown(text)}, expected JSON as it was") from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
