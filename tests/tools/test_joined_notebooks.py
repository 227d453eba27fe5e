"""A tiny notebook, run by two commands at once, as `srun` starts them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.joined import LIMIT_S, by_slurm

ROOT = Path(__file__).parents[2]
TOY = """# ---
# jupyter:
#   nblib: {kind: sft, task: toy}
# ---

# %% [markdown]
# # Toy

# %% tags=["parameters"]
FAILS = -1

# %%
from nblib.hosts.host import where_am_i
from nblib.hosts.shared_run import start_shared_run

number = where_am_i().launch.number
run = start_shared_run("toy", {}, devices=(), started=0.0)
(run.path / f"{number}.txt").touch()
print("in", number)

# %%
assert number != FAILS, "it fails here"
"""


def run_two(folder, compilation_cache, *arguments):
    """Run notebooks/toy.py in two processes; return exit code and output of each."""
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "toy.py").write_text(TOY)
    common = {**os.environ, "NBLIB_RUNS_DIR": str(folder / "runs"), "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "nblib", "run", "toy", *arguments],
            cwd=folder,
            env={**common, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for own in by_slurm([1, 1], compilation_cache)
    ]
    said = [process.communicate(timeout=LIMIT_S)[0].splitlines() for process in started]
    # Gloo's own line, by which it says that it is connected.
    said = [[line for line in lines if not line.startswith("[Gloo]")] for lines in said]
    return [(process.returncode, lines) for process, lines in zip(started, said, strict=True)]


def test_the_first_of_two_speaks_and_keeps_the_notebook(tmp_path, compilation_cache):
    first, second = run_two(tmp_path, compilation_cache)
    latest = sorted(tmp_path.glob("runs/toy/*"))
    assert first == (0, ["in 0", f"done: {latest[0]}"])
    assert second == (0, [])
    kept = {path.name for path in latest[0].iterdir()}
    assert kept == {".lock", "config.json", "0.txt", "notebook.ipynb"}


def test_another_says_why_it_failed_and_writes_nothing(tmp_path, compilation_cache):
    first, (code, lines) = run_two(tmp_path, compilation_cache, "-p", "FAILS", "1")
    assert first[0] == 0
    assert code == 1
    assert lines[0].startswith(
        "nblib: process 1: toy: cell In [4] failed: AssertionError: it fails"
    )
    assert lines[-1] == "the executed notebook: process 0 keeps its own"
    assert [path.name for path in tmp_path.glob("runs/toy/failed*")] == []
