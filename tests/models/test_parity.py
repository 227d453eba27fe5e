import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nblib.hosts.inputs import ExportNotFound, find_export
from nblib.models import parity, weight_files
from nblib.models.gemma3 import load_model, save_model
from nblib.models.lora import LORA_PARAMETER, get_lora_model, merge_lora
from nblib.models.names import get_gemma_ref_model
from nblib.models.parity import (
    NEW_TOKENS,
    PROMPTS,
    ExportNotEqual,
    choice_logits,
    compare,
    export_adapters,
    export_model,
    greedy,
    prompt_rows,
)

ASKED = tuple(f"Ann has {n} pens and buys {n + 3} more. How many?" for n in range(2, 9))
MANIFEST = {"notebook": "v1_sft_format", "command": "a test"}


@pytest.fixture(scope="module")
def model(new_model):
    return new_model()


def export(model, tokenizer, folder, mesh, **options):
    return export_model(
        model, tokenizer, folder, manifest=MANIFEST, prompts=ASKED, mesh=mesh, **options
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_proven_export_gets_its_name(dtype, model, tokenizer, mesh, tmp_path):
    first, *_ = export(model, tokenizer, tmp_path / "export", mesh, dtype=dtype)
    assert (first.reader, first.prompts, first.choices) == ("nblib", 16, 16 * NEW_TOKENS)
    assert first.largest_difference == 0 and first.different_choices == 0
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text())
    assert manifest["notebook"] == "v1_sft_format"
    assert manifest["parity"][0]["largest_difference"] == 0
    load_model(tmp_path / "export", tokenizer)
    assert find_export("v1_sft_format", str(tmp_path / "export")) == tmp_path / "export"


def swap_gate_and_up(monkeypatch):
    """A mistake that leaves names and shapes right."""
    right = weight_files._layer_tensors

    def wrong(layer, config):
        tensors = right(layer, config)
        gate, up = tensors["mlp.gate_proj"], tensors["mlp.up_proj"]
        return {**tensors, "mlp.gate_proj": up, "mlp.up_proj": gate}

    monkeypatch.setattr(weight_files, "_layer_tensors", wrong)


def test_export_that_answers_otherwise_is_kept_under_a_name_that_says_so(
    model, tokenizer, mesh, tmp_path, monkeypatch
):
    swap_gate_and_up(monkeypatch)
    with pytest.raises(ExportNotEqual, match=r"export-not-equal:\n  read by nblib: 16 prompts, "):
        export(model, tokenizer, tmp_path / "export", mesh)
    assert [path.name for path in tmp_path.iterdir()] == ["export-not-equal"]
    manifest = json.loads((tmp_path / "export-not-equal" / "manifest.json").read_text())
    assert manifest["parity"][0]["largest_difference"] > 0.01
    assert manifest["not_equal"]["notebook"] == "v1_sft_format"
    assert "notebook" not in manifest  # by which the next notebook would find it


def test_flax_export_is_proven_as_well(model, tokenizer, mesh, tmp_path):
    (only,) = export(model, tokenizer, tmp_path / "flax", mesh, flax=True)
    assert only.reader == "nblib" and only.largest_difference == 0
    assert [path.name for path in tmp_path.iterdir()] == ["flax"]
    assert (tmp_path / "flax" / "checkpoint" / "_METADATA").is_file()
    assert find_export("v1_sft_format", str(tmp_path / "flax")) == tmp_path / "flax"


RANK, ALPHA = 2, 8.0


@pytest.fixture(scope="module")
def adapted(model, mesh):
    """The model with adapters that matter, as a training leaves them."""
    adapted = get_lora_model(model, mesh, rank=RANK, alpha=ALPHA)
    rng = np.random.default_rng(0)
    for _, adapter in nnx.to_flat_state(nnx.state(adapted, LORA_PARAMETER)):
        shape = adapter.get_value().shape
        adapter.set_value(jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32))
    return adapted


