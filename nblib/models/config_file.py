"""Gemma 3's `config.json`: both dialects of `transformers` are read, and what both read is written.

Tunix computes one Gemma 3. A config that asks for another, in an activation, an attention pattern
or a cap, would load and answer nonsense: it is refused by the key that differs.
Keys: https://huggingface.co/docs/transformers/model_doc/gemma3#transformers.Gemma3TextConfig
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import sentencepiece as spm
from flax import nnx
from tunix.models.gemma3.model import AttentionType, Gemma3, ModelConfig

from nblib.files import COUNT, OBJECT, POSITIVE, TEXT, Kind, field, read_object, shown
from nblib.models.folders import CONFIG_FILE
from nblib.tokens.tokenizer import stop_tokens

GENERATION_FILE = "generation_config.json"
CONTEXT, EPSILON = 32768, 1e-6  # of the text-only Gemma 3, 270m and 1b, at the RoPE factor 1
LONGEST = 131_072  # context of any Gemma 3
ROPE_FACTORS = (1, 2, 4)  # that a user may choose: more would be longer than any context
_LOCAL_PER_GLOBAL = 6  # one layer in six attends globally (Gemma 3 report, arXiv:2503.19786)


# Both base frequencies that Gemma 3 was trained with, as Tunix names them.
ROPE = {"local_base_frequency": 10_000, "global_base_frequency": 1_000_000}
# Key in config.json -> field of Tunix's configuration.
_SIZES: Mapping[str, str] = {
    "vocab_size": "num_embed",
    "hidden_size": "embed_dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "sliding_window": "sliding_window_size",
}
_MOST = {key: 1000 if key == "num_hidden_layers" else 2**20 for key in _SIZES}
_THETA = Kind(  # Tunix takes an int32
    "a whole number from 1 to 2**31 - 1",
    lambda value: type(value) in (int, float) and 1 <= value < 2**31 and value == int(value),
)
_FACTOR = Kind(
    "a number from 1 to 1000", lambda value: POSITIVE.holds(value) and 1 <= value <= 1000
)
_ENDS = Kind(
    "a token's number, or a list of them",
    lambda value: all(
        type(one) is int and one >= 0 for one in (value if isinstance(value, list) else [value])
    ),
)
# What Tunix's Gemma 3 has built in, and the value of transformers where the key is absent.
_BUILT_IN: Mapping[str, Any] = {
    "rms_norm_eps": EPSILON,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
}


def read_config(folder: Path, *, dtype: np.dtype | type = jnp.float32) -> ModelConfig:
    """Return Tunix's configuration for the `config.json` of a folder.

    Raises FileNotFoundError when there is none; ValueError, naming file and key, for another model
    than a text-only Gemma 3, a missing key, a wrong value, and what Tunix does not compute.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not a model folder")
    return parse_config(read_object(path), path, dtype=dtype)


def parse_config(
    values: Mapping[str, Any], path: Path, *, dtype: np.dtype | type = jnp.float32
) -> ModelConfig:
    """Return Tunix's configuration for the values of a `config.json`, read from `path`.

    Raises ValueError as `read_config` does.
    """
    if values.get("model_type") != "gemma3_text":
        raise ValueError(
            f"{path}: model_type is {shown(values.get('model_type'))}, expected 'gemma3_text' "
            "(a text-only Gemma 3: 270m or 1b)"
        )
    sizes: dict[str, int] = {n: field(values, n, _whole(most), path) for n, most in _MOST.items()}
    _check_sizes(sizes, path)
    _check_built_in(values, sizes, path)
    local, everywhere, factor = _rope(values, path)
    return ModelConfig(
        **{name: sizes[key] for key, name in _SIZES.items()},
        local_base_frequency=local,
        global_base_frequency=everywhere,
        global_scale_factor=factor,
        param_dtype=dtype,
    )


def config_values(
    config: ModelConfig, tokenizer: spm.SentencePieceProcessor, dtype: np.dtype | type
) -> dict[str, Any]:
    """Return the content of a `config.json` from which `transformers` builds the same model."""
    scale = config.global_scale_factor
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **{key: getattr(config, name) for key, name in _SIZES.items()},
        "query_pre_attn_scalar": config.head_dim,
        "sliding_window_pattern": _LOCAL_PER_GLOBAL,
        "rope_theta": config.global_base_frequency,
        "rope_local_base_freq": config.local_base_frequency,
        **({"rope_scaling": None} if scale == 1 else _scaled_rope(config)),
        **{key: value for key, value in _BUILT_IN.items() if value},
        "max_position_embeddings": context_length(config),
        "pad_token_id": tokenizer.pad_id(),
        "eos_token_id": tokenizer.eos_id(),
        "bos_token_id": tokenizer.bos_id(),
        "torch_dtype": jnp.dtype(dtype).name,
    }


def scaled(config: ModelConfig, rope_factor: float) -> ModelConfig:
    """Return the configuration with this RoPE factor in place of its own; 0 leaves its own.

    The positions of the global layers, and of no other, are divided by it before the rotation.
    """
    own = config.global_scale_factor
    if not rope_factor or rope_factor == own:
        return config
    if own != 1:
        print(f"the RoPE factor is {rope_factor:g} in all, in place of the model's own {own:g}")
    return replace(config, global_scale_factor=float(rope_factor))


