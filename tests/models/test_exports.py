import json
from functools import partial
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nblib.hosts.inputs import ExportNotFound, find_export
from nblib.models import gemma3, layout
from nblib.models.adapters import save_adapters
from nblib.models.config_file import scaled
from nblib.models.exports import ExportNotEqual, export_folder, export_run
from nblib.models.flax_folder import save_flax_model
from nblib.models.gemma3 import load_model, save_model
from nblib.models.lora import ALL_WEIGHTS, LORA_PARAMETER, LoraConfig, get_lora_model, merge_lora
from nblib.models.names import get_gemma_ref_model
from nblib.models.parity import NEW_TOKENS
from nblib.runs import start_run

ASKED = tuple(f"Ann has {n} pens and buys {n + 3} more. How many?" for n in range(2, 9))
MANIFEST = {"notebook": "v1_sft_format", "command": "a test"}
LORA = LoraConfig(rank=2, alpha=8.0)
DATA = SimpleNamespace(origin="made here", sha256={"train": "t", "test": "e"})


@pytest.fixture(scope="module")
def model(new_model):
    return new_model(num_layers=2)


@pytest.fixture(scope="module")
def base(model, tokenizer, mesh, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "base"
    save_model(model, tokenizer, folder, manifest={})
    return get_gemma_ref_model(str(folder), mesh)


def export(model, base, folder, *, trained=None, save=save_model):
    write = partial(save, model, base.tokenizer, manifest={})
    return export_folder(folder, write, trained or model, base, manifest=MANIFEST, prompts=ASKED)


def export_adapters(model, base, folder, lora):
    manifest = {**MANIFEST, "base": base.described}
    write = partial(save_adapters, model, base.tokenizer, lora=lora, manifest=manifest)
    return export_folder(folder, write, model, base, manifest=manifest, prompts=ASKED)


def filled(model, scale):
    """Give the adapters values that matter, as a training leaves them."""
    rng = np.random.default_rng(0)
    for _, adapter in nnx.to_flat_state(nnx.state(model, LORA_PARAMETER)):
        shape = adapter.get_value().shape
        adapter.set_value(jnp.asarray(scale * rng.normal(size=shape), jnp.float32))
    return model


@pytest.fixture(scope="module")
def adapted(model, mesh):
    return filled(get_lora_model(model, mesh, LORA), 0.3)


def swap_gate_and_up(monkeypatch):
    """A mistake that leaves names and shapes right."""
    monkeypatch.setitem(layout.PROJECTIONS, "gate_proj", ("mlp.up_proj",))
    monkeypatch.setitem(layout.PROJECTIONS, "up_proj", ("mlp.gate_proj",))


def test_proven_export_gets_its_name(model, base, tokenizer, tmp_path):
    first, *_ = export(model, base, tmp_path / "export")
    assert (first.reader, first.prompts, first.choices) == ("nblib", 16, 16 * NEW_TOKENS)
    assert first.largest_difference == 0 and first.different_choices == 0
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text())
    assert manifest["notebook"] == "v1_sft_format"
    assert manifest["parity"][0]["largest_difference"] == 0
    load_model(tmp_path / "export", tokenizer)
    assert find_export("v1_sft_format", str(tmp_path / "export")) == tmp_path / "export"


def test_export_that_answers_otherwise_is_kept_under_a_name_that_says_so(
    model, base, tmp_path, monkeypatch
):
    swap_gate_and_up(monkeypatch)
    with pytest.raises(ExportNotEqual, match=r"export-not-equal:\n  read by nblib: 16 prompts, "):
        export(model, base, tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["export-not-equal"]
    manifest = json.loads((tmp_path / "export-not-equal" / "manifest.json").read_text())
    assert manifest["parity"][0]["largest_difference"] > 0.01
    assert manifest["not_equal"]["notebook"] == "v1_sft_format"
    assert "notebook" not in manifest  # by which the next notebook would find it


def test_flax_export_is_proven_as_well(model, base, tmp_path):
    (only,) = export(model, base, tmp_path / "flax", save=save_flax_model)
    assert only.reader == "nblib" and only.largest_difference == 0
    assert [path.name for path in tmp_path.iterdir()] == ["flax"]
    assert (tmp_path / "flax" / "checkpoint" / "_METADATA").is_file()
    assert find_export("v1_sft_format", str(tmp_path / "flax")) == tmp_path / "flax"


def test_a_wrong_merge_shows_against_the_model_as_it_was_trained(adapted, base, tmp_path):
    first, *_ = export(merge_lora(adapted, LORA), base, tmp_path / "export", trained=adapted)
    assert 0 < first.largest_difference <= first.limit  # two orders of the same sums
    wrong = merge_lora(adapted, LoraConfig(rank=2, alpha=4.0))
    with pytest.raises(ExportNotEqual):
        export(wrong, base, tmp_path / "export", trained=adapted)


def test_adapters_are_proven_over_their_base(adapted, base, tmp_path):
    folder = tmp_path / "adapters"
    (only,) = export_adapters(adapted, base, folder, LORA)
    assert only.reader == "nblib" and only.equal
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["notebook"], manifest["base"]) == ("v1_sft_format", base.described)
    with pytest.raises(ExportNotEqual, match="adapters-not-equal"):
        export_adapters(adapted, base, folder, LoraConfig(rank=2, alpha=4.0))


