import json
import re
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from nblib.models.adapters import (
    AdapterMismatch,
    load_adapters,
    read_adapter_info,
    save_adapters,
)
from nblib.models.gemma3 import save_model
from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model, merge_lora
from nblib.models.names import get_gemma_ref_model, model_sha256
from nblib.models.published import ModelNotFound
from nblib.tokens.tokenizer import TokenizerMismatch, fingerprint, train_tokenizer

HEADS = {
    "mqa": {"num_heads": 2, "num_kv_heads": 1},
    "gqa": {"num_heads": 4, "num_kv_heads": 2},
    "fused": {"num_heads": 2, "num_kv_heads": 2},
}
RANK, ALPHA = 2, 3.0  # their ratio is not 1, so a forgotten factor shows
LORA = LoraConfig(rank=RANK, alpha=ALPHA)
BASE = {"name": "gemma3-1b-it", "sha256": "a" * 64}
LAYER = "base_model.model.model.layers.0."


def adapted(base, mesh):
    """Adapters with random values in both halves."""
    model = get_lora_model(base, mesh, LORA)
    rng = np.random.default_rng(0)
    for _, adapter in nnx.to_flat_state(nnx.state(model, LORA_PARAMETER)):
        shape = adapter.get_value().shape
        adapter.set_value(jax.numpy.asarray(0.3 * rng.normal(size=shape), "float32"))
    return model


def save(model, tokenizer, folder, **changes):
    options = {"lora": LORA, "manifest": {"base": BASE, "made_by": "a test"}}
    save_adapters(model, tokenizer, folder, **(options | changes))


def load(folder, base, tokenizer, sha256=BASE["sha256"]):
    return load_adapters(folder, base, tokenizer, base_name="my base", base_sha256=sha256)


@pytest.fixture(scope="module")
def base(new_model):
    return new_model(num_layers=1)


