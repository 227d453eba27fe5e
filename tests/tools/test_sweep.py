"""Sweeps of a tiny notebook, run for real: each cell is a process and a kernel of its own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nblib.__main__ import main
from nblib.tools.run_table import run_rows
from nblib.tools.sweep import read_outcome

ROOT = Path(__file__).parents[2]
# It notes each beginning and end; waits where it is asked to, until it is stopped or let go.
TOY = """\
# %% tags=["parameters"]
RATE = 1.0
SEED = 0
NAME = "x"
WAIT = False
# %%
import json, os, signal, sys, time
from pathlib import Path
from nblib.runs import finish_run, start_run
from nblib.tasks.registry import get_task
def note(what):
    with open("notes", "a") as file:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        file.write(json.dumps([what, SEED, RATE, NAME, gpu]) + "\\n")
run = start_run("toy", {"RATE": RATE, "SEED": SEED, "NAME": NAME, "WAIT": WAIT})
note("resumed" if run.resumed else "began")
# %%
def stop(*_):
    note("stopped")
    raise RuntimeError("stopped")
signal.signal(signal.SIGTERM, stop)
if WAIT and SEED and not Path("go").exists():
    note("waits")
    while not Path("go").exists():
        time.sleep(0.05)
if NAME == "bad":
    raise ValueError("no such name")
