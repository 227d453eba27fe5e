import hashlib
import json
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from nblib.models import gguf_model
from nblib.models.config_file import read_config
from nblib.models.folders import weights_sha256
from nblib.models.gemma3 import load_model
from nblib.models.layout import to_hugging_face, weights_of
from nblib.models.names import get_gemma_ref_model, model_sha256
from nblib.models.published import ModelNotFound, find_model
from nblib.tokens.tokenizer import fingerprint, load_tokenizer

gguf = pytest.importorskip("gguf", reason="needs the package gguf, in the extra gemma")

from nblib.models.gguf_export import save_gguf  # noqa: E402
from nblib.models.gguf_file import StoredTensor, read_gguf  # noqa: E402

SIZES = {"num_layers": 2, "embed_dim": 32, "hidden_dim": 64, "head_dim": 32}
TEXTS = ("Hello world 12", "<start_of_turn>user\n1 + 1?<end_of_turn>\n", "a  b\t\n\n ä€")


def random_norms(model):
    rng = np.random.default_rng(1)
    for path, weight in weights_of(model):
        if path[-1] == "scale":
            shape = weight.get_value().shape
            weight.set_value(jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32))
    return model


@pytest.fixture(scope="module")
def model(new_model):
    return random_norms(new_model(**SIZES))


@pytest.fixture(scope="module")
def files(model, tokenizer, tmp_path_factory):
    """A file of each kind, to be read by many tests and changed by none."""
    made = {}
    for kind in ("f16", "q8_0"):
        folder = tmp_path_factory.mktemp("gguf") / kind
        save_gguf(model, tokenizer, folder, kind=kind, root="embedded", manifest={})
        made[kind] = folder / f"model-{kind}.gguf"
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nblib" / "gguf"


def tensors_of(model):
    weights = [(path, np.asarray(one.get_value())) for path, one in weights_of(model)]
    return to_hugging_face(weights)


def loaded(folder):
    with safe_open(folder / "model.safetensors", "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewritten(file, path, *, drop=(), tensors=None, **values):
    """Write a file again with other values; `__` in a name is a dot."""
    old = read_gguf(file)
    changed = {name.replace("__", "."): value for name, value in values.items()}
    writer = gguf.GGUFWriter(path, changed.pop("general.architecture", "gemma3"))
    for name, value in {**old.values, **changed}.items():
        if name in ("general.architecture", "nblib.tensor_sha256", *drop):
            continue
        add = {
            str: writer.add_string,
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            list: writer.add_array,
        }[type(value)]
        add(name, value)
    for name, tensor in (old.tensors if tensors is None else tensors).items():
        if name not in drop:
            writer.add_tensor(name, np.array(tensor.raw), raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rounded_q8(matrix):
    """Blocks of 32 weights, each with a scale in fp16 and whole numbers from -127 to 127."""
    rows = matrix.reshape(-1, 32)
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    scaled = rows * (1 / scale)
    whole = np.trunc(scaled + np.copysign(0.5, scaled))
    return (whole * scale.astype(np.float16).astype(np.float32)).reshape(matrix.shape)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_what_was_written_is_read_rounded_and_otherwise_equal(kind, files, model):
    found, wanted = loaded(find_model(str(files[kind]))), tensors_of(model)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if tensor.ndim == 1:
            expected = (tensor + np.float32(1)) - np.float32(1)
        elif kind == "f16":
            expected = tensor.astype(np.float16).astype(np.float32)
        else:
            expected = rounded_q8(tensor)
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
        assert np.abs(found[name] - tensor).max() < 0.01 * np.abs(tensor).max()


def test_the_folder_is_a_model_like_any_other(files, model, tokenizer, mesh):
    name = str(files["f16"])
    base = get_gemma_ref_model(name, mesh)
    assert base.root == "embedded" and base.described["name"] == name
    assert base.sha256 == model_sha256(name) == weights_sha256(base.folder)
    assert read_config(base.folder) == replace(model.config, param_dtype=jnp.float32)
    assert [path.name for path in sorted(base.folder.iterdir())] == [
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.model",
    ]
    manifest = json.loads((base.folder / "manifest.json").read_text())
    assert manifest["gguf"] == {"file": "model-f16.gguf", "matrices": ["F16"]}
    assert manifest["tokenizer_sha256"] == fingerprint(base.tokenizer)


def test_the_tokenizer_encodes_and_decodes_as_before(files, tokenizer):
    again = load_tokenizer(find_model(str(files["q8_0"])))
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text)
        assert again.decode(again.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    ids = [again.pad_id(), again.eos_id(), again.bos_id(), again.unk_id()]
    assert ids == [0, 1, 2, 3]
    for piece in range(len(tokenizer)):
        assert again.id_to_piece(piece) == tokenizer.id_to_piece(piece)
        for kind in ("is_control", "is_byte", "is_unknown", "is_unused"):
            assert getattr(again, kind)(piece) == getattr(tokenizer, kind)(piece)


def test_a_scaled_rope_and_other_sizes_come_back(new_model, tokenizer, tmp_path):
    changes = {"num_kv_heads": 2, "global_scale_factor": 8.0, "global_base_frequency": 500_000}
    model = new_model(**SIZES, **changes, sliding_window_size=24)
    save_gguf(model, tokenizer, tmp_path / "made", kind="f16", root="x", manifest={})
    config = read_config(find_model(str(tmp_path / "made")))
    assert config == replace(model.config, param_dtype=jnp.float32)


@pytest.mark.parametrize(("factor", "context"), [(1.0, 32_768), (4.0, 131_072)])
def test_a_file_says_its_context_and_how_the_rope_is_scaled(
    factor, context, new_model, tokenizer, tmp_path
):
    model = new_model(**SIZES, global_scale_factor=factor)
    save_gguf(model, tokenizer, tmp_path / "made", kind="f16", root="x", manifest={})
    values = read_gguf(tmp_path / "made" / "model-f16.gguf").values
    assert values["gemma3.context_length"] == context
    found = [values.get(f"gemma3.rope.scaling.{key}") for key in ("type", "factor")]
    assert found == ([None, None] if factor == 1 else ["linear", 4.0])


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ({"gemma3__rope__scaling__factor": 8.0}, 8.0),  # linear is what llama.cpp then takes
        ({"gemma3__rope__scaling__factor": 8.0, "gemma3__rope__scaling__type": "none"}, 1.0),
        ({"gemma3__rope__scaling__type": "linear"}, 1.0),
    ],
)
def test_a_scale_is_what_llama_cpp_makes_of_it(values, factor, files, tmp_path):
    path = rewritten(files["f16"], tmp_path / "other.gguf", **values)
    assert read_config(find_model(str(path))).global_scale_factor == factor


