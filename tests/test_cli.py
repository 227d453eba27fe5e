import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nblib.__main__ import main
from nblib.evaluation.score_file import score_file
from nblib.sources.travel import travel_requests
from nblib.tasks.registry import get_task, task_names


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


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run"],
        ["run", "a_first", "-p", "X"],
        ["score"],
        ["score", "x", "--task", "?"],
        ["truth"],
        ["extract", "export"],
        ["extract", "export", "pages.jsonl"],
        ["publish", "owner/name"],
        ["publish", "--to", "github", "owner/name"],
    ],
)
def test_a_wrong_command_exits_with_2(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(("Usage: ", "Error: "))


def test_a_parameter_given_twice_exits_with_2(notebooks, capsys):
    assert main(["run", "a_first", "-p", "X", "1", "-p", "X", "2"]) == 2
    assert "X is given twice" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    code = "import sys, time; from nblib.__main__ import main; main(['--help'])\n"
    code += "print(*{'papermill', 'jax', 'numpy'} & {*sys.modules}, time.process_time())"
    answers = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    helps, rest = zip(*(answer.stdout.rsplit("\n", 2)[:2] for answer in answers), strict=True)
    assert helps[0].startswith("Usage:") and "extract" in helps[0]
    assert min(map(float, rest)) < 0.5  # seconds of CPU, and no module before them


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


TRIP = travel_requests(1, seed=0, split="test")[0].fields
COMPLETION = {
    "gsm8k": "<reasoning>2 * 9 = 18</reasoning><answer>18</answer>",
    "gsm8k/hash": "2 * 9 = 18\n#### 18",
    "gsm8k/boxed": "2 * 9 = 18, $\\boxed{18}$.",
    "gsm8k/last-number": "2 * 9 = 18.",
    "envelope": json.dumps(TRIP["response"]),
    "extraction": '{"name": "Mug", "price": null}',
    "proofs": "<proof>\nSquare a-b: a^2+b^2 >= 2ab\n</proof>",
    "text_proofs": "<proof>\nA square is not negative.\n</proof>",
}
REFERENCE = {
    "envelope": {"payload_type": TRIP["payload_type"]},
    "extraction": {"name": "Mug", "price": None},
    "proofs": "a^2+b^2 >= 2ab for real a, b",
    "text_proofs": "a^2+b^2 >= 2ab for real a, b",
}


@pytest.fixture
def completions(tmp_path):
    """Write one right completion for each task: {name: path}."""
    paths = {name: tmp_path / f"{name.replace('/', '-')}.jsonl" for name in COMPLETION}
    for name, path in paths.items():
        line = {"reference": REFERENCE.get(name, "18"), "completion": COMPLETION[name]}
        path.write_text(json.dumps(line) + "\n")
    return paths


@pytest.mark.parametrize("name", task_names())
def test_score_prints_what_score_file_gives_and_nothing_else(name, completions, capsys):
    assert main(["score", str(completions[name]), "--task", name]) == 0
    said = capsys.readouterr()
    expected = score_file(completions[name], task=get_task(name))
    assert (json.loads(said.out), said.err) == (expected, "")
    assert (expected["task"], expected[get_task(name).headline]) == (name, 1.0)


def test_score_reads_gsm8k_where_no_task_is_given(completions, capsys):
    assert main(["score", str(completions["gsm8k/hash"])]) == 0
    assert json.loads(capsys.readouterr().out)["failures"] == {"missing tag": 1}


def test_score_skips_references_that_are_no_numbers_where_it_is_told_to(completions, capsys):
    path = completions["gsm8k/boxed"]
    line = json.dumps({"reference": r"\frac{1}{2}", "completion": "18"})
    path.write_text(path.read_text() + line)
    command = ["score", str(path), "--task", "gsm8k/boxed"]
    assert main(command) == 1
    assert "--skip-unreadable-references" in capsys.readouterr().err
    assert main([*command, "--skip-unreadable-references"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert (metrics["n"], metrics["skipped_references"]) == (1, 1)


def nblib(*arguments, **options):
    command = [sys.executable, "-m", "nblib", *arguments]
    return subprocess.run(command, check=False, **options)


def test_score_reads_standard_input(completions):
    lines = completions["gsm8k"].read_bytes()
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    answer = nblib("score", "-", input=lines, **options)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert json.loads(answer.stdout)["joint_accuracy"] == 1.0
    answer = nblib("score", "-", input=lines + b"{", **options)
    assert (answer.returncode, answer.stdout) == (1, b"")
    assert b"nblib: <stdin>:2: no JSON" in answer.stderr


@pytest.mark.parametrize(("command", "unbuffered"), [("score", ""), ("score", "1"), ("--help", "")])
def test_an_output_that_nobody_reads_is_no_traceback(command, unbuffered, completions):
    arguments = (command, completions["gsm8k"]) if command == "score" else (command,)
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    answer = nblib(*arguments, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert (answer.returncode, answer.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_an_output_that_is_full_is_one_line(completions):
    with open("/dev/full", "wb") as full:
        answer = nblib("score", completions["gsm8k"], stdout=full, stderr=subprocess.PIPE)
    assert answer.returncode == 1
    assert answer.stderr == b"nblib: [Errno 28] No space left on device\n"


def test_a_file_that_cannot_be_scored_exits_with_1_and_names_the_line(tmp_path, capsys):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"reference": "many", "completion": "18"}\n')
    for file, complaint in (
        (path, f"nblib: {path}:1: unreadable reference 'many'"),
        (tmp_path / "missing.jsonl", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        assert main(["score", str(file)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert complaint in said.err and said.err.count("\n") == 1


def test_score_loads_nothing_heavy(completions):
    code = "import sys; from nblib.__main__ import main; main(sys.argv[1:])\n"
    code += "print(*{'jax', 'numpy', 'scipy', 'matplotlib', 'papermill'} & {*sys.modules})"
    arguments = [sys.executable, "-c", code, "score", str(completions["gsm8k"])]
    answer = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert answer.endswith("}\n\n")