# %%
task = get_task("gsm8k")
stage = {"n": 10, "truncation_rate": None, "truncation_rate_ci95": None}
stage |= {name: 0.5 for name in task.metric_names}
stage |= {f"{name}_ci95": [0.2, 0.8] for name in task.metric_names}
steps = {"steps_left": 7} if NAME == "long" and not run.resumed else {}
result = {"notebook": "toy", "task": "gsm8k", "profile": "cpu", "seed": SEED, "wall_s": 3}
result |= {"model": {}, "data": {}, "stages": {"base": stage, "tuned": stage}} | steps
finish_run(run, result, metrics=task.metric_names)
note("ended")
"""
SEEDS = ("-p", "SEED", "0,1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.fixture
def sweep(folder, capfd):
    """Run the command in this process; returns exit code, stdout and stderr."""

    def call(*arguments):
        code = main(["sweep", "toy", *arguments])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def started(folder):
    """Start the command in a process of its own."""
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "nblib", "sweep", "toy", *arguments]
        with (folder / "out").open("ab") as out:
            processes.append(subprocess.Popen(command, stdout=out, stderr=out))
        return processes[-1]

    yield start
    (folder / "go").touch()
    for process in processes:
        process.terminate()
        process.wait(60)


def notes():
    path = Path("notes")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def table_rows(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_each_cell_is_a_run_and_a_row_and_none_is_run_twice(sweep, folder):
    grid = ("-p", "RATE", "1,3e-4", "-p", "NAME", "one", *SEEDS)
    code, out, err = sweep(*grid)
    assert (code, err) == (0, "")
    began = [note[1:3] for note in notes() if note[0] == "began"]
    assert began == [[0, 1], [1, 1], [0, 0.0003], [1, 0.0003]]
    (logs,) = (folder / "runs" / "toy" / "sweeps").iterdir()
    lines = out.splitlines()
    assert lines[0] == f"cell 0 of 0-3: RATE=1 SEED=0: started, log {logs}/0.log"
    assert lines[1].startswith("cell 0 of 0-3: RATE=1 SEED=0: finished after ")
    assert lines[-1] == f"{logs}/table.md"
    rows = table_rows(out)
    assert rows == table_rows((logs / "table.md").read_text())
    assert [(row["cell"], row["RATE"], row["SEED"], row["state"]) for row in rows] == [
        ("0", "1", "0", "finished"),
        ("1", "1", "1", "finished"),
        ("2", "3e-4", "0", "finished"),
        ("3", "3e-4", "1", "finished"),
    ]
    assert "NAME" not in rows[0]
    assert (rows[3]["answer accuracy"], rows[3]["time"]) == ("0.500 [0.200, 0.800] (n=10)", "3 s")
    config = json.loads((folder / "runs" / "toy" / rows[3]["run"] / "config.json").read_text())
    assert config == {"RATE": 0.0003, "SEED": 1, "NAME": "one", "WAIT": False}
    assert {one.run for one in run_rows("toy")} == {row["run"] for row in rows}
    code, again, err = sweep(*grid)
    assert (code, err, table_rows(again)) == (0, "", rows)
    assert "started" not in again and len(notes()) == 8


def test_a_cell_that_fails_is_named_and_the_others_go_on(sweep, folder):
    code, out, _ = sweep("-p", "NAME", "good,bad,long")
    assert code == 1
    (logs,) = (folder / "runs" / "toy" / "sweeps").iterdir()
    error = "toy: cell In [4] failed: ValueError: no such name"
    assert f": {error}; log {logs}/1.log\n" in out and "NAME=bad: exit code 1 after" in out
    assert [row["state"] for row in table_rows(out)] == ["finished", error, "steps left: 7"]
    assert "no such name" in (logs / "1.failed.ipynb").read_text()
    (folder / "notebooks" / "toy.py").write_text(TOY.replace('"bad"', '"worse"'))
    code, out, _ = sweep("-p", "NAME", "good,bad,long")
    assert code == 0 and "good" not in out.partition("**")[0]
    assert [row["state"] for row in table_rows(out)] == ["finished"] * 3
    assert not (logs / "1.failed.ipynb").exists()
    counted = [(what, name) for what, _, _, name, _ in notes() if what in ("began", "resumed")]
    firsts = [("began", "good"), ("began", "bad"), ("began", "long")]
    assert counted == [*firsts, ("resumed", "bad"), ("resumed", "long")]


def test_a_stop_lets_runs_save_and_the_same_command_goes_on(started, folder):
    grid = ("-p", "SEED", "0,1,2", "-p", "WAIT", "True")
    process = started(*grid)
    wait_for(lambda: notes()[-1:] and notes()[-1][:2] == ["waits", 1])
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    first = [["began", 0], ["ended", 0], ["began", 1], ["waits", 1], ["stopped", 1]]
    assert [note[:2] for note in notes()] == first
    said = (folder / "out").read_text()
    assert said.splitlines()[-2] == "nblib: stopped; the same command goes on"
    assert "toy was stopped" in said and "SEED=2" not in said
    (folder / "go").touch()
    assert started(*grid).wait(60) == 0
    then = [["resumed", 1], ["ended", 1], ["began", 2], ["ended", 2]]
    assert [note[:2] for note in notes()[len(first) :]] == then
    states = [row["state"] for row in table_rows((folder / "out").read_text())]
    assert states == ["finished"] * 3


def test_ctrl_c_stops_all_that_run(started):
    process = started("-p", "SEED", "1,2", "-p", "WAIT", "True", "--gpus", "0,1")
    wait_for(lambda: [note[0] for note in notes()].count("waits") == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert sorted(note[:2] for note in notes() if note[0] == "stopped") == [
        ["stopped", 1],
        ["stopped", 2],
    ]


def test_each_gpu_runs_a_cell_at_a_time(started, folder):
    """Both wait until both have begun; the one that is free takes the third."""
    process = started("-p", "SEED", "1,2,3", "-p", "WAIT", "True", "--gpus", "0,GPU-7")
    wait_for(lambda: [note[0] for note in notes()].count("waits") == 2)
    assert sorted(note for note in notes() if note[0] == "began") == [
        ["began", 1, 1, "x", "0"],
        ["began", 2, 1, "x", "GPU-7"],
    ]
    (folder / "go").touch()
    assert process.wait(60) == 0
    assert {note[1] for note in notes() if note[0] == "ended"} == {1, 2, 3}
    (third,) = [note for note in notes() if note[:2] == ["began", 3]]
    assert third[4] in ("0", "GPU-7")
    assert "SEED=2: started on GPU GPU-7, log " in (folder / "out").read_text()


def test_a_cell_that_another_process_runs_is_left_alone(started, sweep, folder):
    first = started("-p", "SEED", "1", "-p", "WAIT", "True")
    wait_for(lambda: len(notes()) == 2)
    code, out, _ = sweep("-p", "SEED", "1", "-p", "WAIT", "True")
    assert code == 1 and ": left alone, another process runs it: " in out
    (folder / "go").touch()
    assert first.wait(60) == 0 and len(notes()) == 3


def test_one_cell_alone_is_run_and_the_table_names_the_others(sweep, folder):
    code, out, _ = sweep(*SEEDS, "--cell", "1")
    assert code == 0 and [note[:2] for note in notes()] == [["began", 1], ["ended", 1]]
    table = Path(out.splitlines()[-1]).read_text()
    assert [row["state"] for row in table_rows(table)] == ["not run", "finished"]
    assert "|" not in out


def test_a_run_that_was_killed_is_no_finished_cell(sweep, folder):
    assert sweep("-p", "NAME", "x")[0] == 0
    (log,) = (folder / "runs").rglob("*.log")
    assert read_outcome(log).is_finished
    log.write_text(log.read_text() + "\n$ python -m nblib run toy\nstep 3\n\n")
    outcome = read_outcome(log)
    assert (outcome.run, outcome.error) == (None, "no end; its last line: step 3")
