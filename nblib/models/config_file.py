"""Gemma 3's `config.json`: both dialects of `transformers` are read, the older one is written.

Tunix computes one Gemma 3. A config that asks for another, in an activation, an attention pattern
or a cap, would load and answer nonsense: it is refused by the key that differs.
Keys: https://huggingface.co/docs/transformers/model_doc/gemma3#transformers.Gemma3TextConfig
"""

from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import sentencepiece as spm
from tunix.models.gemma3.model import ModelConfig

from nblib.files import read_json
from nblib.tokens.tokenizer import stop_tokens

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
_LOCAL_PER_GLOBAL = 6  # one layer in six attends globally (Gemma 3 report, arXiv:2503.19786)
_SIZES = (
    *("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size"),
    *("num_attention_heads", "head_dim", "num_key_value_heads", "sliding_window"),
)
# What Tunix's Gemma 3 has built in, and the value of transformers where the key is absent.
_BUILT_IN: Mapping[str, Any] = {
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
}


def read_config(folder: Path, *, dtype: np.dtype | type = jnp.float32) -> ModelConfig:
    """Return Tunix's configuration for the `config.json` of a folder.

    Raises FileNotFoundError when there is none, ValueError naming the key when it is not a Gemma 3
    text model, lacks a key, or asks for what Tunix does not compute.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not a model folder")
    values = read_json(path)
    if values.get("model_type") != "gemma3_text":
        raise ValueError(
            f"{path}: model_type is {values.get('model_type')!r}, expected 'gemma3_text' "
            "(a text-only Gemma 3: 270m or 1b)"
        )
    missing = [key for key in _SIZES if key not in values]
    if missing:
        raise ValueError(f"{path} lacks {missing[0]!r}: expected a Gemma 3 text config")
    _check_built_in(values, path)
    local, everywhere, factor = _rope(values, path)
    return ModelConfig(
        num_layers=values["num_hidden_layers"],
        num_embed=values["vocab_size"],
        embed_dim=values["hidden_size"],
        hidden_dim=values["intermediate_size"],
        num_heads=values["num_attention_heads"],
        head_dim=values["head_dim"],
        num_kv_heads=values["num_key_value_heads"],
        sliding_window_size=values["sliding_window"],
        local_base_frequency=local,
        global_base_frequency=everywhere,
        global_scale_factor=factor,
        param_dtype=dtype,
    )


def config_values(
    config: ModelConfig, tokenizer: spm.SentencePieceProcessor, dtype: np.dtype | type
) -> dict[str, Any]:
    """Return the content of a `config.json` from which `transformers` builds the same model."""
    scaled = config.global_scale_factor != 1
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
        "rope_scaling": {"factor": config.global_scale_factor, "rope_type": "linear"}
        if scaled
        else None,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "max_position_embeddings": 32768,
        "pad_token_id": tokenizer.pad_id(),
        "eos_token_id": tokenizer.eos_id(),
        "bos_token_id": tokenizer.bos_id(),
        "torch_dtype": jnp.dtype(dtype).name,
    }


def generation_values(tokenizer: spm.SentencePieceProcessor) -> dict[str, Any]:
    """Return the content of a `generation_config.json`: where a completion ends."""
    return {"eos_token_id": list(stop_tokens(tokenizer)), "pad_token_id": tokenizer.pad_id()}


def check_stop_tokens(folder: Path, tokenizer: spm.SentencePieceProcessor) -> None:
    """Raise ValueError when a folder's model ends its text by a token at which nobody stops here.

    Completions end, in training and in sampling, at `stop_tokens(tokenizer)`.
    """
    path = folder / GENERATION_FILE
    if not path.is_file():
        return
    ends, known = read_json(path).get("eos_token_id") or [], stop_tokens(tokenizer)
    unknown = set([ends] if isinstance(ends, int) else ends) - set(known)
    if unknown:
        raise ValueError(
            f"{path}: the model ends its text by token {min(unknown)}, the tokenizer's ends are "
            f"{known}: take tokenizer.model and {GENERATION_FILE} from the same model"
        )


def _check_built_in(values: Mapping[str, Any], path: Path) -> None:
    for key in _SIZES:
        if not isinstance(values[key], int) or values[key] < 1:
            raise ValueError(f"{path}: {key} is {values[key]!r}, expected a number of at least 1")
    pattern = ["sliding_attention"] * (_LOCAL_PER_GLOBAL - 1) + ["full_attention"]
    kinds = list(islice(cycle(pattern), values["num_hidden_layers"]))
    expected = {
        **_BUILT_IN,
        "query_pre_attn_scalar": values["head_dim"],
        "layer_types": kinds,
        "sliding_window_pattern": _LOCAL_PER_GLOBAL,
    }
    for key, wanted in expected.items():
        found = values.get(key, 256 if key == "query_pre_attn_scalar" else wanted)
        # Falsy values are one: null for false, null for "as the model's own".
        if found != wanted and (found or wanted is True):
            raise ValueError(
                f"{path}: {key} is {found!r}, expected {wanted!r}: Tunix computes no other Gemma 3"
            )


def _rope(values: Mapping[str, Any], path: Path) -> tuple[int, int, float]:
    """Return the local and the global base frequency and the global scale, of either dialect."""
    new = values.get("rope_parameters")
    if new is None:  # transformers 4, and Google's own files
        new = {
            "sliding_attention": {"rope_theta": values.get("rope_local_base_freq")},
            "full_attention": {
                "rope_theta": values.get("rope_theta"),
                **(values.get("rope_scaling") or {}),
            },
        }
    local, everywhere = new.get("sliding_attention") or {}, new.get("full_attention") or {}
    if not local.get("rope_theta") or not everywhere.get("rope_theta"):
        raise ValueError(
            f"{path} lacks 'rope_theta' or 'rope_local_base_freq' (or 'rope_parameters'): expected "
            "a Gemma 3 text config"
        )
    kinds = (local.get("rope_type", "default"), everywhere.get("rope_type", "default"))
    if kinds[0] != "default" or kinds[1] not in ("default", "linear"):
        raise ValueError(f"{path}: rope_type is {kinds!r}: Tunix scales the global layers linearly")
    factor = float(everywhere.get("factor", 1.0)) if kinds[1] == "linear" else 1.0
    return int(local["rope_theta"]), int(everywhere["rope_theta"]), factor
