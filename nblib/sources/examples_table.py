"""The table of examples: pages with a strong model's answers, of DuckDB or of JSON Lines.

    id               snips/train/PlayMusic/12
    task             utterance_slots           a slug: rows of one slug are asked alike
    prompt_text      Extract the slots ...     the question whole; its HTML is cleaned here
    response_strong  {"artist": "Sia", ...}    JSON, or one word such as YES
    slot_specs       {"artist": {"type": "string", "nullable": true, "compare": "normalized"}, ...}
    metadata         {"domain": "PlayMusic", "split": "train"}; it may be missing, whole or in part
    system_prompt    may be missing; it may also stand in `metadata`

Objects may be JSON, a text that holds JSON, or, in DuckDB, a STRUCT or MAP. A DuckDB file may also
have a table `tasks` (task, system_prompt) for rows that have no prompt of their own. Whether an
answer fits its slots is for the task to say (`tasks.extraction_rows`).
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nblib.files import parse_json, shown
from nblib.sources.html_text import visible_text
from nblib.sources.json_lines import read_objects
from nblib.sources.rows import Dataset, Row, SourceError
from nblib.sources.splits import Page, split_pages

DUCKDB = (".duckdb", ".ddb")
SCHEMA = 1  # version of the columns below, recorded with the data
_TABLE, _TASKS = "examples", "tasks"
_COLUMNS = ("id", "task", "prompt_text", "response_strong", "slot_specs")
_OPTIONAL = ("metadata", "system_prompt")
_OBJECTS = ("response_strong", "slot_specs", "metadata")
_PLACE, _OF_TASK = "place", "system_prompt of its task"  # what a reader adds to a record
_NAMED = 20  # slugs in a message
_Record = Mapping[str, Any]
_Ask = Callable[[str], list[tuple[Any, ...]]]  # a query -> its rows


def from_examples(name: str, *, slugs: Sequence[str] = ()) -> Dataset:
    """Read the rows of these slugs, all where none is named, and split them.

    Rows come in the order of their ids' hashes, so that each part of them is like the whole, and
    the same rows in another file are the same data.

    Raises SourceError where the file cannot be read (missing, locked, no database, without the
    table or its columns), ValueError for a broken line or row, for a slug that has no row, and
    where a split would be empty.
    """
    path = Path(os.path.expanduser(name))
    is_database = path.suffix in DUCKDB
    expected = f"a DuckDB file with a table {_TABLE!r}" if is_database else "a file of JSON Lines"
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "is missing"
        raise SourceError(f"{path} {problem}: expected {expected}")
    records, what = (_read_duckdb if is_database else _read_json_lines)(path)
    if not records:
        raise SourceError(f"{path} has no rows: expected {expected}")
    chosen = sorted(of_slugs(path.name, records, slugs), key=_drawn)
    return split_records(name, f"{len(chosen):,} rows of {path.name}{what}", chosen)


def _drawn(record: _Record) -> bytes:
    return hashlib.sha256(str(record["id"]).encode(errors="replace")).digest()


def of_slugs(name: str, records: Sequence[_Record], slugs: Sequence[str]) -> Sequence[_Record]:
    """Return the records of these slugs, all for none; ValueError for a slug without a record."""
    found = sorted({str(record["task"]) for record in records})
    unknown = [slug for slug in slugs if slug not in found]
    if unknown:
        more = ", ..." if len(found) > _NAMED else ""
        known = f"{', '.join(found[:_NAMED])}{more}"
        raise ValueError(f"TASKS {unknown[0]!r}: {name} has no such rows, only those of {known}")
    return [record for record in records if not slugs or str(record["task"]) in slugs]


def split_records(name: str, origin: str, records: Sequence[_Record]) -> Dataset:
    """Return records as the rows of both splits; ValueError where one would be empty."""
    pages = list(_pages(name, records))
    train, test, notes = split_pages(pages)
    for split, rows in (("train", train), ("test", test)):
        if not rows:
            why = "; ".join(notes) or f"all {len(pages)} rows are for the other one"
            what_to_do = "add rows with another `split` or `domain` in their metadata"
            raise ValueError(f"{name}: no row for the split {split!r}: {why}; {what_to_do}")
    notes += tuple(_repeated(records))
    data = Dataset.of(name, origin, train, test, asked="prompt")
    return Dataset(**{**vars(data), "notes": (*notes, *data.notes)})


def _repeated(records: Sequence[_Record]) -> Iterator[str]:
    seen, repeated = set[str](), list[str]()
    for id_ in (str(record["id"]) for record in records):
        repeated += [id_] * (id_ in seen)
        seen.add(id_)
    if repeated:
        yield f"{len(repeated)} rows left out whose id was there before, such as {repeated[0]}"


def _pages(name: str, records: Sequence[_Record]) -> Iterator[Page]:
    """Yield each record as a page; of one id the first alone. ValueError names a broken one."""
    seen = set[str]()
    for record in records:
        id_ = str(record["id"])
        where = record.get(_PLACE) or f"{name}: row {id_}"
        for column in ("id", "task"):
            if record[column] in (None, ""):
                raise ValueError(f"{where}: its {column} is empty; each row needs one")
        if id_ not in seen:
            seen.add(id_)
            yield _page(where, record)


def _page(where: str, record: _Record) -> Page:
    prompt = "" if record["prompt_text"] is None else record["prompt_text"]
    if not isinstance(prompt, str):
        raise ValueError(f"{where}: prompt_text is {shown(prompt)}, expected a text")
    metadata = _json(record.get("metadata")) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"{where}: metadata is {shown(metadata)}, expected a JSON object")
    cleaned, response = visible_text(prompt), _json(record["response_strong"])
    asked = (record.get("system_prompt"), metadata.get("system_prompt"), record.get(_OF_TASK))
    fields = {
        "prompt": cleaned,
        "response": response,
        "slot_specs": _json(record["slot_specs"]) or {},
        "system_prompt": next(filter(None, asked), None),
    }
    fields |= {"html": prompt} if cleaned != prompt else {}
    id_, group = str(record["id"]), str(record["task"])
    return Page(
        row=Row(id=id_, fields=fields, group=group, place=record.get(_PLACE, "")),
        text=cleaned,
        domain=str(metadata.get("domain") or ""),
        split=str(metadata.get("split") or ""),
        answer=response,
    )


def _json(value: Any) -> Any:
    """Return what a text says in JSON, also where it was written as JSON twice; else the text."""
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = parse_json(value.encode(errors="surrogatepass"))
            except ValueError:
                return value.strip()
    return value


def _read_json_lines(path: Path) -> tuple[Sequence[_Record], str]:
    records = list[_Record]()
    for _, place, record in read_objects(path):
        missing = _missing(record, _COLUMNS)
        if missing:
            raise ValueError(f"{place}: {missing}")
        records.append({**record, _PLACE: place})
    return records, f", schema {SCHEMA}"


def _read_duckdb(path: Path) -> tuple[Sequence[_Record], str]:
    try:
        import duckdb
    except ImportError as error:
        raise SourceError(
            f"{path.name} needs the package duckdb: pip install 'nblib[extraction]', or give the "
            "rows as a .jsonl file"
        ) from error
    with path.open("rb") as file:  # duckdb would fetch an extension for a file of another kind
        if file.read(12)[8:] != b"DUCK":
            raise SourceError(f"{path} is no DuckDB file, or a damaged one")
    try:
        with duckdb.connect(str(path), read_only=True) as database:
            return _read_tables(path.name, lambda query: database.execute(query).fetchall())
    except duckdb.Error as error:
        raise SourceError(f"{path.name} cannot be read: {_what_to_do(str(error))}") from error


def _read_tables(name: str, ask: _Ask) -> tuple[Sequence[_Record], str]:
    tables = [str(table) for (table,) in ask("show tables")]
    if _TABLE not in tables:
        there = ", ".join(sorted(tables)) or "none"
        raise SourceError(f"{name} has no table {_TABLE!r}; its tables are: {there}")
    kinds = _kinds(name, ask, _TABLE, _COLUMNS)
    names = [column for column in (*_COLUMNS, *_OPTIONAL) if column in kinds]
    texts = ("VARCHAR", "JSON")
    is_made = {one: one in _OBJECTS and kinds[one] not in texts for one in names}
    listed = ", ".join(f"to_json({one}) as {one}" if made else one for one, made in is_made.items())
    rows = ask(f"select {listed} from {_TABLE} order by all")
    structs = [one for one in names if is_made[one] and kinds[one].startswith("STRUCT")]
    asked = _asked_of_tasks(name, ask) if _TASKS in tables else {}
    records = [dict(zip(names, row, strict=True)) for row in rows]
    what = ", ".join(f"{one} {kinds[one].partition('(')[0]}" for one in names)
    return [
        {**record, **_without_padding(record, structs), _OF_TASK: asked.get(record["task"])}
        for record in records
    ], f", table {_TABLE}, schema {SCHEMA} ({what})"


def _kinds(name: str, ask: _Ask, table: str, needed: Sequence[str]) -> Mapping[str, str]:
    """Return column -> type of a table, or of a view; SourceError where one is missing."""
    kinds = {str(column): str(kind) for column, kind, *_ in ask(f"describe {table}")}
    missing = _missing(kinds, needed)
    if missing:
        raise SourceError(f"{name}, table {table}: {missing}")
    return kinds


def _asked_of_tasks(name: str, ask: _Ask) -> Mapping[Any, Any]:
    """Return slug -> system prompt, by the table `tasks`."""
    needed = ("task", "system_prompt")
    _kinds(name, ask, _TASKS, needed)
    rows = ask(f"select distinct {', '.join(needed)} from {_TASKS}")
    slugs = [slug for slug, _ in rows]
    twice = next((slug for slug in slugs if slugs.count(slug) > 1), None)
    if twice is not None:
        raise SourceError(f"{name}, table {_TASKS}: several system prompts for {twice!r}")
    return dict(rows)


def _without_padding(record: _Record, structs: Sequence[str]) -> dict[str, Any]:
    """Return a record's STRUCTs without the keys that only other rows have: there they are null."""
    made = dict[str, Any]()
    specs, response = (_json(record[one]) for one in ("slot_specs", "response_strong"))
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


def _missing(columns: Mapping[str, Any], needed: Sequence[str]) -> str | None:
    """Return a sentence on the needed columns that are not there; None where all are."""
    missing = [name for name in needed if name not in columns]
    if not missing:
        return None
    there = ", ".join(columns) or "nothing"
    return f"lacks {', '.join(missing)}; it has {there}; expected {', '.join(needed)}"


def _what_to_do(problem: str) -> str:
    """Return the first line of an error of duckdb, and what helps against it."""
    first = problem.strip().partition("\n")[0].partition(". See also")[0][:300]
    if "Could not set lock" in problem:
        return f"{first}. Another program has it open for writing: close it there first"
    if "different configuration" in problem:
        return f"{first}. This program has it open for writing: close that connection first"
    return first
