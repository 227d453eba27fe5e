import json

import pytest

from nblib.sources import gsm8k, hubs
from nblib.sources.datasets import GSM8K_SOURCES, get_dataset
from nblib.sources.rows import Dataset, Row, SourceError, content_sha256
from nblib.sources.wordproblems import word_problems

EGGS = {"question": "2 hens, 3 eggs each. Eggs?", "answer": "2*3 = <<2*3=6>>6\n#### 6"}
PENS = {"question": "5 pens, 1 is lost. Pens?", "answer": "5-1 = <<5-1=4>>4\n#### 4"}


def loaded_from(origin):
    train, test = (Row(id=f"gsm8k/{split}/0", fields=EGGS) for split in ("train", "test"))
    return Dataset.of("gsm8k", origin, (train,), (test,))


def failing(message):
    def load():
        raise SourceError(message)

    return load


@pytest.fixture(autouse=True)
def out_of_reach(monkeypatch, tmp_path):
    """No source has the data; a test opens the one that it is about."""
    monkeypatch.delenv("NBLIB_GSM8K_DIR", raising=False)
    monkeypatch.setattr(gsm8k, "KAGGLE_INPUT", tmp_path / "nothing attached")
    for name in ("from_hugging_face", "from_kaggle", "from_tfds"):
        monkeypatch.setattr(hubs, name, failing(f"{name} is closed"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.jsonl").write_text(f"{json.dumps(EGGS)}\n{json.dumps(PENS)}\n")
    (tmp_path / "test.jsonl").write_text(
        json.dumps({**EGGS, "question": "2 HENS, 3 eggs each.  Eggs?"})
    )
    return str(tmp_path)


def test_folder_comes_first_and_notes_tell_hashes_and_overlap(folder):
    data = get_dataset("gsm8k", folder=folder)
    assert (data.name, data.origin) == ("gsm8k", f"folder {folder}")
    assert (len(data.train), len(data.test)) == (2, 1)
    assert data.sha256 == {"train": content_sha256(data.train), "test": content_sha256(data.test)}
    assert [note.split(":")[0] for note in data.notes] == [
        "train is not the published data",
        "test is not the published data",
        "overlap",
    ]


def test_sources_that_failed_are_one_line_each_in_order(monkeypatch):
    monkeypatch.setattr(hubs, "from_tfds", lambda: loaded_from("TFDS"))
    data = get_dataset("gsm8k", folder="/absent")
    assert data.origin == "TFDS"
    assert data.notes[:3] == (
        "folder: the folder /absent does not exist",
        "huggingface: from_hugging_face is closed",
        "kaggle: from_kaggle is closed",
    )


def test_source_fixes_the_order(monkeypatch):
    monkeypatch.setattr(hubs, "from_hugging_face", lambda: loaded_from("hub"))
    monkeypatch.setattr(hubs, "from_tfds", lambda: loaded_from("TFDS"))
    data = get_dataset("gsm8k", source=("kaggle", "tfds", "huggingface"))
    assert data.origin == "TFDS"
    assert data.notes[0] == "kaggle: from_kaggle is closed"


def test_when_all_fail_one_error_lists_each_and_what_to_do():
    with pytest.raises(SourceError) as raised:
        get_dataset("gsm8k")
    first, *attempts, what_to_do = str(raised.value).splitlines()
    assert first == "gsm8k was not found in any source:"
    assert [line.split(":")[0].strip() for line in attempts] == list(GSM8K_SOURCES)
    for remedy in ("NBLIB_GSM8K_DIR", "attach", "internet", "'builtin'"):
        assert remedy in what_to_do


def test_broken_folder_is_an_error_and_no_reason_to_go_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(hubs, "from_hugging_face", lambda: loaded_from("hub"))
    (tmp_path / "test.jsonl").write_text('{"question": "Eggs?"}\n')
    with pytest.raises(ValueError, match=r"test.jsonl line 1: the key 'answer' is missing"):
        get_dataset("gsm8k", folder=folder)


@pytest.mark.parametrize("source", [(), ("folder", "ftp"), "folder"])
def test_unknown_source_is_refused(source):
    with pytest.raises(ValueError, match="expected a tuple out of"):
        get_dataset("gsm8k", source=source)


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="name is 'gsm9k', expected one of builtin, gsm8k, or"):
        get_dataset("gsm9k")


def test_builtin_counts_levels_and_seed():
    data = get_dataset("builtin", num_train=30, num_test=10, levels=(1, 2), seed=3)
    assert (len(data.train), len(data.test)) == (30, 10)
    assert {row.group for row in (*data.train, *data.test)} == {"1", "2"}
    assert data.notes == ()
    assert data.origin == "built-in word problems, seed 3, levels 1, 2"
    assert data == get_dataset("builtin", num_train=30, num_test=10, levels=(1, 2), seed=3)
    other = get_dataset("builtin", num_train=30, num_test=10, levels=(1, 2), seed=4)
    assert data.sha256["train"] != other.sha256["train"]


def test_long_hand_is_for_the_training_rows_alone():
    given = {"num_train": 30, "num_test": 10, "levels": (3, 4), "seed": 3}
    data = get_dataset("builtin", long_hand=1.0, **given)
    common = {"seed": 3, "levels": (3, 4)}
    assert data.train == word_problems(30, split="train", long_hand=1.0, **common)
    assert data.test == word_problems(10, split="test", **common)
    assert data.train != get_dataset("builtin", **given).train


def test_builtin_problems_are_by_default_of_every_level():
    data = get_dataset("builtin", num_train=5, num_test=5)
    for rows in (data.train, data.test):
        assert [row.group for row in rows] == ["1", "2", "3", "4", "5"]
