"""LoRA adapters alone, in the layout that `peft` loads over `Gemma3ForCausalLM`.

`adapter_config.json` and `adapter_model.safetensors` as `peft` names them, and a `manifest.json`
with the base's name and hash. Reading merges the adapters into a base; what `peft` wrote is read
as well, as far as it is plain LoRA. Layout: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece as spm
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tunix.models.gemma3.model import Gemma3

from nblib.files import COUNT, POSITIVE, TEXT, field, read_object, write_json
from nblib.models.folders import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    MANIFEST_FILE,
    new_folder,
    read_manifest,
)
from nblib.models.lora import LORA_PARAMETER
from nblib.models.published import name_of, repository_of
from nblib.tokens.tokenizer import check_tokenizer, tokenizer_seal

# The projections of Hugging Face that each of Tunix's modules holds, in the order of its axis.
_PROJECTIONS: Mapping[str, tuple[str, ...]] = {
    "q_einsum": ("self_attn.q_proj",),
    "kv_einsum": ("self_attn.k_proj", "self_attn.v_proj"),
    "qkv_einsum": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn_vec_einsum": ("self_attn.o_proj",),
    "gate_proj": ("mlp.gate_proj",),
    "up_proj": ("mlp.up_proj",),
    "down_proj": ("mlp.down_proj",),
}
_PREFIX = "base_model.model.model.layers."  # peft's wrapper, then Gemma3ForCausalLM
_NAME = re.compile(re.escape(_PREFIX) + r"(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight")
# Each of these, if it is set, changes the weights otherwise than by scale * B A, or changes other
# weights than the base's. Not here are the options that say only where adapters are, and how they
# were trained.
_NOT_PLAIN = (
    *("use_dora", "use_rslora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out"),
    *("rank_pattern", "alpha_pattern", "modules_to_save", "trainable_token_indices"),
    *("target_parameters", "layer_replication", "alora_invocation_tokens", "arrow_config"),
    *("kasa_config", "megatron_config", "monteclora_config"),
)
# These leave the base's weights as they are; "pissa", "olora", "corda", "loftq", "lora_ga" and what
# is yet to come take something from them, and `peft` does so again when it loads the adapters.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")

_Pair = tuple[np.ndarray, np.ndarray]  # A [rank, in], B [out, rank]


class AdapterMismatch(ValueError):
    """The adapters were made over another base than the one at hand."""


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """What an adapter folder says of itself; None or "" where its maker recorded nothing."""

    rank: int
    alpha: float
    base_name: str
    base_sha256: str | None
    tokenizer_sha256: str | None


def save_adapters(
    model: Gemma3,
    tokenizer: spm.SentencePieceProcessor,
    folder: Path,
    *,
    rank: int,
    alpha: float,
    manifest: Mapping[str, Any],
) -> None:
    """Write the adapters of `get_lora_model` as a PEFT folder, whole or not at all.

    `manifest["base"]` holds the base's "name" and "sha256". A published Gemma is named by its
    repository, where `peft` finds it.
    Raises ValueError when the model holds no adapters of this rank or the manifest names no base,
    FileExistsError when `folder` holds something that this function did not make.
    """
    base = manifest.get("base", {})
    if not base.get("name") or not base.get("sha256"):
        raise ValueError(f"manifest['base'] is {base!r}: it must hold the base's name and sha256")
    check_tokenizer(tokenizer, size=model.num_embed, sha256=None, where="the model")
    tensors = _to_peft(model, rank)
    repository = repository_of(base["name"])
    with new_folder(folder) as partial:
        save_file(tensors, partial / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
        write_json(partial / ADAPTER_CONFIG_FILE, _peft_config(tensors, rank, alpha, repository))
        write_json(partial / MANIFEST_FILE, {**manifest, **tokenizer_seal(tokenizer)})


def read_adapter_info(folder: Path) -> AdapterInfo:
    """Read whose adapters a folder holds, without their weights.

    The manifest's name for the base wins over `base_model_name_or_path`; a published repository
    becomes the name that `get_gemma_ref_model` takes. "" where neither names one.
    Raises FileNotFoundError when it is no adapter folder, ValueError when they are no plain LoRA.
    """
    path = folder / ADAPTER_CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not an adapter folder")
    config, manifest = read_object(path), read_manifest(folder)
    _check_plain(config, path)
    base = manifest.get("base", {})
    named = name_of(field(config, "base_model_name_or_path", TEXT, path, default=""))
    return AdapterInfo(
        rank=field(config, "r", COUNT, path),
        alpha=field(config, "lora_alpha", POSITIVE, path),
        base_name=base.get("name") or named,
        base_sha256=base.get("sha256"),
        tokenizer_sha256=manifest.get("tokenizer_sha256"),
    )


def check_adapters(folder: Path) -> None:
    """Raise ValueError where a folder's adapters change nothing: the model would be its base."""
    path = folder / ADAPTER_WEIGHTS_FILE
    pairs = _read_pairs(path, read_adapter_info(folder).rank)
    if not any(a.any() and b.any() for a, b in pairs.values()):
        raise ValueError(
            f"{path}: every product B A is zero, so the model would be its base: these adapters "
            "were never trained; save them after the training, or load the base itself"
        )


