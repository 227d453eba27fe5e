"""Where an earlier session's export or run is found, and what is said when it is not."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from nblib.files import read_jsonl, write_json
from nblib.hosts import inputs
from nblib.hosts.inputs import ExportNotFound, bring_attached_run, find_export, find_start
from nblib.runs import finish_run, start_run

V1 = "v1_sft_format"


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    """Local runs and Kaggle inputs of this test alone; neither is there at first."""
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr(inputs, "KAGGLE_INPUT", tmp_path / "input")


def make_export(folder, *, notebook=V1, written=0.0, without=()):
    """A model folder as `save_model` leaves it, its manifest written at this time."""
    folder.mkdir(parents=True)
    manifest = json.dumps({"notebook": notebook})
    files = {"model.safetensors": "w", "config.json": "{}", "tokenizer.model": "t"}
    for name, content in {**files, "manifest.json": manifest}.items():
        if name not in without:
            (folder / name).write_text(content)
    os.utime(folder / "manifest.json", (written, written))
    return folder


def make_run(tmp_path, run_id, *, finished=True, **export):
    run = tmp_path / "runs" / V1 / run_id
    make_export(run / "export", **export)
    (run / "config.json").write_text('{"seed": 0}')  # the parameters, not a model's
    if finished:
        (run / "result.json").write_text("{}")
    return run


def point(run):
    (run.parent / "latest").symlink_to(run.name)


def test_given_export_wins_over_a_local_run(tmp_path):
    point(make_run(tmp_path, "1"))
    own = make_export(tmp_path / "own", notebook="another")
    assert find_export(V1, str(own)) == own


def test_given_run_means_its_export_though_a_run_has_a_config_too(tmp_path):
    run = make_run(tmp_path, "1", finished=False)
    assert find_export(V1, str(run)) == run / "export"


def test_given_folder_of_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    own = make_export(tmp_path / "own")
    assert find_export(V1, "~/own") == own


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model"])
def test_given_folder_that_is_not_whole_says_what_it_lacks(tmp_path, name):
    own = make_export(tmp_path / "own", without=[name])
    point(make_run(tmp_path, "1"))  # not looked at: what is given is meant
    with pytest.raises(ExportNotFound, match=rf"own is no whole export, it lacks {name}: "):
        find_export(V1, str(own))


def test_given_empty_folder_lacks_everything(tmp_path):
    with pytest.raises(ExportNotFound, match=r"lacks model.safetensors, config.json, tokenizer"):
        find_export(V1, str(tmp_path))


def test_given_folder_that_is_not_there(tmp_path):
    with pytest.raises(ExportNotFound, match="nowhere is no folder"):
        find_export(V1, str(tmp_path / "nowhere"))


def test_local_run_that_latest_links_to_by_its_own_name(tmp_path):
    make_run(tmp_path, "3")
    run = make_run(tmp_path, "2")
    point(run)
    assert find_export(V1) == run / "export"


def test_local_run_that_latest_txt_names(tmp_path):
    run = make_run(tmp_path, "2")
    (run.parent / "latest.txt").write_text("2\n")
    assert find_export(V1) == run / "export"


def test_latest_txt_beats_a_copied_folder_that_stood_in_the_way(tmp_path):
    run = make_run(tmp_path, "2")
    make_run(tmp_path, "latest")
    assert find_export(V1) == run.parent / "latest" / "export"
    (run.parent / "latest.txt").write_text("2\n")
    assert find_export(V1) == run / "export"


def test_local_run_beats_an_attached_one(tmp_path):
    make_export(tmp_path / "input" / "v1" / "export", written=9)
    run = make_run(tmp_path, "1")
    point(run)
    assert find_export(V1) == run / "export"


def test_unfinished_or_broken_local_run_is_passed_over(tmp_path):
    attached = make_export(tmp_path / "input" / "v1")
    point(make_run(tmp_path, "1", finished=False))
    assert find_export(V1) == attached


@pytest.mark.parametrize(
    "place",
    [
        "one-dataset",
        f"v1-output/runs/{V1}/20260101-000000-abcdef01/export",
        f"notebooks/somebody/v1-output/runs/{V1}/20260101-000000-abcdef01/export",
    ],
)
def test_attached_input_is_found_by_its_manifest(tmp_path, capsys, place):
    attached = make_export(tmp_path / "input" / place)
    make_export(tmp_path / "input" / "v0", notebook="v0_foundation", written=9)
    assert find_export(V1) == attached
    assert capsys.readouterr().out == ""


def make_adapters(folder, *, notebook=V1, written=0.0, without=()):
    """A folder of adapters as `save_adapters` leaves it."""
    folder.mkdir(parents=True)
    manifest = json.dumps({"notebook": notebook})
    files = {"adapter_config.json": "{}", "adapter_model.safetensors": "w"}
    for name, content in {**files, "manifest.json": manifest}.items():
        if name not in without:
            (folder / name).write_text(content)
    os.utime(folder / "manifest.json", (written, written))
    return folder


def test_adapters_and_a_flax_checkpoint_are_exports_too(tmp_path):
    adapters = make_adapters(tmp_path / "adapters")
    assert find_export(V1, str(adapters)) == adapters
    flax = tmp_path / "flax"
    (flax / "gemma3-1b-it").mkdir(parents=True)
    (flax / "gemma3-1b-it" / "_METADATA").write_text("{}")
    with pytest.raises(ExportNotFound, match=r"it lacks tokenizer\.model: "):
        find_export(V1, str(flax))
    (flax / "tokenizer.model").write_text("t")
    assert find_export(V1, str(flax)) == flax
    half = make_adapters(tmp_path / "half", without=["adapter_model.safetensors"])
    with pytest.raises(ExportNotFound, match=r"it lacks adapter_model\.safetensors: "):
        find_export(V1, str(half))


def test_attached_adapters_are_found_and_a_whole_model_comes_before_them(tmp_path):
    adapters = make_adapters(tmp_path / "input" / "adapters", written=90)
    assert find_export(V1) == adapters
    whole = make_export(tmp_path / "input" / "whole", written=50)
    assert find_export(V1) == whole


def test_a_start_is_a_name_a_folder_or_adapters_over_a_base(tmp_path):
    for name in ("embedded", "gemma3-1b-it", "huggingface,kaggle:gemma3-270m"):
        assert find_start(V1, name) == name
    adapters = make_adapters(tmp_path / "run" / "adapters")
    export = make_export(tmp_path / "run" / "export")
    assert find_start(V1, str(adapters)) == str(adapters)
    assert find_start(V1, f"{adapters}::embedded") == f"{adapters}::embedded"
    assert find_start(V1, f"{adapters}::{export.parent}") == f"{adapters}::{export}"
    point(make_run(tmp_path, "1"))
    assert find_start(V1) == str(find_export(V1))
    with pytest.raises(ExportNotFound, match="gemma9 is no folder"):
        find_start(V1, "gemma9")


def test_not_deeper_than_the_limit(tmp_path):
    make_export(tmp_path / "input" / "/".join("abcdefg" + "h"))
    with pytest.raises(ExportNotFound):
        find_export(V1)


def test_newest_of_several_attached_ones_is_named(tmp_path, capsys):
    make_export(tmp_path / "input" / "a", written=50)
    newest = make_export(tmp_path / "input" / "b", written=70)
    make_export(tmp_path / "input" / "c", written=60)
    make_export(tmp_path / "input" / "d", written=90, without=["model.safetensors"])
    assert find_export(V1) == newest
    said = capsys.readouterr().out
    assert said == f"3 attached exports of {V1}; the newest is {newest}\n"


def test_other_folders_do_no_harm(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inputs, "MAX_ENTRIES", 5)
    huge = tmp_path / "input" / "huge"
    make_export(huge / "z")
    for index in range(6):
        (huge / f"{index}.png").touch()
    broken = tmp_path / "input" / "broken"
    for name, content in {"a": "no JSON", "b": "[1]", "c": b"\xff\xfe\x00".decode("latin")}.items():
        (broken / name).mkdir(parents=True)
        (broken / name / "manifest.json").write_text(content)
    (broken / "circle").symlink_to(tmp_path / "input")
    no_model = make_export(tmp_path / "input" / "run", without=["config.json"])
    with pytest.raises(ExportNotFound) as error:
        find_export(V1)
    assert str(huge) not in str(error.value)
    assert str(no_model) not in str(error.value)
    attached = make_export(tmp_path / "input" / "small")
    assert find_export(V1) == attached
    assert capsys.readouterr().out == ""  # found once, not again through the circle


def test_nothing_found_says_where_it_looked_and_the_command(tmp_path):
    with pytest.raises(ExportNotFound) as error:
        find_export(V1)
    said = str(error.value)
    assert said.startswith(f"no export of {V1} was found:\n")
    assert f"{tmp_path}/runs/{V1}: no finished run" in said
    assert f"{tmp_path}/input: not there" in said
    assert f"Make one with `python -m nblib run {V1}`" in said
    with pytest.raises(ExportNotFound, match="Make one with `python -m nblib run v2_grpo`"):
        find_export("v2_grpo")


def test_each_broken_place_is_named_with_what_it_lacks(tmp_path):
    point(make_run(tmp_path, "1", without=["config.json"]))
    attached = make_export(tmp_path / "input" / "x", without=["model.safetensors"])
    with pytest.raises(ExportNotFound) as error:
        find_export(V1)
    said = str(error.value)
    assert f"{tmp_path}/runs/{V1}/latest/export: lacks config.json\n" in said
    assert f"{attached}: lacks model.safetensors\n" in said
    assert f"{tmp_path}/input: no whole export" in said


def test_on_kaggle_the_advice_is_an_input(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    with pytest.raises(ExportNotFound, match=f"Attach the output of the notebook {V1} as an input"):
        find_export(V1)


def test_an_export_of_a_training_that_was_cut_says_so(tmp_path, capsys):
    run = make_run(tmp_path, "1")
    point(run)
    (run / "result.json").write_text('{"steps_left": 1200}')
    assert find_export(V1) == run / "export"
    said = f"its training has 1,200 steps left; run {V1} again to go on\n"
    assert capsys.readouterr().out.endswith(said)


PARAMETERS = {"rank": 2, "levels": (1, 2)}
LAYOUTS = ("v1-output", "notebooks/somebody/v1-output", "datasets/somebody/v1-output")


def make_training(folder, *, steps=(3, 6), parameters=PARAMETERS, result=None):
    """A run's folder as a session leaves it, read-only as an input is."""
    for step in steps:
        write_json(folder / "checkpoints" / "actor" / str(step) / "d" / "x", step)
        write_json(folder / "checkpoints" / "seals" / f"{step}.json", {})
    (folder / "checkpoints" / "damaged-2").mkdir(parents=True)
    for name in ("metrics.jsonl", "rollouts.1.jsonl", "report.html", "export/model.safetensors"):
        write_json(folder / name, name)
    write_json(folder / "config.json", parameters)
    if result is not None:
        write_json(folder / "result.json", result)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("result", [None, {"steps_left": 5}], ids=["killed", "over"])
