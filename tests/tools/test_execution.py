"""Tiny notebooks, run for real by the command line, each in a kernel of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pytest

from nblib.__main__ import main
from nblib.tools.execution import (
    KernelProcess,
    forwarded_signals,
    kernel_variables,
    run_notebook,
)

ROOT = Path(__file__).parents[2]
INFO = "# ---\n# jupyter:\n#   nblib: {kind: sft, task: toy}\n# ---\n\n"
HEAD = INFO + '# %% [markdown]\n# # Toy\n\n# %% tags=["parameters"]\nCOUNT = 1\nNAME = "x"\n\n'
START = 'from nblib.runs import start_run\nrun = start_run("toy", {"NAME": NAME})\n'


@pytest.fixture
def toy(tmp_path):
    """Write notebooks/toy.py: what comes after the parameters."""

    def write(body, head=HEAD):
        path = tmp_path / "notebooks" / "toy.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{head}# %%\n{body}\n")

    return write


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run the command in this process; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def call(*arguments):
        code = main(["run", *arguments])
        out, err = capfd.readouterr()
        err = err.replace("IOStream.flush timed out\n", "")  # a kernel's, where the machine is busy
        return SimpleNamespace(returncode=code, out=out, err=err)

    return call


def test_a_good_run_leaves_the_executed_notebook_in_its_folder(run, toy, tmp_path):
    toy(
        START
        + "import os, sys\n"
        + "print('count', COUNT + 1, NAME)\n"
        + "print(sys.executable)\n"
        + "print(os.environ['TQDM_MININTERVAL'], os.environ['GLIBC_TUNABLES'], sep='\\n')"
    )
    done = run("toy", "-p", "COUNT", "41", "-p", "NAME", "7")
    assert done.returncode == 0, done.err
    (folder,) = (tmp_path / "runs" / "toy").iterdir()
    said = done.out.splitlines()
    assert said[:3] == ["count 42 7", sys.executable, "30"]
    assert "glibc.malloc.hugetlb=1" in said[3] or sys.platform != "linux"
    assert said[-1] == f"done: {folder}"
    assert done.err == ""
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    outputs = [cell.outputs for cell in executed.cells if cell.cell_type == "code"]
    assert outputs[-1][0].text.startswith("count 42 7")
    assert executed.metadata.nblib == {"kind": "sft", "task": "toy"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-p", "CONT", "3"), "unknown parameter CONT; did you mean COUNT?"),
        (("-p", "COUNT", "three"), "parameter COUNT takes int (default 1), got text: three"),
    ],
)
def test_a_wrong_parameter_stops_before_anything_runs(run, toy, tmp_path, arguments, said):
    toy("open('began', 'w')")
    failed = run("toy", *arguments)
    assert failed.returncode == 1 and said in failed.err
    assert len(failed.err.splitlines()) <= 3 and failed.out == ""
    assert not (tmp_path / "began").exists()


def test_a_notebook_without_the_tag_is_refused(run, toy, tmp_path):
    toy("print(1)", head="")
    failed = run("toy")
    assert failed.returncode == 1
    assert failed.err.startswith("nblib: notebooks/toy.py: no cell is tagged 'parameters'")
    assert len(failed.err.splitlines()) == 1


def test_a_failing_cell_is_named_with_its_error_and_kept(run, toy, tmp_path):
    toy(START + 'raise ValueError("model 50304, tokenizer 544")')
    failed = run("toy")
    kept = tmp_path / "runs" / "toy" / "failed.ipynb"
    assert failed.returncode == 1
    assert failed.err.splitlines() == [
        "nblib: toy: cell In [2] failed: ValueError: model 50304, tokenizer 544",
        "the cell begins: from nblib.runs import start_run",
        f"the executed notebook: {kept}",
    ]
    outputs = [cell.get("outputs") for cell in nbformat.read(kept, as_version=4).cells]
    assert any(output and output[0].output_type == "error" for output in outputs)


PLANTED = "print('key', 'ghp_' + 40 * 'a', os.environ['TOY_TOKEN'])\n"


@pytest.mark.parametrize("end", ["print('done')", "raise ValueError(os.environ['TOY_TOKEN'])"])
def test_a_planted_secret_is_not_saved(run, toy, tmp_path, monkeypatch, end):
    monkeypatch.setenv("TOY_TOKEN", "a quiet value")
    toy(START + "import os\n" + PLANTED + end)
    done = run("toy")
    assert "removed from " in done.err
    assert "GitHub token (1)" in done.err and "value of TOY_TOKEN (" in done.err
    assert "a quiet value" not in done.err
    (kept,) = (tmp_path / "runs").rglob("*.ipynb")
    assert kept.name == ("notebook.ipynb" if done.returncode == 0 else "failed.ipynb")
    content = kept.read_text()
    assert "a quiet value" not in content and "aaaa" not in content
    assert "key [GitHub token removed] [value of TOY_TOKEN removed]" in content
    nbformat.validate(nbformat.read(kept, as_version=4))


def test_a_run_that_succeeds_takes_an_earlier_failure_away(run, toy, tmp_path):
    toy("1 / 0")
    assert run("toy").returncode == 1
    toy("1 / 1")
    assert run("toy").returncode == 0
    assert [path.name for path in (tmp_path / "runs" / "toy").iterdir()] == ["notebook.ipynb"]


def v4(*cells, **changes):
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [*cells]} | changes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.ipynb", b"no json"),
        ("bad.ipynb", b"\x00\xff\xfe\x80"),
        ("bad.py", b"\x00\xff\xfe\x80"),
        *(
            ("bad.ipynb", json.dumps(content).encode())
            for content in (
                [],
                {},
                v4(cells=3),
                v4(1),
                v4({"cell_type": "code"}),
                v4(nbformat="x"),
                v4(nbformat=99),
                v4(metadata=[]),
                v4({"cell_type": "x", "source": [1], "metadata": {}}),
            )
        ),
    ],
)
def test_a_file_that_is_no_notebook_is_named_in_one_line(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        run_notebook(str(path), {})
    assert str(error.value).startswith(f"{path} is no notebook: ")
    assert "\n" not in str(error.value)


def test_a_name_whose_pair_was_edited_is_refused_and_its_path_is_run(run, toy, tmp_path):
    toy(START + "print('of the .py')")
    edited = jupytext.read(tmp_path / "notebooks" / "toy.py")
    jupytext.write(edited, tmp_path / "notebooks" / "toy.ipynb")
    assert run("toy").returncode == 0
    edited.cells[-1].source = START + "print('of the .ipynb')"
    jupytext.write(edited, tmp_path / "notebooks" / "toy.ipynb")
    refused = run("toy")
    assert (refused.returncode, refused.out) == (1, "")
    assert refused.err.startswith(
        "nblib: notebooks/toy.ipynb is not what its .py says: run `make sync` first"
    )
    assert "of the .ipynb" in run("notebooks/toy.ipynb").out


def test_a_runs_folder_that_cannot_be_written_is_the_error_and_hides_none(run, toy, tmp_path):
    (tmp_path / "runs").write_text("a file in place of the folder")
    toy(START)
    failed = run("toy")
    assert failed.returncode == 1
    said = failed.err.splitlines()
    assert said[0].startswith("nblib: toy: cell In [2] failed: NotADirectoryError: ")
    assert f"'{tmp_path}/runs/toy': set NBLIB_RUNS_DIR to a folder" in said[0]
    assert said[2].startswith("the executed notebook: could not be kept: [Errno ")
    assert len(said) == 3
    toy("raise ValueError('the first error')")
    assert "ValueError: the first error" in run("toy").err


def test_a_run_whose_notebook_cannot_be_kept_says_so(run, toy, tmp_path):
    toy("print('computed')")
    (tmp_path / "runs").write_text("a file in place of the folder")
    failed = run("toy")
    assert (failed.returncode, failed.out) == (1, "computed\n")
    assert failed.err.startswith("nblib: toy: [Errno ") and failed.err.count("\n") == 1


def test_a_dead_kernel_is_named_by_its_cell(run, toy, tmp_path):
    toy("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    failed = run("toy")
    assert failed.returncode == 1
    assert failed.err.startswith("nblib: toy: cell In [2]: Kernel died")


WAIT = """\
import atexit, os, signal, time

