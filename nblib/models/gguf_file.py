"""The GGUF file format of llama.cpp, read: keys with values, and tensors of a Gemma 3.

Most callers want `gguf_model.as_folder`. Quantised weights are dequantised by the package `gguf`.
Its reader is not used: it needs 11 s and 0.7 GB for Gemma's vocabulary, and does not notice that a
file ends early. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nblib.files import COUNT, shown

ARCHITECTURE = "gemma3"
CHECKSUMS, ROOT = "nblib.tensor_sha256", "nblib.root"  # keys that only files made here have

_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?"} | {
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_TEXT, _ARRAY = 8, 9
_ROWS = 4096  # dequantised at a time: 262,144 rows of Gemma's embedding in fp32 are a gigabyte
_IN_LAYER = {
    **{f"attn_{one}": f"self_attn.{one}_proj" for one in "qkv"},
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    **{f"ffn_{one}": f"mlp.{one}_proj" for one in ("gate", "up", "down")},
}


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor as it lies in a file: its kind in `gguf`, and its bytes, a row of them a row."""

    kind: Any
    shape: tuple[int, ...]
    raw: np.ndarray

    @property
    def sha256(self) -> str:
        """The checksum of its bytes."""
        return hashlib.sha256(self.raw.data).hexdigest()


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """What a file holds: keys and their values, and the tensors by their names in GGUF."""

    path: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def gguf_package() -> ModuleType:
    """Return the package `gguf`; ImportError says how to install it."""
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise ImportError(
            f"GGUF needs the package gguf ({error}): pip install 'nblib[gemma]'"
        ) from error
    return gguf


def tensor_names(layers: int) -> dict[str, str]:
    """Return the names of a Gemma 3's tensors in GGUF, each with its name at Hugging Face."""
    names = {"token_embd": "embed_tokens", "output_norm": "norm"}
    for layer in range(layers):
        for ours, theirs in _IN_LAYER.items():
            names[f"blk.{layer}.{ours}"] = f"layers.{layer}.{theirs}"
    return {f"{name}.weight": f"model.{theirs}.weight" for name, theirs in names.items()}


def read_gguf(path: Path) -> GgufFile:
    """Return the head of a file, its tensors mapped and unread, those with checksums compared.

    Raises ValueError for a file that is no GGUF or not whole, of another architecture, one of
    several parts, and a tensor that is not as it was written, by its name.
    """
    gguf = gguf_package()
    try:
        head = _Head(path, gguf)
        values, tensors = head.values(), head.tensors()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path} is no whole GGUF file: {error}; get it again") from error
    except NotImplementedError as error:
        raise undone(path, error) from error
    found = values.get("general.architecture")
    if found != ARCHITECTURE:
        raise ValueError(f"{path}: architecture is {shown(found)}, expected {ARCHITECTURE!r}")
    if values.get("split.count", 1) != 1:
        parts = values["split.count"]
        raise ValueError(f"{path} is one of {parts} parts: join them, llama-gguf-split --merge")
    sums = values.get(CHECKSUMS) or [None] * len(tensors)
    for (name, tensor), wanted in zip(tensors.items(), sums, strict=False):
        if wanted not in (None, tensor.sha256):
            raise ValueError(f"{path}: {name} is damaged, its checksum differs: get the file again")
    return GgufFile(path=path, values=values, tensors=tensors)


class _Head:
    """Reads a file from its start: counts, keys with values, then the tensors' names and places."""

    def __init__(self, path: Path, gguf: ModuleType) -> None:
        self.data, self.at, self.gguf = np.memmap(path, np.uint8, "r"), 0, gguf
        magic, version = bytes(self.take("u1", 4)), int(self.take("<u4")[0])
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it begins with {magic!r} and version {version}, not GGUF 2 or 3")
        self.counts = self.number(), self.number()  # of tensors, and of keys
        self.alignment: Any = None

    def take(self, dtype: str, count: int = 1) -> np.ndarray:
        end = self.at + count * np.dtype(dtype).itemsize
        if end > len(self.data):
            raise ValueError("it ends early")
        found: np.ndarray = self.data[self.at : end].view(dtype)
        self.at = end
        return found

    def number(self) -> int:
        return int(self.take("<u8")[0])

    def text(self) -> str:
        return bytes(self.take("u1", self.number())).decode()

    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self.counts[1]):
            name = self.text()
            found[name] = self.value(int(self.take("<u4")[0]))
        self.alignment = found.get("general.alignment", 32)
        if not COUNT.holds(self.alignment):
            raise ValueError(f"general.alignment is {shown(self.alignment)}")
        return found

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind in _NUMBERS:
            return self.take(_NUMBERS[kind])[0].item()
        if kind != _ARRAY:
            raise ValueError(f"a value is of the unknown kind {kind}")
        kind, count = int(self.take("<u4")[0]), self.number()
        if kind in _NUMBERS:
            return self.take(_NUMBERS[kind], count).tolist()
        if kind != _TEXT:
            raise ValueError(f"a list holds values of the unknown kind {kind}")
        return [self.text() for _ in range(count)]

    def tensors(self) -> dict[str, StoredTensor]:
        """Return the tensors; the file holds their axes in reverse order."""
        places = []
        for _ in range(self.counts[0]):
            name, axes = self.text(), int(self.take("<u4")[0])
            shape = tuple(map(int, reversed(self.take("<u8", axes))))
            places.append((name, shape, int(self.take("<u4")[0]), self.number()))
        start = -(-self.at // self.alignment) * self.alignment
        found = {name: self.tensor(shape, kind, start + at) for name, shape, kind, at in places}
        if len(found) < len(places):
            raise ValueError("two tensors have the same name")
        return found

    def tensor(self, shape: tuple[int, ...], kind: int, at: int) -> StoredTensor:
        if kind not in list(self.gguf.GGMLQuantizationType):
            raise NotImplementedError(f"a quantisation, number {kind}, is not known")
        known = self.gguf.GGMLQuantizationType(kind)
        in_bytes = self.gguf.quants.quant_shape_to_byte_shape(shape, known)
        self.at = at
        raw = self.take("u1", math.prod(in_bytes)).reshape(in_bytes)
        return StoredTensor(kind=known, shape=shape, raw=raw)


def blocks(tensor: StoredTensor) -> Iterator[np.ndarray]:
    """Yield a tensor's values in fp32, by rows; to the weights of a norm llama.cpp has added 1.

    Raises NotImplementedError for a quantisation that `gguf` cannot dequantise.
    """
    dequantize = gguf_package().quants.dequantize
    if len(tensor.shape) == 1:
        yield dequantize(tensor.raw, tensor.kind) - 1
        return
    for start in range(0, len(tensor.raw), _ROWS):
        yield dequantize(tensor.raw[start : start + _ROWS], tensor.kind)


def undone(path: Path, error: NotImplementedError) -> ValueError:
    """Return the error for a file with a quantisation that `gguf` cannot dequantise."""
    return ValueError(f"{path}: {error}: take the model in another quantisation, such as Q8_0")
