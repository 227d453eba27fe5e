import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx, traverse_util

from nblib.models.flax_folder import load_flax_model, save_flax_model
from nblib.models.gemma3 import init_model
from nblib.models.names import get_gemma_ref_model
from nblib.tokens.tokenizer import TokenizerMismatch, train_tokenizer


@pytest.fixture(scope="module")
def config(tiny_config):
    """The window cannot be read off the tensors: it is that of the published sizes."""
    return replace(tiny_config, sliding_window_size=512)


@pytest.fixture(scope="module")
def model(config, compilation_cache):
    model = init_model(config, seed=0)
    rng = np.random.default_rng(0)  # random norms as well, or any two could be swapped unseen
    for path, weight in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path[-1] == "scale":
            weight.set_value(
                jax.numpy.asarray(rng.normal(size=weight.get_value().shape), "float32")
            )
    return model


def google_tree(model):
    """The names and shapes of google-deepmind/gemma's checkpoints, written out."""

    def array(variable):
        return np.asarray(variable.get_value())

    tree = {
        "transformer/embedder": {"input_embedding": array(model.embedder.input_embedding)},
        "transformer/final_norm": {"scale": array(model.final_norm.scale)},
    }
    for index, layer in enumerate(model.layers):
        head = f"transformer/layer_{index}"
        attention, mlp = layer.attn, layer.mlp
        gating = [array(mlp.gate_proj.kernel).T, array(mlp.up_proj.kernel).T]  # each F D
        tree |= {
            f"{head}/attn/_key_norm": {"scale": array(attention._key_norm.scale)},
            f"{head}/attn/_query_norm": {"scale": array(attention._query_norm.scale)},
            f"{head}/attn/attn_vec_einsum": {"w": array(attention.attn_vec_einsum.w)},
            f"{head}/attn/kv_einsum": {"w": array(attention.kv_einsum.w)},
            f"{head}/attn/q_einsum": {"w": array(attention.q_einsum.w)},
            f"{head}/mlp/gating_einsum": {"w": np.stack(gating)},
            f"{head}/mlp/linear": {"w": array(mlp.down_proj.kernel)},
            f"{head}/post_attention_norm": {"scale": array(layer.post_attention_norm.scale)},
            f"{head}/post_ffw_norm": {"scale": array(layer.post_ffw_norm.scale)},
            f"{head}/pre_attention_norm": {"scale": array(layer.pre_attention_norm.scale)},
            f"{head}/pre_ffw_norm": {"scale": array(layer.pre_ffw_norm.scale)},
        }
    return tree


def write(folder, tree, tokenizer, name="gemma3-1b-it"):
    folder.mkdir(exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / name, tree)
    (folder / "tokenizer.model").write_bytes(tokenizer.serialized_model_proto())
    return folder


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory, model, tokenizer):
    """Kaggle's folder of a Flax variation, to be read by many tests and changed by none."""
    return write(tmp_path_factory.mktemp("flax") / "1", google_tree(model), tokenizer)


def test_kaggles_folder_answers_as_the_model(kaggle, model, tokenizer, mesh, logits):
    loaded = load_flax_model(kaggle, tokenizer, mesh=mesh)
    np.testing.assert_array_equal(logits(loaded), logits(model))
    assert loaded.config == model.config


def test_it_is_a_model_by_its_folder(kaggle, model, tokenizer, mesh, tmp_path, logits):
    ref = get_gemma_ref_model(str(kaggle), mesh)
    np.testing.assert_array_equal(logits(ref.model), logits(model))
    copy = tmp_path / "copy"
    shutil.copytree(kaggle, copy)
    assert get_gemma_ref_model(str(copy), mesh).sha256 == ref.sha256
    other = google_tree(model)
    other["transformer/final_norm"]["scale"] = np.zeros(16, np.float32)
    write(tmp_path / "other", other, tokenizer)
    assert get_gemma_ref_model(str(tmp_path / "other"), mesh).sha256 != ref.sha256


@pytest.mark.parametrize("saved", ["float32", "bfloat16"])
def test_weights_are_fp32_unless_said_otherwise(saved, model, tokenizer, mesh, tmp_path):
    tree = jax.tree.map(lambda leaf: leaf.astype(saved), google_tree(model))
    folder = write(tmp_path / "1", tree, tokenizer)
    for dtype in ("float32", "bfloat16"):
        loaded = load_flax_model(folder, tokenizer, mesh=mesh, dtype=dtype)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(loaded))} == {dtype}