class Stopped(Exception):
    pass

def save(*_):
    with open("saved", "a") as file:
        file.write("checkpoint")
    raise Stopped

signal.signal(signal.SIGTERM, save)
atexit.register(time.sleep, 4)  # a kernel that is slow to end
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def waiting(toy, tmp_path):
    """A run whose cell waits, with its kernel's pid."""
    toy(WAIT)
    process = subprocess.Popen(
        [sys.executable, "-m", "nblib", "run", "toy"],
        cwd=tmp_path,
        env=os.environ | {"NBLIB_RUNS_DIR": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process, int(process.stdout.readline())
    process.kill()
    process.communicate()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # dead, but not yet waited for by its new parent
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_notebook_save_first(waiting, tmp_path, signum, code):
    process, kernel = waiting
    process.send_signal(signum)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert (tmp_path / "saved").read_text() == "checkpoint"
    assert said == "nblib: toy was stopped; run the same command again: it resumes\n"
    assert not is_alive(kernel)


def test_a_kernel_does_not_outlive_a_killed_run(waiting):
    process, kernel = waiting
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while is_alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not is_alive(kernel)


def test_variables_that_the_user_has_set_stay():
    assert "GLIBC_TUNABLES" not in kernel_variables({"GLIBC_TUNABLES": ""})
    assert "TQDM_MININTERVAL" not in kernel_variables({"TQDM_MININTERVAL": "1"})
    assert kernel_variables({})["TF_CPP_MIN_LOG_LEVEL"] == "3"


def test_the_kernel_is_this_interpreter_whatever_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernel = KernelProcess(kernel_name="python3", variables={"A": "b"})
    assert kernel.kernel_spec.argv[0] == sys.executable
    assert kernel.kernel_spec.env == {"A": "b"}


def test_a_signal_before_there_is_a_kernel_interrupts_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with forwarded_signals(KernelProcess()) as received:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


LOGGING = (
    "import json, os\n"
    "def log(step):\n"
    "    with (run.path / 'metrics.jsonl').open('a') as file:\n"
    "        print(json.dumps({'step': step, 'loss': 0.5}), file=file)\n"
    "log(1)\n"
)


@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("raise ValueError('x')", 1), ("os._exit(9)", 1)]
)
def test_a_tracker_follows_a_run_however_it_ends(run, toy, tmp_path, monkeypatch, end, code):
    monkeypatch.setenv("NBLIB_TRACKER", "tensorboard")
    toy(START + LOGGING + end)
    done = run("toy")
    assert done.returncode == code
    (events,) = tmp_path.glob("runs/toy/*/tensorboard/events.*")
    assert b"loss" in events.read_bytes()
    assert "tensorboard --logdir" in done.out


def test_a_wrong_tracker_stops_before_anything_runs(run, toy, tmp_path, monkeypatch):
    monkeypatch.setenv("NBLIB_TRACKER", "abacus")
    toy("open('began', 'w')")
    failed = run("toy")
    assert failed.returncode == 1 and "tracker 'abacus' is unknown" in failed.err
    assert not (tmp_path / "began").exists()
