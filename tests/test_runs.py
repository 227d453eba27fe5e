import hashlib
import json
import math
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nblib import files, runs
from nblib.runs import start_run

METRICS = ("json_valid", "fields_right")


def finish_run(run, content):
    runs.finish_run(run, content, metrics=METRICS)


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.delenv("NBLIB_RUN_POINTER", raising=False)


def stage(**changes):
    names = (*METRICS, "truncation_rate")
    figures = {name: 0.5 for name in names} | {f"{name}_ci95": [0.4, 0.6] for name in names}
    return {"n": 200, **figures} | changes


def result(**changes):
    content = {
        "notebook": "toy",
        "task": "toy",
        "profile": "cpu",
        "seed": 0,
        "wall_s": 1.5,
        "model": "embedded",
        "data": "builtin",
        "stages": {"base": stage(), "tuned": stage()},
    }
    return content | changes


def test_root_is_the_variable_then_kaggles_folder_then_here(monkeypatch, tmp_path):
    assert runs.runs_root() == tmp_path / "runs"
    monkeypatch.delenv("NBLIB_RUNS_DIR")
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert runs.runs_root() == Path("runs")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert runs.runs_root() == Path("/kaggle/working/runs")


def test_a_run_is_named_by_time_and_parameters_not_by_their_order():
    first = start_run("toy", {"a": 1, "b": 2})
    second = start_run("other", {"b": 2, "a": 1})
    digest = hashlib.sha256(b'{"a": 1, "b": 2}').hexdigest()[:8]
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{digest}", first.path.name)
    assert second.path.name.endswith(digest)


def test_config_holds_every_parameter():
    run = start_run("toy", {"rank": 64, "levels": (1, 2)})
    assert json.loads((run.path / "config.json").read_text()) == {"rank": 64, "levels": [1, 2]}
    assert run.checkpoints == run.path / "checkpoints" and run.export == run.path / "export"


def test_an_unfinished_run_with_the_same_parameters_goes_on(capsys):
    first = start_run("toy", {"a": 1})
    again = start_run("toy", {"a": 1})
    assert (again.path, first.resumed, again.resumed) == (first.path, False, True)
    assert str(first.path) in capsys.readouterr().out


def test_other_parameters_and_finished_runs_begin_anew():
    first = start_run("toy", {"a": 1})
    assert start_run("toy", {"a": 2}).path != first.path
    finish_run(first, result())
    after = start_run("toy", {"a": 1})
    assert after.path != first.path and not after.resumed


def test_the_newest_of_several_unfinished_runs_goes_on():
    older = start_run("toy", {"a": 1})
    newer = older.path.with_name("99991231-235959-00000000")
    newer.mkdir()
    files.write_json(newer / "config.json", {"a": 1})
    assert start_run("toy", {"a": 1}).path == newer


def test_a_run_with_steps_left_goes_on_and_keeps_its_result_until_then():
    first = start_run("toy", {"a": 1})
    finish_run(first, result(steps_left=7))
    assert (first.path.parent / "latest").resolve() == first.path
    again = start_run("toy", {"a": 1})
    assert (again.path, again.resumed) == (first.path, True)
    assert (first.path / "result.json").is_file()
    finish_run(again, result(steps_left=0))
    assert start_run("toy", {"a": 1}).path != first.path


def test_a_run_with_checkpoints_goes_before_a_newer_one_without():
    older = start_run("toy", {"a": 1}).path
    (older / "checkpoints" / "actor" / "3").mkdir(parents=True)
    newer = older.with_name("99991231-235959-00000000")
    newer.mkdir()
    files.write_json(newer / "config.json", {"a": 1})
    assert start_run("toy", {"a": 1}).path == older


def test_a_folder_whose_config_is_damaged_is_not_continued():
    first = start_run("toy", {"a": 1})
    (first.path / "config.json").write_text('{"a": ')
    assert start_run("toy", {"a": 1}).path != first.path


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    path = runs._new_folder(tmp_path, "x")
    assert [path.name, runs._new_folder(tmp_path, "x").name] == ["x", "x-2"]


HOLDER = """
import sys
import time
from nblib.runs import start_run
print(start_run("toy", {"a": 1}).path, flush=True)
sys.stdin.read()
"""


def test_a_live_process_keeps_its_folder_and_a_killed_one_gives_it_up():
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        held = Path(holder.stdout.readline().strip())
        assert start_run("toy", {"a": 1}).path != held
    finally:
        holder.kill()
        holder.communicate()
    newest_first = sorted(held.parent.iterdir(), reverse=True)
    files.write_json(newest_first[0] / "result.json", {})  # out of the way: now only `held` is left
    assert start_run("toy", {"a": 1}).path == held


