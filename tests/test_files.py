"""Files are written whole or not at all, and what is damaged is named."""

import dataclasses
import math
import os
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
