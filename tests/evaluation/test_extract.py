"""Whole tables by a package: answers, bad pages, kills, and files that are left alone."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nblib.__main__ import main
from nblib.evaluation import extract as module
from nblib.evaluation.extract import extract
from nblib.evaluation.package import PACKAGE_FILE
from nblib.files import read_jsonl, write_jsonl
from nblib.sources.rows import SourceError
from nblib.tasks.review import read_review

KILLED = Path(__file__).with_name("killed_extract.py")


def page(n, **changes):
    """One of the pages that the package has learnt: `tests/conftest.py`."""
    body = f"<h1>Mug {n}</h1><p>{n + 2} pens</p>" if n % 2 == 0 else f"<ul><li>Page {n}</li></ul>"
    task = "product" if n % 2 == 0 else "leads"
    return {"id": f"p{n}", "task": task, "html": f"<html><body>{body}</body></html>", **changes}


def right(n):
    if n % 2:
        return ("YES", "NO")[n % 4 == 1]
    return {"name": f"Mug {n}", "price": n + 2 if n != 4 else None}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pages(tmp_path):
    return write_lines(tmp_path / "pages.jsonl", [page(n) for n in range(8)])


def test_pages_are_read_as_the_model_has_learnt_them(package, pages, tmp_path, capsys):
    found = extract(package, pages, tmp_path / "out.jsonl")
    answers = read_jsonl(tmp_path / "out.jsonl")
    assert [one["answer"] for one in answers] == [right(n) for n in range(8)]
    assert [one["id"] for one in answers] == [f"p{n}" for n in range(8)]
    assert all(one["valid"] and not one["truncated"] for one in answers)
    assert (found.pages, found.answered, found.cut, found.problems) == (8, 8, 0, {})
    assert found.prompt_tokens == sum(one["prompt_tokens"] for one in answers)
    assert "8 of 8 pages answered, 0 of them cut" in str(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "pages.jsonl"]
    extract(package, pages, tmp_path / "out.jsonl")  # what was made here is made again
    assert read_jsonl(tmp_path / "out.jsonl") == answers


def test_a_table_holds_the_same_as_json_lines(package, pages, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(tmp_path / "pages.duckdb")) as database:
        database.execute(f"create table pages as select * from read_json_auto('{pages}')")
    for out in ("out.duckdb", "out.jsonl"):
        extract(package, tmp_path / "pages.duckdb", tmp_path / out)
    with duckdb.connect(str(tmp_path / "out.duckdb"), read_only=True) as database:
        rows = database.execute("select * from answers").fetchall()
    expected = read_jsonl(tmp_path / "out.jsonl")
    as_json = [(*row[:2], json.loads(row[2]), *row[3:]) for row in rows]
    assert as_json == [tuple(one.values()) for one in expected]
    extract(package, tmp_path / "pages.duckdb", tmp_path / "out.duckdb")  # made here


def test_bad_pages_are_named_and_passed_over(package, tmp_path):
    rows = [
        page(0),
        page(0, html="<p>Another</p>"),
        page(1, html=""),
        page(2, id=None),
        page(3, task="news"),
        page(5),
    ]
    found = extract(package, write_lines(tmp_path / "p.jsonl", rows), tmp_path / "out.jsonl")
    answers = read_jsonl(tmp_path / "out.jsonl")
    problems = [one["problem"] and one["problem"].partition(":")[0] for one in answers]
    assert problems == [None, "duplicate id", "empty page", "no id", "unknown kind", None]
    assert [one["answer"] for one in answers] == [right(0), None, None, None, None, right(5)]
    assert found.answered == 2 and found.problems["duplicate id"] == 1
    assert "1 bad pages: empty page" in str(found)


def test_an_answer_that_is_cut_has_no_value(package, pages, tmp_path):
    shorter = tmp_path / "package"
    shutil.copytree(package, shorter)
    content = json.loads((package / PACKAGE_FILE).read_text())
    (shorter / PACKAGE_FILE).write_text(json.dumps({**content, "max_new_tokens": 8}))
    found = extract(shorter, pages, tmp_path / "out.jsonl")
    cut = [one for one in read_jsonl(tmp_path / "out.jsonl") if one["task"] == "product"]
    assert found.cut == 4 and {one["completion_tokens"] for one in cut} == {8}
    assert {(one["answer"], one["valid"], one["truncated"]) for one in cut} == {(None, False, True)}


def test_a_run_that_is_killed_three_times_ends_in_the_same_table(
    package, tmp_path, compilation_cache, monkeypatch
):
    """At random places of the journal, in the middle of its lines."""
    rng = random.Random(5)
    rows = [page(rng.randrange(8), id=f"{n}") for n in range(200)]
    rows[17:17] = [page(1, id="3"), page(1, html=" ", id="bad")]
    pages = write_lines(tmp_path / "pages.jsonl", rows)
    sizes = []
    sorted_ = module._Work.answers

    def measured(self):
        sizes.append(self.journal.path.stat().st_size)
        return sorted_(self)

    with monkeypatch.context() as patch:
        patch.setattr(module._Work, "answers", measured)
        extract(package, pages, tmp_path / "alone.jsonl")
    begun, whole = min(sizes), max(sizes)
    environment = os.environ | compilation_cache | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, KILLED, package, pages, tmp_path / "out.jsonl"]
    journal = tmp_path / "out.jsonl.part.jsonl"
    for at in sorted(rng.sample(range(begun + 1, whole), 3)):
        killed = subprocess.run([*command, str(at)], env=environment, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert journal.stat().st_size == at
        assert not (tmp_path / "out.jsonl").exists()
    last = subprocess.run([*command, str(2 * whole)], env=environment, capture_output=True)
    assert last.returncode == 0, last.stderr
    assert b"pages were there already" in last.stdout
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert not journal.exists()


def test_against_an_earlier_table_what_differs_is_to_be_looked_at(package, pages, tmp_path, capsys):
    out, earlier = tmp_path / "out.jsonl", tmp_path / "earlier.jsonl"
    command = ["extract", str(package), str(pages), "--out"]
    assert main([*command, str(earlier)]) == 0
    first, *others = read_jsonl(earlier)
    write_jsonl(earlier, [{**first, "answer": {"name": "Cup", "price": 2}}, *others])
    assert main([*command, str(out), "--against", str(earlier)]) == 0
    assert f"1 values differ: {out}.review.csv" in capsys.readouterr().out
    (row,) = read_review(tmp_path / "out.jsonl.review.csv")
    assert (row.id, row.slot, row.gold, row.answer) == ("p0", "name", "Cup", "Mug 0")
    assert main([*command, str(out), "--against", str(pages)]) == 1
    assert "is no table of answers: give what extract wrote" in capsys.readouterr().err


def test_the_command_says_what_it_did_and_exits_with_1_where_all_pages_are_bad(
    package, pages, tmp_path, capsys
):
    out = str(tmp_path / "out.jsonl")
    assert main(["extract", str(package), str(pages), "--out", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8 of 8 pages answered, 0 of them cut at the token limit"
    assert lines[-1] == out
    bad = write_lines(tmp_path / "bad.jsonl", [page(0, html="")])
    assert main(["extract", str(package.parent), str(bad), "--out", out]) == 1
    assert "1 bad pages: empty page" in capsys.readouterr().out
    assert main(["extract", str(package), str(tmp_path / "no.jsonl"), "--out", out]) == 1
    assert capsys.readouterr().err.endswith("no.jsonl is missing\n")


# ----------------------------------------------------------------- what is refused


def stopped(package, pages, out, monkeypatch):
    """Begin a table and leave its journal."""

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_answers", stop)
        extract(package, pages, out)


def test_the_journal_of_other_pages_or_another_package_is_left_alone(
    package, pages, tmp_path, monkeypatch
):
    out, other = tmp_path / "out.jsonl", tmp_path / "package"
    stopped(package, pages, out, monkeypatch)
    journal = (tmp_path / "out.jsonl.part.jsonl").read_bytes()
    more = write_lines(tmp_path / "more.jsonl", [page(1)])
    shutil.copytree(package, other)
    (other / PACKAGE_FILE).write_text((package / PACKAGE_FILE).read_text() + " ")
    for given, what in (((package, more), "pages"), ((other, pages), "package")):
        with pytest.raises(ValueError, match=rf"begun with another {what}: go on with .* remove"):
            extract(*given, out)
        assert (tmp_path / "out.jsonl.part.jsonl").read_bytes() == journal
    assert extract(package, pages, out).asked == 0


def test_two_processes_do_not_write_one_table(package, pages, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"

    def again(*args):
        monkeypatch.undo()
        with pytest.raises(ValueError, match="is being written by another process"):
            extract(package, pages, out)
        return write(*args)

    write = module.write_answers
    monkeypatch.setattr(module, "write_answers", again)
    extract(package, pages, out)
    assert len(read_jsonl(out)) == 8


@pytest.mark.parametrize("name", ["out.jsonl", "out.duckdb"])
def test_what_was_not_made_here_is_not_replaced(name, package, pages, tmp_path):
    pytest.importorskip("duckdb")
    for content in (b"", b'{"id": 1}\n', b"thesis"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} holds something else: name another file"):
            extract(package, pages, tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


def test_a_database_of_another_table_is_not_replaced(package, pages, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(tmp_path / "out.duckdb")) as database:
        database.execute("create table answers (id VARCHAR)")
    with pytest.raises(ValueError, match="holds something else"):
        extract(package, pages, tmp_path / "out.duckdb")


def test_what_cannot_work_is_said_at_once(package, pages, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected a file that ends in"):
        extract(package, pages, tmp_path / "out.csv")
    with pytest.raises(FileNotFoundError, match="is no package of an extractor"):
        extract(tmp_path, pages, tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="has no pages"):
        extract(package, write_lines(tmp_path / "none.jsonl", []), tmp_path / "out.jsonl")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(SourceError, match=r"pip install 'nblib\[extraction\]'"):
        extract(package, pages, tmp_path / "out.duckdb")
    assert not list(tmp_path.glob("out*"))
