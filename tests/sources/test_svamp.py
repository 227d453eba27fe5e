import json

import pytest

from nblib.sources import svamp
from nblib.sources.rows import SourceError
from nblib.sources.svamp import svamp_rows
from nblib.tasks.gsm8k import GSM8K

PENS = {
    "ID": "chal-1",
    "Body": "Ann had 8 pens and lost 3 of them ",
    "Question": "How many pens are left? ",
    "Equation": "( 8.0 - 3.0 )",
    "Answer": 5.0,
    "Type": "Subtraction",
}
SUMS = PENS | {"ID": "chal-2", "Equation": "( ( 4.0 + 13.0 ) * 15.0 )", "Answer": "255.0"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(svamp.FOLDER_VARIABLE, raising=False)
    (tmp_path / "SVAMP.json").write_text(json.dumps([PENS, SUMS]))
    return tmp_path


def test_a_problem_becomes_a_row_that_the_task_reads(folder):
    first, second = svamp_rows(str(folder))
    assert first.id == "svamp/chal-1" and first.group == "1"
    assert first.fields == {
        "question": "Ann had 8 pens and lost 3 of them. How many pens are left?",
        "answer": "8 - 3 = <<8-3=5>>5\n#### 5",
    }
    assert second.fields["answer"] == "(4 + 13) * 15 = <<(4+13)*15=255>>255\n#### 255"
    assert [example.reference for example in GSM8K.examples((first, second))] == ["5", "255"]


def test_the_variable_names_the_folder(folder, monkeypatch):
    monkeypatch.setenv(svamp.FOLDER_VARIABLE, str(folder))
    assert len(svamp_rows()) == 2


def test_without_a_folder_the_network_is_not_asked(folder, monkeypatch):
    monkeypatch.setattr(svamp, "load_hugging_face", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(SourceError, match="NBLIB_SVAMP_DIR is not set"):
        svamp_rows()
    with pytest.raises(SourceError, match=r"FileNotFoundError.*SVAMP\.json"):
        svamp_rows(str(folder / "nowhere"))


def test_the_hub_is_asked_when_it_is_named(monkeypatch):
    loaded = {"train": [PENS], "test": [SUMS]}
    monkeypatch.setattr(svamp, "load_hugging_face", lambda name: loaded)
    assert [row.id for row in svamp_rows("hub")] == ["svamp/chal-1", "svamp/chal-2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"SVAMP.json: expected JSON, "),
        ("{}", r"SVAMP.json holds {}, expected a JSON list of problems"),
        ("[]", r"holds no problems"),
        ('[{"ID": 1}]', r"row 0: lacks Body, Question, Equation, Answer"),
        ("[3]", r"row 0: lacks ID"),
        (json.dumps([PENS | {"Body": "<eos>"}]), r"row 0 .*'<eos>' in its question is no text"),
        (json.dumps([PENS | {"Answer": "five"}]), r"row 0 .*unreadable number ' five'"),
    ],
)
def test_a_broken_file_is_an_error_by_its_place(folder, content, message):
    (folder / "SVAMP.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        GSM8K.examples(svamp_rows(str(folder)))
