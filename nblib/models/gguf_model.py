"""GGUF files of Gemma 3, as llama.cpp, Ollama and LM Studio have them, read into a model folder.

A file is converted once, into a cache; from there on it is a Hugging Face folder like any other.
"""

import fcntl
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import sentencepiece as spm

from nblib.files import COUNT, POSITIVE, TEXT, Kind, cache_folder, field, naming, shown, write_json
from nblib.models.config_file import GENERATION_FILE, config_values, parse_config
from nblib.models.folders import CONFIG_FILE, WEIGHTS_FILE, new_folder
from nblib.models.gguf_file import (
    ARCHITECTURE,
    ROOT,
    GgufFile,
    StoredTensor,
    blocks,
    read_gguf,
    tensor_names,
    undone,
)
from nblib.models.layout import expected_shapes
from nblib.models.weight_files import check_names
from nblib.tokens.tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    TOKENIZER_FILE,
    UNK_ID,
    stop_tokens,
)

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # SentencePiece's numbers
SPACE = "▁"  # SentencePiece's; llama.cpp writes a plain space in user-defined tokens

_LIST = Kind("a list", lambda value: isinstance(value, list))


def as_folder(path: Path) -> Path:
    """Return the folder that holds a file's model, converting it when it is not in the cache.

    Raises ValueError for a file that is damaged or no Gemma 3, ImportError without the package
    `gguf`, OSError naming the file that a full disk does not take.
    """
    with path.open("rb") as file:
        folder = cached_folder(hashlib.file_digest(file, "sha256").hexdigest())
    if not folder.is_dir():
        with _locked(folder):
            if not folder.is_dir():  # another process may have been faster
                convert(path, folder)
    return folder


def cached_folder(sha256: str) -> Path:
    """Return where the model of a file with this SHA-256 lies, or will lie."""
    return cache_folder() / "gguf" / sha256[:16]


def convert(path: Path, folder: Path) -> None:
    """Write the model of a GGUF file as a Hugging Face folder, whole or not at all.

    The weights become fp32, or bf16 where all matrices of the file are. Raises as `as_folder`.
    """
    file = read_gguf(path)
    tokenizer = _tokenizer(file)
    config = parse_config(_config(file, len(tokenizer)), path)
    names = tensor_names(config.num_layers)
    tensors = {names.get(name, name): tensor for name, tensor in file.tensors.items()}
    found = {name: (path, tensor.shape) for name, tensor in tensors.items()}
    check_names(path, found, expected_shapes(config))
    matrices = {tensor.kind.name for tensor in tensors.values() if len(tensor.shape) > 1}
    dtype = jnp.dtype("bfloat16" if matrices == {"BF16"} else "float32")
    manifest = {"gguf": {"file": path.name, "matrices": sorted(matrices)}, **_base(file)}
    with new_folder(folder, tokenizer, manifest, size=config.num_embed) as partial:
        (partial / TOKENIZER_FILE).write_bytes(tokenizer.serialized_model_proto())
        try:
            _write_weights(partial / WEIGHTS_FILE, tensors, dtype)
        except NotImplementedError as error:
            raise undone(path, error) from error
        write_json(partial / CONFIG_FILE, config_values(config, tokenizer, dtype))
        ends = {"eos_token_id": list(stop_tokens(tokenizer)), "pad_token_id": tokenizer.pad_id()}
        write_json(partial / GENERATION_FILE, ends)


