"""What would be published of an export, and what is refused before anything is sent."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from nblib.hosts.inputs import ExportNotFound
from nblib.models.published import EMBEDDED_FOLDER
from nblib.tools.publishing import newest_export, plan_package

NAME = "somebody/gemma3-shows-its-work"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    for name in ("HF_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def export(tmp_path):
    """A fine-tune of the embedded model, but for weights that can be loaded."""
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    head = 'license: "apache-2.0"\nlibrary_name: "transformers"\npipeline_tag: "text-generation"'
    (folder / "README.md").write_text(f"---\n{head}\n---\n\n# A title\n\nA text.\n")
    manifest = {"notebook": "v2_grpo", "tokenizer_sha256": "a" * 64, "base": {"root": "embedded"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def change_manifest(export, **changes):
    path = export / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_licence_is_that_of_the_root(export):
    for root, name in (("embedded", "apache-2.0"), ("kaggle:gemma3-270m-it", "gemma")):
        change_manifest(export, base={"root": root})
        assert plan_package("kaggle-model", NAME, export).licence.name == name
    with pytest.raises(ValueError, match="the licence is gemma, that of its root, and cannot be"):
        plan_package("kaggle-model", NAME, export, licence="apache-2.0")


def test_a_variation_is_called_after_the_notebook_and_the_kind(export):
    assert plan_package("kaggle-model", NAME, export).metadata.instanceSlug == "v2-grpo"
    mine = plan_package("kaggle-model", f"{NAME}/mine", export).metadata
    assert (mine.instanceSlug, mine.framework) == ("mine", "transformers")
    (export / "model.safetensors").rename(export / "adapter_model.safetensors")
    (export / "adapter_config.json").write_text("{}")
    assert plan_package("kaggle-model", NAME, export).metadata.instanceSlug == "v2-grpo-adapters"
    with pytest.raises(ValueError, match="expected owner/name or owner/name/variation"):
        plan_package("kaggle-model", "somebody", export)


def test_metadata_of_ones_own_wins_and_is_checked_as_strictly(export):
    own = export / "dataset-metadata.json"
    own.write_text('{"title": "Shows its work", "keywords": ["gemma"]}')
    package = plan_package("kaggle-dataset", NAME, export)
    assert (package.metadata.title, package.metadata.id) == ("Shows its work", NAME)
    assert package.metadata.description == "# A title\n\nA text."
    assert own not in package.files  # what is sent is written again, checked
    own.write_text('{"tittle": "x"}')
    with pytest.raises(ValueError, match="unknown key 'tittle'"):
        plan_package("kaggle-dataset", NAME, export)
    own.write_text('{"id": "another/name"}')
    with pytest.raises(ValueError, match="id is 'another/name', the command says 'somebody/"):
        plan_package("kaggle-dataset", NAME, export)


def test_what_is_no_whole_export_is_refused(export, tmp_path):
    def refused(error, match):
        with pytest.raises(error, match=match):
            plan_package("huggingface", NAME, export)

    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        plan_package("huggingface", NAME, tmp_path / "nowhere")
    (export / "more").mkdir()
    refused(ValueError, "holds the folder more, no Orbax tree")
    (export / "more").rmdir()
    (export / "README.md").rename(tmp_path / "README.md")
    refused(FileNotFoundError, "has no model card, README.md")
    (tmp_path / "README.md").rename(export / "README.md")
    (export / "model.safetensors").rename(tmp_path / "model.safetensors")
    refused(FileNotFoundError, "holds no weights")
    (tmp_path / "model.safetensors").rename(export / "model.safetensors")
    change_manifest(export, not_equal={})
    refused(ValueError, "did not answer as the model in memory")
    (export / "manifest.json").unlink()
    refused(ValueError, r"has no manifest.json of an export")


def test_a_gguf_file_goes_along(tmp_path, monkeypatch):
    """Written beside the export, which stays as it is, and proven; a second time it is there."""
    pytest.importorskip("gguf", reason="needs the package gguf, in the extra gemma")
    run = tmp_path / "run"
    shutil.copytree(EMBEDDED_FOLDER, run / "export")
    change_manifest(run / "export", base={"root": "gemma3-270m"})
    head = 'license: "gemma"\nlibrary_name: "transformers"\npipeline_tag: "text-generation"'
    head += '\nbase_model: "google/gemma-3-270m"'
    (run / "export" / "README.md").write_text(f"---\n{head}\n---\n\n# A title\n\nA text.\n")
    for _ in range(2):
        package = plan_package("huggingface", NAME, run / "export", gguf="q8_0")
        assert package.files[-1] == run / "gguf" / "model-q8_0.gguf"
        assert "model-q8_0.gguf" in str(package) and package.licence.notice
    assert not any((run / "export").glob("*.gguf"))
    (run / "gguf" / "model-q8_0.gguf").unlink()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"pip install 'nblib\[gemma\]'"):
        plan_package("huggingface", NAME, run / "export", gguf="q8_0")


def test_a_name_that_no_repository_can_have_is_refused(export):
    assert plan_package("huggingface", "some_body/Gemma-3.1", export).name == "some_body/Gemma-3.1"
    for name in ("nobody", "a/b/c", "-a/b", "a/" + "b" * 95):
        with pytest.raises(ValueError, match="expected owner/name of at most 96"):
            plan_package("huggingface", name, export)


def test_a_credential_in_a_file_is_refused(export, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 34)
    assert plan_package("huggingface", NAME, export).name == NAME
    change_manifest(export, parameters={"token": "hf_" + "s" * 34})
    with pytest.raises(ValueError, match=r"manifest.json holds one of your credentials") as error:
        plan_package("huggingface", NAME, export)
    assert "hf_s" not in str(error.value)


def make_run(notebook, written=0.0):
    """A finished run with an export, but for weights that can be loaded."""
    run = Path(os.environ["NBLIB_RUNS_DIR"], notebook, "1")
    (run / "export").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "tokenizer.model", "manifest.json"):
        (run / "export" / name).write_text("{}")
    os.utime(run / "export" / "manifest.json", (written, written))
    (run / "result.json").write_text("{}")
    (run.parent / "latest").symlink_to(run.name)
    return run / "export"


def test_the_newest_export_is_that_of_grpo_else_of_the_sft_before_it(envelope):
    with pytest.raises(ExportNotFound, match=r"(?s)no export of a_grpo.*no export of envelope"):
        newest_export()
    sft = make_run("envelope", written=9.0)
    assert newest_export() == sft
    grpo = make_run("a_grpo", written=5.0)
    assert newest_export() == grpo
    assert newest_export("envelope") == newest_export(str(sft)) == sft


def test_of_two_tasks_the_export_that_was_written_last_is_taken(envelope):
    header = (envelope / "envelope.py").read_text()
    (envelope / "proofs.py").write_text(header)
    made = make_run("envelope", written=5.0)
    later = make_run("proofs", written=9.0)
    assert newest_export() == later and newest_export("envelope") == made