def test_an_attached_run_is_copied_and_goes_on(tmp_path, capsys, layout, result):
    source = make_training(tmp_path / "input" / layout / "runs" / V1 / "2026-a", result=result)
    copy = bring_attached_run(V1, PARAMETERS)
    assert copy == tmp_path / "runs" / V1 / "2026-a"
    assert capsys.readouterr().out == f"the attached run {source} was copied to {copy}\n"
    assert {path.name for path in copy.iterdir()} == {
        *("checkpoints", "config.json", "metrics.jsonl", "rollouts.1.jsonl")
    }
    copied = {str(path.relative_to(copy / "checkpoints")) for path in copy.glob("checkpoints/*/*")}
    assert copied == {"actor/3", "actor/6", "seals/3.json", "seals/6.json"}
    assert (copy / "checkpoints/actor/6/d/x").read_text() == "6\n"
    for path in (copy / "checkpoints").rglob("*"):
        assert path.stat().st_mode & 0o200, f"{path} cannot be written"
    run = start_run(V1, PARAMETERS)
    assert (run.path, run.resumed) == (copy.resolve(), True)
    assert bring_attached_run(V1, PARAMETERS) is None  # it is here


def test_of_two_sessions_of_one_run_the_later_is_taken(tmp_path):
    make_training(tmp_path / "input" / "a" / "2026-a", steps=(3, 6))
    make_training(tmp_path / "input" / "b" / "2026-a", steps=(6, 9))
    make_training(tmp_path / "input" / "c" / "2026-a", steps=(1, 2, 3))
    copy = bring_attached_run(V1, PARAMETERS)
    assert (copy / "checkpoints/actor/9").is_dir()


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": {"rank": 4, "levels": (1, 2)}},
        {"result": {"steps_left": 0}},
        {"result": {}},  # of a notebook that trains nothing, or an older version
        {"steps": ()},
    ],
    ids=["other parameters", "done", "no steps", "nothing trained"],
)
def test_a_run_that_cannot_go_on_is_left_alone(tmp_path, changes):
    make_training(tmp_path / "input" / "x" / "2026-a", **changes)
    assert bring_attached_run(V1, PARAMETERS) is None
    assert not (tmp_path / "runs" / V1).exists()