def _config(file: GgufFile, vocabulary: int) -> dict[str, Any]:
    """Return the keys of `config.json`; what a file leaves out is what llama.cpp then takes."""
    head = f"{ARCHITECTURE}."
    # No two keys end alike: "gemma3.attention.head_count", "gemma3.rope.scaling.factor".
    values = {k.rpartition(".")[2]: v for k, v in file.values.items() if k.startswith(head)}

    def get(name: str, kind: Kind = COUNT, **default: Any) -> Any:
        return field(values, f"{head}{name}", kind, file.path, **default)

    width, heads = get("embedding_length"), get("attention.head_count")
    head_dim = get("attention.key_length", default=width // heads)
    if get("attention.value_length", default=head_dim) != head_dim:
        raise ValueError(f"{file.path}: keys and values of a head differ in length")
    scaling = get("rope.scaling.type", TEXT, default="linear")
    factor = get("rope.scaling.factor", POSITIVE, default=1.0)
    pattern = values.get("sliding_window_pattern", 6)
    if isinstance(pattern, list):
        kinds = ["sliding_attention" if one else "full_attention" for one in pattern]
        layers = {"layer_types": kinds}
    else:
        layers = {"sliding_window_pattern": pattern}
    epsilon = get("attention.layer_norm_rms_epsilon", POSITIVE)
    return {
        "model_type": "gemma3_text",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", default=heads),
        "head_dim": head_dim,
        "query_pre_attn_scalar": head_dim,
        "sliding_window": get("attention.sliding_window"),
        "rope_theta": get("rope.freq_base", POSITIVE),
        "rope_local_base_freq": get("rope.freq_base_swa", POSITIVE, default=10_000),
        "rope_scaling": {"rope_type": scaling, "factor": factor} if scaling != "none" else None,
        "rms_norm_eps": float(f"{epsilon:.6g}"),  # it is fp32 in the file
        **{k: values.get(k) or None for k in ("attn_logit_softcapping", "final_logit_softcapping")},
        **layers,
    }


def _tokenizer(file: GgufFile) -> spm.SentencePieceProcessor:
    """Return the SentencePiece tokenizer that a file's vocabulary was made of.

    llama.cpp's files have no unknown piece, and call control what Gemma's tokenizer finds in text,
    as its chat markers.
    """
    values = {k.rpartition(".")[2]: v for k, v in file.values.items() if k.startswith("tokenizer.")}
    found = field(values, "tokenizer.ggml.model", TEXT, file.path)
    if found != "llama":
        raise ValueError(
            f"{file.path}: the vocabulary is {shown(found)}, expected 'llama' (SentencePiece)"
        )
    for name, wanted in {"bos": BOS_ID, "unknown": UNK_ID, "padding": PAD_ID}.items():
        if values.get(f"{name}_token_id", wanted) != wanted:
            number = values[f"{name}_token_id"]
            raise ValueError(f"{file.path}: {name}_token_id is {number}, Gemma's is {wanted}")
    columns = [
        field(values, f"tokenizer.ggml.{name}", _LIST, file.path)
        for name in ("tokens", "scores", "token_type")
    ]
    try:
        tokenizer = spm.SentencePieceProcessor(model_proto=_proto(*columns))
        stop_tokens(tokenizer)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"{file.path}: its vocabulary is not Gemma's: {error}") from error
    return tokenizer


def _proto(tokens: list[str], scores: list[float], kinds: list[int]) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    special = {PAD_ID: CONTROL, EOS_ID: CONTROL, BOS_ID: CONTROL, UNK_ID: UNKNOWN}
    model = sentencepiece_model_pb2.ModelProto()
    for number, (token, score, kind) in enumerate(zip(tokens, scores, kinds, strict=True)):
        kind = special.get(number, USER_DEFINED if kind in (CONTROL, UNKNOWN) else kind)
        piece = token.replace(" ", SPACE) if kind == USER_DEFINED else token
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(tokens), True
    for name, number in {"pad": PAD_ID, "eos": EOS_ID, "bos": BOS_ID, "unk": UNK_ID}.items():
        setattr(trainer, f"{name}_id", number)
        setattr(trainer, f"{name}_piece", tokens[number])
    normalizer.name, normalizer.add_dummy_prefix = "identity", False
    normalizer.remove_extra_whitespaces = False
    return model.SerializeToString()


def _base(file: GgufFile) -> dict[str, Any]:
    """Return what the manifest says of the base: the root of a file made here, or Google's name."""
    values = file.values
    root = values.get(ROOT)
    if not root and values.get("general.license") == "gemma":
        parts = [values.get(f"general.{key}") for key in ("size_label", "finetune")]
        root = "-".join(["gemma3", *(str(part).lower() for part in parts if part)])
    return {"base": {"root": root}} if root else {}


def _write_weights(path: Path, tensors: Mapping[str, StoredTensor], dtype: np.dtype) -> None:
    """Write a safetensors file block by block: eight bytes of length, a head in JSON, the data."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    kind = {"float32": "F32", "bfloat16": "BF16"}[dtype.name]
    for name, tensor in tensors.items():
        start, end = end, end + math.prod(tensor.shape) * dtype.itemsize
        head[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with naming(path), path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for block in blocks(tensor):
                file.write(np.ascontiguousarray(block, dtype))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process converts into this folder; a killed one's lock is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