def test_a_wrong_merge_shows_against_the_model_as_it_was_trained(
    adapted, tokenizer, mesh, tmp_path
):
    right = merge_lora(adapted, rank=RANK, alpha=ALPHA)
    first, *_ = export(right, tokenizer, tmp_path / "export", mesh, trained=adapted)
    assert 0 < first.largest_difference <= first.limit  # two orders of the same sums
    wrong = merge_lora(adapted, rank=RANK, alpha=ALPHA / 2)
    with pytest.raises(ExportNotEqual):
        export(wrong, tokenizer, tmp_path / "export", mesh, trained=adapted)


def test_adapters_are_proven_over_their_base(adapted, model, tokenizer, mesh, tmp_path):
    save_model(model, tokenizer, tmp_path / "base", manifest={})
    base = get_gemma_ref_model(str(tmp_path / "base"), mesh)
    told = {**MANIFEST, "base": base.described}
    options = {"manifest": told, "prompts": ASKED, "mesh": mesh}
    folder = tmp_path / "adapters"
    (only,) = export_adapters(adapted, base, folder, rank=RANK, alpha=ALPHA, **options)
    assert only.reader == "nblib" and only.equal
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["notebook"], manifest["base"]) == ("v1_sft_format", base.described)
    with pytest.raises(ExportNotEqual, match="adapters-not-equal"):
        export_adapters(adapted, base, folder, rank=RANK, alpha=ALPHA / 2, **options)


def test_failed_export_is_not_found_among_a_hosts_inputs(
    model, tokenizer, mesh, tmp_path, monkeypatch
):
    monkeypatch.setattr("nblib.hosts.inputs.KAGGLE_INPUT", tmp_path)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "none"))
    with monkeypatch.context() as patch, pytest.raises(ExportNotEqual):
        swap_gate_and_up(patch)
        export(model, tokenizer, tmp_path / "v1" / "export", mesh)
    with pytest.raises(ExportNotFound):
        find_export("v1_sft_format")
    export(model, tokenizer, tmp_path / "v1" / "export", mesh)
    assert find_export("v1_sft_format") == tmp_path / "v1" / "export"


def test_failure_leaves_the_proven_export_of_before(model, tokenizer, mesh, tmp_path, monkeypatch):
    export(model, tokenizer, tmp_path / "export", mesh)
    before = (tmp_path / "export" / "model.safetensors").read_bytes()
    swap_gate_and_up(monkeypatch)
    with pytest.raises(ExportNotEqual):
        export(model, tokenizer, tmp_path / "export", mesh)
    assert (tmp_path / "export" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["export", "export-unproven", "export-not-equal"])
def test_foreign_folders_are_left_alone(name, model, tokenizer, mesh, tmp_path, monkeypatch):
    foreign = tmp_path / name
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    swap_gate_and_up(monkeypatch)
    with pytest.raises(FileExistsError, match=f"{name} holds something else"):
        export(model, tokenizer, tmp_path / "export", mesh)
    assert [file.name for file in foreign.iterdir()] == ["thesis.txt"]


def test_rows_are_the_ends_of_the_prompts_behind_bos(tokenizer):
    texts = ("5 pens and 6 pens", "7 pens")
    rows = prompt_rows(tokenizer, texts)
    shortest = len(tokenizer.encode("7 pens"))
    assert rows.shape == (PROMPTS, 1 + shortest)
    assert set(rows[:, 0]) == {tokenizer.bos_id()}
    assert rows[0, 1:].tolist() == tokenizer.encode(texts[0])[-shortest:]
    np.testing.assert_array_equal(rows[2], rows[0])  # too few are repeated
    with pytest.raises(ValueError, match="no prompt to compare"):
        prompt_rows(tokenizer, ())