def test_another_scale_than_a_linear_one_is_refused(files, tmp_path):
    yarn = {"gemma3__rope__scaling__factor": 8.0, "gemma3__rope__scaling__type": "yarn"}
    path = rewritten(files["f16"], tmp_path / "other.gguf", **yarn)
    with pytest.raises(ValueError, match=r"rope_type is \['default', 'yarn'\]: Tunix scales"):
        find_model(str(path))


def test_a_file_is_converted_once(files, cache, tmp_path, monkeypatch):
    folder = find_model(str(files["f16"]))
    sha256 = hashlib.sha256(files["f16"].read_bytes()).hexdigest()
    assert folder == cache / sha256[:16]
    monkeypatch.setattr(gguf_model, "convert", None)
    copy = tmp_path / "another name.gguf"
    copy.write_bytes(files["f16"].read_bytes())
    assert find_model(str(copy)) == find_model(str(files["f16"].parent)) == folder


def test_many_at_once_convert_once(files, monkeypatch):
    converted = []

    def counted(path, folder, convert=gguf_model.convert):
        converted.append(folder)
        convert(path, folder)

    monkeypatch.setattr(gguf_model, "convert", counted)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(gguf_model.as_folder, [files["f16"]] * 4))
    assert len(found) == len(converted) == 1


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "BF16"])
def test_other_kinds_are_dequantised_and_bf16_is_kept(kind, files, tokenizer, tmp_path, mesh):
    stored = gguf.GGMLQuantizationType[kind]
    old = read_gguf(files["f16"]).tensors
    matrices = {
        name: tensor.raw.view(np.float16).astype(np.float32)
        for name, tensor in old.items()
        if len(tensor.shape) == 2
    }
    raw = {name: gguf.quants.quantize(one, stored) for name, one in matrices.items()}
    others = {n: StoredTensor(kind=stored, shape=old[n].shape, raw=one) for n, one in raw.items()}
    path = rewritten(files["f16"], tmp_path / "other.gguf", tensors={**old, **others})
    folder = find_model(str(path))
    load_model(folder, load_tokenizer(folder), mesh=mesh)
    with safe_open(folder / "model.safetensors", "flax") as file:
        found = file.get_tensor("model.embed_tokens.weight")
    assert found.dtype == (jnp.bfloat16 if kind == "BF16" else jnp.float32)
    expected = gguf.quants.dequantize(raw["token_embd.weight"], stored)
    np.testing.assert_array_equal(np.asarray(found, np.float32), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "llama"}, r"architecture is 'llama', expected 'gemma3'"),
        ({"drop": ["gemma3.block_count"]}, r"lacks 'gemma3\.block_count': expected a whole number"),
        ({"drop": ["gemma3.rope.freq_base"]}, r"lacks 'gemma3\.rope\.freq_base'"),
        ({"drop": ["tokenizer.ggml.tokens"]}, r"lacks 'tokenizer\.ggml\.tokens': expected a list"),
        ({"tokenizer__ggml__model": "gpt2"}, r"the vocabulary is 'gpt2', expected 'llama'"),
        ({"tokenizer__ggml__bos_token_id": 7}, r"bos_token_id is 7, Gemma's is 2"),
        ({"tokenizer__ggml__tokens": ["a", "b"]}, r"its vocabulary is not Gemma's: "),
        ({"split__count": 3}, r"is one of 3 parts: join them"),
        ({"gemma3__final_logit_softcapping": 30.0}, r"final_logit_softcapping is 30\.0, expected"),
        ({"gemma3__attention__head_count": 3}, r"self_attn\.[qo]_proj\.weight is"),
        ({"gemma3__attention__value_length": 8}, r"keys and values of a head differ in length"),
        ({"gemma3__attention__layer_norm_rms_epsilon": 1e-5}, r"rms_norm_eps is 1e-05, expected"),
        (
            {"gemma3__attention__sliding_window_pattern": 2},
            r"sliding_window_pattern is 2, expected",
        ),
        ({"drop": ["blk.1.ffn_up.weight"]}, r"lacks model\.layers\.1\.mlp\.up_proj\.weight"),
        ({"gemma3__block_count": 1}, r"holds blk\.1\."),
        (
            {"gemma3__feed_forward_length": 32},
            r"mlp\.\w+_proj\.weight is .*, its configuration says",
        ),
    ],
)
def test_another_model_is_refused_by_what_differs(changes, message, files, cache, tmp_path):
    path = rewritten(files["f16"], tmp_path / "other.gguf", **changes)
    with pytest.raises(ValueError, match=rf"other\.gguf.*{message}") as caught:
        find_model(str(path))
    assert "\n" not in str(caught.value)
    assert not any(cache.glob("[!.]*"))


