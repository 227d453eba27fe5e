"""Gemma 3 in Tunix's implementation: named sizes, fresh weights, and the Hugging Face folder.

One folder layout everywhere: `config.json`, `model.safetensors`, `tokenizer.model`,
`generation_config.json`, here with a `manifest.json` beside them. The embedded model is such a
folder, so the path that loads the real Gemma is the path that every laptop run takes.
Layout and names: https://huggingface.co/google/gemma-3-1b-it/tree/main
"""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece as spm
from flax import nnx
from safetensors.numpy import save_file
from tunix.models.gemma3 import params_safetensors
from tunix.models.gemma3.model import Gemma3, ModelConfig

from nblib.runs import write_json
from nblib.tokens.tokenizer import TOKENIZER_FILE, check_tokenizer, stop_tokens, tokenizer_seal

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "model.safetensors"
_LOCAL_PER_GLOBAL = 6  # one layer in six attends globally (Gemma 3 report, arXiv:2503.19786)

# num_layers, embed_dim, hidden_dim, num_heads, head_dim, num_kv_heads, sliding_window, vocabulary
SIZES: Mapping[str, tuple[int, int, int, int, int, int, int, int]] = {
    "embedded": (6, 160, 384, 4, 32, 1, 256, 544),
    "tiny": (12, 320, 1456, 4, 80, 1, 256, 544),
    "small": (12, 640, 3136, 4, 160, 1, 512, 544),
    "medium": (18, 1024, 5504, 8, 128, 2, 512, 544),
}


def model_config(size: str) -> ModelConfig:
    """Return the configuration of a named size, in fp32.

    Raises ValueError naming the sizes there are.
    """
    if size not in SIZES:
        raise ValueError(f"model size {size!r} is unknown: expected one of {', '.join(SIZES)}")
    layers, embed, hidden, heads, head_dim, kv_heads, window, vocabulary = SIZES[size]
    return ModelConfig(
        num_layers=layers,
        num_embed=vocabulary,
        embed_dim=embed,
        hidden_dim=hidden,
        num_heads=heads,
        head_dim=head_dim,
        num_kv_heads=kv_heads,
        sliding_window_size=window,
        local_base_frequency=10_000,  # Gemma 3
        global_base_frequency=1_000_000,  # Gemma 3
        param_dtype=jnp.float32,
    )


def init_model(config: ModelConfig, *, seed: int) -> Gemma3:
    """Return a model with fresh weights that can be trained from scratch.

    Tunix leaves the feed-forward kernels of a fresh Gemma3 at zero, where no gradient moves them:
    every leaf that is not a norm gets normal noise scaled by its fan-in (the embedding by its
    width, as it is multiplied by the root of that width on the way in).
    """
    model = Gemma3(config, rngs=nnx.Rngs(seed))
    keys = jax.random.split(jax.random.key(seed), 1 + len(_flat(model)))
    for key, (path, variable) in zip(keys, _flat(model), strict=False):
        if path[-1] == "scale":
            continue
        scale = 1 / math.sqrt(_fan_in(path, variable.get_value().shape))
        variable.set_value(scale * jax.random.normal(key, variable.get_value().shape, jnp.float32))
    return model