def test_without_inputs_nothing_is_brought():
    assert bring_attached_run(V1, PARAMETERS) is None


def test_a_copy_that_was_cut_off_is_made_anew(tmp_path):
    make_training(tmp_path / "input" / "x" / "2026-a")
    half = tmp_path / "runs" / V1 / "2026-a"
    (half / "checkpoints" / "actor" / "6").mkdir(parents=True)
    (half / "checkpoints" / "actor" / "7").mkdir()
    copy = bring_attached_run(V1, PARAMETERS)
    assert sorted(path.name for path in (copy / "checkpoints/actor").iterdir()) == ["3", "6"]


def test_an_attached_run_goes_before_a_newer_local_start_that_failed(tmp_path):
    failed = start_run(V1, PARAMETERS)
    make_training(tmp_path / "input" / "x" / "2020-a")
    copy = bring_attached_run(V1, PARAMETERS)
    assert copy.name < failed.path.name
    assert start_run(V1, PARAMETERS).path == copy.resolve()


@pytest.fixture
def session(new_model, mesh, eight_examples, tmp_path, monkeypatch):
    """Train as a notebook does, in the runs of one session; weights, steps left and the run."""
    import jax
    from flax import nnx

    from nblib.tokens.batches import collate
    from nblib.training.sft import SftConfig, train

    def run(name, **options):
        monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / name / "runs"))
        bring_attached_run(V1, PARAMETERS)
        folder = start_run(V1, PARAMETERS)
        model = new_model(num_layers=1)
        batches = [collate(eight_examples, range(k, k + 4), 64, 4) for k in range(4)]
        trained = train(
            model,
            SimpleNamespace(batches=batches, val_batches=()),
            SftConfig(learning_rate=1e-2, save_interval="2 steps"),
            folder,
            hashes={},
            mesh=mesh,
            **options,
        )
        keys = {"notebook": V1, "task": "gsm8k", "profile": "cpu", "seed": 0, "wall_s": 1.0}
        keys |= {"model": "", "data": ""}
        finish_run(folder, {**keys, "stages": {}, "steps_left": trained.left}, metrics=())
        weights = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
        return weights, trained.left, folder

    return run


def test_a_training_over_three_sessions_equals_one(session, tmp_path):
    whole, left, _ = session("whole")
    assert left == 0
    for number, left in enumerate((3, 2)):  # each has time for one step, and ends well
        _, found, run = session(f"session-{number}", deadline_s=0.0)
        assert found == left == json.loads((run.path / "result.json").read_text())["steps_left"]
        # Its output becomes an input of the next one; here nothing of it is left.
        shutil.move(tmp_path / f"session-{number}", tmp_path / "input" / "notebooks" / f"{number}")
        for path in (tmp_path / "input").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
    weights, left, run = session("last")
    assert (left, run.resumed) == (0, True)
    for ours, expected in zip(weights, whole, strict=True):
        np.testing.assert_array_equal(ours, expected)
    steps = [record["step"] for record in read_jsonl(run.path / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4]
