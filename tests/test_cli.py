import subprocess
import sys
import time

import pytest

from nblib.__main__ import main


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "b_second.py").write_text("# %% [markdown]\n# # Second: on real data\n")
    (folder / "a_first.py").write_text("# ---\n# jupyter: x\n# ---\n# %% [markdown]\n# # First\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    return folder


def test_list_names_each_notebook_with_its_title(notebooks, capsys):
    assert main(["list"]) == 0
    assert [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()] == [
        ["a_first", "First"],
        ["b_second", "Second: on real data"],
    ]


def test_a_failed_run_says_why_on_stderr_and_exits_with_1(notebooks, capsys):
    assert main(["run", "c_third"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "unknown notebook 'c_third'" in said.err and "a_first, b_second" in said.err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["run", "a_first", "-p", "X"]])
def test_a_wrong_command_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_parameter_given_twice_exits_with_2(notebooks, capsys):
    assert main(["run", "a_first", "-p", "X", "1", "-p", "X", "2"]) == 2
    assert "X is given twice" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    code = "import sys; from nblib.__main__ import main; sys.argv[1:] = ['--help']\n"
    code += "try: main()\nexcept SystemExit: print(*{'papermill', 'jax', 'numpy'} & {*sys.modules})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert answer.startswith("usage:") and answer.endswith("\n\n")


def test_help_answers_within_half_a_second():
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nblib", "--help"], capture_output=True, check=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 0.5


EVAL = """
# %% tags=["parameters"]
STAGES = []
ALLOW_MISMATCH = False
SEED = 0
# %%
print(STAGES, ALLOW_MISMATCH, SEED)
"""


def test_compare_runs_the_notebook_eval_with_the_stages(notebooks, capfd):
    (notebooks / "eval.py").write_text(EVAL)
    assert main(["compare", "a=x@question", "b=y", "--allow-mismatch", "-p", "SEED", "3"]) == 0
    assert "['a=x@question', 'b=y'] True 3" in capfd.readouterr().out
    assert main(["compare"]) == 0
    assert "[] False 0" in capfd.readouterr().out


def test_compare_takes_the_stages_in_one_way_only(notebooks, capsys):
    (notebooks / "eval.py").write_text(EVAL)
    assert main(["compare", "a=x", "-p", "STAGES", "[]"]) == 2
    assert "STAGES is given twice" in capsys.readouterr().err