@pytest.mark.parametrize("share", [0, 1e-4, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_ends_early_is_refused(share, files, tmp_path):
    whole = files["f16"].read_bytes()
    path = tmp_path / "part.gguf"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"part\.gguf is no whole GGUF file: .*; get it again"):
        find_model(str(path))


def test_another_program_s_file_is_no_gguf(tmp_path):
    path = tmp_path / "photo.gguf"
    path.write_bytes(b"\x89PNG" + bytes(1000))
    with pytest.raises(
        ValueError, match=r"photo\.gguf is no whole GGUF file: it begins with b'\\x"
    ):
        find_model(str(path))


def test_a_huge_count_in_a_damaged_head_ends_at_once(files, tmp_path):
    """The number of tokens says more than the file can hold."""
    whole = bytearray(files["f16"].read_bytes())
    at = whole.index(b"tokenizer.ggml.scores") + len(b"tokenizer.ggml.scores") + 8
    whole[at : at + 8] = (2**60).to_bytes(8, "little")
    path = tmp_path / "damaged.gguf"
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"damaged\.gguf is no whole GGUF file: it ends early"):
        find_model(str(path))


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.1.attn_v.weight", "output_norm.weight"])
def test_a_damaged_tensor_is_refused_by_its_name(name, files, cache, tmp_path):
    file = read_gguf(files["q8_0"])
    raw = bytes(file.tensors[name].raw)
    whole = bytearray(files["q8_0"].read_bytes())
    whole[whole.index(raw) + len(raw) // 2] ^= 1
    path = tmp_path / "damaged.gguf"
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=rf"damaged\.gguf: {name} is damaged, its checksum"):
        find_model(str(path))
    assert not any(cache.glob("[!.]*"))


def test_what_gguf_cannot_dequantise_is_said(files, cache, tmp_path):
    old = read_gguf(files["f16"]).tensors
    whole = np.ones((544, 32), np.int8)
    kind = gguf.GGMLQuantizationType.I8
    odd = StoredTensor(kind=kind, shape=whole.shape, raw=whole)
    tensors = {**old, "token_embd.weight": odd}
    path = rewritten(files["f16"], tmp_path / "odd.gguf", tensors=tensors)
    with pytest.raises(ValueError, match=r"odd\.gguf: Dequantization for I8 .* in another quant"):
        find_model(str(path))
    assert not any(cache.glob("*.partial"))
    head = bytearray(path.read_bytes())
    at = head.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 2 * 8
    head[at : at + 4] = (999).to_bytes(4, "little")
    path.write_bytes(head)
    with pytest.raises(ValueError, match=r"odd\.gguf: a quantisation, number 999, is not known: "):
        find_model(str(path))


def test_without_the_package_the_error_says_what_to_install(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelNotFound, match=r"model-f16\.gguf cannot be read: .*nblib\[gemma\]"):
        find_model(str(files["f16"]))


def test_a_full_disk_names_the_file_and_leaves_nothing(files, cache):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"model\.safetensors"):
            find_model(str(files["f16"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert find_model(str(files["f16"])).is_dir()


def test_the_embedded_model_comes_back(tmp_path, mesh):
    """Its weights are bf16, which f16 holds but for the smallest."""
    base = get_gemma_ref_model("embedded", mesh)
    save_gguf(
        base.model, base.tokenizer, tmp_path / "made", kind="f16", root="embedded", manifest={}
    )
    again = get_gemma_ref_model(str(tmp_path / "made"), mesh)
    assert again.root == "embedded"
    for name, tensor in tensors_of(base.model).items():
        np.testing.assert_allclose(tensors_of(again.model)[name], tensor, atol=1e-6, rtol=0)