@pytest.fixture(scope="module")
def saved(base, mesh, tokenizer, tmp_path_factory):
    """A folder of one layer's adapters, to be read by many tests and changed by none."""
    folder = tmp_path_factory.mktemp("adapters") / "adapters"
    save(adapted(base, mesh), tokenizer, folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def change_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def change_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("heads", HEADS)
def test_over_its_base_it_is_the_merged_model(heads, new_model, mesh, tokenizer, tmp_path, logits):
    base = new_model(num_layers=2, **HEADS[heads])
    answers = logits(base)
    model = adapted(base, mesh)
    save(model, tokenizer, tmp_path / "adapters")
    loaded = load(tmp_path / "adapters", base, tokenizer)
    merged = merge_lora(model, LORA)
    for got, expected in zip(
        jax.tree.leaves(nnx.state(loaded)), jax.tree.leaves(nnx.state(merged)), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(logits(loaded) - answers).max() > 0.1
    np.testing.assert_array_equal(logits(base), answers)  # the base is left as it is


@pytest.mark.parametrize("heads", HEADS)
def test_each_pair_makes_the_change_of_hugging_faces_weight(
    heads, new_model, mesh, tokenizer, tmp_path
):
    base = new_model(num_layers=1, **HEADS[heads])
    model = adapted(base, mesh)
    save(model, tokenizer, tmp_path / "adapters")
    save_model(base, tokenizer, tmp_path / "base", manifest={})
    save_model(merge_lora(model, LORA), tokenizer, tmp_path / "merged", manifest={})
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("base", "merged"))
    pairs = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    for name in before:
        head = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (pairs.pop(f"{head}.lora_{part}.weight", None) for part in "AB")
        change = 0 if a is None else 1.5 * (b @ a)
        np.testing.assert_allclose(after[name] - before[name], change, atol=1e-5, err_msg=name)
    assert not pairs


def test_files_are_those_that_peft_reads(saved, tokenizer):
    assert sorted(file.name for file in saved.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    shapes = {k: v.shape for k, v in load_file(saved / "adapter_model.safetensors").items()}
    assert shapes[f"{LAYER}self_attn.k_proj.lora_A.weight"] == (RANK, 16)
    assert shapes[f"{LAYER}self_attn.k_proj.lora_B.weight"] == (8, RANK)
    assert shapes[f"{LAYER}mlp.down_proj.lora_A.weight"] == (RANK, 32)
    assert len(shapes) == 2 * 7
    config = json.loads((saved / "adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA",
        "base_model_name_or_path": "google/gemma-3-1b-it",  # where peft finds it
        "r": RANK,
        "lora_alpha": 3,
        "target_modules": [
            *("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
        ],
    }
    assert {key: config[key] for key in expected} == expected
    manifest = json.loads((saved / "manifest.json").read_text())
    assert (manifest["base"], manifest["made_by"]) == (BASE, "a test")


def test_it_says_whose_adapters_it_holds(copy, tokenizer):
    info = read_adapter_info(copy)
    assert info.lora == LORA
    assert (info.base_name, info.base_sha256) == ("gemma3-1b-it", "a" * 64)
    (copy / "manifest.json").unlink()  # as peft leaves it
    info = read_adapter_info(copy)
    assert (info.base_name, info.base_sha256) == ("gemma3-1b-it", None)
    change_config(copy, base_model_name_or_path="somebody/else")
    assert read_adapter_info(copy).base_name == "somebody/else"


def test_another_base_is_refused_by_name(saved, base, tokenizer):
    message = (
        r"made over gemma3-1b-it \(weights aaaaaaaaaaaa\), this base is my base .*bbbbbbbbbbbb"
    )
    with pytest.raises(AdapterMismatch, match=message):
        load(saved, base, tokenizer, sha256="b" * 64)


def test_another_tokenizer_is_refused(saved, base, texts):
    other = train_tokenizer(texts[:150], vocab_size=544)
    with pytest.raises(TokenizerMismatch, match="was made with"):
        load(saved, base, other)


def test_what_peft_trained_is_read(copy, base, tokenizer):
    """Keys and values with an A each, in bf16, on some projections only, without a manifest."""
    (copy / "manifest.json").unlink()
    key, value = (f"{LAYER}self_attn.{part}_proj.lora_" for part in "kv")
    given = {}

    def as_peft(tensors):
        tensors[f"{value}A.weight"] = 2 * tensors[f"{value}A.weight"]
        kept = {n: t for n, t in tensors.items() if n.startswith((key, value))}
        tensors.clear()
        tensors.update({n: t.astype(jax.numpy.bfloat16) for n, t in kept.items()})
        given.update({n: t.astype(np.float32) for n, t in tensors.items()})

    change_tensors(copy, as_peft)
    loaded = load(copy, base, tokenizer, sha256="of any base").layers[0]
    before = base.layers[0]
    got = loaded.attn.kv_einsum.w.get_value() - before.attn.kv_einsum.w.get_value()
    for index, name in enumerate((key, value)):  # one head: [8, 16] is [H, D], Tunix's is [D, H]
        change = 1.5 * given[f"{name}B.weight"] @ given[f"{name}A.weight"]
        np.testing.assert_allclose(got[index, 0], change.T, atol=1e-5)
    for same in ("q_einsum", "attn_vec_einsum"):
        weights = [getattr(layer.attn, same).w.get_value() for layer in (loaded, before)]
        np.testing.assert_array_equal(*weights)


def test_weights_keep_their_dtype(saved, base, tokenizer):
    half = nnx.clone(base)
    nnx.update(half, jax.tree.map(lambda leaf: leaf.astype("bfloat16"), nnx.state(half)))
    loaded = load(saved, half, tokenizer)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(loaded))} == {"bfloat16"}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        *(
            ({name: True}, name)
            for name in ("use_dora", "use_rslora", "use_qalora", "lora_bias", "fan_in_fan_out")
        ),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"arrow_config": {"top_k": 3}}, "arrow_config"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config"),
        ({"megatron_config": {"hidden": 8}}, "megatron_config"),
        ({"monteclora_config": {"num_samples": 2}}, "monteclora_config"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        *(
            ({"init_lora_weights": start}, f"init_lora_weights '{start}'")
            for start in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")
        ),
        ({"peft_type": "IA3"}, "'IA3'"),
    ],
)
def test_other_adapters_than_plain_lora_are_refused(values, named, copy):
    change_config(copy, **values)
    with pytest.raises(ValueError, match=rf"{named}.* is not plain LoRA"):
        read_adapter_info(copy)


