"""Built-in rows of each task, and the compositions that no other row has."""

import json

import pytest

from nblib.sources.builtin import composed_rows
from nblib.sources.datasets import get_dataset

SIZES = {"num_train": 40, "num_test": 20, "seed": 3}


def techniques(rows):
    return {row.fields["technique"] for row in rows}


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        ("gsm8k", "question"),
        ("envelope", "prompt"),
        ("extraction", "prompt"),
        ("proofs", "statement"),
        ("text_proofs", "statement"),
    ],
)
def test_each_task_has_rows_of_its_own(task, asked):
    data = get_dataset("builtin", task=task, **SIZES)
    assert all(row.fields[asked] for row in (*data.train, *data.test))
    assert "seed 3" in data.origin and data.name == "builtin"
    other = get_dataset("builtin", task=task, **{**SIZES, "seed": 4})
    assert other.train != data.train


def test_inequalities_are_as_many_as_asked_and_share_no_statement():
    data = get_dataset("builtin", task="proofs", **SIZES)
    assert (len(data.train), len(data.test), data.notes) == (40, 20, ())
    assert data.origin == "built-in inequalities, seed 3"


def test_compositions_are_in_no_split_and_the_same_each_time():
    data, composed = get_dataset("builtin", task="proofs", **SIZES), composed_rows(24)
    assert len(composed) == 24 and composed == composed_rows(24)
    assert not techniques(composed) & techniques((*data.train, *data.test))


def test_a_file_of_proofs_is_split_by_its_statements(tmp_path):
    path = tmp_path / "proofs.jsonl"
    rows = [{"statement": f"a >= {n}", "proof": "So (1): a >= 1"} for n in range(80)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = get_dataset(str(path), task="proofs")
    assert len(data.train) + len(data.test) == 80 and data.test
    path.write_text('{"problem": "a >= 1"}\n')
    with pytest.raises(ValueError, match=r"proofs.jsonl line 1: 'statement' is"):
        get_dataset(str(path), task="proofs")
