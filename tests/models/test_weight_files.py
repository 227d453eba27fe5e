import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from nblib.models import weight_files as files_module
from nblib.models.folders import orbax_trees
from nblib.models.gemma3 import load_model, save_model
from nblib.models.layout import expected_shapes
from nblib.models.weight_files import weight_files

QUERY = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path, new_model, tokenizer):
    save_model(new_model(num_layers=1), tokenizer, tmp_path / "model", manifest={})
    return tmp_path / "model"


@pytest.fixture
def sharded(tmp_path, new_model, tokenizer, monkeypatch):
    monkeypatch.setattr(files_module, "_SHARD_BYTES", 40_000)
    save_model(new_model(), tokenizer, tmp_path / "big", manifest={})
    return tmp_path / "big"


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def same(model, other):
    pairs = zip(jax.tree.leaves(nnx.state(model)), jax.tree.leaves(nnx.state(other)), strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_shards_hold_every_tensor_once_and_stay_below_the_limit(sharded, new_model, tokenizer):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    shards = {path.name: load_file(path) for path in sorted(sharded.glob("*.safetensors"))}
    count = len(shards)
    assert count > 2
    assert list(shards) == [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    held = {name: file for file, tensors in shards.items() for name in tensors}
    assert held == index["weight_map"]
    assert held.keys() == expected_shapes(new_model().config).keys()
    sizes = [sum(tensor.nbytes for tensor in tensors.values()) for tensors in shards.values()]
    assert sum(sizes) == index["metadata"]["total_size"]
    assert all(
        size <= 40_000 or len(shards[name]) == 1 for name, size in zip(shards, sizes, strict=True)
    )
    assert same(load_model(sharded, tokenizer), new_model())


def test_below_the_limit_it_is_one_file_without_index(folder):
    assert [path.name for path in weight_files(folder)] == ["model.safetensors"]
    assert not (folder / "model.safetensors.index.json").exists()


def test_missing_shard_is_named(sharded, tokenizer):
    (sharded / min(path.name for path in weight_files(sharded))).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks model-00001-of-\d+\.safetensors, which its"
    ):
        load_model(sharded, tokenizer)


def test_file_beside_the_index_is_named(sharded, tokenizer):
    save_file({"x": np.zeros(1, np.float32)}, sharded / "old.safetensors")
    with pytest.raises(ValueError, match=r"old\.safetensors, which its index does not name"):
        load_model(sharded, tokenizer)


def test_two_files_with_the_same_tensor(folder, tokenizer):
    path = folder / "model.safetensors"
    (folder / "zz.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"is in model\.safetensors and zz\.safetensors"):
        load_model(folder, tokenizer)


def test_no_weights(folder, tokenizer):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors"):
        load_model(folder, tokenizer)


def test_a_folder_in_place_of_the_weights(folder, tokenizer):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"model\.safetensors is a folder, expected a safetensors"):
        load_model(folder, tokenizer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"index\.json lacks 'weight_map': expected an object of tensors' names"),
        ("[]", r"index\.json holds \[\], expected a JSON object"),
        ('{"weight_map": ["a"]}', r"index\.json: weight_map is \['a'\], expected an object of"),
        ('{"weight_map": {"a": ["b"]}}', r"index\.json: weight_map is {'a': \['b'\]}, expected"),
    ],
)
def test_a_broken_index_is_named(content, message, folder, tokenizer):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_model(folder, tokenizer)


def test_packed_weights_say_how_to_unpack_them(tmp_path):
    """As an Orbax tree travels; what the message says is run, and brings the tree back."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "_METADATA").write_text("{}")
    there = tmp_path / "there"
    there.mkdir()
    shutil.make_archive(str(there / "checkpoint"), "zip", tree)
    with pytest.raises(
        FileNotFoundError, match=r"Unpack them: python -m zipfile -e \S+ \S+$"
    ) as error:
        weight_files(there)
    _, command = str(error.value).split("python ")
    subprocess.run([sys.executable, *command.split()], check=True)
    assert orbax_trees(there) == [there / "checkpoint"]


@pytest.mark.parametrize("kept", [0, 5, 500, -1])
def test_truncated_file(kept, folder, tokenizer):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or no safetensors"):
        load_model(folder, tokenizer)


def renamed(tensors):
    tensors[QUERY.replace("q_proj", "query")] = tensors.pop(QUERY)


def with_nan(tensors):
    tensors[QUERY][3, 3] = np.nan


def with_infinity(tensors):
    tensors[NORM][3] = np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(QUERY), rf"lacks {QUERY} \(1 tensors\): it is not whole"),
        (renamed, rf"lacks {QUERY} and holds .*\.query\.weight \(1 and 1 such.*: renamed"),
        (
            lambda t: t.update(extra=np.zeros(1, np.float32)),
            r"holds extra \(1 such tensors\), which Gemma 3 has not",
        ),
        (
            lambda t: t.update({QUERY: t[QUERY][:8].copy()}),
            rf"{QUERY} is \(8, 16\), its configuration says \(16, 16\)",
        ),
        (
            lambda t: t.update({NORM: t[NORM].astype(np.int32)}),
            rf"{NORM} is I32, expected one of F32, BF16, F16",
        ),
        (with_nan, r"layers\.0\.attn\.q_einsum\.w holds NaN or infinity"),
        (with_infinity, r"layers\.0\.pre_attention_norm\.scale holds NaN or infinity"),
        (
            lambda t: t.update({"lm_head.weight": t[EMBEDDING] + 1}),
            r"lm_head\.weight differs from model\.embed_tokens\.weight",
        ),
    ],
)
def test_tensors_that_do_not_fit(change, message, folder, tokenizer):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        load_model(folder, tokenizer)


def test_config_of_another_size(folder, tokenizer):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"lacks model\.layers\.1\..* \(13 tensors\)"):
        load_model(folder, tokenizer)


def test_tied_head_that_is_written_again_is_taken(folder, tokenizer, new_model):
    rewrite(folder, lambda t: t.update({"lm_head.weight": t[EMBEDDING].copy()}))
    assert same(load_model(folder, tokenizer), new_model(num_layers=1))


def test_dtypes_that_differ_within_a_file(folder, tokenizer, new_model, mesh):
    """Tunix's faster loader takes the first tensor's dtype for all and reads other numbers."""
    names = ("self_attn.q_proj", "mlp.up_proj")

    def some_in_bf16(tensors):
        for name in names:
            key = f"model.layers.0.{name}.weight"
            tensors[key] = tensors[key].astype(jax.numpy.bfloat16)

    rewrite(folder, some_in_bf16)
    model = new_model(num_layers=1)
    for weight in (model.layers[0].attn.q_einsum.w, model.layers[0].mlp.up_proj.kernel):
        weight.set_value(weight.get_value().astype("bfloat16").astype("float32"))
    assert same(load_model(folder, tokenizer, mesh=mesh), model)
