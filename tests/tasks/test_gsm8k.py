"""GSM8K rows become examples; every gold answer of the real data set parses and scores as right."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.sources.rows import Row
from nblib.tasks.formats import FORMATS
from nblib.tasks.gsm8k import GSM8K, extract_hash_answer, parse_solution
from nblib.tasks.task import Example, for_format

FOLDER = os.environ.get("NBLIB_GSM8K_DIR", "")
ANSWER = (
    "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.\n"
    "She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ANSWER, "18"),
        ("#### 1,080", "1080"),
        ("x\n####-5\n", "-5"),
        ("#### 1\n#### 2", "2"),
        ("####", ""),
        ("18", None),
        ("", None),
    ],
)
def test_extract_hash_answer(text: str, expected: str | None):
    assert extract_hash_answer(text) == expected


def test_solution_loses_its_annotations_and_its_last_line():
    assert parse_solution(ANSWER) == (
        "Janet sells 16 - 3 - 4 = 9 duck eggs a day.\nShe makes 9 * 2 = $18 every day.",
        "18",
    )


def test_lone_angle_brackets_are_no_annotation():
    assert parse_solution("4 < 4.8 <<1+4=5>>and 48>26\n#### 5")[0] == "4 < 4.8 and 48>26"


def test_the_last_mark_of_a_solution_counts_and_an_earlier_one_is_a_step():
    assert parse_solution("9 * 2 = 17\n#### 17\nNo:\n#### 18") == ("9 * 2 = 17\n#### 17\nNo:", "18")


@pytest.mark.parametrize(("final", "number"), [("1,080", "1080"), ("-3", "-3"), ("2.50", "2.5")])
def test_the_number_is_canonical(final: str, number: str):
    assert parse_solution(f"steps\n#### {final}") == ("steps", number)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "no '####'"),
        ("steps, so 18", "no '####'"),
        ("steps\n####", "unreadable number"),
        ("steps\n#### eighteen", "unreadable number ' eighteen'"),
        ("steps\n#### 18\n19", "unreadable number"),
        ("#### 18", "no steps"),
        ("<<9*2=18>>\n#### 18", "no steps"),
    ],
)
def test_a_broken_answer_names_its_problem(answer: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        parse_solution(answer)


def test_of_a_long_answer_the_error_shows_the_end():
    for answer, shown in (("a" * 80, "a" * 80), ("ab" * 41, "..." + ("ab" * 41)[-77:])):
        with pytest.raises(ValueError, match=f"no '####' in the answer '{re.escape(shown)}':"):
            parse_solution(answer)


def test_rows_become_examples():
    row = Row(id="gsm8k/test/0", question="How much?", answer=ANSWER, level=2)
    (example,) = GSM8K.examples([row])
    reasoning, answer = parse_solution(ANSWER)
    assert example == Example(
        id="gsm8k/test/0", question="How much?", reasoning=reasoning, answer=answer, level=2
    )


def test_a_broken_row_is_named():
    rows = [
        Row(id="gsm8k/test/0", question="How much?", answer=ANSWER),
        Row(id="gsm8k/test/1", question="How many?", answer="many"),
    ]
    with pytest.raises(ValueError, match="row gsm8k/test/1: no '####'"):
        GSM8K.examples(rows)


@given(st.text() | st.text("<>#0123456789=\n"))
def test_any_answer_parses_or_is_a_value_error(answer: str):
    try:
        reasoning, number = parse_solution(answer)
    except ValueError:
        return
    assert reasoning
    assert parse_solution(f"{reasoning}\n#### {number}")[1] == number


@pytest.mark.skipif(not FOLDER, reason="NBLIB_GSM8K_DIR does not name a folder with GSM8K")
@pytest.mark.parametrize("answer_format", FORMATS.values(), ids=lambda one: one.name)
def test_every_gold_answer_is_strict_and_correct(answer_format):
    rows = [
        Row(id=f"gsm8k/{split}/{index}", **json.loads(line))
        for split in ("train", "test")
        for index, line in enumerate((Path(FOLDER) / f"{split}.jsonl").open(encoding="utf-8"))
    ]
    task = for_format(GSM8K, answer_format)
    examples = task.examples(rows)
    missed = [
        one.id
        for one, row in zip(examples, rows, strict=True)
        if not task.score(
            answer_format.render(one.reasoning, one.answer), extract_hash_answer(row.answer)
        ).joint
    ]
    assert (len(examples), missed) == (8792, [])
    assert not any("<<" in one.reasoning or "," in one.answer for one in examples)


def test_tasks_import_no_jax():
    code = "import sys, nblib.tasks.gsm8k; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
