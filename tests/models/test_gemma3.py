import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.models.gemma3 import model as tunix
from tunix.models.gemma3.model import Attention, AttentionType, Gemma3

from nblib.models import folders, weight_files
from nblib.models.attention import CausalAttention, attention_of, called
from nblib.models.causal_attention import Segments
from nblib.models.folders import read_manifest
from nblib.models.gemma3 import (
    SIZES,
    load_model,
    model_config,
    parameter_count,
    save_model,
)
from nblib.tokens.tokenizer import TokenizerMismatch, fingerprint, load_tokenizer, train_tokenizer

# Heads and key-value heads: one for all, one for two, and one each (Tunix then fuses q, k and v).
HEADS = {
    "mqa": {"num_heads": 2, "num_kv_heads": 1},
    "gqa": {"num_heads": 4, "num_kv_heads": 2},
    "fused": {"num_heads": 2, "num_kv_heads": 2},
}


def abstract(size):
    return nnx.eval_shape(lambda: Gemma3(model_config(size), rngs=nnx.Rngs(0)))


def test_embedded_size():
    # A layer: q 4*160*32, k and v 2*160*32, o 4*32*160, MLP 3*160*384, norms 4*160 + 2*32.
    layer = 20_480 + 10_240 + 20_480 + 184_320 + 704
    model = abstract("embedded")
    assert parameter_count(model) == 6 * layer + 544 * 160 + 160
    assert parameter_count(model) <= 4_000_000
    kinds = [layer.attn.attn_type for layer in model.layers]
    assert kinds == [AttentionType.LOCAL_SLIDING] * 5 + [AttentionType.GLOBAL]


@pytest.mark.parametrize(
    ("size", "millions", "off"), [("tiny", 20, 0.02), ("small", 85, 0.02), ("medium", 350, 0.02)]
)
def test_named_sizes(size, millions, off):
    assert parameter_count(abstract(size)) == pytest.approx(millions * 1e6, rel=off)


def test_every_size_is_tested():
    assert set(SIZES) == {"embedded", "tiny", "small", "medium"}


def test_unknown_size_names_the_known():
    with pytest.raises(ValueError, match=r"'huge' is unknown: .*embedded, tiny, small, medium"):
        model_config("huge")


def test_init_gives_every_kernel_noise_of_its_fan_in_and_leaves_norms(new_model):
    layer = new_model(num_layers=1).layers[0]
    # The fan-in is 16 for the width and for 2 heads of 8, 32 for the MLP's way back.
    spreads = {
        "gate": (layer.mlp.gate_proj.kernel, 1 / 4),
        "up": (layer.mlp.up_proj.kernel, 1 / 4),
        "down": (layer.mlp.down_proj.kernel, 32**-0.5),
        "query": (layer.attn.q_einsum.w, 1 / 4),
        "key and value": (layer.attn.kv_einsum.w, 1 / 4),
        "output": (layer.attn.attn_vec_einsum.w, 1 / 4),
    }
    for name, (weight, spread) in spreads.items():
        assert np.std(weight.get_value()) == pytest.approx(spread, rel=0.2), name
    assert not np.any(layer.pre_attention_norm.scale.get_value())


def test_init_follows_the_seed(new_model):
    first, again, other = (new_model(seed, num_layers=1) for seed in (0, 0, 1))
    weights = [model.layers[0].mlp.up_proj.kernel.get_value() for model in (first, again, other)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, new_model, tokenizer):
    """A saved one-layer model, to be read by many tests and changed by none."""
    path = tmp_path_factory.mktemp("model") / "export"
    save_model(new_model(num_layers=1), tokenizer, path, manifest={"made_by": "a test"})
    return path


