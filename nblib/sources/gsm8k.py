"""GSM8K as files: the two files of a folder, read into rows.

A source that is not there is a `SourceError` of one line, so that the next one is tried
(`nblib.sources.datasets`). Rows that are there but broken are a ValueError naming file and line:
going on elsewhere would hide it. The sources that need a network are in `nblib.sources.hubs`.
Data: https://github.com/openai/grade-school-math (Cobbe et al. 2021, arXiv 2110.14168).
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from json import JSONDecodeError
from pathlib import Path

from nblib.files import parse_json
from nblib.runs import KAGGLE_INPUT
from nblib.sources.rows import Dataset, Row, SourceError, one_line

FOLDER_VARIABLE = "NBLIB_GSM8K_DIR"
SPLITS = ("train", "test")
# File name of each split: the published JSON lines, and the CSV export on Kaggle.
LAYOUTS = (
    {"train": "train.jsonl", "test": "test.jsonl"},
    {"train": "main_train.csv", "test": "main_test.csv"},
)
LAYOUT_NAMES = " or ".join(f"({' and '.join(layout.values())})" for layout in LAYOUTS)
# `content_sha256` of the published train.jsonl (7,473 rows) and test.jsonl (1,319 rows), whose own
# sha256 begin with 17f347dc and 3730d312.
PUBLISHED_SHA256 = {
    "train": "66ba9d99f1056de6bc26d9fb6db90f0d58e9cf439a0b8f47152dbdf4848ca6b9",
    "test": "3f758a7cc7463935c93ee75d3a7bb4b5211a49292f20435e0fe3a5609f38467f",
}
_ATTACHED_DEPTH = 5  # /kaggle/input/datasets/<owner>/<slug>/<folder> and one to spare

# A record is its place, for messages, and what the source holds there.
Record = tuple[str, object]


def from_folder(folder: str = "") -> Dataset:
    """Read `folder`, else the one in NBLIB_GSM8K_DIR, else one attached under /kaggle/input.

    Raises:
        SourceError: there is no such folder, a split's file is missing, or it cannot be opened.
        ValueError: a file is there but empty, cut off, not UTF-8, or has a broken row.
    """
    chosen = folder or os.environ.get(FOLDER_VARIABLE, "")
    if chosen:
        return read_folder(Path(chosen).expanduser())
    attached = find_attached(KAGGLE_INPUT)
    if attached is None:
        raise SourceError(f"none given, {FOLDER_VARIABLE} is not set, none under {KAGGLE_INPUT}")
    return read_folder(attached)


def find_attached(root: Path) -> Path | None:
    """Return the first folder (by name) under `root` that holds both files of GSM8K, else None.

    Kaggle's mount points differ between layouts, so files count, not the path. Files of the same
    names that hold something else (train.jsonl is a common name) are passed over.
    """
    for here, folders, files in os.walk(root):
        folders.sort()
        if len(Path(here).relative_to(root).parts) >= _ATTACHED_DEPTH:
            folders.clear()
        if any(
            set(layout.values()) <= set(files) and _looks_like_gsm8k(Path(here, layout["train"]))
            for layout in LAYOUTS
        ):
            return Path(here)
    return None


def read_folder(folder: Path, origin: str = "") -> Dataset:
    """Read the two files in `folder`; errors as in `from_folder`."""
    layout = _layout_in(folder)
    splits = {split: _file_records(folder / layout[split]) for split in SPLITS}
    return dataset(origin or f"folder {folder}", splits)


def dataset(origin: str, splits: Mapping[str, Iterable[Record]]) -> Dataset:
    """Make the rows of both splits, and a note on each that differs from the published data.

    A record is a mapping with the texts "question" and "answer", as `str` or (TFDS) UTF-8 `bytes`.

    Raises:
        ValueError: a record is not such a mapping; the message begins with its place.
    """
    rows = {
        split: tuple(
            Row(
                id=f"gsm8k/{split}/{index}",
                fields={key: _text(record, key, place) for key in ("question", "answer")},
                place=place,
            )
            for index, (place, record) in enumerate(splits[split])
        )
        for split in SPLITS
    }
    made = Dataset.of("gsm8k", origin, rows["train"], rows["test"])
    notes = (
        f"{split} is not the published data: {len(rows[split])} rows, content sha256 "
        f"{made.sha256[split]}, expected {published}"
        for split, published in PUBLISHED_SHA256.items()
        if made.sha256[split] != published
    )
    return replace(made, notes=(*notes, *made.notes))


def _text(record: object, key: str, place: str) -> str:
    expected = "expected an object with the texts 'question' and 'answer'"
    if not isinstance(record, Mapping):
        raise ValueError(f"{place}: {expected}, got {type(record).__name__}")
    if key not in record:
        keys = ", ".join(sorted(map(str, record))) or "none"
        raise ValueError(f"{place}: the key '{key}' is missing, {expected}, got the keys: {keys}")
    value = record[key]
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise ValueError(f"{place}: '{key}' is {value!r:.60}, expected a text")
    return value


def _layout_in(folder: Path) -> Mapping[str, str]:
    """Return the layout whose two files `folder` holds; SourceError says what is there instead."""
    if not folder.exists():
        raise SourceError(f"the folder {folder} does not exist")
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise SourceError(f"the folder {folder} cannot be read: {one_line(error)}") from error
    for layout in LAYOUTS:
        if set(layout.values()) <= set(names):
            return layout
    if not names:
        raise SourceError(f"the folder {folder} is empty, expected {LAYOUT_NAMES}")
    present = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise SourceError(f"the folder {folder} holds {present}; expected {LAYOUT_NAMES}")


def _file_records(path: Path) -> Iterable[Record]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {one_line(error)}") from error
    try:
        text = content.decode("utf-8-sig")  # a byte order mark, as Windows editors write, is no row
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path} line {line}: {error.reason}; expected UTF-8 text") from error
    if not text.strip():
        raise ValueError(f"{path} is empty, expected one row a line; copy or download it again")
    return (_csv_records if path.suffix == ".csv" else _jsonl_records)(text, path)


def _jsonl_records(text: str, path: Path) -> Iterable[Record]:
    # Not splitlines(): it would also split at separators that JSON allows inside a text.
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        place, last = f"{path} line {number}", number == len(lines)
        if last and not line:  # the end of the line before, not a line
            break
        try:
            yield place, parse_json(line)
        except ValueError as error:
            if last and isinstance(error, JSONDecodeError):
                why = "the file ends in the middle of this line; copy or download it again"
            else:
                why = f'not JSON ({error}), expected {{"question": "...", "answer": "..."}}'
            raise ValueError(f"{place}: {why}") from error


def _csv_records(text: str, path: Path) -> Iterable[Record]:
    # newline="" as the csv module asks: a line end inside quotes is part of the text.
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    line = 2  # the first one names the columns; a record's place is the line it begins at
    try:
        for record in reader:
            yield f"{path} line {line}", record
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path} line {line}: not CSV ({error}); copy it again") from error


def _looks_like_gsm8k(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.read(4000)
    except OSError:
        return False
    return all(mark in head for mark in ("question", "answer", "####"))