def scaled_model(model: Gemma3, rope_factor: float) -> Gemma3:
    """Return a model of the same weights, not copied, with this RoPE factor."""
    model = nnx.merge(*nnx.split(model))
    model.config = replace(model.config, global_scale_factor=float(rope_factor))
    for layer in model.layers:
        if layer.attn.attn_type == AttentionType.GLOBAL:
            layer.attn.rope_scale_factor = float(rope_factor)
    return model


def context_length(config: ModelConfig) -> int:
    """Return how many tokens the rotation is made for: 32,768 times the RoPE factor."""
    return min(LONGEST, int(CONTEXT * config.global_scale_factor))


def check_stop_tokens(folder: Path, tokenizer: spm.SentencePieceProcessor) -> None:
    """Raise ValueError when a model ends its text by a token that does not stop the decoder.

    Completions end, in training and in sampling, at `stop_tokens(tokenizer)`.
    """
    path = folder / GENERATION_FILE
    if not path.is_file():
        return
    ends = field(read_object(path), "eos_token_id", _ENDS, path, default=[])
    known = stop_tokens(tokenizer)
    unknown = set([ends] if isinstance(ends, int) else ends) - set(known)
    if unknown:
        raise ValueError(
            f"{path}: the model ends its text by token {min(unknown)}, the tokenizer's ends are "
            f"{known}: take tokenizer.model and {GENERATION_FILE} from the same model"
        )


def _scaled_rope(config: ModelConfig) -> dict[str, Any]:
    """Return the keys of a scaled rotation in both dialects, which agree.

    transformers 4, and vLLM with it, reads `rope_scaling` for the global layers alone; 5 merges it
    into `rope_parameters.full_attention`. Without a scale `rope_parameters` must not be there: vLLM
    with transformers 4 would write a frequency into it.
    """
    linear = {"rope_type": "linear", "factor": config.global_scale_factor}
    local, everywhere = config.local_base_frequency, config.global_base_frequency
    return {
        "rope_scaling": linear,
        "rope_parameters": {
            "full_attention": {**linear, "rope_theta": float(everywhere)},
            "sliding_attention": {"rope_type": "default", "rope_theta": float(local)},
        },
    }


def _whole(most: int) -> Kind:
    return Kind(
        f"a whole number from 1 to {most:,}", lambda value: COUNT.holds(value) and value <= most
    )


def _check_sizes(sizes: Mapping[str, int], path: Path) -> None:
    heads, shared = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    if heads % shared:
        raise ValueError(
            f"{path}: num_attention_heads {heads}, num_key_value_heads {shared}: "
            "expected a multiple of them"
        )
    if sizes["head_dim"] % 2:
        raise ValueError(f"{path}: head_dim is {sizes['head_dim']}, expected an even number")


def _check_built_in(values: Mapping[str, Any], sizes: Mapping[str, int], path: Path) -> None:
    pattern = ["sliding_attention"] * (_LOCAL_PER_GLOBAL - 1) + ["full_attention"]
    expected = {
        **_BUILT_IN,
        "query_pre_attn_scalar": sizes["head_dim"],
        "layer_types": list(islice(cycle(pattern), sizes["num_hidden_layers"])),
        "sliding_window_pattern": _LOCAL_PER_GLOBAL,
    }
    for key, wanted in expected.items():
        found = values.get(key, 256 if key == "query_pre_attn_scalar" else wanted)
        # null is false, or "as the model's own".
        if found != wanted and (found is not None or wanted is True):
            raise ValueError(
                f"{path}: {key} is {shown(found)}, expected {shown(wanted)}: Tunix computes no "
                "other Gemma 3"
            )


def _rope(values: Mapping[str, Any], path: Path) -> tuple[int, int, float]:
    """Return the local and the global base frequency and the global scale, of either dialect."""
    new = field(values, "rope_parameters", OBJECT, path, default=None)
    if new is None:  # transformers 4, and Google's own files
        name, local = "rope_scaling", "default"
        scaled = field(values, name, OBJECT, path, default={})
        thetas = [field(values, n, _THETA, path) for n in ("rope_local_base_freq", "rope_theta")]
    else:
        first, name = (f"rope_parameters.{kind}_attention" for kind in ("sliding", "full"))
        parts = {part: field(new, part, OBJECT, path) for part in (first, name)}
        thetas = [field(one, f"{part}.rope_theta", _THETA, path) for part, one in parts.items()]
        # As transformers 5 merges both dialects where a file has both; 4 knows rope_scaling alone.
        over = field(values, "rope_scaling", OBJECT, path, default={})
        local, scaled = _rope_type(parts[first], first, path), {**parts[name], **over}
    kinds = [local, _rope_type(scaled, name, path)]
    if kinds not in (["default", "default"], ["default", "linear"]):
        raise ValueError(f"{path}: rope_type is {kinds!r}: Tunix scales the global layers linearly")
    factor = field(scaled, f"{name}.factor", _FACTOR, path) if kinds[1] == "linear" else 1.0
    return int(thetas[0]), int(thetas[1]), float(factor)


def _rope_type(part: Mapping[str, Any], name: str, path: Path) -> str:
    """Return how a part is scaled; early files call the key "type"."""
    early = field(part, f"{name}.type", TEXT, path, default="default")
    return str(field(part, f"{name}.rope_type", TEXT, path, default=early))
