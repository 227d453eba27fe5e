"""Text and JSON files, written whole or not at all, and logs of JSON lines.

A file is written under a temporary name and renamed, so that a reader sees the old content or the
new, never half of it; a line is added to a log in one write. JSON is read strictly: a key given
twice is an error, and `field` checks what a program relies on.
"""

import contextlib
import dataclasses
import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a field of a JSON object may hold: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


TEXT = Kind("text", lambda value: isinstance(value, str))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
COUNT = Kind("a whole number of at least 1", lambda value: type(value) is int and value >= 1)
POSITIVE = Kind(  # neither true nor infinite, nor an integer that no float can hold
    "a number above 0", lambda value: type(value) in (int, float) and 0 < value < 1e300
)
_NEEDED = object()  # the default of a field that has none


def field(
    values: Mapping[str, Any], name: str, kind: Kind, path: Path, *, default: Any = _NEEDED
) -> Any:
    """Return a field of the JSON object in a file, or `default` where it is absent or null.

    What stands before a dot in the name is for the message alone: "rope_scaling.factor".

    Raises:
        ValueError: file and field, with what came and what was expected.
    """
    key = name.rpartition(".")[2]
    if values.get(key) is None and default is not _NEEDED:
        return default
    if key not in values:
        raise ValueError(f"{path} lacks {name!r}: expected {kind.words}")
    if not kind.holds(values[key]):
        raise ValueError(f"{path}: {name} is {shown(values[key])}, expected {kind.words}")
    return values[key]


def cache_folder() -> Path:
    """Return nblib's folder in the user's cache: below XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nblib")


def shown(value: object) -> str:
    """Return a value for a message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


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
    """Write a text file whole or not at all; an OSError names it (read-only, full disk)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # the first error says more
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an OSError: the error of a full disk does not say where it was met."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_json(path: Path, value: Any) -> None:
    """Write `to_jsonable(value)`, indented, whole or not at all."""
    write_text(path, json.dumps(to_jsonable(value), indent=2, ensure_ascii=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; ValueError where it is none or an object has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=object_without_repeated_keys)
    except RecursionError as error:
        raise ValueError("brackets are nested too deeply") from error


def object_without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of its pairs; ValueError where a key is given twice."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the key {shown(name)} is given twice")
        content[name] = value
    return content


def read_json(path: Path) -> Any:
    """Return a JSON file's content; a ValueError names the file that is no JSON."""
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds; a ValueError names the file with anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {shown(content)}, expected a JSON object")
    return content


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    """Write one JSON line a record, the whole file or nothing."""
    write_text(path, "".join(map(_json_line, records)))


def append_jsonl(path: Path, *records: Any, durable: bool = False) -> None:
    """Add JSON lines to a log; after an OSError, which names the file, it is as it was.

    `durable` ones are on the disk when this returns, also where the power fails then.
    """
    line = "".join(map(_json_line, records)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("ab", buffering=0) as file:
        before, written = file.tell(), 0
        try:
            while written < len(line):  # a full disk takes a part, and refuses the rest
                written += file.write(line[written:])
            if durable:
                os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file; `.gz` is unpacked, ValueError where it is damaged."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            yield from lines
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is no whole gzip file: {error}; copy it again") from error


def read_jsonl(path: Path) -> list[Any]:
    """Return the records of a `.jsonl` or `.jsonl.gz` file; ValueError names file and line."""
    records = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            records.append(parse_json(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: expected one JSON value, {error}") from error
    return records


def _json_line(record: Any) -> str:
    return json.dumps(to_jsonable(record), ensure_ascii=False) + "\n"