@pytest.mark.parametrize(
    "values",
    [
        {"use_rslora": False, "use_dora": False, "lora_bias": False, "fan_in_fan_out": False},
        {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "bias": "none"},
        *({"init_lora_weights": start} for start in (True, False, "gaussian", "eva", "orthogonal")),
        {"layers_to_transform": [0], "layers_pattern": "layers", "lora_dropout": 0.1},
        {"loftq_config": {}, "eva_config": None, "megatron_core": "megatron.core"},
    ],
)
def test_options_that_change_no_weight_are_taken(values, copy):
    change_config(copy, **values)
    assert read_adapter_info(copy).lora == LORA


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("r", None), ("r", 0), ("r", 2.5), ("r", True), ("r", "2")),
        *(("lora_alpha", "16"), ("lora_alpha", float("nan")), ("lora_alpha", True)),
        ("base_model_name_or_path", ["gemma3-1b-it"]),
    ],
)
def test_config_with_other_types_than_its_fields_have(key, value, copy):
    change_config(copy, **{key: value})
    message = rf"adapter_config\.json: {key} is {re.escape(repr(value))}, expected "
    with pytest.raises(ValueError, match=message):
        read_adapter_info(copy)


def test_truncated_file(copy, base, tokenizer):
    path = copy / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is damaged"):
        load(copy, base, tokenizer)


def test_no_file_of_adapters(copy, base, tokenizer):
    path = copy / "adapter_model.safetensors"
    path.unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"adapter_model\.safetensors is missing or a folder"):
            load(copy, base, tokenizer)
        path.mkdir(exist_ok=True)


QUERY = f"{LAYER}self_attn.q_proj.lora_"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"lm_head.lora_A.weight": np.zeros(1)}), "lm_head.* no LoRA tensor"),
        (lambda t: t.clear(), r"adapter_model\.safetensors holds no tensor: save the adapters"),
        (lambda t: t.pop(f"{QUERY}B.weight"), r"layer 0, self_attn\.q_proj: got {'A'"),
        (lambda t: t[f"{QUERY}A.weight"].fill(np.nan), r"q_proj\.lora_A\.weight holds NaN"),
        (
            lambda t: t.update({f"{QUERY}A.weight": np.zeros((5, 16))}),
            r"expected A \[2, in\] and B \[out, 2\]",
        ),
        (
            lambda t: t.update({f"{QUERY}A.weight": np.zeros((2, 20))}),
            r"layer 0: self_attn\.q_proj changes \(16, 20\), the base has \(16, 16\)",
        ),
        (
            lambda t: t.update({n.replace("layers.0", "layers.1"): v for n, v in t.items()}),
            "in layer 1, which my base has not",
        ),
    ],
)
def test_tensors_that_do_not_fit(change, message, copy, base, tokenizer):
    change_tensors(copy, change)
    with pytest.raises(ValueError, match=message):
        load(copy, base, tokenizer)


@pytest.mark.parametrize("base_entry", [{}, {"name": "embedded"}, {"sha256": "a"}])
def test_saving_without_a_base_is_refused(base_entry, base, mesh, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"must hold the base's name and sha256"):
        save(adapted(base, mesh), tokenizer, tmp_path / "new", manifest={"base": base_entry})
    assert list(tmp_path.iterdir()) == []


def test_saving_what_is_not_there_is_refused(base, mesh, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="holds no adapters"):
        save(base, tokenizer, tmp_path / "new")
    with pytest.raises(ValueError, match="have rank 2, not 4"):
        save(adapted(base, mesh), tokenizer, tmp_path / "new", lora=LoraConfig(rank=4, alpha=ALPHA))
    assert list(tmp_path.iterdir()) == []


