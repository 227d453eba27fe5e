"""Tables of a DuckDB file: their rows as records, one after the other, and a table written.

A column of objects may be JSON, a text that holds JSON, a STRUCT or a MAP: it comes as JSON.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.files import parse_json
from nblib.sources.rows import SourceError

DUCKDB = (".duckdb", ".ddb")
_CHUNK = 1024  # rows that are fetched at a time
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table, or a view, of an open file.

    Attributes:
        kinds: Column -> its type, of all columns there are.
    """

    file: str
    name: str
    kinds: Mapping[str, str]
    _ask: Callable[[str], Iterator[tuple[Any, ...]]]

    def require(self, *columns: str) -> None:
        """Raise SourceError for columns that are not there."""
        if problem := missing(self.kinds, columns):
            raise SourceError(f"{self.file}, table {self.name}: {problem}")

    def count(self) -> int:
        """Return how many rows there are."""
        ((count,),) = self._ask(f'select count(*) from "{self.name}"')
        return int(count)

    def read(
        self, columns: Sequence[str], *, objects: Sequence[str] = (), order: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows as records with those of these columns that there are.

        In the order in which they were written, or of the SQL `order`. Of a STRUCT the keys that
        only other rows have are left out.
        """
        names = [column for column in columns if column in self.kinds]
        texts = ("VARCHAR", "JSON")
        is_made = {one: one in objects and self.kinds[one] not in texts for one in names}
        listed = (f"to_json({one}) as {one}" if made else one for one, made in is_made.items())
        structs = [one for one in names if is_made[one] and self.kinds[one].startswith("STRUCT")]
        by = f" order by {order}" if order else ""
        for row in self._ask(f'select {", ".join(listed)} from "{self.name}"{by}'):
            record = dict(zip(names, row, strict=True))
            yield record | _without_padding(record, structs)


@contextmanager
def open_tables(path: Path) -> Iterator[dict[str, Table]]:
    """Open a file to be read, and yield its tables by their names.

    Raises SourceError where the file cannot be read: missing, locked, no database.
    """
    duckdb = duckdb_package(path)
    with path.open("rb") as file:  # duckdb would fetch an extension for a file of another kind
        if file.read(12)[8:] != b"DUCK":
            raise SourceError(f"{path} is no DuckDB file, or a damaged one")
    try:
        with duckdb.connect(str(path), read_only=True) as database:

            def ask(query: str) -> Iterator[tuple[Any, ...]]:
                found = database.execute(query)
                while rows := found.fetchmany(_CHUNK):
                    yield from rows

            names = [str(name) for (name,) in ask("show tables")]
            yield {name: _table(path.name, name, ask) for name in names}
    except duckdb.Error as error:
        raise SourceError(f"{path.name} cannot be read: {_what_to_do(str(error))}") from error


def write_table(
    path: Path, name: str, columns: Mapping[str, str], records: Iterable[Record]
) -> None:
    """Write a file with one table whole or not at all; `columns` are their types, by their names.

    Raises SourceError without the package duckdb, and where it cannot be written.
    """
    duckdb = duckdb_package(path)
    lines, made = (path.with_name(f".{path.name}.{end}") for end in ("lines", "tmp"))
    try:
        with lines.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(one) + "\n" for one in records)
        made.unlink(missing_ok=True)
        with duckdb.connect(str(made)) as database:
            typed = ", ".join(f"{column}: '{kind}'" for column, kind in columns.items())
            reader = f"read_json(?, format = 'newline_delimited', columns = {{{typed}}})"
            database.execute(f"create table {name} as select * from {reader}", [str(lines)])
        made.replace(path)
    except duckdb.Error as error:
        raise SourceError(f"{path} cannot be written: {_what_to_do(str(error))}") from error
    finally:
        for one in (lines, made):
            one.unlink(missing_ok=True)


def missing(columns: Mapping[str, Any], needed: Sequence[str]) -> str | None:
    """Return a sentence on the needed columns that are not there; None where all are."""
    lacking = [name for name in needed if name not in columns]
    if not lacking:
        return None
    there = ", ".join(columns) or "nothing"
    return f"lacks {', '.join(lacking)}; it has {there}; expected {', '.join(needed)}"


def json_value(value: Any) -> Any:
    """Return what a text says in JSON, also where it was written as JSON twice; else the text."""
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = parse_json(value.encode(errors="surrogatepass"))
            except ValueError:
                return value.strip()
    return value


def duckdb_package(path: Path) -> Any:
    """Return the package that a file needs; SourceError says how to get it."""
    try:
        import duckdb
    except ImportError as error:
        raise SourceError(
            f"{path.name} needs the package duckdb: pip install 'nblib[extraction]', or give the "
            "rows as a .jsonl file"
        ) from error
    return duckdb


def _table(file: str, name: str, ask: Callable[[str], Iterator[tuple[Any, ...]]]) -> Table:
    kinds = {str(column): str(kind) for column, kind, *_ in ask(f'describe "{name}"')}
    return Table(file=file, name=name, kinds=kinds, _ask=ask)


def _without_padding(record: Record, structs: Sequence[str]) -> dict[str, Any]:
    """Return a record's STRUCTs without the keys that only other rows have: there they are null."""
    made = dict[str, Any]()
    specs, response = (json_value(record.get(one)) for one in ("slot_specs", "response_strong"))
    if "slot_specs" in structs:
        specs = made["slot_specs"] = _without_nulls(specs)
    if "response_strong" in structs and isinstance(response, dict):
        kept = {key for key, one in response.items() if one is not None} | {*(specs or ())}
        made["response_strong"] = {key: one for key, one in response.items() if key in kept}
    return made


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_nulls(one) for key, one in value.items() if one is not None}


def _what_to_do(problem: str) -> str:
    """Return the first line of an error of duckdb, and what helps against it."""
    first = problem.strip().partition("\n")[0].partition(". See also")[0][:300]
    if "Could not set lock" in problem:
        return f"{first}. Another program has it open for writing: close it there first"
    if "different configuration" in problem:
        return f"{first}. This program has it open for writing: close that connection first"
    return first
