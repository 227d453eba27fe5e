import shutil

import numpy as np
import pytest

from nblib.models.gemma3 import parameter_count, save_model
from nblib.models.names import get_gemma_ref_model, model_sha256
from nblib.models.published import EMBEDDED_FOLDER


@pytest.fixture(scope="module")
def folder(tmp_path_factory, new_model, tokenizer):
    path = tmp_path_factory.mktemp("named") / "export"
    save_model(new_model(num_layers=1), tokenizer, path, manifest={})
    return path


def test_folder_comes_with_its_own_tokenizer(folder, mesh, tokenizer, new_model):
    ref = get_gemma_ref_model(str(folder), mesh)
    assert (ref.name, ref.folder) == (str(folder), folder)
    assert ref.tokenizer.serialized_model_proto() == tokenizer.serialized_model_proto()
    kernel = new_model(num_layers=1).layers[0].mlp.up_proj.kernel.get_value()
    np.testing.assert_array_equal(ref.model.layers[0].mlp.up_proj.kernel.get_value(), kernel)
    other = ref.with_model(new_model(1, num_layers=1), name="tuned")
    assert (other.name, other.tokenizer, other.sha256) == ("tuned", ref.tokenizer, ref.sha256)


def test_a_model_says_its_precision_and_where_an_answer_ends(folder, mesh):
    ref = get_gemma_ref_model(str(folder), mesh)
    assert str(ref).endswith(
        "; weights and the sampler's cache in float32, what is trained in float32; tokenizer 544, "
        "an answer ends at 1, 5"
    )
    assert model_sha256(str(folder)) == ref.sha256


def test_a_base_is_named_in_full(folder, mesh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latest").symlink_to(folder)
    assert get_gemma_ref_model("latest", mesh).described["name"] == str(folder.resolve())
    assert get_gemma_ref_model("embedded", mesh).described["name"] == "embedded"


def test_a_fine_tune_says_what_it_began_with(folder, mesh, tmp_path, tokenizer, new_model):
    ref = get_gemma_ref_model(str(folder), mesh)
    own = {"name": str(folder), "sha256": ref.sha256, "root": str(folder)}
    assert ref.described == {**own, "rope_factor": 1.0}
    for name, root in (("v1", "gemma3-1b-it"), ("v2", "gemma3-1b-it")):
        base = ref.described | {"root": root}
        save_model(new_model(num_layers=1), tokenizer, tmp_path / name, manifest={"base": base})
        ref = get_gemma_ref_model(str(tmp_path / name), mesh)
        assert ref.described["name"] == str(tmp_path / name)
        assert ref.described["root"] == "gemma3-1b-it"


def test_a_factor_is_no_weight_but_part_of_what_the_model_is(folder, mesh, tmp_path, tokenizer):
    plain = get_gemma_ref_model(str(folder), mesh)
    four = get_gemma_ref_model(str(folder), mesh, rope_factor=4)
    assert four.sha256 == plain.sha256 and (four.context, plain.context) == (131_072, 32_768)
    assert four.described == {**plain.described, "rope_factor": 4.0}
    assert four.hashes == {**plain.hashes, "rope_factor": 4.0}
    assert "; RoPE factor 4, context 131,072; weights" in str(four)
    assert "RoPE" not in str(plain)
    save_model(four.model, tokenizer, tmp_path / "four", manifest={})
    assert get_gemma_ref_model(str(tmp_path / "four"), mesh).rope_factor == 4
    assert get_gemma_ref_model(str(tmp_path / "four"), mesh, rope_factor=2).rope_factor == 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory, new_model, tokenizer, mesh):
    """A model of six layers, of which the last one is global."""
    path = tmp_path_factory.mktemp("whole") / "export"
    save_model(new_model(), tokenizer, path, manifest={})
    return get_gemma_ref_model(str(path), mesh, rope_factor=4)


def test_another_factor_needs_no_other_weights(whole, mesh, logits):
    plain = whole.at_rope_factor(1)
    loaded = get_gemma_ref_model(str(whole.folder), mesh)
    np.testing.assert_array_equal(logits(plain.model), logits(loaded.model))
    assert (whole.rope_factor, plain.rope_factor, plain.hashes) == (4, 1, loaded.hashes)
    assert np.abs(logits(whole.model) - logits(plain.model)).max() > 1e-3
    kernels = [one.model.layers[0].mlp.up_proj.kernel.get_value() for one in (whole, plain)]
    assert kernels[0] is kernels[1]
    back = plain.at_rope_factor(4)
    np.testing.assert_array_equal(logits(back.model), logits(whole.model))


def test_end_of_text_at_which_nobody_stops_is_refused(folder, mesh, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "generation_config.json").write_text('{"eos_token_id": [1, 106]}')
    with pytest.raises(ValueError, match="ends its text by token 106"):
        get_gemma_ref_model(str(copy), mesh)


def test_embedded_model_ships_and_loads(mesh):
    """It ships with the package, so its folder being empty is a failure."""
    ref = get_gemma_ref_model("embedded", mesh)
    assert ref.folder == EMBEDDED_FOLDER
    assert parameter_count(ref.model) <= 4_000_000
    assert len(ref.tokenizer) == 544
    assert sum(path.stat().st_size for path in EMBEDDED_FOLDER.iterdir()) <= 9_000_000