@pytest.mark.parametrize("heads", [{}, {"num_heads": 2, "num_kv_heads": 2}], ids=["mqa", "fused"])
def test_what_is_written_here_has_googles_names(heads, config, tokenizer, mesh, tmp_path, logits):
    model = init_model(replace(config, **heads, sliding_window_size=16), seed=0)
    save_flax_model(model, tokenizer, tmp_path / "export", manifest={"made_by": "a test"})
    if not heads:
        restored = ocp.PyTreeCheckpointer().restore(tmp_path / "export" / "checkpoint")
        found, wanted = (traverse_util.flatten_dict(t) for t in (restored, google_tree(model)))
        assert found.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_array_equal(found[path], leaf)
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text())
    assert manifest["made_by"] == "a test" and manifest["tokenizer_size"] == 544
    # Its own config.json says the window, which Kaggle's folder leaves out.
    loaded = load_flax_model(tmp_path / "export", tokenizer, mesh=mesh)
    np.testing.assert_array_equal(logits(loaded), logits(model))


def test_a_factor_comes_back_and_kaggles_own_folder_takes_one(
    kaggle, config, tokenizer, mesh, tmp_path
):
    model = init_model(replace(config, global_scale_factor=4.0), seed=0)
    save_flax_model(model, tokenizer, tmp_path / "export", manifest={})
    assert load_flax_model(tmp_path / "export", tokenizer, mesh=mesh).config == model.config
    given = load_flax_model(kaggle, tokenizer, mesh=mesh, rope_factor=2).config
    assert given == replace(config, global_scale_factor=2.0)


def test_foreign_folder_is_left_alone(model, tokenizer, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds something else"):
        save_flax_model(model, tokenizer, tmp_path / "mine", manifest={})
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


LINEAR = "transformer/layer_2/mlp/linear"


def with_vision(tree):
    tree["SigLiPFromPatches_0/siglip_encoder"] = {"pos_embedding": np.zeros((1, 4, 4), np.float32)}


def with_nan(tree):
    tree[LINEAR]["w"] = np.full_like(tree[LINEAR]["w"], np.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(LINEAR), r"lacks layers\.2\.mlp\.down_proj\.kernel \(1 such"),
        (
            lambda t: t.update({"transformer/x": {"w": np.zeros(1)}}),
            "holds an unknown transformer/x/w",
        ),
        (
            lambda t: t.update({"transformer/layer_2/mlp/new": {"w": np.zeros(1)}}),
            r"holds an unknown layers\.2\.mlp\.new\.w \(1 such",
        ),
        (
            lambda t: t.update({LINEAR: {"w": np.zeros((8, 16), np.float32)}}),
            r"layers\.2\.mlp\.down_proj\.kernel is \(8, 16\), expected \(32, 16\)",
        ),
        (with_nan, r"layers\.2\.mlp\.down_proj\.kernel holds NaN or infinity"),
        (with_vision, "has a vision encoder"),
        (
            lambda t: t.pop("transformer/layer_0/attn/attn_vec_einsum"),
            r"lacks transformer/layer_0/attn/attn_vec_einsum/w: it is no Gemma 3",
        ),
    ],
    ids=["missing", "unknown", "extra", "shape", "nan", "vision", "another-model"],
)
def test_tensors_that_do_not_fit(change, message, model, tokenizer, mesh, tmp_path):
    tree = google_tree(model)
    change(tree)
    with pytest.raises(ValueError, match=message):
        load_flax_model(write(tmp_path / "1", tree, tokenizer), tokenizer, mesh=mesh)


@pytest.mark.parametrize("part", ["d", "ocdbt.process_0/d"], ids=["index", "tensors"])
def test_truncated_tree(part, kaggle, tokenizer, mesh, tmp_path):
    shutil.copytree(kaggle, tmp_path / "copy")
    # All of them: Orbax spreads the tensors as its threads come, and some files hold what is stale.
    for path in (tmp_path / "copy" / "gemma3-1b-it" / part).iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"gemma3-1b-it is damaged: .*; get the checkpoint again"):
        load_flax_model(tmp_path / "copy", tokenizer, mesh=mesh)


def test_no_tree_and_two(kaggle, tokenizer, mesh, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no Orbax tree"):
        load_flax_model(tmp_path, tokenizer, mesh=mesh)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "_METADATA").write_text("{}")
    with pytest.raises(ValueError, match="holds 2 Orbax trees"):
        load_flax_model(tmp_path, tokenizer, mesh=mesh)


def test_another_tokenizer(kaggle, texts, mesh):
    with pytest.raises(TokenizerMismatch, match=r"^model 544, tokenizer 560: "):
        load_flax_model(kaggle, train_tokenizer(texts, vocab_size=560), mesh=mesh)
