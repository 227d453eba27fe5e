from pathlib import Path

import pytest

from nblib.__main__ import main
from tests.tools.made_runs import result_of


@pytest.fixture
def three(write_run):
    write_run("20260101-000000-a", {"seed": 1}, [{"step": 1, "loss": 2.0}], result_of(0.25))
    write_run("20260102-000000-b", {"seed": 22}, [{"step": 1, "loss": 1.0}], result_of())
    return write_run("20260103-000000-c", {"seed": 3}, notebook="grpo")


def test_a_table_a_notebook_newest_first(three, capsys):
    assert main(["runs"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "**grpo**",
        "",
        "| run               | headline | time | state      |",
        "| --- | --- | --- | --- |",
        "| 20260103-000000-c | -        | -    | unfinished |",
        "",
        "**v1**",
        "",
        "| run               | seed | answer accuracy            | time  | state    |",
        "| --- | --- | --- | --- | --- |",
        "| 20260102-000000-b | 22   | 0.500 [0.000, 1.000] (n=8) | 2 min | finished |",
        "| 20260101-000000-a | 1    | 0.250 [0.000, 1.000] (n=8) | 2 min | finished |",
    ]


def test_the_newest_of_one_notebook(three, capsys):
    assert main(["runs", "v1", "-n", "1"]) == 0
    out = capsys.readouterr().out
    assert "20260102-000000-b" in out and "20260101" not in out and "grpo" not in out


def test_a_plot_is_a_png_file(three, tmp_path, capsys):
    assert main(["runs", "--plot", str(tmp_path / "runs.png")]) == 0
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'runs.png'}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["runs", "v9"], 1, "v9 holds no run; in "),
        (["runs", "-n", "0"], 2, "0 is not in the range x>=1"),
        (
            ["log", "v1", "--to", "abacus"],
            2,
            "'abacus' is not one of 'tensorboard', 'wandb', 'trac",
        ),
        (["runs", "--plot", "p.pdf"], 2, "p.pdf is no .png file: give a name such as runs.png"),
        (["runs", "--plot", "no/p.png"], 2, "no/p.png: there is no folder no: make it first"),
        (["log", "v1"], 2, "Missing option '--to'"),
        (["log", "v9", "--to", "tensorboard"], 1, "nblib: "),
        (["log", "v1", "--to", "tensorboard", "--follow"], 1, "nblib: v1 has no unfinished run"),
    ],
)
def test_what_is_wrong_is_one_line(three, capsys, arguments, code, said):
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and said in err


def test_the_newest_run_is_logged_or_the_one_given(three, tmp_path, capsys):
    for given, run in (("v1", "20260102-000000-b"), (str(three), three.name)):
        assert main(["log", given, "--to", "tensorboard"]) == 0
        assert f"{run}: to tensorboard\n" in capsys.readouterr().out
    logged = sorted(path.parent.name for path in tmp_path.glob("runs/*/*/tensorboard"))
    assert logged == ["20260102-000000-b", "20260103-000000-c"]


def test_a_plot_that_cannot_be_written_is_the_only_message(three, tmp_path, capsys, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["runs", "--plot", str(tmp_path / "p.png")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "No space left on device" in err


@pytest.mark.parametrize("line", ['{"step": 9223372036854775808}', '{"step": 1}\n{"step": "2"}'])
def test_a_step_that_is_none_is_named_by_file_and_line(write_run, capsys, line):
    path = write_run("20260101-000000-a", {}, f"{line}\n", result_of())
    assert main(["log", str(path), "--to", "tensorboard"]) == 1
    assert f"{path}/metrics.jsonl:{line.count('step')}: " in capsys.readouterr().err
    assert {one.name for one in path.iterdir()} == {"config.json", "metrics.jsonl", "result.json"}
