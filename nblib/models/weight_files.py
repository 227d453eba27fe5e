"""A model's safetensors files in Hugging Face's layout: names, shapes, shards, and their checks.

Tunix's loader takes what it finds: it leaves out a tensor that it does not know, reads every file
of a folder, and takes the first dtype of a file for all. So a folder is checked before it reads.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tunix.models.gemma3.model import Gemma3, ModelConfig

from nblib.files import Kind, field, read_object, write_json
from nblib.models.folders import WEIGHTS_FILE

INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # transformers' own limit until version 5
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_PLACES = Kind(
    "an object of tensors' names and their files",
    lambda value: isinstance(value, dict) and all(isinstance(f, str) for f in value.values()),
)
_DTYPES = ("F32", "BF16", "F16")


def write_weights(
    model: Gemma3, folder: Path, *, dtype: np.dtype | type, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a model's tensors; more than `shard_bytes` of them as several files with an index."""
    tensors = _to_hugging_face(model, dtype)
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        return
    places = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": size}, "weight_map": places})


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a model folder, in the order of their names.

    Raises FileNotFoundError when there are none or the index names one that is missing, ValueError
    for a file beside those that the index names, a broken index, or a folder in place of a file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files and any(folder.glob("*.zip")):
        packed = min(folder.glob("*.zip"))
        raise FileNotFoundError(
            f"{folder} holds its weights packed, as they travel. Unpack them: "
            f"python -m zipfile -e {packed} {packed.with_suffix('')}"
        )
    if not files:
        raise FileNotFoundError(f"{folder} holds no *.safetensors: the weights are missing")
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path} is a folder, expected a safetensors file: get it again")
    index = folder / INDEX_FILE
    if index.is_file():
        listed = set(field(read_object(index), "weight_map", _PLACES, index).values())
        found = {path.name for path in files}
        if listed - found:
            raise FileNotFoundError(f"{folder} lacks {min(listed - found)}, which its index names")
        if found - listed:
            raise ValueError(f"{folder} holds {min(found - listed)}, which its index does not name")
    return files


def check_weights(folder: Path, config: ModelConfig) -> bool:
    """Check files, names and shapes against the configuration, from the files' headers.

    Returns whether each file has a single dtype, as Tunix's faster loader needs it.
    Raises FileNotFoundError and ValueError, naming the file or tensor and what was expected.
    """
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    uniform = True
    for path in weight_files(folder):
        headers = _headers(path)
        uniform &= len({dtype for dtype, _ in headers.values()}) == 1
        for name, (dtype, shape) in headers.items():
            if dtype not in _DTYPES:
                raise ValueError(f"{path}: {name} is {dtype}, expected one of {', '.join(_DTYPES)}")
            if name in found:
                raise ValueError(f"{folder}: {name} is in {found[name][0].name} and {path.name}")
            found[name] = (path, shape)
    if _HEAD in found and _EMBEDDING in found:
        _check_tied(found.pop(_HEAD)[0], found[_EMBEDDING][0])
    _check_names(folder, found, expected_shapes(config))
    return uniform


def check_finite(model: Gemma3, folder: Path) -> None:
    """Raise ValueError naming a weight of the loaded model that holds NaN or infinity."""
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    finite = jax.jit(lambda leaves: [jnp.isfinite(leaf).all() for leaf in leaves])
    for (path, _), good in zip(state, finite([v.get_value() for _, v in state]), strict=True):
        if not good:
            name = ".".join(map(str, path))
            raise ValueError(f"{folder}: {name} holds NaN or infinity: take another copy")


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return Hugging Face's names of all tensors with their shapes, [out, in]."""
    width, head = config.embed_dim, config.head_dim
    query, key, hidden = config.num_heads * head, config.num_kv_heads * head, config.hidden_dim
    layer = {
        "self_attn.q_proj": (query, width),
        "self_attn.k_proj": (key, width),
        "self_attn.v_proj": (key, width),
        "self_attn.o_proj": (width, query),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
        "pre_feedforward_layernorm": (width,),
        "post_feedforward_layernorm": (width,),
    }
    return {
        _EMBEDDING: (config.num_embed, width),
        "model.norm.weight": (width,),
        **{
            f"model.layers.{index}.{name}.weight": shape
            for index in range(config.num_layers)
            for name, shape in layer.items()
        },
    }


