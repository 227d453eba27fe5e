"""Text and JSON files, written whole or not at all, and logs of JSON lines.

A file is written under a temporary name and renamed, so that a reader sees the old content or the
new, never half of it. A line added to a log is one write, for the same reason.
"""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def to_jsonable(value: Any) -> Any:
    """Return `value` as plain JSON types.

    Dataclasses and mappings become objects, sequences and sets lists (sets sorted), paths text,
    array scalars Python numbers. JSON has no NaN or infinity: they become null.

    Raises:
        TypeError: a type that has no JSON form, by name.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [to_jsonable(item) for item in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [to_jsonable(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and jax arrays and scalars
        return to_jsonable(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form; give plain values, got {value!r}")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all: a temporary name in its folder, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `to_jsonable(value)`, indented, whole or not at all."""
    write_text(path, json.dumps(to_jsonable(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return a JSON file's content; a ValueError names the file that is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, {error}") from error


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    """Write one JSON line a record, the whole file or nothing."""
    write_text(path, "".join(map(_json_line, records)))


def append_jsonl(path: Path, record: Any) -> None:
    """Add one JSON line to a log, in one write: a killed run leaves whole lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(_json_line(record).encode())


def read_jsonl(path: Path) -> list[Any]:
    """Return the records of a `.jsonl` file.

    Raises:
        ValueError: a line that is no JSON, by file and number.
    """
    records = []
    with path.open(encoding="utf-8") as lines:  # str.splitlines would also split at U+2028
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: expected one JSON value, {error}") from error
    return records


def _json_line(record: Any) -> str:
    return json.dumps(to_jsonable(record), ensure_ascii=False) + "\n"
