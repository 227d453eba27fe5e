import gzip
import io
import json
import sys

import pytest

from nblib.__main__ import main

LINES = [
    {"name": "true", "statement": "a^2+b^2 >= 2ab for a, b > 0"},
    {"name": "wrong", "statement": "a^2+b^2 >= 3ab for a, b > 0"},
    {"lean": "{a b : ℝ} (ha : a > 0) (h : b = 2) : a * b ≤ sqrt a"},
    {"name": 3, "statement": "a^a >= 0 for a > 0"},
]


def write(path, lines):
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return str(path)


def test_any_name_is_written_as_json(tmp_path, capsys):
    lines = [{"name": name, "statement": "a >= 0 for a > 0"} for name in ("\ud800", "é")]
    assert main(["truth", write(tmp_path / "x.jsonl", lines)]) == 0
    out = capsys.readouterr().out
    assert out.isascii() and [json.loads(line)["name"] for line in out.splitlines()] == [
        "\ud800",
        "é",
    ]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "-"])
def test_each_statement_gets_a_line_in_turn(name, tmp_path, capsys, monkeypatch):
    file = write(tmp_path / ("in.jsonl" if name == "-" else name), [LINES[0], "", *LINES[1:]])
    if name == "-":
        with open(file, "rb") as lines:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.read())))
    assert main(["truth", "-" if name == "-" else file]) == 0
    true, wrong, lean, unread = map(json.loads, capsys.readouterr().out.splitlines())
    assert wrong == {
        "name": "wrong",
        "verdict": "false",
        "point": {"a": "1", "b": "1"},
        "left": "2",
        "right": "3",
        "reason": "exact: all hypotheses hold, and left >= right does not",
    }
    assert list(true) == list(wrong) == list(lean) == list(unread)
    assert (true["name"], true["verdict"], true["point"]) == ("true", "no counterexample", None)
    assert true["reason"].startswith("searched ") and "does not prove" in true["reason"]
    assert (lean["name"], lean["verdict"], lean["point"]["b"]) == (None, "false", "2")
    assert (unread["name"], unread["verdict"], unread["left"]) == (3, "not read", None)
    assert "exponent" in unread["reason"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", ":2: "),
        ("[1]", ":2: [1]: expected an object"),
        ({"name": "x"}, ':2: no "statement" and no "lean" among [\'name\']'),
        ({"statement": 3}, ':2: "statement" is 3: expected'),
        ('{"lean": "a", "lean": "b"}', ":2: the key 'lean' is given twice"),
    ],
)
def test_a_line_that_holds_no_statement_is_named(line, problem, tmp_path, capsys):
    file = write(tmp_path / "x.jsonl", [LINES[0], line])
    assert main(["truth", file]) == 1
    answer = capsys.readouterr()
    assert answer.err.startswith(f"nblib: {file}{problem}")
    assert len(answer.out.splitlines()) == 1  # what came before it is printed
    assert answer.err.count("\n") == 1


def test_a_file_without_statements_or_no_file_is_an_error(tmp_path, capsys):
    assert main(["truth", write(tmp_path / "x.jsonl", [""])]) == 1
    assert "no statement in it" in capsys.readouterr().err
    assert main(["truth", str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl" in capsys.readouterr().err
