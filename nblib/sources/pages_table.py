r"""Pages to be read: a table of a DuckDB file, or JSON Lines, row by row.

    id             shop/17
    task           productpage_extractor      the kind of page
    html           <html>...                  a page, which is asked as its kind is; or
    prompt_text    Read ...\n\n<html>...      the question whole, instruction and page
    slot_specs     {"name": {...}}            may be missing: those of the kind
    system_prompt  may be missing: that of the kind

A DuckDB file has them in a table `pages`, or else in `examples`. No row is refused here: what is
wrong with one is for its answer to say.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.sources.duckdb_file import DUCKDB, Table, json_value, missing, open_tables
from nblib.sources.json_lines import SUFFIXES, read_objects
from nblib.sources.rows import SourceError

_TABLES = ("pages", "examples")
_NEEDED, _ASKED, _MORE = ("id", "task"), ("html", "prompt_text"), ("slot_specs", "system_prompt")
_COLUMNS = (*_NEEDED, *_ASKED, *_MORE)


@dataclass(frozen=True, kw_only=True)
class PageRow:
    """One page as its source gave it; `number` counts from 0, and what is not there is ""."""

    number: int
    id: str
    task: str
    html: str
    prompt_text: str
    system_prompt: str
    slot_specs: Any  # None where it has none


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The pages of an open file."""

    name: str
    count: int
    sha256: str  # of the file
    records: Iterator[Mapping[str, Any]]

    def __iter__(self) -> Iterator[PageRow]:
        """Yield the pages in the file's order."""
        for number, record in enumerate(self.records):
            texts = {name: _text(record.get(name)) for name in _COLUMNS if name != "slot_specs"}
            specs = json_value(record.get("slot_specs")) or None
            yield PageRow(number=number, slot_specs=specs, **texts)


@contextmanager
def open_pages(path: Path) -> Iterator[Pages]:
    """Open a file of pages; they can be gone through once.

    Raises SourceError where it cannot be read or lacks a column, ValueError, by its number, for a
    line that is no JSON object.
    """
    is_database = path.suffix in DUCKDB
    if not is_database and not path.name.endswith(SUFFIXES):
        kinds = ", ".join((*DUCKDB, *SUFFIXES))
        raise SourceError(f"{path}: expected a file of pages that ends in one of {kinds}")
    if not path.is_file():
        raise SourceError(f"{path} is {'a folder' if path.is_dir() else 'missing'}")
    with path.open("rb") as file:
        known = {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if is_database:
        with open_tables(path) as tables:
            table = _table_of_pages(path.name, tables)
            records = table.read(_COLUMNS, objects=("slot_specs",))
            yield Pages(**known, count=table.count(), records=records)
    else:
        count = sum(_is_checked(place, one) for _, place, one in read_objects(path))
        yield Pages(**known, count=count, records=(one for _, _, one in read_objects(path)))


def _table_of_pages(file: str, tables: Mapping[str, Table]) -> Table:
    table = next((tables[name] for name in _TABLES if name in tables), None)
    if table is None:
        there = ", ".join(sorted(tables)) or "none"
        raise SourceError(
            f"{file} has no table {' or '.join(map(repr, _TABLES))}; its tables are: {there}"
        )
    table.require(*_NEEDED)
    if not set(_ASKED) & table.kinds.keys():
        table.require("html")
    return table


def _is_checked(place: str, record: Mapping[str, Any]) -> bool:
    """Return true for a line that has what a page needs; ValueError names what is not there."""
    problem = missing(record, _NEEDED)
    if not problem and not set(_ASKED) & record.keys():
        problem = missing(record, (*_NEEDED, "html"))
    if problem:
        raise ValueError(f"{place}: {problem}")
    return True


def _text(value: Any) -> str:
    return "" if value is None else str(value)
