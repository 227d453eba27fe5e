"""The table of answers: one row a page, in a DuckDB file or as JSON Lines.

    id                 shop/17
    task               productpage_extractor
    answer             {"name": "Mug", ...}     JSON; null where there is none, or it was cut
    valid              true                     by the schema of its slots
    truncated          false                    cut at the token limit, and never repaired
    prompt_tokens      412
    completion_tokens  71                       without the stop token
    problem            null                     or why the page could not be asked

A table that was made here may be replaced, no other file.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nblib.files import parse_json, read_jsonl, read_lines, write_jsonl
from nblib.sources.duckdb_file import DUCKDB, duckdb_package, missing, open_tables, write_table
from nblib.sources.rows import SourceError

_TABLE = "answers"
_COLUMNS: Mapping[str, str] = {
    "id": "VARCHAR",
    "task": "VARCHAR",
    "answer": "JSON",
    "valid": "BOOLEAN",
    "truncated": "BOOLEAN",
    "prompt_tokens": "BIGINT",
    "completion_tokens": "BIGINT",
    "problem": "VARCHAR",
}


def write_answers(path: Path, answers: Iterable[Mapping[str, Any]]) -> None:
    """Write the table whole or not at all; more that an answer holds is left out."""
    rows = ({name: one[name] for name in _COLUMNS} for one in answers)
    if path.suffix in DUCKDB:
        write_table(path, _TABLE, _COLUMNS, rows)
    else:
        write_jsonl(path, rows)


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table that `write_answers` wrote.

    Raises ValueError for another file, and SourceError where it cannot be read.
    """
    if path.suffix in DUCKDB:
        with open_tables(path) as tables:
            table = tables.get(_TABLE)
            rows = list(table.read([*_COLUMNS])) if table else [{}]
        for row in rows:
            row["answer"] = parse_json(row["answer"]) if row.get("answer") else None
    else:
        rows = read_jsonl(path)
    for row in rows:
        if not isinstance(row, dict) or missing(row, [*_COLUMNS]):
            raise ValueError(f"{path} is no table of answers: give what extract wrote")
    return rows


def check_replaceable_answers(path: Path) -> None:
    """Raise ValueError where a table of answers cannot be written, or would replace another file.

    Raises SourceError where it is to be a DuckDB file and that package is missing.
    """
    if path.suffix in DUCKDB:
        duckdb_package(path)
    elif path.suffix != ".jsonl":
        raise ValueError(f"{path}: expected a file that ends in {', '.join((*DUCKDB, '.jsonl'))}")
    if path.exists() and not _is_ours(path):
        raise ValueError(f"{path} holds something else: name another file, or remove it")


def _is_ours(path: Path) -> bool:
    try:
        if path.suffix in DUCKDB:
            with open_tables(path) as tables:
                return {name: [*one.kinds] for name, one in tables.items()} == {_TABLE: [*_COLUMNS]}
        first = json.loads(next(read_lines(path), b"null"))
    except (ValueError, OSError, SourceError):
        return False
    return isinstance(first, dict) and [*first] == [*_COLUMNS]