def load_adapters(
    folder: Path,
    base: Gemma3,
    tokenizer: spm.SentencePieceProcessor,
    *,
    base_name: str,
    base_sha256: str,
) -> Gemma3:
    """Return `base` with a folder's adapters merged in fp32, then in the dtype of its weights.

    `base` is left as it is.
    Raises AdapterMismatch for another base than the recorded one, TokenizerMismatch, and ValueError
    for a damaged file or tensors that do not fit.
    """
    info = read_adapter_info(folder)
    if info.base_sha256 not in (None, base_sha256):
        raise AdapterMismatch(
            f"{folder} was made over {info.base_name} (weights {info.base_sha256[:12]}), this base "
            f"is {base_name} (weights {base_sha256[:12]}): give the base that it was made over"
        )
    size = base.num_embed
    check_tokenizer(tokenizer, size=size, sha256=info.tokenizer_sha256, where=str(folder))
    pairs = _read_pairs(folder / ADAPTER_WEIGHTS_FILE, info.rank)
    merged = nnx.clone(base)
    for layer, module, weight in _weights(merged):
        wanted = [pairs.pop((layer, name), None) for name in _PROJECTIONS[module]]
        if any(wanted):
            change = _change(wanted, module, weight.get_value().shape, f"{folder}, layer {layer}")
            _add(weight, info.alpha / info.rank * change)
    if pairs:
        layer, name = next(iter(pairs))
        raise ValueError(f"{folder} adapts {name} in layer {layer}, which {base_name} has not")
    return merged


def _weights(model: Gemma3) -> Iterator[tuple[int, str, nnx.Variable]]:
    """Yield what adapters can change: number of the layer, name of the module, its weight."""
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path[0] == "layers" and path[-2] in _PROJECTIONS and path[-1] in ("w", "kernel"):
            yield path[1], path[-2], variable


def _to_peft(model: Gemma3, rank: int) -> dict[str, np.ndarray]:
    """Return the adapters under peft's names: A [rank, in], B [out, rank]."""
    flat = dict(nnx.to_flat_state(nnx.state(model, LORA_PARAMETER)))
    tensors = {}
    for path, variable in flat.items():
        if not str(path[-1]).endswith("_lora_a"):
            continue
        second = flat[*path[:-1], str(path[-1]).removesuffix("a") + "b"]
        a, b = np.asarray(variable.get_value()), np.asarray(second.get_value())
        if b.shape[0] != rank:
            raise ValueError(f"the adapters have rank {b.shape[0]}, not {rank}")
        names = _PROJECTIONS[str(path[-2])]
        a, b = a.reshape(-1, rank).T, b.reshape(rank, len(names), -1)
        for index, name in enumerate(names):  # keys and values share A
            head = f"{_PREFIX}{path[1]}.{name}.lora_"
            tensors[f"{head}A.weight"] = np.ascontiguousarray(a)
            tensors[f"{head}B.weight"] = np.ascontiguousarray(b[:, index].T)
    if not tensors:
        raise ValueError("the model holds no adapters: there is nothing to save")
    return tensors


