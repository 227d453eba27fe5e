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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nblib.files import shown
from nblib.sources.duckdb_file import DUCKDB, Table, json_value, missing, open_tables
from nblib.sources.html_text import visible_text
from nblib.sources.json_lines import read_objects
from nblib.sources.rows import Dataset, Row, SourceError
from nblib.sources.splits import Page, split_pages

SCHEMA = 1  # version of the columns below, recorded with the data
_TABLE, _TASKS = "examples", "tasks"
_COLUMNS = ("id", "task", "prompt_text", "response_strong", "slot_specs")
_OPTIONAL = ("metadata", "system_prompt")
_OBJECTS = ("response_strong", "slot_specs", "metadata")
_PLACE, _OF_TASK = "place", "system_prompt of its task"  # what a reader adds to a record
_NAMED = 20  # slugs in a message
_Record = Mapping[str, Any]


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
    metadata = json_value(record.get("metadata")) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"{where}: metadata is {shown(metadata)}, expected a JSON object")
    cleaned, response = visible_text(prompt), json_value(record["response_strong"])
    asked = (record.get("system_prompt"), metadata.get("system_prompt"), record.get(_OF_TASK))
    fields = {
        "prompt": cleaned,
        "response": response,
        "slot_specs": json_value(record["slot_specs"]) or {},
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


def _read_json_lines(path: Path) -> tuple[Sequence[_Record], str]:
    records = list[_Record]()
    for _, place, record in read_objects(path):
        if problem := missing(record, _COLUMNS):
            raise ValueError(f"{place}: {problem}")
        records.append({**record, _PLACE: place})
    return records, f", schema {SCHEMA}"


def _read_duckdb(path: Path) -> tuple[Sequence[_Record], str]:
    with open_tables(path) as tables:
        if _TABLE not in tables:
            there = ", ".join(sorted(tables)) or "none"
            raise SourceError(f"{path.name} has no table {_TABLE!r}; its tables are: {there}")
        table = tables[_TABLE]
        table.require(*_COLUMNS)
        names = (*_COLUMNS, *_OPTIONAL)
        rows = list(table.read(names, objects=_OBJECTS, order="all"))
        asked = _asked_of_tasks(tables[_TASKS]) if _TASKS in tables else {}
    kinds = ((one, table.kinds[one].partition("(")[0]) for one in names if one in table.kinds)
    what = ", ".join(map(" ".join, kinds))
    records = [{**record, _OF_TASK: asked.get(record["task"])} for record in rows]
    return records, f", table {_TABLE}, schema {SCHEMA} ({what})"


def _asked_of_tasks(table: Table) -> Mapping[Any, Any]:
    """Return slug -> system prompt, by the table `tasks`."""
    needed = ("task", "system_prompt")
    table.require(*needed)
    rows = {(one["task"], one["system_prompt"]) for one in table.read(needed)}
    slugs = [slug for slug, _ in rows]
    twice = next((slug for slug in slugs if slugs.count(slug) > 1), None)
    if twice is not None:
        raise SourceError(f"{table.file}, table {_TASKS}: several system prompts for {twice!r}")
    return dict(rows)
