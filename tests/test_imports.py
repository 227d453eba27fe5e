"""An import points only to an earlier room; the contracts are in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())"


def lint(folder):
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


def test_the_rooms_keep_their_order():
    answer = lint(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("sources/rows.py", "import nblib.tasks.task", "An import points only to an earlier room"),
        ("training/sft.py", "import nblib.tasks.gsm8k", "Training receives a task as a value"),
        ("tasks/task.py", "import jax", "Rows, tasks and run folders need no accelerator library"),
        ("hosts/host.py", "import nblib.tools", "An import points only to an earlier room"),
        ("hosts/host.py", "import benchmarks.stock", "The library needs no benchmark"),
    ],
)
def test_an_import_up_the_house_is_found(tmp_path, file, line, broken):
    skip = shutil.ignore_patterns("__pycache__", "embedded")
    shutil.copytree(ROOT / "nblib", tmp_path / "nblib", ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "nblib" / file
    target.write_text(target.read_text() + f"\n{line}\n")
    answer = lint(tmp_path)
    assert answer.returncode == 1
    assert f"{broken} BROKEN" in answer.stdout