def test_a_run_that_cannot_begin_leaves_nothing_and_says_where_and_what_to_do(tmp_path):
    start_run("toy", {"a": 1})
    before = sorted((tmp_path / "runs" / "toy").iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))  # as a disk that is full
    try:
        with pytest.raises(OSError, match=r"too large: '.*/runs/toy': set NBLIB_RUNS_DIR to a f"):
            start_run("toy", {"a": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted((tmp_path / "runs" / "toy").iterdir()) == before
    assert not start_run("toy", {"a": 2}).resumed


def test_a_file_in_place_of_the_runs_folder_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(NotADirectoryError, match=r"'.*/runs/toy': set NBLIB_RUNS_DIR to a folder"):
        start_run("toy", {"a": 1})
    assert (tmp_path / "runs").read_text() == ""


def test_a_run_keeps_what_the_notebook_began_with():
    before = time.monotonic()
    run = start_run("toy", {"levels": (1, 2)}, devices=["TPU v5e"], started=7.5)
    assert (run.parameters, run.devices, run.started) == ({"levels": (1, 2)}, ["TPU v5e"], 7.5)
    again = start_run("toy", {"levels": (1, 2)})
    assert again.resumed and again.parameters == run.parameters
    assert again.devices == () and before <= again.started <= time.monotonic()


def test_the_pointer_names_the_run(monkeypatch, tmp_path):
    monkeypatch.setenv("NBLIB_RUN_POINTER", str(tmp_path / "pointer"))
    run = start_run("toy", {})
    assert (tmp_path / "pointer").read_text() == str(run.path)


def test_finish_writes_the_result_and_moves_latest():
    first = start_run("toy", {"a": 1})
    finish_run(first, result())
    latest = first.path.parent / "latest"
    assert os.readlink(latest) == first.path.name
    second = start_run("toy", {"a": 2})
    assert latest.resolve() == first.path
    finish_run(second, result(seed=1))
    assert json.loads((latest / "result.json").read_text())["seed"] == 1


def test_latest_is_a_text_file_where_links_fail(monkeypatch):
    def refuse(*_):
        raise OSError("no symbolic links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run = start_run("toy", {})
    finish_run(run, result())
    assert (run.path.parent / "latest.txt").read_text() == run.path.name + "\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps_left": -1}, "steps_left is -1, expected a number of steps"),
        ({"notebook": "other"}, "notebook is 'other', expected 'toy'"),
        ({"stages": {"base": {"n": 3}}}, "stage base: missing json_valid, "),
        ({"stages": {"base": stage(n=0)}}, "n is 0"),
        ({"stages": {"base": stage(json_valid=99.5)}}, "json_valid is 99.5"),
        ({"stages": {"base": stage(json_valid=math.nan)}}, "json_valid is None"),
        ({"stages": {"base": stage(fields_right_ci95=[0.6, 0.7])}}, r"fields_right_ci95 is"),
        ({"stages": {"base": stage(fields_right_ci95=[0.4])}}, r"fields_right_ci95 is"),
        ({"stages": {"base": stage(fields_right_ci95=[40, 60])}}, r"fields_right_ci95 is"),
    ],
)
def test_a_result_off_the_contract_is_refused_and_not_written(changes, said):
    run = start_run("toy", {})
    with pytest.raises(ValueError, match=said):
        finish_run(run, result(**changes))
    assert not (run.path / "result.json").exists()
    assert not (run.path.parent / "latest").exists()


@pytest.mark.parametrize("key", runs.RESULT_KEYS)
def test_each_key_of_the_contract_is_required(key):
    content = result()
    del content[key]
    with pytest.raises(ValueError, match=f"missing {key}"):
        finish_run(start_run("toy", {}), content)


def test_a_run_that_evaluated_nothing_is_finished_as_well():
    run = start_run("toy", {})
    finish_run(run, result(stages={}))
    assert json.loads((run.path / "result.json").read_text())["stages"] == {}
    assert (run.path.parent / "latest").resolve() == run.path


def test_an_interval_that_rounding_ends_just_below_its_rate_passes():
    sure = stage(json_valid=1.0, json_valid_ci95=[0.98, 0.9999999999999998])
    finish_run(start_run("toy", {}), result(stages={"tuned": sure}))


def test_a_figure_may_be_unknown_together_with_its_interval():
    for name in ("truncation_rate", "json_valid"):
        unknown = {name: None, f"{name}_ci95": None}
        finish_run(start_run("toy", {}), result(stages={"base": stage(**unknown)}))
    for changes in (
        {"truncation_rate": None},
        {"truncation_rate_ci95": None},
        {"json_valid": None},
        {"json_valid_ci95": None},
    ):
        with pytest.raises(ValueError, match="is None, expected"):
            finish_run(start_run("toy", {}), result(stages={"base": stage(**changes)}))


def test_the_manifest_names_what_can_change_the_numbers():
    run = start_run("toy", {}, devices=["cpu:0"])
    manifest = runs.write_manifest(run, hashes={"model": "ab"})
    assert json.loads((run.path / "manifest.json").read_text()) == manifest
    assert manifest["hashes"] == {"model": "ab"} and manifest["devices"] == ["cpu:0"]
    assert manifest["versions"]["jax"] == "0.10.2"
    assert manifest["python"] == sys.version.split()[0]
    assert "git_commit" in manifest


def test_the_commit_is_none_outside_of_git(monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert runs._git_commit() is None