def test_foreign_folder_is_left_alone_and_its_own_replaced(base, mesh, tokenizer, tmp_path, copy):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    model = adapted(base, mesh)
    with pytest.raises(FileExistsError, match="holds something else"):
        save(model, tokenizer, tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    save(model, tokenizer, copy, manifest={"base": BASE, "made_by": "the second"})
    assert json.loads((copy / "manifest.json").read_text())["made_by"] == "the second"


def test_no_adapter_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json is missing"):
        read_adapter_info(tmp_path)


@pytest.fixture(scope="module")
def named(base, mesh, tokenizer, tmp_path_factory):
    """Adapters over a base that lies in a folder: (the base's, theirs)."""
    folder = tmp_path_factory.mktemp("named")
    save_model(base, tokenizer, folder / "base", manifest={})
    sha256 = get_gemma_ref_model(str(folder / "base"), mesh).sha256
    entry = {"name": str(folder / "base"), "sha256": sha256}
    save(adapted(base, mesh), tokenizer, folder / "adapters", manifest={"base": entry})
    return folder / "base", folder / "adapters"


def test_a_folder_of_adapters_is_a_model_by_name(named, base, mesh, tokenizer, logits):
    below, adapters = named
    ref = get_gemma_ref_model(str(adapters), mesh)
    assert (ref.name, ref.folder) == (str(adapters), adapters)
    expected = merge_lora(adapted(base, mesh), LORA)
    np.testing.assert_allclose(logits(ref.model), logits(expected), atol=1e-4)
    assert fingerprint(ref.tokenizer) == fingerprint(tokenizer)
    assert ref.sha256 != get_gemma_ref_model(str(below), mesh).sha256
    assert ref.sha256 == model_sha256(str(adapters)) == model_sha256(f"{adapters}::{below}")
    assert ref.described["root"] == str(below)


def test_the_base_may_lie_elsewhere(named, mesh, tmp_path):
    below, adapters = named
    moved = tmp_path / "adapters"
    moved.mkdir()
    for file in adapters.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((moved / "manifest.json").read_text())
    manifest["base"]["name"] = "of another machine"
    (moved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelNotFound, match=r"adapters over 'of another machine', .* not here"):
        get_gemma_ref_model(str(moved), mesh)
    ref = get_gemma_ref_model(f"{moved}::{below}", mesh)
    assert ref.sha256 == get_gemma_ref_model(str(adapters), mesh).sha256


@pytest.mark.parametrize("half", "AB")
def test_adapters_that_change_nothing_are_refused(half, named, mesh, tmp_path):
    below, adapters = named
    shutil.copytree(adapters, tmp_path / "zero")

    def zeroed(tensors):
        for name, tensor in tensors.items():
            tensor[...] *= f"lora_{half}" not in name

    change_tensors(tmp_path / "zero", zeroed)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors: every product B A is z"):
        get_gemma_ref_model(f"{tmp_path}/zero::{below}", mesh)


@pytest.mark.parametrize("said", ["", None])
def test_adapters_that_name_no_base_ask_for_it(said, named, mesh, tmp_path, monkeypatch):
    below, adapters = named
    moved = tmp_path / "moved"
    shutil.copytree(adapters, moved)
    (moved / "manifest.json").unlink()
    change_config(moved, base_model_name_or_path=said)
    monkeypatch.chdir(below)  # where "" would be this very model
    message = r"_config\.json: base_model_name_or_path is empty, .* give it, .*/moved::BASE"
    with pytest.raises(ValueError, match=message):
        get_gemma_ref_model(str(moved), mesh)
    with pytest.raises(ValueError, match=message):
        model_sha256(str(moved))
    assert model_sha256(f"{moved}::{below}") == model_sha256(str(adapters))


def test_a_base_for_a_whole_model_is_refused(named, mesh):
    below, _ = named
    with pytest.raises(ValueError, match="is a whole model, which needs no base"):
        get_gemma_ref_model(f"{below}::embedded", mesh)


def test_adapters_bring_the_factor_that_they_were_trained_with(named, mesh, tmp_path):
    below, adapters = named
    scaled = tmp_path / "scaled"
    shutil.copytree(adapters, scaled)
    manifest = json.loads((scaled / "manifest.json").read_text())
    manifest["base"]["rope_factor"] = 4.0
    (scaled / "manifest.json").write_text(json.dumps(manifest))
    assert read_adapter_info(scaled).rope_factor == 4.0
    for name in (str(scaled), f"{scaled}::{below}"):
        assert get_gemma_ref_model(name, mesh).rope_factor == 4
    assert get_gemma_ref_model(str(scaled), mesh, rope_factor=2).rope_factor == 2
    assert get_gemma_ref_model(str(adapters), mesh).rope_factor == 1  # as before it was recorded


@pytest.mark.parametrize("factor", ["4", 0, -1, True])
def test_a_factor_that_is_none_is_refused(factor, named, mesh, tmp_path):
    _, adapters = named
    shutil.copytree(adapters, tmp_path / "odd")
    manifest = json.loads((adapters / "manifest.json").read_text())
    manifest["base"]["rope_factor"] = factor
    (tmp_path / "odd" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json: base\.rope_factor is .* above 0"):
        get_gemma_ref_model(str(tmp_path / "odd"), mesh)