def test_greedy_takes_the_best_token_each_time(model, tokenizer, mesh):
    rows = prompt_rows(tokenizer, ASKED)
    tokens, logits = greedy(model, rows, mesh=mesh)
    assert tokens.shape == (PROMPTS, rows.shape[1] + NEW_TOKENS)
    np.testing.assert_array_equal(tokens[:, : rows.shape[1]], rows)
    np.testing.assert_array_equal(logits.argmax(axis=-1), tokens[:, -NEW_TOKENS:])
    assert len(np.unique(tokens[:, -NEW_TOKENS:])) > 10


def test_another_model_is_far_away(model, new_model, tokenizer, mesh):
    tokens, logits = greedy(model, prompt_rows(tokenizer, ASKED), mesh=mesh)
    other = choice_logits(new_model(seed=1), tokens, mesh=mesh)
    found = compare(tokens, logits, other, reader="other")
    assert not found.equal
    assert found.largest_difference > 1 and found.different_choices > 100


def made(*rows):
    """Logits of one prompt whose first choices are sure, and whose last are `rows`."""
    sure = [[9.0, 0.0, 0.0]] * (NEW_TOKENS - len(rows))
    return np.array([[*sure, *rows]])


def test_comparison_by_hand():
    tokens = np.zeros((1, 3 + NEW_TOKENS), int)  # the first model always chose token 0
    ours = made([2.0, 1.0, 0.0], [20.0, 0.0, 0.0])
    same = compare(tokens, ours, ours, reader="r")
    assert (same.largest_difference, same.different_choices, same.equal) == (0, 0, True)
    assert same.limit == pytest.approx(20 * 1e-4)
    near = compare(tokens, ours, made([2.0, 1.0, 0.001], [20.0, 0.0, 0.0]), reader="r")
    assert near.largest_difference == pytest.approx(0.001) and near.equal
    other = compare(tokens, ours, made([1.0, 2.0, 0.0], [20.0, 0.0, 0.0]), reader="r")
    assert (other.largest_difference, other.different_choices, other.equal) == (1, 1, False)
    assert str(other) == (
        "read by r: 1 prompts, largest logit difference 1.0e+00 (limit 2.0e-03), "
        "1 of 16 greedy tokens differ"
    )


def test_a_tie_is_no_difference_and_nan_is():
    tokens = np.zeros((1, 3 + NEW_TOKENS), int)
    ours = made([1.0, 1.0, 0.0])
    assert compare(tokens, ours, made([1.0, 1.0005, 0.0]), reader="r").equal
    broken = compare(tokens, ours, made([np.nan, 1.0, 0.0]), reader="r")
    assert (broken.largest_difference, broken.different_choices) == (float("inf"), 1)
    assert not broken.equal


def test_limit_is_at_least_that_of_a_logit_of_one():
    tokens = np.zeros((1, 3 + NEW_TOKENS), int)
    small = np.zeros((1, NEW_TOKENS, 3))
    assert compare(tokens, small, small, reader="r").limit == parity.TOLERANCE


def test_what_was_trained_over_bf16_weights_is_proven_in_fp32(model, tokenizer, mesh, tmp_path):
    save_model(model, tokenizer, tmp_path / "base", manifest={})
    base = get_gemma_ref_model(str(tmp_path / "base"), mesh, dtype="bfloat16")
    adapted = get_lora_model(base.model, mesh, rank=4, alpha=8.0)
    rng = np.random.default_rng(0)
    filled = {
        path: jnp.asarray(0.1 * rng.normal(size=one.get_value().shape), jnp.float32)
        for path, one in nnx.to_flat_state(nnx.state(adapted, LORA_PARAMETER))
    }
    nnx.update(adapted, nnx.from_flat_state(list(filled.items())))
    merged = merge_lora(adapted, rank=4, alpha=8.0)
    (whole, *_) = export(merged, tokenizer, tmp_path / "export", mesh, trained=adapted)
    told = {"manifest": {**MANIFEST, "base": base.described}, "prompts": ASKED, "mesh": mesh}
    (alone, *_) = export_adapters(adapted, base, tmp_path / "adapters", rank=4, alpha=8.0, **told)
    assert whole.equal and alone.equal
