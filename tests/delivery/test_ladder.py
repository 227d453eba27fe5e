"""Which stages an evaluation takes: those named, or the ladder of what was trained last."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nblib.delivery import inputs
from nblib.delivery.inputs import ExportNotFound
from nblib.delivery.ladder import find_candidates
from nblib.models.names import weights_sha256


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr(inputs, "KAGGLE_INPUT", tmp_path / "input")


def export(folder, notebook, base, sha256="", weight=0.0):
    folder.mkdir(parents=True)
    manifest = {"notebook": notebook, "base": {"name": str(base), "sha256": sha256}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.model").write_text("t")
    save_file({"w": np.array([weight])}, folder / "model.safetensors")
    return folder


def run(tmp_path, notebook, base, *, run_id="1", **more):
    path = tmp_path / "runs" / notebook / run_id
    made = export(path / "export", notebook, base, **more)
    (path / "result.json").write_text("{}")
    latest = path.parent / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(run_id)
    return made


def shown(candidates):
    return [(one.name, one.source, one.style) for one in candidates]


def test_the_ladder_ends_with_v1_where_there_is_no_v2(tmp_path):
    sft = run(tmp_path, "v1_sft_format", "embedded")
    candidates, notes = find_candidates([])
    assert shown(candidates) == [
        ("base", "embedded", "question"),
        ("base_format", "embedded", "format"),
        ("base_few_shot", "embedded", "few-shot"),
        ("sft", str(sft.resolve()), "format"),
    ]
    assert notes == ("no export of v2_grpo: the ladder ends with v1",)


def test_v2_leads_to_its_own_v1_not_to_the_newest(tmp_path):
    own = run(tmp_path, "v1_sft_format", "a-model", weight=1.0)
    grpo = run(tmp_path, "v2_grpo", own, sha256=weights_sha256(own))
    run(tmp_path, "v1_sft_format", "another", run_id="2", weight=2.0)
    candidates, notes = find_candidates([])
    assert [one.source for one in candidates] == ["a-model"] * 3 + [str(own), str(grpo)]
    assert notes == ()


def test_a_v1_that_is_gone_gives_way_to_the_newest_and_that_is_said(tmp_path):
    newest = run(tmp_path, "v1_sft_format", "embedded")
    run(tmp_path, "v2_grpo", tmp_path / "gone", sha256="aa")
    candidates, (said,) = find_candidates([])
    assert candidates[3].source == str(newest.resolve())
    assert "was trained from another v1" in said


def test_nothing_trained_yet_says_how_to_train(tmp_path):
    with pytest.raises(ExportNotFound, match=r"(?s)no export of v1_sft_format.*make run"):
        find_candidates([])


def test_an_export_that_names_no_base_asks_for_names(tmp_path):
    (run(tmp_path, "v1_sft_format", "x") / "manifest.json").write_text('{"notebook": "v1"}')
    with pytest.raises(ExportNotFound, match=r"does not name the base.*STAGES"):
        find_candidates([])


def test_stages_that_are_named_win_and_a_run_stands_for_its_export(tmp_path):
    sft = run(tmp_path, "v1_sft_format", "embedded")
    candidates, _ = find_candidates(
        ["base=embedded@question", f"sft={sft.parent}", "old=p.jsonl:tuned"]
    )
    assert shown(candidates)[:2] == [
        ("base", "embedded", "question"),
        ("sft", str(sft), "format"),
    ]
    assert candidates[2].is_file


@pytest.mark.parametrize("names", [["a=embedded"], ["a=embedded", "a=embedded@question"]])
def test_one_stage_or_one_name_is_refused(names):
    with pytest.raises(ValueError, match="expected at least two, each with its own name"):
        find_candidates(names)
