"""A model's safetensors files in Hugging Face's layout: writing them, and checks before reading.

Tunix's loader takes what it finds: it leaves out a tensor that it does not know, reads every file
of a folder, and takes the first dtype of a file for all. So a folder is checked first.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tunix.models.gemma3.model import Gemma3, ModelConfig

from nblib.files import Kind, field, read_object, write_json
from nblib.models.layout import expected_shapes, to_hugging_face, weights_of
from nblib.models.processes import on_host

INDEX_FILE = "model.safetensors.index.json"
_SHARD_BYTES = 5_000_000_000  # transformers' own limit until version 5
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_FILES = Kind(
    "an object of tensors' names and their files",
    lambda value: isinstance(value, dict) and all(isinstance(f, str) for f in value.values()),
)
_DTYPES = ("F32", "BF16", "F16")


def write_weights(model: Gemma3, folder: Path, dtype: np.dtype | type) -> None:
    """Write a model's tensors; more than `_SHARD_BYTES` of them as several files with an index."""
    weights = ((path, on_host(variable.get_value())) for path, variable in weights_of(model))
    tensors = {
        name: np.ascontiguousarray(tensor, dtype)
        for name, tensor in to_hugging_face(weights).items()
    }
    split = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=_SHARD_BYTES,
    )
    for name, held in split.filename_to_tensors.items():
        shard = {tensor: tensors[tensor] for tensor in held}
        save_file(shard, folder / name, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX_FILE, index)


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
        if path.is_dir():
            raise ValueError(f"{path} is a folder, expected a safetensors file: get it again")
    index = folder / INDEX_FILE
    if index.is_file():
        listed = set(field(read_object(index), "weight_map", _FILES, index).values())
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
    check_names(folder, found, expected_shapes(config))
    return uniform


def check_finite(model: Gemma3, folder: Path) -> None:
    """Raise ValueError naming a weight of the loaded model that holds NaN or infinity."""
    weights = {".".join(map(str, path)): one.get_value() for path, one in weights_of(model)}
    finite = jax.jit(lambda leaves: jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), leaves))
    for name, good in finite(weights).items():
        if not good:
            raise ValueError(f"{folder}: {name} holds NaN or infinity: take another copy")


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
        if not np.array_equal(one.get_tensor(_HEAD), other.get_tensor(_EMBEDDING)):
            raise ValueError(
                f"{head}: {_HEAD} differs from {_EMBEDDING}: Tunix's Gemma 3 has one for both"
            )


def check_names(
    folder: Path,
    found: Mapping[str, tuple[Path, tuple[int, ...]]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise ValueError where tensors' names or shapes differ from the expected; `found` has files.

    It names `folder`, or the file, and the first tensor.
    """
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
            raise ValueError(f"{path}: {name} is {got}, its configuration says {shape}")