def parameter_count(model: nnx.Module, kind: type[nnx.Variable] = nnx.Param) -> int:
    """Return the number of weights of a kind (`nnx.Param` includes LoRA's)."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, kind)))


def save_model(
    model: Gemma3,
    tokenizer: spm.SentencePieceProcessor,
    folder: Path,
    *,
    manifest: Mapping[str, Any],
    dtype: np.dtype | type = jnp.float32,
) -> None:
    """Write a Hugging Face model folder with tokenizer and manifest, whole or not at all.

    Adapters must have been merged. The manifest gains the tokenizer's size and fingerprint. A
    folder that an earlier start of this run wrote is replaced; anything else is left alone.
    Raises FileExistsError when `folder` holds something that this function did not make.
    """
    if folder.exists() and "tokenizer_sha256" not in read_manifest(folder):
        raise FileExistsError(f"{folder} holds something else: choose a new folder for the model")
    check_tokenizer(tokenizer, size=model.num_embed, sha256=None, where="the model")
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_to_hugging_face(model, dtype), partial / WEIGHTS_FILE, metadata={"format": "pt"})
    (partial / TOKENIZER_FILE).write_bytes(tokenizer.serialized_model_proto())
    write_json(partial / "config.json", _hugging_face_config(model.config, tokenizer, dtype))
    write_json(
        partial / "generation_config.json",
        {"eos_token_id": list(stop_tokens(tokenizer)), "pad_token_id": tokenizer.pad_id()},
    )
    write_json(partial / MANIFEST_FILE, {**manifest, **tokenizer_seal(tokenizer)})
    # A kill between these lines leaves the old folder or the new one, never half of either.
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_model(
    folder: Path | str,
    tokenizer: spm.SentencePieceProcessor,
    *,
    mesh: jax.sharding.Mesh | None = None,
    dtype: np.dtype | type = jnp.float32,
) -> Gemma3:
    """Load a Hugging Face Gemma 3 folder, checked against the tokenizer that will be used.

    Raises FileNotFoundError for a missing file, ValueError for a config.json that is not
    Gemma 3's, TokenizerMismatch for another tokenizer than the folder's.
    """
    folder = Path(folder)
    config = read_config(folder, dtype=dtype)
    manifest = read_manifest(folder)
    check_tokenizer(
        tokenizer,
        size=config.num_embed,
        sha256=manifest.get("tokenizer_sha256"),
        where=str(folder),
    )
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder} holds no *.safetensors: the weights are missing")
    return params_safetensors.create_model_from_safe_tensors(str(folder), config, mesh, dtype=dtype)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a model folder's manifest, empty when its maker wrote none (as in a download)."""
    path = folder / MANIFEST_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def read_config(folder: Path, *, dtype: np.dtype | type = jnp.float32) -> ModelConfig:
    """Return Tunix's configuration for the `config.json` of a folder.

    Raises FileNotFoundError when there is none, ValueError when it is not a Gemma 3 text model or
    lacks a key.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not a model folder")
    values = json.loads(path.read_text())
    if values.get("model_type") != "gemma3_text":
        raise ValueError(
            f"{path}: model_type is {values.get('model_type')!r}, expected 'gemma3_text' "
            "(a text-only Gemma 3: 270m or 1b)"
        )
    try:
        return ModelConfig(
            num_layers=values["num_hidden_layers"],
            num_embed=values["vocab_size"],
            embed_dim=values["hidden_size"],
            hidden_dim=values["intermediate_size"],
            num_heads=values["num_attention_heads"],
            head_dim=values["head_dim"],
            num_kv_heads=values["num_key_value_heads"],
            sliding_window_size=values["sliding_window"],
            local_base_frequency=int(values["rope_local_base_freq"]),
            global_base_frequency=int(values["rope_theta"]),
            param_dtype=dtype,
        )
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}: expected a Gemma 3 text config") from error


def _flat(model: nnx.Module) -> list[tuple[tuple[Any, ...], nnx.Variable]]:
    return list(nnx.to_flat_state(nnx.state(model, nnx.Param)))


def _fan_in(path: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """Return how many inputs each output of this weight sums over."""
    match path[-2] if path[-1] in ("w", "kernel") else path[-1]:
        case "input_embedding":
            return shape[1]
        case "attn_vec_einsum":  # N H D
            return shape[0] * shape[1]
        case "q_einsum" | "kv_einsum" | "qkv_einsum":  # ... D H
            return shape[-2]
        case _:  # D F
            return shape[0]


def _hugging_face_config(
    config: ModelConfig, tokenizer: spm.SentencePieceProcessor, dtype: np.dtype | type
) -> dict[str, Any]:
    """Return what `transformers` needs to build the same model."""
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": config.num_embed,
        "hidden_size": config.embed_dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "query_pre_attn_scalar": config.head_dim,
        "sliding_window": config.sliding_window_size,
        "sliding_window_pattern": _LOCAL_PER_GLOBAL,
        "rope_theta": config.global_base_frequency,
        "rope_local_base_freq": config.local_base_frequency,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "max_position_embeddings": 32768,
        "pad_token_id": tokenizer.pad_id(),
        "eos_token_id": tokenizer.eos_id(),
        "bos_token_id": tokenizer.bos_id(),
        "torch_dtype": jnp.dtype(dtype).name,
    }


def _to_hugging_face(model: Gemma3, dtype: np.dtype | type) -> dict[str, np.ndarray]:
    """Return the weights under Hugging Face's names and in its shapes, [out, in]."""
    tensors: dict[str, jax.Array] = {
        "model.embed_tokens.weight": model.embedder.input_embedding.get_value(),
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
