"""Files are written whole or not at all, and what is damaged is named."""

import contextlib
import dataclasses
import gzip
import math
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from nblib import files


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    where: Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(1, Path("a/b")), {"x": 1, "where": "a/b"}),
        ({1: (2, 3)}, {"1": [2, 3]}),
        ({"b", "a"}, ["a", "b"]),
        (np.float32(0.5), 0.5),
        (np.array([[1, 2]]), [[1, 2]]),
        (math.nan, None),
        (np.float32("inf"), None),
        (True, True),
    ],
)
def test_values_become_plain_json(value, expected):
    assert files.to_jsonable(value) == expected
    assert type(files.to_jsonable(value)) is type(expected)


def test_a_value_without_a_json_form_is_named():
    with pytest.raises(TypeError, match="bytes has no JSON form"):
        files.to_jsonable({"raw": b"x"})


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    files.write_json(target, {"old": 1})

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write_json(target, {"new": 2})
    assert files.read_json(target) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_logs_round_trip_with_line_separators_inside_a_text(tmp_path):
    records = [{"text": "a\nb\u2028c\u0085d"}, {"n": 2}]
    for record in records:
        files.append_jsonl(tmp_path / "appended.jsonl", record)
    files.write_jsonl(tmp_path / "whole.jsonl", records)
    assert files.read_jsonl(tmp_path / "appended.jsonl") == records
    assert files.read_jsonl(tmp_path / "whole.jsonl") == records


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match=r"x\.jsonl:2: expected one JSON value"):
        files.read_jsonl(tmp_path / "x.jsonl")


def test_a_damaged_json_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json: expected JSON"):
        files.read_json(tmp_path / "x.json")


@contextlib.contextmanager
def no_file_above(size_bytes):
    """Refuse, as a full disk does, what would make a file larger: the kernel takes a part first."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_whole_lines_and_is_named_with_the_file(tmp_path):
    log = tmp_path / "log.jsonl"
    files.append_jsonl(log, {"step": 1})
    with no_file_above(20), pytest.raises(OSError, match=r"too large: '.*/log\.jsonl'"):
        files.append_jsonl(log, {"step": 2, "text": "x" * 100})
    assert log.read_text() == '{"step": 1}\n'
    files.append_jsonl(log, {"step": 2})
    assert files.read_jsonl(log) == [{"step": 1}, {"step": 2}]


def test_a_disk_that_is_full_leaves_the_old_file_and_is_named_with_the_file(tmp_path):
    target = tmp_path / "a.json"
    files.write_json(target, {"old": 1})
    with no_file_above(5), pytest.raises(OSError, match=r"too large: '.*/a\.json'"):
        files.write_json(target, {"new": "x" * 100})
    assert files.read_json(target) == {"old": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    for write in (files.write_json, files.append_jsonl):
        with pytest.raises(OSError, match=r"'.*/runs'"):
            write(tmp_path / "runs" / "a.json", {})


TWICE = '{"id": 1, "inner": {"b": 1, "b": 2}}'


def test_a_key_given_twice_is_refused_with_its_place(tmp_path):
    (tmp_path / "a.json").write_text(TWICE)
    with pytest.raises(ValueError, match=r"a\.json: expected JSON, the key 'b' is given twice"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text('{"id": 0}\n' + TWICE)
    with pytest.raises(ValueError, match=r"a\.jsonl:2: expected one JSON value, the key 'b' is gi"):
        files.read_jsonl(tmp_path / "a.jsonl")


@pytest.mark.parametrize("content", [b"\xff\xfe\x80", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_text_or_no_end_is_named_with_its_file(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: expected JSON"):
        files.read_json(tmp_path / "a.json")


def test_an_object_is_read_and_nothing_else(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert files.read_object(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"a\.json holds \[1\], expected a JSON object"):
        files.read_object(tmp_path / "a.json")


def test_a_packed_log_is_read_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    packed = gzip.compress(b'{"a": 1}\n{"a": 2}\n' * 100)
    path.write_bytes(packed)
    assert files.read_jsonl(path) == [{"a": 1}, {"a": 2}] * 100
    for damaged in (packed[:-12], b"no gzip", packed[:12] + b"xxxx" + packed[16:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.jsonl\.gz is no whole gzip file: "):
            files.read_jsonl(path)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (files.TEXT, ["", "a"], [1, [], {}]),
        (files.OBJECT, [{}], [[], "a", 1]),
        (files.COUNT, [1, 2**40], [0, -1, 1.0, True, "1"]),
        (files.POSITIVE, [1, 0.5], [0, -1, True, "1", math.inf, math.nan, 10**400]),
    ],
)
def test_a_field_is_checked_by_its_kind(kind, good, bad):
    for value in good:
        assert files.field({"x": value}, "x", kind, Path("a.json")) == value
    for value in bad:
        with pytest.raises(ValueError, match=rf"a\.json: of\.x is .*, expected {kind.words}"):
            files.field({"x": value}, "of.x", kind, Path("a.json"))


def test_a_field_is_needed_unless_it_has_a_default():
    for values in ({}, {"x": None}):
        assert files.field(values, "x", files.TEXT, Path("a"), default="y") == "y"
    with pytest.raises(ValueError, match="a lacks 'x': expected text"):
        files.field({}, "x", files.TEXT, Path("a"))
    with pytest.raises(ValueError, match="a: x is None, expected text"):
        files.field({"x": None}, "x", files.TEXT, Path("a"))


@pytest.mark.parametrize("durable", [False, True])
def test_several_lines_are_appended_at_once(durable, tmp_path):
    log = tmp_path / "deep" / "log.jsonl"
    files.append_jsonl(log, {"a": 1}, {"b": "é"}, durable=durable)
    files.append_jsonl(log, durable=durable)
    files.append_jsonl(log, {"c": 3}, durable=durable)
    assert files.read_jsonl(log) == [{"a": 1}, {"b": "é"}, {"c": 3}]
