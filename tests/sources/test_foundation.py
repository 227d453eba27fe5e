import json
from pathlib import Path

import pytest

from nblib.sources import gsm8k
from nblib.sources.foundation import foundation_rows
from nblib.sources.rows import SourceError, content_sha256
from nblib.sources.wordproblems import word_problems

EGGS = {"question": "2 hens, 3 eggs each. Eggs?", "answer": "2*3 = <<2*3=6>>6\n#### 6"}
PENS = {"question": "5 pens, 1 is lost. Pens?", "answer": "5-1 = <<5-1=4>>4\n#### 4"}
CUPS = {"question": "4 cups, 3 more. Cups?", "answer": "4+3 = <<4+3=7>>7\n#### 7"}


@pytest.fixture
def gsm8k_folder(tmp_path):
    for split, records in (("train", (EGGS, PENS)), ("test", (CUPS,))):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return str(tmp_path)


def made(*, count=30, epochs=0, folder="", practice=0, long_hand=0.0, seed=0):
    return foundation_rows(
        (1, 2),
        count,
        held_out=8,
        gsm8k_epochs=epochs,
        gsm8k_folder=folder,
        practice=practice,
        practice_levels=(1, 1, 3),
        long_hand=long_hand,
        seed=seed,
    )


def questions(rows):
    return [row.fields["question"] for row in rows]


def test_built_in_rows_to_train_to_validate_and_held_out():
    rows = made()
    given = word_problems(230, seed=0, split="train", levels=(1, 2))
    assert rows.train + rows.validation == given and len(rows.train) == 30
    assert rows.test == word_problems(8, seed=0, split="test", levels=(1, 2))
    assert rows.sha256 == content_sha256(rows.train) != content_sha256(given)
    assert rows.notes == (rows.origin,) == ("30 built-in problems of levels 1, 2",)


def test_no_question_is_in_two_parts():
    rows = made()
    parts = [
        {row.fields["question"] for row in part}
        for part in (rows.train, rows.validation, rows.test)
    ]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 238


def test_gsm8ks_training_rows_follow_once_an_epoch_and_its_test_split_is_not_read(gsm8k_folder):
    rows = made(epochs=2, folder=gsm8k_folder)
    assert rows.train[:30] == made().train
    assert (
        questions(rows.train[30:])
        == [
            EGGS["question"],
            PENS["question"],
        ]
        * 2
    )
    assert CUPS["question"] not in {
        r.fields["question"] for r in rows.train + rows.validation + rows.test
    }
    assert "2 rows of GSM8K's train split, 2 times" in rows.notes
    assert rows.origin == "; ".join(rows.notes)
    assert rows.sha256 != made().sha256


def test_practice_is_of_fresh_problems_and_a_third_of_gsm8ks_rows(gsm8k_folder):
    rows = made(practice=12, epochs=2, folder=gsm8k_folder)
    *fresh, sampled = rows.practice
    assert tuple(fresh) == word_problems(12, seed=1, split="train", levels=(1, 1, 3))
    assert sampled.fields["question"] == EGGS["question"]
    assert rows.train == made(epochs=2, folder=gsm8k_folder).train
    assert rows.notes[-1] == "then practice: 12 more, of levels 1, 1, 3"
    assert rows.sha256 == content_sha256(rows.train + rows.practice)
    assert made().practice == ()


def test_practice_asks_nothing_that_is_held_out():
    rows = made(count=3000, practice=3000)
    asked = set(questions(rows.practice))
    assert not asked & set(questions(rows.test + rows.validation))
    assert not asked & set(questions(rows.train))
    assert len(rows.practice) < 3000  # some were drawn twice, and left out


def test_without_a_folder_it_does_with_built_in_problems_and_says_so(monkeypatch):
    monkeypatch.delenv("NBLIB_GSM8K_DIR", raising=False)
    monkeypatch.setattr(gsm8k, "KAGGLE_INPUT", Path("nothing attached"))
    rows = made(epochs=2)
    assert rows.train == made().train
    assert rows.notes[1:] == ("no GSM8K (no folder of it, NBLIB_GSM8K_DIR)",)


def test_with_no_epochs_of_it_the_folder_is_not_touched(tmp_path):
    assert made(folder=str(tmp_path / "absent")) == made()


def test_the_variable_names_the_folder_too(gsm8k_folder, monkeypatch):
    monkeypatch.setenv("NBLIB_GSM8K_DIR", gsm8k_folder)
    assert made(epochs=1) == made(epochs=1, folder=gsm8k_folder)


def test_a_folder_that_was_named_and_is_wrong_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="absent does not exist"):
        made(epochs=1, folder=str(tmp_path / "absent"))


def test_another_seed_makes_other_rows():
    assert made(seed=1).sha256 != made().sha256


def test_long_hand_changes_how_it_is_solved_not_what_is_asked():
    short, long = made(practice=10), made(practice=10, long_hand=1.0)
    for one, other in ((short.train, long.train), (short.practice, long.practice)):
        assert questions(one) == questions(other)
        assert [row.fields["answer"] for row in one] != [row.fields["answer"] for row in other]
    assert short.test == long.test  # its solutions are never read
    assert short.sha256 != long.sha256