def test_a_runs_exports_say_what_they_were_made_of(adapted, base, mesh, tmp_path, capsys):
    run = start_run("v2_grpo", {"SEED": 3}, root=tmp_path)
    given = {"data": DATA, "steps": 7, "steps_left": 2, "prompts": ASKED}
    tuned = export_run(run, base, adapted, LORA, **given, flax=True)
    expected = {
        "notebook": "v2_grpo",
        "command": "python -m nblib run v2_grpo",
        "parameters": {"SEED": 3},
        "base": base.described,
        "rope_factor": 1.0,
        "context": 32_768,
        "data": {"origin": "made here", "sha256": {"train": "t", "test": "e"}},
        "steps": 7,
        "steps_left": 2,
    }
    proofs = {"parity", "tokenizer_size", "tokenizer_sha256"}
    for name in ("export", "adapters", "flax"):
        manifest = json.loads((run.path / name / "manifest.json").read_text())
        assert manifest.keys() == expected.keys() | proofs
        assert {key: manifest[key] for key in expected} == expected
    assert capsys.readouterr().out.count("read by nblib") == 3
    loaded = get_gemma_ref_model(str(run.export), mesh)
    assert (tuned.name, loaded.root) == ("tuned", base.root)
    kernels = [one.model.layers[0].mlp.up_proj.kernel.get_value() for one in (tuned, loaded)]
    np.testing.assert_array_equal(*kernels)


def test_a_factor_is_in_every_export_and_an_export_that_drops_it_is_refused(
    new_model, tokenizer, mesh, tmp_path, monkeypatch
):
    save_model(new_model(), tokenizer, tmp_path / "base", manifest={})  # its last layer is global
    four = get_gemma_ref_model(str(tmp_path / "base"), mesh, rope_factor=4)
    adapted = filled(get_lora_model(four.model, mesh, LORA), 0.3)
    given = {"data": DATA, "steps": 7, "steps_left": 0, "prompts": ASKED, "flax": True}
    run = start_run("v2_grpo", {}, root=tmp_path)
    export_run(run, four, adapted, LORA, **given)
    for name in ("export", "adapters", "flax"):
        assert get_gemma_ref_model(str(run.path / name), mesh).rope_factor == 4
        manifest = json.loads((run.path / name / "manifest.json").read_text())
        assert (manifest["rope_factor"], manifest["context"]) == (4.0, 131_072)
        assert manifest["base"]["rope_factor"] == 4.0
    values = gemma3.config_values
    monkeypatch.setattr(
        gemma3, "config_values", lambda config, *more: values(scaled(config, 1), *more)
    )
    with pytest.raises(ExportNotEqual):
        export(four.model, four, tmp_path / "dropped")


def test_more_files_are_made_of_the_tuned_model_and_every_folder_has_them(adapted, base, tmp_path):
    run = start_run("extraction", {}, root=tmp_path)
    given = {"data": DATA, "steps": 7, "steps_left": 0, "prompts": ASKED}
    export_run(run, base, adapted, LORA, **given, files=lambda ref: {"more.json": {"of": ref.name}})
    for name in ("export", "adapters"):
        assert json.loads((run.path / name / "more.json").read_text()) == {"of": "tuned"}


def test_without_adapters_there_is_the_model_alone(base, tmp_path):
    run = start_run("v2_grpo", {}, root=tmp_path)
    given = {"data": DATA, "steps": 7, "steps_left": 0, "prompts": ASKED}
    export_run(run, base, base.model, LoraConfig(rank=ALL_WEIGHTS, alpha=1.0), **given)
    assert (run.path / "export").is_dir()
    assert not (run.path / "adapters").exists() and not (run.path / "flax").exists()


def test_failed_export_is_not_found_among_a_hosts_inputs(model, base, tmp_path, monkeypatch):
    monkeypatch.setattr("nblib.hosts.inputs.KAGGLE_INPUT", tmp_path)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "none"))
    with monkeypatch.context() as patch, pytest.raises(ExportNotEqual):
        swap_gate_and_up(patch)
        export(model, base, tmp_path / "v1" / "export")
    with pytest.raises(ExportNotFound):
        find_export("v1_sft_format")
    export(model, base, tmp_path / "v1" / "export")
    assert find_export("v1_sft_format") == tmp_path / "v1" / "export"


def test_failure_leaves_the_proven_export_of_before(model, base, tmp_path, monkeypatch):
    export(model, base, tmp_path / "export")
    before = (tmp_path / "export" / "model.safetensors").read_bytes()
    swap_gate_and_up(monkeypatch)
    with pytest.raises(ExportNotEqual):
        export(model, base, tmp_path / "export")
    assert (tmp_path / "export" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["export", "export-unproven", "export-not-equal"])
def test_foreign_folders_are_left_alone(name, model, base, tmp_path, monkeypatch):
    foreign = tmp_path / name
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    swap_gate_and_up(monkeypatch)
    with pytest.raises(FileExistsError, match=f"{name} holds something else"):
        export(model, base, tmp_path / "export")
    assert [file.name for file in foreign.iterdir()] == ["thesis.txt"]


def test_what_was_trained_over_bf16_weights_is_proven_in_fp32(base, tmp_path):
    rounded = get_gemma_ref_model(base.name, base.mesh, dtype="bfloat16")
    lora = LoraConfig(rank=4, alpha=8.0)
    adapted = filled(get_lora_model(rounded.model, base.mesh, lora), 0.1)
    merged = merge_lora(adapted, lora)
    (whole, *_) = export(merged, rounded, tmp_path / "export", trained=adapted)
    (alone, *_) = export_adapters(adapted, rounded, tmp_path / "adapters", lora)
    assert whole.equal and alone.equal
