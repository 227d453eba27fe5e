from datetime import UTC, datetime

import pytest

from nblib.report.tables import Estimate
from nblib.tools.run_table import find_run, read_metrics, rows_table, run_row, run_rows
from tests.tools.made_runs import result_of

RUN = "20261128-065243-c5fcae07"
STEPS = [{"step": 0, "val_loss": 0.9}, {"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}]


def test_a_finished_run_says_all_of_itself(write_run):
    path = write_run(RUN, {"seed": 1}, STEPS, result_of(0.25))
    row = run_row(path)
    assert (row.notebook, row.run, row.state) == ("v1", RUN, "finished")
    assert row.started == datetime(2026, 11, 28, 6, 52, 43, tzinfo=UTC)
    assert (row.parameters, row.seconds, row.steps) == ({"seed": 1}, 100, 2)
    assert row.headline == "answer_accuracy"
    assert row.estimate == Estimate(value=0.25, low=0.0, high=1.0, n=8)


@pytest.mark.parametrize(
    ("stages", "value"),
    [
        (("base", "tuned", "tuned_sampled"), 0.25),  # as the report's first paragraph
        (("base", "other"), 0.25),
        ((), None),
    ],
)
def test_the_headline_is_of_the_tuned_stage_else_of_the_last(write_run, stages, value):
    wanted = "tuned" if "tuned" in stages else stages[-1:] and stages[-1]
    made = {one: result_of(0.25 if one == wanted else 0.75)["stages"]["tuned"] for one in stages}
    row = run_row(write_run(RUN, {}, None, result_of(stages=made)))
    assert (row.estimate and row.estimate.value) == value
    assert row.headline == "answer_accuracy" and row.state == "finished"


@pytest.mark.parametrize(
    ("config", "metrics", "result", "state"),
    [
        ({}, STEPS, None, "unfinished"),
        ({}, STEPS, result_of(steps_left=1200), "steps left: 1,200"),
        (None, None, None, "unfinished; no config.json"),
        ("[]", None, None, "unfinished; config.json holds [], expected a JSON object"),
        ({}, None, '{"task": ', "result.json: expected JSON, Expecting value"),
        ({}, '{"step": 1}\n[2]\n', None, "unfinished; metrics.jsonl:2: [2], expected an object"),
        ({}, f'{{"step": {2**63}}}\n', None, "unfinished; metrics.jsonl:1: {'step': 92233720"),
        ({}, '{"step": true}\n', None, "unfinished; metrics.jsonl:1: {'step': True}, expected an"),
        ({}, None, result_of(task="chess"), "finished; task 'chess' is unknown: expected one of"),
        ({}, None, {"stages": {}}, "finished; result.json lacks 'task'"),
        ({}, None, result_of(stages=[]), "finished; result.json: stages is [], expected an object"),
        ({}, None, result_of(stages={"base": 3}), "finished; result.json: stage base is 3, expect"),
        ({}, None, result_of("high"), "finished; result.json: stage tuned: answer_accuracy is 'hi"),
        ({}, None, result_of(2), "finished; result.json: stage tuned: answer_accuracy is 2, expec"),
        ({}, None, result_of(stages={"base": {"n": 3}}), "finished; result.json: stage base: miss"),
        ({}, None, result_of(wall_s="long"), "result.json: wall_s is 'long', expected a number"),
        ({}, None, result_of(steps_left=-1), "result.json: steps_left is -1, expected a number of"),
    ],
)
def test_what_is_wrong_with_a_folder_is_its_state(write_run, config, metrics, result, state):
    row = run_row(write_run(RUN, config, metrics, result))
    assert row.state.startswith(state) and "/runs/" not in row.state
    (cells,) = rows_table([row]).rows
    assert cells[0] == RUN and cells[-1] == row.state


def test_files_that_are_none_are_named_too(write_run, tmp_path):
    path = write_run("mine")
    (path / "config.json").mkdir()
    (path / "result.json").mkdir()
    row = run_row(path)
    assert "Is a directory" in row.state and row.started is None
    (tmp_path / "file").touch()
    assert "Not a directory" in run_row(tmp_path / "file").state
    assert run_row(tmp_path / "nothing").state == "unfinished; no config.json"


def test_a_table_shows_what_differs_alone(write_run):
    configs = [
        {"seed": 1, "rate": 0.1, "lora": {"rank": 8, "alpha": 1.0}, "levels": [1, 2]},
        {"seed": 1, "rate": 0.2, "lora": {"rank": 16, "alpha": 1.0}, "levels": [1]},
        {"seed": 1, "rate": 0.2},  # of an older version
    ]
    runs = [write_run(f"r{n}", one, None, result_of(n / 2)) for n, one in enumerate(configs)]
    table = rows_table([run_row(path) for path in runs], title="v1")
    columns = ("run", "rate", "lora.rank", "levels", "answer accuracy", "time", "state")
    assert (table.title, table.columns) == ("v1", columns)
    assert table.rows == (
        ("r0", "0.1", "8", "[1, 2]", "0.000\n[0.000, 1.000] (n=8)", "2 min", "finished"),
        ("r1", "0.2", "16", "[1]", "0.500\n[0.000, 1.000] (n=8)", "2 min", "finished"),
        ("r2", "0.2", "-", "-", "1.000\n[0.000, 1.000] (n=8)", "2 min", "finished"),
    )


def test_two_tasks_in_one_table_name_their_headlines(write_run):
    figures = {"n": 4, "proof_verified": 0.5, "proof_verified_ci95": [0.1, 0.9]}
    made = [result_of(), result_of(task="proofs", stages={"tuned": figures}), None]
    rows = [run_row(write_run(f"r{n}", {}, None, one)) for n, one in enumerate(made)]
    table = rows_table(rows)
    assert table.columns == ("run", "headline", "time", "state")
    assert [row[1].split("\n")[0] for row in table.rows] == [
        "answer accuracy",
        "proof verified",
        "-",
    ]
    assert rows_table([]).rows == ()


def test_runs_are_found_newest_first(write_run, tmp_path):
    old = write_run("20260101-000000-a", {"x": 1})
    new = write_run("20260102-000000-b", {"x": 1}, None, result_of(), notebook="v2")
    last = write_run("20260103-000000-c", {"x": 1}, None, result_of())
    write_run("20260104-000000-d")  # without parameters
    (tmp_path / "runs" / "preflight" / "compiled").mkdir(parents=True)  # holds no run
    (tmp_path / "runs" / "v1" / "latest").symlink_to(last.name)
    names = ["20260104-000000-d", last.name, new.name, old.name]
    assert [row.run for row in run_rows()] == names
    assert [row.run for row in run_rows(newest=2)] == names[:2]
    assert [row.run for row in run_rows("v2")] == [new.name]
    assert find_run("v1") == last and find_run("v1", unfinished=True) == old
    assert find_run(str(new)) == new
    with pytest.raises(ValueError, match=r"v2 has no unfinished run"):
        find_run("v2", unfinished=True)
    with pytest.raises(ValueError, match=r"v9 holds no run; in .*runs: v1, v2$"):
        run_rows("v9")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("runs/v1/bare", "runs/v1/bare holds no config.json: give a run's folder, or a notebook's"),
        ("runs/v1", "runs/v1 holds no config.json: give a run's folder"),
        ("runs/v1/no", "runs/v1/no is no folder: give"),
        ("here", "here holds no config.json: give"),
    ],
)
def test_a_folder_that_is_no_run_is_said(write_run, tmp_path, monkeypatch, given, said):
    write_run("bare")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{said}"):
        find_run(given)


def test_no_run_at_all(write_run):
    with pytest.raises(ValueError, match=r"holds no run; in .*: no run at all"):
        run_rows()


def test_a_half_written_line_waits(write_run):
    path = write_run(RUN, {}, '{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path / "metrics.jsonl") == [{"step": 1}]
    assert run_row(path).steps == 1
