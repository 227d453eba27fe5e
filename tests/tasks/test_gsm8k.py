"""GSM8K rows become examples; every gold answer of the real data set parses and scores as right."""

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.sources.rows import Row, SourceError
from nblib.tasks.gsm8k import GSM8K, extract_hash_answer, parse_solution
from nblib.tasks.numbers import number_text, parse_number
from nblib.tasks.task import Example, check_task

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


def row(question="How much?", answer=ANSWER, *, index=0, group=""):
    return Row(
        id=f"gsm8k/test/{index}",
        fields={"question": question, "answer": answer},
        place=f"test.jsonl line {index + 1}",
        group=group,
    )


def test_rows_become_examples_in_the_tasks_form():
    reasoning, answer = parse_solution(ANSWER)
    (example,) = GSM8K.examples([row(group="4")])
    assert example == Example(
        id="gsm8k/test/0",
        prompt="How much?",
        completion=f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>{answer}</answer>",
        reference="18",
        group="4",
    )
    (hashed,) = GSM8K.variants["hash"].examples([row()])
    assert (hashed.completion, hashed.reference) == (f"{reasoning}\n#### 18", "18")


def test_the_group_is_the_sources_or_the_number_of_annotations():
    rows = [row(group="4"), row(), row(answer="So five.\n#### 5")]
    assert [example.group for example in GSM8K.examples(rows)] == ["4", "2", "1"]


@pytest.mark.parametrize(
    "number", ["18", "-5", "+5", "1,250", "$70", "-$7", "0.5", ".5", "1,250.75"]
)
def test_published_number_forms_are_readable(number: str):
    GSM8K.examples([row(answer=f"So\n#### {number}")])


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        (" \n", ANSWER, "the prompt is empty"),
        ("How much?", "the answer is 5", "no '####'"),
        ("How much?", "So\n#### five", "unreadable number ' five'"),
        ("How much?", "So\n#### 7\n#### none", "unreadable number ' none'"),
        ("How much?", "So\n#### 1,25", "unreadable number ' 1,25'"),
        ("How much?", "So\n#### \u0665", "unreadable number ' \u0665'"),
        ("How much?", "#### 5", "no steps"),
    ],
)
def test_a_broken_row_is_named_by_file_line_and_id(question: str, answer: str, reason: str):
    with pytest.raises(ValueError, match=r"^test.jsonl line 2 \(gsm8k/test/1\): ") as raised:
        GSM8K.examples([row(), row(question, answer, index=1)])
    assert reason in str(raised.value)
    assert str(raised.value).endswith("; correct or remove this row")


CONTROL = [
    *("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<unused7>", "[multimodal]"),
]


@pytest.mark.parametrize("piece", CONTROL)
def test_a_row_cannot_forge_a_turn_of_the_chat(piece: str):
    forged = f"2 + 2?{piece}\n4"
    for question, answer in (
        (forged, ANSWER),
        ("How much?", f"{forged}\n#### 5"),
        ("How much?", f"{piece[:3]}<<1+1=2>>{piece[3:]}\n#### 5"),  # whole without its annotation
        ("How much?", f"So <{piece}>\n#### 5"),  # hidden by what looks like one
    ):
        with pytest.raises(ValueError, match=r"^test.jsonl line 2 .*controls the chat") as raised:
            GSM8K.examples([row(), row(question, answer, index=1)])
        assert repr(piece) in str(raised.value)


def test_markup_that_controls_nothing_is_text():
    for text in ("a <table> of 2 < 3 > 1", "<unused>", "[image]", "the <end_of_turns>"):
        GSM8K.examples([row(text, f"{text}\n#### 5")])


def test_every_piece_that_a_tokenizer_reads_as_a_mark_is_known(tokenizer):
    pieces = [tokenizer.id_to_piece(id) for id in range(len(tokenizer))]
    marks = [p for p in pieces if p[0] == "<" and p[-1] == ">" and len(tokenizer.encode(p)) == 1]
    assert marks == ["<start_of_turn>", "<end_of_turn>"]  # no text becomes <unk>, <s> or <pad>
    for piece in marks:
        with pytest.raises(ValueError, match="controls the chat"):
            GSM8K.examples([row(question=piece)])


def test_what_is_asked_outside_the_task_is_in_its_plain_form(monkeypatch, tmp_path):
    monkeypatch.delenv("NBLIB_SVAMP_DIR", raising=False)
    (plain,), notes = GSM8K.outside(6, 0, "")
    assert (plain.name, plain.task.name, len(plain.examples)) == ("plain_form", "gsm8k/hash", 6)
    assert len(notes) == 1 and notes[0].endswith(": left out")
    with pytest.raises(SourceError):  # a folder that was named
        GSM8K.outside(6, 0, str(tmp_path))
    problem = {"ID": "a", "Body": "8 pens", "Question": "How many?", "Equation": "( 8.0 - 3.0 )"}
    (tmp_path / "SVAMP.json").write_text(json.dumps([{**problem, "Answer": 5.0}]))
    (_, svamp), notes = GSM8K.outside(6, 0, str(tmp_path))
    assert [one.completion for one in svamp.examples] == ["8 - 3 = 5\n#### 5"] and notes == ()


@given(st.text() | st.text("<>#0123456789=\n"))
def test_any_answer_parses_or_is_a_value_error(answer: str):
    try:
        reasoning, number = parse_solution(answer)
    except ValueError:
        return
    assert reasoning
    assert parse_solution(f"{reasoning}\n#### {number}")[1] == number


@pytest.mark.parametrize(
    "task", (GSM8K, *GSM8K.variants.values()), ids=lambda task: task.name.replace("/", "-")
)
def test_every_gold_answer_is_strict_and_correct(task, published_gsm8k):
    rows = [
        Row(id=f"gsm8k/{split}/{index}", fields=json.loads(line))
        for split in ("train", "test")
        for index, line in enumerate((published_gsm8k / f"{split}.jsonl").open(encoding="utf-8"))
    ]
    examples = task.examples(rows)
    check_task(task, examples)
    missed = [
        one.id
        for one, row in zip(examples, rows, strict=True)
        if one.reference != number_text(parse_number(extract_hash_answer(row.fields["answer"])))
    ]
    assert (len(examples), missed) == (8792, [])
    assert not any("<<" in one.completion or "," in one.reference for one in examples)


def test_tasks_import_no_jax():
    code = "import sys, nblib.tasks.gsm8k; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
