"""Rows of a JSON Lines file, for any task: each line is an object, its fields are the row's.

A row is for the split that its field `split` names, or else for the one that its question's hash
falls to, one in ten for the test: the same question is never in both. Which fields a row needs
besides its question, and what they mean, is for the task to say.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nblib.files import parse_json, read_lines, shown
from nblib.sources.rows import Dataset, Row, SourceError

SUFFIXES = (".jsonl", ".jsonl.gz")
_SPLITS = ("train", "test")
_TEST_SHARE = 10  # one question in so many


def from_json_lines(name: str, *, asked: str) -> Dataset:
    """Read a file; `asked` is the field of a row that holds its question.

    Raises SourceError where the file cannot be opened, ValueError, by file and line, for a line
    that is no object or has no question, and where a split would be empty.
    """
    path = Path(name).expanduser()
    rows: dict[str, list[Row]] = {split: [] for split in _SPLITS}
    for number, place, record in read_objects(path):
        split = _split_of(record, asked, place)
        id_ = f"{path.stem}/{split}/{number - 1}"
        rows[split].append(Row(id=id_, fields=record, place=place))
    for split, found in rows.items():
        if not found:
            raise ValueError(
                f"{path}: no row for the split {split!r}; add rows, or a field 'split'"
            )
    train, test = (tuple(rows[split]) for split in _SPLITS)
    return Dataset.of(name, f"rows of {path.name}", train, test, asked=asked)


def read_objects(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield each line's number, its place for messages ("rows.jsonl line 3") and its object.

    Raises SourceError where the file cannot be read, ValueError, by the place, for a line that is
    no JSON object.
    """
    try:
        for number, line in enumerate(read_lines(path), start=1):
            if line.isspace():
                continue
            place = f"{path.name} line {number}"
            try:
                record = parse_json(line)
            except ValueError as error:
                raise ValueError(f"{place}: expected a JSON object, {error}") from error
            if not isinstance(record, dict):
                raise ValueError(f"{place}: expected a JSON object, got {shown(record)}")
            yield number, place, record
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error


def _split_of(record: dict[str, Any], asked: str, place: str) -> str:
    """Return the split of a line's object, whose field `split` is taken out."""
    question, split = record.get(asked), record.pop("split", None)
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"{place}: {asked!r} is {shown(question)}, expected a text")
    if split is None:
        digest = hashlib.sha256(" ".join(question.casefold().split()).encode()).digest()
        split = _SPLITS[digest[0] % _TEST_SHARE == 0]
    if split not in _SPLITS:
        raise ValueError(f"{place}: 'split' is {shown(split)}, expected one of {_SPLITS}")
    return str(split)
