"""Gemma 3 in Tunix's implementation: named sizes, fresh weights, and the Hugging Face folder.

One folder layout everywhere: `config.json`, `model.safetensors`, `tokenizer.model`,
`tokenizer_config.json`, `generation_config.json`, here with a `manifest.json` beside them. The
embedded model is such a folder, so the path that loads the real Gemma is the path that every laptop
run takes.
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
    ROPE,
    check_stop_tokens,
    config_values,
    read_config,
    scaled,
)
from nblib.models.folders import (
    CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    check_folders_tokenizer,
    new_folder,
)
from nblib.models.layout import out_in_shape, weights_of
from nblib.models.mesh import check_model_divides
from nblib.models.weight_files import check_finite, check_weights, write_weights
from nblib.tokens.chat import chat_tokenizer_config
from nblib.tokens.tokenizer import TOKENIZER_FILE, stop_tokens

_FIELDS = (
    *("num_layers", "embed_dim", "hidden_dim", "num_heads", "head_dim", "num_kv_heads"),
    *("sliding_window_size", "num_embed"),
)
SIZES: Mapping[str, tuple[int, ...]] = {
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
    fields = dict(zip(_FIELDS, SIZES[size], strict=True))
    return ModelConfig(**fields, **ROPE, param_dtype=jnp.float32)


def init_model(config: ModelConfig, *, seed: int) -> Gemma3:
    """Return a model with fresh weights that can be trained from scratch.

    Tunix leaves the feed-forward kernels of a fresh Gemma3 at zero, where no gradient moves them:
    every weight that is no norm gets normal noise of variance 1 / fan-in (the embedding 1 / width,
    because it is multiplied by the root of the width on the way in).
    """
    model = Gemma3(config, rngs=nnx.Rngs(seed))
    weights = weights_of(model)
    keys = jax.random.split(jax.random.key(seed), 1 + len(weights))
    for key, (path, variable) in zip(keys, weights, strict=False):
        value = variable.get_value()
        if path[-1] != "scale":
            scale = 1 / math.sqrt(out_in_shape(value.shape, path[-2])[-1])
            variable.set_value(scale * jax.random.normal(key, value.shape, jnp.float32))
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

    Adapters must have been merged. The manifest gains the tokenizer's size and fingerprint.
    Raises FileExistsError when `folder` holds something that was not made here.
    """
    with new_folder(folder, tokenizer, manifest, size=model.num_embed) as partial:
        (partial / TOKENIZER_FILE).write_bytes(tokenizer.serialized_model_proto())
        write_json(partial / TOKENIZER_CONFIG_FILE, chat_tokenizer_config(tokenizer))
        write_weights(model, partial, dtype)
        write_json(partial / CONFIG_FILE, config_values(model.config, tokenizer, dtype))
        ends = {"eos_token_id": list(stop_tokens(tokenizer)), "pad_token_id": tokenizer.pad_id()}
        write_json(partial / GENERATION_FILE, ends)


def load_model(
    folder: Path | str,
    tokenizer: spm.SentencePieceProcessor,
    *,
    mesh: jax.sharding.Mesh | None = None,
    dtype: np.dtype | type = jnp.float32,
    rope_factor: float = 0,
) -> Gemma3:
    """Load a Hugging Face Gemma 3 folder, checked against the tokenizer that will be used.

    `rope_factor` is for `config_file.scaled`: 0 is that of the folder's config.json.

    Raises FileNotFoundError for a missing file, TokenizerMismatch for another tokenizer than the
    folder's, and ValueError for a config.json of another model, a damaged file, tensors that are
    missing, extra, renamed, of another shape or not finite, and a mesh that does not divide them.
    """
    folder = Path(folder)
    config = scaled(read_config(folder, dtype=dtype), rope_factor)
    if mesh is not None:
        check_model_divides(config, mesh)
    check_folders_tokenizer(folder, tokenizer, size=config.num_embed)
    check_stop_tokens(folder, tokenizer)
    uniform = check_weights(folder, config)
    model = params_safetensors.create_model_from_safe_tensors(
        str(folder), config, mesh, dtype=dtype, mode="auto" if uniform else "original"
    )
    check_finite(model, folder)
    return model
