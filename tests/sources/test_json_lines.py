import gzip
import json

import pytest

from nblib.sources.datasets import get_dataset
from nblib.sources.json_lines import from_json_lines
from nblib.sources.rows import SourceError

ROWS = [{"prompt": f"Go to place {n}?", "response": {"n": n}} for n in range(60)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_line_is_a_row_with_its_place_and_a_question_is_in_one_split(tmp_path):
    again = [{"prompt": " go to  PLACE 7?", "response": {}}]
    data = from_json_lines(write(tmp_path / "trips.jsonl", ROWS + again), asked="prompt")
    assert len(data.train) + len(data.test) == 61 and 1 <= len(data.test) <= 20
    rows = {row.id: row for row in (*data.train, *data.test)}
    first = next(row for row in rows.values() if row.place == "trips.jsonl line 1")
    assert first.fields == ROWS[0] and first.id in ("trips/train/0", "trips/test/0")
    splits = {" ".join(r.fields["prompt"].casefold().split()): set() for r in rows.values()}
    for row in rows.values():
        question = " ".join(row.fields["prompt"].casefold().split())
        splits[question].add(row.id.split("/")[1])
    assert all(len(found) == 1 for found in splits.values())
    assert data.notes == ("train: 1 of 56 questions are repeated",) or "repeated" in data.notes[0]


def test_the_field_split_decides_and_is_no_field_of_the_row(tmp_path):
    rows = [{**ROWS[0], "split": "test"}, {**ROWS[1], "split": "train"}]
    data = get_dataset(write(tmp_path / "two.jsonl", rows), task="envelope")
    assert [row.fields for row in data.test] == [ROWS[0]]
    assert [row.fields for row in data.train] == [ROWS[1]]
    assert data.origin == "rows of two.jsonl"


def test_a_packed_file_is_read(tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    path = tmp_path / "trips.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    assert len(from_json_lines(str(path), asked="prompt").train) > 30


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "a"', "line 2: expected a JSON object, "),
        ("[1]", "line 2: expected a JSON object, got "),
        ('{"response": 1}', "line 2: 'prompt' is None, expected a text"),
        ('{"prompt": "  "}', "line 2: 'prompt' is '  ', expected a text"),
        ('{"prompt": "a", "prompt": "b"}', "line 2: expected a JSON object, the key"),
        ('{"prompt": "a", "split": "dev"}', "line 2: 'split' is 'dev', expected one of"),
    ],
)
def test_a_broken_line_is_named(line, problem, tmp_path):
    path = tmp_path / "trips.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"trips\.jsonl") as raised:
        from_json_lines(str(path), asked="prompt")
    assert problem in str(raised.value)


def test_an_empty_split_is_refused(tmp_path):
    rows = [{**row, "split": "train"} for row in ROWS]
    with pytest.raises(ValueError, match="no row for the split 'test'"):
        from_json_lines(write(tmp_path / "trips.jsonl", rows), asked="prompt")


def test_a_file_that_is_not_there_is_a_line(tmp_path):
    with pytest.raises(SourceError, match=r"none\.jsonl cannot be read: No such file"):
        from_json_lines(str(tmp_path / "none.jsonl"), asked="prompt")


def test_rows_of_another_task_are_refused_by_name():
    with pytest.raises(ValueError, match="'gsm8k', whose rows are none of the task 'envelope'"):
        get_dataset("gsm8k", task="envelope")


def test_built_in_rows_are_the_tasks_own():
    data = get_dataset("builtin", task="envelope", num_train=8, num_test=4, seed=1)
    assert {row.group for row in data.train} == {row.group for row in data.test}
    assert "response" in data.train[0].fields and data.origin.endswith("requests, seed 1")
