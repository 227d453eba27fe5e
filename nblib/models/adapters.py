"""LoRA adapters alone, in the layout that `peft` loads over `Gemma3ForCausalLM`.

A folder holds peft's `adapter_config.json` and `adapter_model.safetensors`, and a `manifest.json`
with the base's name and hash. Loading merges the adapters into a base. What `peft` wrote is read
too, where it is plain LoRA. Layout: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    check_folders_tokenizer,
    new_folder,
    read_manifest,
)
from nblib.models.layout import PROJECTIONS, from_out_in, out_in_shape, weights_of
from nblib.models.lora import LORA_PARAMETER, LoraConfig
from nblib.models.processes import on_host, on_mesh
from nblib.models.published import name_of, repository_of

_PREFIX = "base_model.model.model.layers."  # peft's wrapper, then Gemma3ForCausalLM
_NAME = re.compile(re.escape(_PREFIX) + r"(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight")
# Options of peft by which the weights change otherwise than by scale * B A, or other weights than
# the base's do. Options that say only where adapters are, or how they were trained, are harmless.
_NOT_PLAIN = (
    *("use_dora", "use_rslora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out"),
    *("rank_pattern", "alpha_pattern", "modules_to_save", "trainable_token_indices"),
    *("target_parameters", "layer_replication", "alora_invocation_tokens", "arrow_config"),
    *("kasa_config", "megatron_config", "monteclora_config"),
)
# Values of `init_lora_weights` that leave the base as it is. The others ("pissa", "olora", "loftq",
# ...) take something from the base, and `peft` does so again when it loads the adapters.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")

_Pair = tuple[np.ndarray, np.ndarray]  # A [rank, in], B [out, rank]


class AdapterMismatch(ValueError):
    """The adapters were made over another base than the one at hand."""


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """What an adapter folder says of itself; None or "" where its maker recorded nothing."""

    lora: LoraConfig
    base_name: str
    base_sha256: str | None
    rope_factor: float = 0  # that the base had; 0 where nothing says so: then its own


def save_adapters(
    model: Gemma3,
    tokenizer: spm.SentencePieceProcessor,
    folder: Path,
    lora: LoraConfig,
    *,
    manifest: Mapping[str, Any],
) -> None:
    """Write the adapters of `get_lora_model` as a PEFT folder, whole or not at all.

    `manifest["base"]` holds the base's "name" and "sha256". A published Gemma is named by its
    repository, where `peft` finds it.
    Raises ValueError when the model holds no adapters of this rank or the manifest names no base,
    FileExistsError when `folder` holds something that was not made here.
    """
    base = manifest.get("base", {})
    if not base.get("name") or not base.get("sha256"):
        raise ValueError(f"manifest['base'] is {base!r}: it must hold the base's name and sha256")
    tensors = _to_peft(model, lora.rank)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": repository_of(base["name"]),
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    with new_folder(folder, tokenizer, manifest, size=model.num_embed) as partial:
        save_file(tensors, partial / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
        write_json(partial / ADAPTER_CONFIG_FILE, config)


def read_adapter_info(folder: Path) -> AdapterInfo:
    """Read whose adapters a folder holds, without their weights.

    The manifest's name for the base wins over `base_model_name_or_path`; a published repository
    becomes the name that `get_gemma_ref_model` takes. "" where neither names one.
    Raises FileNotFoundError when it is no adapter folder, ValueError when it holds no plain LoRA.
    """
    path = folder / ADAPTER_CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not an adapter folder")
    config, base = read_object(path), read_manifest(folder).get("base", {})
    _check_plain(config, path)
    named = name_of(field(config, "base_model_name_or_path", TEXT, path, default=""))
    rank, alpha = field(config, "r", COUNT, path), field(config, "lora_alpha", POSITIVE, path)
    return AdapterInfo(
        lora=LoraConfig(rank=rank, alpha=alpha),
        base_name=base.get("name") or named,
        base_sha256=base.get("sha256"),
        rope_factor=base.get("rope_factor", 0),
    )


def check_adapters(folder: Path) -> None:
    """Raise ValueError where a folder's adapters change nothing: the model would be its base."""
    path = folder / ADAPTER_WEIGHTS_FILE
    pairs = _read_pairs(path, read_adapter_info(folder).lora.rank)
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
    check_folders_tokenizer(folder, tokenizer, size=base.num_embed)
    pairs = _read_pairs(folder / ADAPTER_WEIGHTS_FILE, info.lora.rank)
    merged = nnx.clone(base)
    for path, variable in weights_of(merged):
        names = PROJECTIONS.get(path[-2], ())
        given = {name: pairs.pop((path[1], name)) for name in names if (path[1], name) in pairs}
        if given:
            weight = variable.get_value()
            change = _change(given, path[-2], weight.shape, f"{folder}, layer {path[1]}")
            change *= info.lora.alpha / info.lora.rank
            total = weight.astype(jnp.float32) + on_mesh(change, weight.sharding)
            variable.set_value(total.astype(weight.dtype))
    if pairs:
        layer, name = next(iter(pairs))
        raise ValueError(f"{folder} adapts {name} in layer {layer}, which {base_name} has not")
    return merged


def _to_peft(model: Gemma3, rank: int) -> dict[str, np.ndarray]:
    """Return the adapters under peft's names: A [rank, in], B [out, rank]."""
    flat = dict(nnx.to_flat_state(nnx.state(model, LORA_PARAMETER)))
    tensors = {}
    for path, variable in flat.items():
        if not str(path[-1]).endswith("_lora_a"):
            continue
        second = flat[*path[:-1], str(path[-1]).removesuffix("a") + "b"]
        a, b = on_host((variable.get_value(), second.get_value()))
        if b.shape[0] != rank:
            raise ValueError(f"the adapters have rank {b.shape[0]}, not {rank}")
        names = PROJECTIONS[str(path[-2])]
        a, b = a.reshape(-1, rank).T, b.reshape(rank, len(names), -1)
        for index, name in enumerate(names):  # keys and values share A
            head = f"{_PREFIX}{path[1]}.{name}.lora_"
            tensors[f"{head}A.weight"] = np.ascontiguousarray(a)
            tensors[f"{head}B.weight"] = np.ascontiguousarray(b[:, index].T)
    if not tensors:
        raise ValueError("the model holds no adapters: there is nothing to save")
    return tensors


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
        part: np.ndarray = tensor.astype(np.float32)
        if not np.isfinite(part).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity: save the adapters again")
        found.setdefault((int(match[1]), match[2]), {})[match[3]] = part
    for (layer, name), pair in found.items():
        shapes = {part: tensor.shape for part, tensor in sorted(pair.items())}
        if set(shapes) != {"A", "B"} or {shapes["A"][0], shapes["B"][-1]} != {rank}:
            raise ValueError(
                f"{path}, layer {layer}, {name}: got {shapes}, expected A [{rank}, in] and "
                f"B [out, {rank}]"
            )
    return {key: (pair["A"], pair["B"]) for key, pair in found.items()}


def _change(
    given: Mapping[str, _Pair], module: str, shape: tuple[int, ...], where: str
) -> np.ndarray:
    """Return B A of each projection, zero where there is none, in the shape of Tunix's weight."""
    expected = out_in_shape(shape, module)
    changes = {name: b @ a for name, (a, b) in given.items()}
    for name, change in changes.items():
        if change.shape != expected:
            raise ValueError(f"{where}: {name} changes {change.shape}, the base has {expected}")
    none: np.ndarray = np.zeros(expected, np.float32)
    parts = [changes.get(name, none) for name in PROJECTIONS[module]]
    return from_out_in(parts, module, shape)