def _peft_config(
    tensors: Mapping[str, np.ndarray], rank: int, alpha: float, base: str
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _check_plain(config: Mapping[str, Any], path: Path) -> None:
    odd = [name for name in _NOT_PLAIN if config.get(name)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        odd.append(f"init_lora_weights {config['init_lora_weights']!r}")
    if config.get("peft_type") != "LORA" or odd:
        raise ValueError(
            f"{path}: peft_type {config.get('peft_type')!r} with {', '.join(odd) or 'nothing odd'} "
            "is not plain LoRA, which is all that is read here: merge it with peft instead"
        )


def _read_pairs(path: Path, rank: int) -> dict[tuple[int, str], _Pair]:
    """Return A and B in fp32 for each layer and projection."""
    if not path.is_file():
        raise ValueError(f"{path} is missing or a folder, expected a file: save the adapters again")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; save the adapters again") from error
    if not tensors:
        raise ValueError(f"{path} holds no tensor: save the adapters again, or copy the file again")
    found: dict[tuple[int, str], dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{path} holds {name}, which is no LoRA tensor of a Gemma 3 layer")
        if not np.isfinite(tensor.astype(np.float32)).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity: save the adapters again")
        found.setdefault((int(match[1]), match[2]), {})[match[3]] = tensor.astype(np.float32)
    for (layer, name), pair in found.items():
        shapes = {part: tensor.shape for part, tensor in sorted(pair.items())}
        if set(shapes) != {"A", "B"} or {shapes["A"][0], shapes["B"][-1]} != {rank}:
            raise ValueError(
                f"{path}, layer {layer}, {name}: got {shapes}, expected A [{rank}, in] and "
                f"B [out, {rank}]"
            )
    return {key: (pair["A"], pair["B"]) for key, pair in found.items()}


def _change(
    pairs: Sequence[_Pair | None], module: str, shape: tuple[int, ...], where: str
) -> np.ndarray:
    """Return B A, of one pair a projection, in Tunix's shape of the module's weight."""
    expected = _out_in(shape, module)
    changes = [np.zeros(expected, np.float32) if one is None else one[1] @ one[0] for one in pairs]
    for name, change in zip(_PROJECTIONS[module], changes, strict=True):
        if change.shape != expected:
            raise ValueError(f"{where}: {name} changes {change.shape}, the base has {expected}")
    if module.endswith("_proj") or module == "attn_vec_einsum":
        return changes[0].T.reshape(shape)
    *_, heads, width, head_dim = shape  # (N H) D to N D H, for each projection
    split = np.stack(changes).reshape(-1, heads, head_dim, width)
    return split.swapaxes(-1, -2).reshape(shape)


def _out_in(shape: tuple[int, ...], module: str) -> tuple[int, int]:
    """Return Hugging Face's shape of one projection, for Tunix's shape of the module's weight."""
    if module == "attn_vec_einsum":
        return shape[-1], shape[0] * shape[1]
    if module.endswith("_proj"):
        return shape[1], shape[0]
    return shape[-3] * shape[-1], shape[-2]


def _add(weight: nnx.Variable, change: np.ndarray) -> None:
    """Add to a weight in fp32; its dtype and sharding stay."""
    value = weight.get_value()
    total = value.astype(jnp.float32) + jax.device_put(change, value.sharding)
    weight.set_value(total.astype(value.dtype))
