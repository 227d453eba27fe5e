"""The one notebook that is kept with its outputs: run again, it must give them again.

Where its outputs change on purpose, make them again from the .py and read the difference:
`jupytext --to ipynb --update first_steps.py`, then `jupyter execute --inplace first_steps.ipynb`.
"""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "first_steps.ipynb"


def run_again(notebook, home):
    """Run the notebook and compare: in this interpreter, in no other kernel of the machine."""
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=120"]
    sanitized = ["--nbval-sanitize-with", str(ROOT / "tests" / "golden" / "sanitize.cfg")]
    quiet = ["-q", "--color=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    folders = {name: str(home / name) for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, *nbval, *sanitized, str(notebook)],
        cwd=home,
        env={**os.environ, **folders, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def tamper(notebook, old, new):
    """Change `old` to `new` in the one output of the notebook that has it."""
    changed = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            for holder, key in ((output, "text"), (output.get("data", {}), "text/plain")):
                if old in holder.get(key, ""):
                    holder[key] = holder[key].replace(old, new)
                    changed += 1
    assert changed == 1


@pytest.fixture
def golden():
    return nbformat.read(GOLDEN, as_version=4)


def test_the_golden_notebook_gives_its_outputs_again(tmp_path):
    answer = run_again(GOLDEN, tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "8 passed" in answer.stdout


def test_it_is_seen_when_an_output_differs(golden, tmp_path):
    tamper(golden, "level 2", "level 3")  # printed
    tamper(golden, "'preamble_rate': True", "'preamble_rate': False")  # a cell's value
    nbformat.write(golden, tmp_path / "tampered.ipynb")
    answer = run_again(tmp_path / "tampered.ipynb", tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "2 failed, 6 passed" in answer.stdout


def test_it_has_the_cells_of_its_source_and_each_that_shows_something_has_its_output(golden):
    source = jupytext.read(GOLDEN.with_suffix(".py"))
    assert [(c.cell_type, c.source) for c in golden.cells] == [
        (c.cell_type, c.source) for c in source.cells
    ]
    first, *shown = [cell for cell in golden.cells if cell.cell_type == "code"]
    assert not first.outputs and all(len(cell.outputs) == 1 for cell in shown)
    nbformat.validate(golden)
