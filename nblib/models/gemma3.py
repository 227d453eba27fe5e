"""Gemma 3 in Tunix's implementation: named sizes, fresh weights, and the Hugging Face folder.

One folder layout everywhere: `config.json`, `model.safetensors`, `tokenizer.model`,
`generation_config.json`, here with a `manifest.json` beside them. The embedded model is such a
folder, so the path that loads the real Gemma is the path that every laptop run takes.
Layout and names: https://huggingface.co/google/gemma-3-1b-it/tree/main
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece as spm
from flax import nnx
from tunix.models.gemma3 import params_safetensors
from tunix.models.gemma3.model import Gemma3, ModelConfig

from nblib.files import write_json
from nblib.models.config_file import (
    GENERATION_FILE,
    check_stop_tokens,
    config_values,
    generation_values,
    read_config,
)
from nblib.models.folders import CONFIG_FILE, check_folders_tokenizer, new_model_folder
from nblib.models.mesh import check_model_divides
from nblib.models.weight_files import SHARD_BYTES, check_finite, check_weights, write_weights

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
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a Hugging Face model folder with tokenizer and manifest, whole or not at all.

    Adapters must have been merged. The manifest gains the tokenizer's size and fingerprint. More
    than `shard_bytes` of weights become several files with an index.
    Raises FileExistsError when `folder` holds something that this function did not make.
    """
    with new_model_folder(
        folder, tokenizer, vocabulary=model.num_embed, manifest=manifest
    ) as partial:
        write_weights(model, partial, dtype=dtype, shard_bytes=shard_bytes)
        write_json(partial / CONFIG_FILE, config_values(model.config, tokenizer, dtype))
        write_json(partial / GENERATION_FILE, generation_values(tokenizer))


def load_model(
    folder: Path | str,
    tokenizer: spm.SentencePieceProcessor,
    *,
    mesh: jax.sharding.Mesh | None = None,
    dtype: np.dtype | type = jnp.float32,
) -> Gemma3:
    """Load a Hugging Face Gemma 3 folder, checked against the tokenizer that will be used.

    Raises FileNotFoundError for a missing file, TokenizerMismatch for another tokenizer than the
    folder's, and ValueError for a config.json of another model, for a damaged file, and for
    tensors that are missing, extra, renamed, of another shape or not finite, or a mesh that does
    not divide the model.
    """
    folder = Path(folder)
    config = read_config(folder, dtype=dtype)
    if mesh is not None:
        check_model_divides(config, mesh)
    check_folders_tokenizer(folder, tokenizer, vocabulary=config.num_embed)
    check_stop_tokens(folder, tokenizer)
    uniform = check_weights(folder, config)
    model = params_safetensors.create_model_from_safe_tensors(
        str(folder), config, mesh, dtype=dtype, mode="auto" if uniform else "original"
    )
    check_finite(model, folder)
    return model


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