def copy_of(folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.mark.parametrize("heads", HEADS)
def test_round_trip_gives_the_same_logits(heads, tmp_path, new_model, tokenizer, logits, mesh):
    layers = 6 if heads == "mqa" else 2
    model = new_model(num_layers=layers, **HEADS[heads])
    save_model(model, tokenizer, tmp_path / "export", manifest={})
    loaded = load_model(tmp_path / "export", load_tokenizer(tmp_path / "export"), mesh=mesh)
    assert loaded.layers[0].attn.use_qkv_einsum == (heads == "fused")
    expected = logits(model)
    assert np.std(expected) > 0.1
    np.testing.assert_array_equal(logits(loaded), expected)


def test_saved_in_bf16_it_loads_in_fp32_with_rounded_weights(tmp_path, new_model, tokenizer):
    model = new_model(num_layers=1)
    save_model(model, tokenizer, tmp_path / "export", manifest={}, dtype="bfloat16")
    loaded = load_model(tmp_path / "export", tokenizer)
    for weight, original in zip(
        jax.tree.leaves(nnx.state(loaded)), jax.tree.leaves(nnx.state(model)), strict=True
    ):
        assert weight.dtype == jnp.float32
        np.testing.assert_array_equal(weight, original.astype(jnp.bfloat16).astype(jnp.float32))
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"


def test_folder_carries_all_that_other_tools_need(folder, tokenizer):
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    assert read_manifest(folder) == {
        "made_by": "a test",
        "tokenizer_size": 544,
        "tokenizer_sha256": fingerprint(tokenizer),
    }
    config = json.loads((folder / "config.json").read_text())
    expected = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": 544,
        "hidden_size": 16,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 8,
        "sliding_window_pattern": 6,
        "rope_theta": 1_000_000,
        "rope_local_base_freq": 10_000,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    assert {key: config[key] for key in expected} == expected
    stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert stops == [1, tokenizer.piece_to_id("<end_of_turn>")]


def test_tokenizer_of_another_size(folder, texts):
    larger = train_tokenizer(texts, vocab_size=560)
    with pytest.raises(TokenizerMismatch, match=r"^model 544, tokenizer 560: "):
        load_model(folder, larger)


def test_other_tokenizer_of_the_same_size(folder, texts):
    other = train_tokenizer(texts[:150], vocab_size=544)
    with pytest.raises(TokenizerMismatch, match=r"^model 544, tokenizer 544: .* was made with"):
        load_model(folder, other)


def test_saving_with_another_tokenizer_is_refused_and_leaves_nothing(tmp_path, new_model, texts):
    with pytest.raises(TokenizerMismatch, match=r"^model 544, tokenizer 560: "):
        save_model(
            new_model(num_layers=1),
            train_tokenizer(texts, vocab_size=560),
            tmp_path / "export",
            manifest={},
        )
    assert list(tmp_path.iterdir()) == []


def test_foreign_folder_is_left_alone(tmp_path, new_model, tokenizer):
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds something else"):
        save_model(new_model(num_layers=1), tokenizer, foreign, manifest={})
    assert [file.name for file in foreign.iterdir()] == ["thesis.txt"]


def test_own_folder_is_replaced_whole(folder, tmp_path, new_model, tokenizer):
    copy = copy_of(folder, tmp_path)
    (copy / "left_over.txt").write_text("of the folder before")
    model = new_model(seed=1, num_layers=1)
    save_model(model, tokenizer, copy, manifest={"made_by": "the second"})
    assert read_manifest(copy)["made_by"] == "the second"
    assert not (copy / "left_over.txt").exists()
    loaded = load_model(copy, tokenizer)
    np.testing.assert_array_equal(
        loaded.layers[0].mlp.up_proj.kernel.get_value(),
        model.layers[0].mlp.up_proj.kernel.get_value(),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


@pytest.mark.parametrize("exists", [False, True])
def test_half_written_export_never_has_the_name(
    exists, folder, tmp_path, new_model, tokenizer, monkeypatch
):
    target = copy_of(folder, tmp_path) if exists else tmp_path / "export"
    before = {file.name: file.read_bytes() for file in target.glob("*")}

    def disk_full(tensors, path, **options):
        path.write_bytes(b"half of it")
        raise OSError("no space left on device")

    model = new_model(seed=1, num_layers=1)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(weight_files, "save_file", disk_full)
        save_model(model, tokenizer, target, manifest={})
    assert target.exists() == exists
    assert {file.name: file.read_bytes() for file in target.glob("*")} == before
    save_model(model, tokenizer, target, manifest={})
    load_model(target, tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_kill_while_the_old_export_is_deleted_leaves_no_half(
    folder, tmp_path, new_model, tokenizer, monkeypatch
):
    copy = copy_of(folder, tmp_path)
    whole = {file.name for file in copy.iterdir()}
    delete = folders.shutil.rmtree

    def killed_half_way(path, *arguments, **options):
        if (path / "manifest.json").exists():
            (path / "manifest.json").unlink()
            raise KeyboardInterrupt
        delete(path, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folders.shutil, "rmtree", killed_half_way)
        save_model(new_model(seed=1, num_layers=1), tokenizer, copy, manifest={})
    assert not copy.exists() or {file.name for file in copy.iterdir()} == whole
    save_model(new_model(seed=1, num_layers=1), tokenizer, copy, manifest={})
    load_model(copy, tokenizer)


@pytest.fixture(params=[Attention, CausalAttention], ids=["tunix", "ours"])
def states(request, new_model, monkeypatch):
    """Return the hidden states of layers that are all of one kind, with a factor and positions."""
    tokens = jnp.asarray(np.random.default_rng(0).integers(4, 544, (1, 96)))
    # Tunix's attention takes a mask, ours segments.
    mask, segments = jnp.tril(jnp.ones((1, 96, 96), bool)), Segments(tokens // tokens)
    causal = mask if request.param is Attention else segments

    def run(kind, factor, positions):
        monkeypatch.setattr(tunix, "GEMMA3_ATTENTION_PATTERN", (kind,))
        model = new_model(num_layers=2, global_scale_factor=float(factor))
        with attention_of(model, request.param):
            return np.asarray(called(model, tokens, positions, None, causal)[0])

    return run


PLACES = jnp.arange(96)[None]


@pytest.mark.parametrize("factor", [2, 4])
def test_a_global_layer_rotates_by_its_position_over_the_factor(factor, states):
    everywhere = AttentionType.GLOBAL
    plain = states(everywhere, 1, PLACES)
    np.testing.assert_array_equal(states(everywhere, factor, factor * PLACES), plain)
    assert np.abs(states(everywhere, factor, PLACES) - plain).max() > 0.01


def test_a_local_layer_knows_no_factor(states):
    local = AttentionType.LOCAL_SLIDING
    plain = states(local, 1, PLACES)
    np.testing.assert_array_equal(states(local, 4, PLACES), plain)
    assert np.abs(states(local, 4, 4 * PLACES) - plain).max() > 0.01
