"""Which stages an evaluation takes: those named, or the ladder of what was trained last."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from nblib.hosts import inputs
from nblib.hosts.inputs import ExportNotFound
from nblib.hosts.ladder import BaseMismatch, find_candidates, other_versions
from nblib.models.folders import weights_sha256
from nblib.models.names import model_sha256
from nblib.models.published import EMBEDDED_FOLDER

READS = {"sft": "v1_sft_format", "grpo": "v2_grpo"}
EMBEDDED_SHA256 = weights_sha256(EMBEDDED_FOLDER)


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr(inputs, "KAGGLE_INPUT", tmp_path / "input")


def export(folder, notebook, base, sha256=EMBEDDED_SHA256, weight=0.0):
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
    candidates, notes = find_candidates([], reads=READS)
    assert shown(candidates) == [
        ("base", "embedded", "question"),
        ("base_format", "embedded", "format"),
        ("base_few_shot", "embedded", "few-shot"),
        ("sft", str(sft.resolve()), "format"),
    ]
    assert notes == ("no export of v2_grpo: the ladder ends with v1_sft_format",)


def test_v2_leads_to_its_own_v1_not_to_the_newest(tmp_path):
    base = export(tmp_path / "base", "v0_foundation", "nothing", weight=3.0)
    own = run(tmp_path, "v1_sft_format", base, sha256=weights_sha256(base), weight=1.0)
    grpo = run(tmp_path, "v2_grpo", own, sha256=weights_sha256(own))
    run(tmp_path, "v1_sft_format", "another", run_id="2", weight=2.0)
    candidates, notes = find_candidates([], reads=READS)
    assert [one.source for one in candidates] == [str(base)] * 3 + [str(own), str(grpo)]
    assert notes == ()


def test_a_base_that_changed_since_v1_was_trained_is_an_error_of_its_own(tmp_path):
    base = export(tmp_path / "base", "v0_foundation", "nothing", weight=3.0)
    run(tmp_path, "v1_sft_format", base, sha256="a" * 64)
    with pytest.raises(BaseMismatch, match=r"with weights a{12}; what is found .* STAGES"):
        find_candidates([], reads=READS)


def adapters(folder, base, sha256):
    """Adapters that no test loads: their base's name, and weights to hash."""
    folder.mkdir(parents=True)
    entry = {"name": str(base), "sha256": sha256}
    manifest = {"notebook": "v1_sft_format", "base": entry}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"a": np.array([1.0])}, folder / "adapter_model.safetensors")
    return folder


def test_v2_that_began_with_adapters_leads_to_them_and_to_their_base(tmp_path):
    made = adapters(tmp_path / "adapters", "embedded", EMBEDDED_SHA256)
    for start in (str(made), f"{made}::embedded"):
        grpo = run(tmp_path, "v2_grpo", start, sha256=model_sha256(start), run_id=start[-3:])
        candidates, notes = find_candidates([], reads=READS)
        assert [one.source for one in candidates] == ["embedded"] * 3 + [start, str(grpo)]
        assert notes == ()


def test_v2_that_began_with_a_published_model_has_no_v1_before_it(tmp_path):
    grpo = run(tmp_path, "v2_grpo", "embedded")
    candidates, notes = find_candidates([], reads=READS)
    assert shown(candidates)[2:] == [
        ("base_few_shot", "embedded", "few-shot"),
        ("grpo", str(grpo), "format"),
    ]
    assert notes == ()


def test_a_v1_that_is_gone_gives_way_to_the_newest_and_that_is_said(tmp_path):
    newest = run(tmp_path, "v1_sft_format", "embedded")
    run(tmp_path, "v2_grpo", tmp_path / "gone", sha256="aa")
    candidates, (said,) = find_candidates([], reads=READS)
    assert candidates[3].source == str(newest.resolve())
    assert "was trained from another v1_sft_format" in said


def test_a_ladder_has_as_many_stages_as_notebooks(tmp_path):
    first = run(tmp_path, "v1_sft_format", "embedded", weight=1.0)
    second = run(tmp_path, "v2_grpo", first, sha256=weights_sha256(first), weight=2.0)
    third = run(tmp_path, "again", second, sha256=weights_sha256(second), weight=3.0)
    candidates, notes = find_candidates([], reads={**READS, "again": "again"})
    assert [one.name for one in candidates[3:]] == ["sft", "grpo", "again"]
    assert [one.source for one in candidates[2:]] == ["embedded", *map(str, (first, second, third))]
    candidates, _ = find_candidates([], reads={"sft": "v1_sft_format"})
    assert [one.name for one in candidates[3:]] == ["sft"]
    assert notes == ()


def test_nothing_trained_yet_says_how_to_train(tmp_path):
    with pytest.raises(ExportNotFound, match=r"(?s)no export of v1_sft.*nblib run v1_sft_format"):
        find_candidates([], reads=READS)


def test_an_export_that_names_no_base_asks_for_names(tmp_path):
    (run(tmp_path, "v1_sft_format", "x") / "manifest.json").write_text('{"notebook": "v1"}')
    with pytest.raises(ExportNotFound, match=r"does not name the base.*STAGES"):
        find_candidates([], reads=READS)


def test_stages_that_are_named_win_and_a_run_stands_for_its_export(tmp_path):
    sft = run(tmp_path, "v1_sft_format", "embedded")
    made = adapters(tmp_path / "adapters", "embedded", EMBEDDED_SHA256)
    lora = f"lora={made}::{sft.parent}@question"
    candidates, _ = find_candidates(
        ["base=embedded@question", f"sft={sft.parent}", lora, "old=p.jsonl:tuned"], reads=READS
    )
    assert shown(candidates)[:3] == [
        ("base", "embedded", "question"),
        ("sft", str(sft), "format"),
        ("lora", f"{made}::{sft}", "question"),
    ]
    assert candidates[3].is_file


@pytest.mark.parametrize("names", [["a=embedded"], ["a=embedded", "a=embedded@question"]])
def test_one_stage_or_one_name_is_refused(names):
    with pytest.raises(ValueError, match="expected at least two, each with its own name"):
        find_candidates(names, reads=READS)


SETTINGS = {"task": "envelope", "model": "m", "data": "d", "seed": 0, "eval_samples": 2}
SETTINGS |= {"max_new_tokens": 9, "version": "v3"}


def test_other_versions_are_the_newest_finished_runs_with_the_same_questions(tmp_path):
    def version(run_id, finished=True, **changed):
        folder = tmp_path / "runs" / "envelope" / run_id
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({**SETTINGS, **changed}))
        for name in ("result.json", "predictions.jsonl")[: 1 + finished]:
            (folder / name).write_text("{}")
        return folder

    version("1", version="v1")
    newest = version("2", version="v1", num_epochs=2)
    version("3", version="v2", seed=1)
    version("4", version="v2", finished=False)
    own = version("5")
    (own.parent / "latest").symlink_to("5")
    run = SimpleNamespace(path=own, parameters=SETTINGS)
    (found,) = other_versions(run)
    assert (found.name, found.stage) == ("v1", "tuned")
    assert found.source == str(newest / "predictions.jsonl")