def _headers(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of each tensor; the header also says how long the file must be."""
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: (str(s.get_dtype()), tuple(s.get_shape())) for n, s in slices.items()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is truncated or no safetensors: {error}; get it again") from error


def _check_tied(head: Path, embedding: Path) -> None:
    """Some tools write the tied output head again; another one would be left out silently."""
    with safe_open(head, "numpy") as one, safe_open(embedding, "numpy") as other:
        same = np.array_equal(one.get_tensor(_HEAD), other.get_tensor(_EMBEDDING))
    if not same:
        raise ValueError(
            f"{head}: {_HEAD} differs from {_EMBEDDING}: Tunix's Gemma 3 has one for both"
        )


def _check_names(
    folder: Path,
    found: Mapping[str, tuple[Path, tuple[int, ...]]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing and extra:
        raise ValueError(
            f"{folder} lacks {missing[0]} and holds {extra[0]} ({len(missing)} and {len(extra)} "
            "such tensors): renamed, or another model than its config.json says"
        )
    if missing:
        raise ValueError(f"{folder} lacks {missing[0]} ({len(missing)} tensors): it is not whole")
    if extra:
        raise ValueError(
            f"{folder} holds {extra[0]} ({len(extra)} such tensors), which Gemma 3 has not: they "
            "would be left out"
        )
    for name, shape in expected.items():
        path, got = found[name]
        if got != shape:
            raise ValueError(f"{path}: {name} is {got}, its config.json says {shape}")


def _shards(tensors: Mapping[str, np.ndarray], limit: int) -> Iterator[dict[str, np.ndarray]]:
    shard: dict[str, np.ndarray] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _to_hugging_face(model: Gemma3, dtype: np.dtype | type) -> dict[str, np.ndarray]:
    """Return the weights under Hugging Face's names and in its shapes, [out, in]."""
    tensors: dict[str, jax.Array] = {
        _EMBEDDING: model.embedder.input_embedding.get_value(),
        "model.norm.weight": model.final_norm.scale.get_value(),
    }
    for index, layer in enumerate(model.layers):
        head = f"model.layers.{index}."
        for name, tensor in _layer_tensors(layer, model.config).items():
            tensors[f"{head}{name}.weight"] = tensor
    return {name: np.ascontiguousarray(np.asarray(t, dtype)) for name, t in tensors.items()}


def _layer_tensors(layer: nnx.Module, config: ModelConfig) -> dict[str, jax.Array]:
    attention, mlp = layer.attn, layer.mlp
    if attention.use_qkv_einsum:
        query, key, value = attention.qkv_einsum.w.get_value()
    else:
        query = attention.q_einsum.w.get_value()
        key, value = attention.kv_einsum.w.get_value()
    output = attention.attn_vec_einsum.w.get_value().reshape(-1, config.embed_dim)

    def out_in(weight: jax.Array) -> jax.Array:  # N D H to (N H) D
        return weight.transpose(0, 2, 1).reshape(-1, config.embed_dim)

    return {
        "self_attn.q_proj": out_in(query),
        "self_attn.k_proj": out_in(key),
        "self_attn.v_proj": out_in(value),
        "self_attn.o_proj": output.T,
        "self_attn.q_norm": attention._query_norm.scale.get_value(),
        "self_attn.k_norm": attention._key_norm.scale.get_value(),
        "mlp.gate_proj": mlp.gate_proj.kernel.get_value().T,
        "mlp.up_proj": mlp.up_proj.kernel.get_value().T,
        "mlp.down_proj": mlp.down_proj.kernel.get_value().T,
        "input_layernorm": layer.pre_attention_norm.scale.get_value(),
        "post_attention_layernorm": layer.post_attention_norm.scale.get_value(),
        "pre_feedforward_layernorm": layer.pre_ffw_norm.scale.get_value(),
        "post_feedforward_layernorm": layer.post_ffw_norm.scale.get_value(),
    }
