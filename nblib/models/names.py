"""Gemma 3 by name or folder, with the tokenizer of its own folder: what every notebook starts from.

A folder of adapters is loaded over the base that it names, or over another: "adapters::base".
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import sentencepiece as spm
from tunix.models.gemma3.model import Gemma3

from nblib.models.adapters import check_adapters, load_adapters, read_adapter_info
from nblib.models.config_file import context_length, scaled_model
from nblib.models.flax_folder import load_flax_model
from nblib.models.folders import (
    ADAPTER_CONFIG_FILE,
    is_adapter_folder,
    orbax_trees,
    read_manifest,
    weights_sha256,
)
from nblib.models.gemma3 import init_model, load_model, model_config, parameter_count
from nblib.models.published import OVER, ModelNotFound, find_model, is_published
from nblib.tokens.tokenizer import load_tokenizer, stop_tokens, tokenizer_hashes


@dataclass(frozen=True, kw_only=True)
class RefModel:
    """A loaded model with the mesh that it is on and the tokenizer of its own folder.

    `sha256` is the hash of the folder's weights: two runs on the same base have the same one.
    `root` names what all its training began with. The RoPE factor is in no weight: it is part of
    what the model is beside them.
    """

    name: str
    folder: Path
    model: Gemma3
    tokenizer: spm.SentencePieceProcessor
    mesh: jax.sharding.Mesh
    sha256: str
    root: str

    @property
    def rope_factor(self) -> float:
        """What the positions of the global layers are divided by."""
        return float(self.model.config.global_scale_factor)

    @property
    def context(self) -> int:
        """How many tokens the model's rotation is made for."""
        return context_length(self.model.config)

    @property
    def described(self) -> dict[str, str | float]:
        """What the manifest of a fine-tune says of its base.

        Folders are named in full, because a relative name or `latest` may mean another later.
        """
        weights = {"name": _in_full(self.name), "sha256": self.sha256, "root": self.root}
        return {**weights, "rope_factor": self.rope_factor}

    @property
    def hashes(self) -> dict[str, str | int | float]:
        """The hashes of weights and tokenizer: what a checkpoint and a run's manifest hold."""
        return {"model": self.sha256, **tokenizer_hashes(self.tokenizer), **self.scaling}

    @property
    def scaling(self) -> dict[str, float]:
        """The RoPE factor by its name, {} where it is 1: what was kept before is found again."""
        return {"rope_factor": self.rope_factor} if self.rope_factor != 1 else {}

    def __str__(self) -> str:
        """One line for a notebook to print: size, precision, tokenizer and where it stops."""
        dtype = jnp.dtype(self.model.config.param_dtype).name
        stops = ", ".join(map(str, stop_tokens(self.tokenizer)))
        factor = f"RoPE factor {self.rope_factor:g}, context {self.context:,}; "
        return (
            f"{self.name}: {parameter_count(self.model):,} parameters; "
            f"{factor if self.scaling else ''}weights and the sampler's "
            f"cache in {dtype}, what is trained in float32; tokenizer {len(self.tokenizer)}, an "
            f"answer ends at {stops}"
        )

    def with_model(self, model: Gemma3, *, name: str) -> "RefModel":
        """Return the same with other weights, as after a fine-tune."""
        return replace(self, name=name, model=model)

    def at_rope_factor(self, rope_factor: float) -> "RefModel":
        """Return the same weights, not copied, with another RoPE factor."""
        return replace(self, model=scaled_model(self.model, rope_factor))


def get_gemma_ref_model(
    name: str,
    mesh: jax.sharding.Mesh,
    *,
    dtype: type | str = jnp.float32,
    rope_factor: float = 0,
) -> RefModel:
    """Load a Gemma 3 by name ("embedded", "gemma3-1b-it", "gemma3-270m-it", ...) or folder.

    A folder of adapters is merged into the base that it was made over: the one that it names, or
    the one after "::" ("path/to/adapters::gemma3-1b-it") where that lies elsewhere.
    In bf16 the weights take half the memory and half the time to be read.
    `rope_factor` replaces that of config.json; 0 keeps it, or that of adapters.
    Raises ModelNotFound, AdapterMismatch, and what `load_model` raises for a broken folder.
    """
    path, _, base = name.partition(OVER)
    folder = find_model(path)
    if is_adapter_folder(folder):
        given: dict[str, Any] = {"dtype": dtype, "rope_factor": rope_factor}
        return _over_its_base(folder, mesh, name=name, base=base, **given)
    if base:
        raise ValueError(f"{name}: {folder} is a whole model, which needs no base: leave it out")
    tokenizer = load_tokenizer(folder)
    load = load_flax_model if orbax_trees(folder) else load_model
    return RefModel(
        name=name,
        folder=folder,
        model=load(folder, tokenizer, mesh=mesh, dtype=jnp.dtype(dtype), rope_factor=rope_factor),
        tokenizer=tokenizer,
        mesh=mesh,
        sha256=weights_sha256(folder),
        root=read_manifest(folder).get("base", {}).get("root", _in_full(name)),
    )


def new_ref_model(
    size: str, tokenizer: spm.SentencePieceProcessor, mesh: jax.sharding.Mesh, *, seed: int
) -> RefModel:
    """Return a Gemma 3 of one of `gemma3.SIZES` with random weights, to be trained from nothing."""
    model = init_model(model_config(size), seed=seed)
    parts = {"model": model, "tokenizer": tokenizer, "mesh": mesh}
    return RefModel(name=size, folder=Path(), sha256="", root=size, **parts)


def model_sha256(name: str) -> str:
    """Return the `sha256` that `get_gemma_ref_model` gives this model, without loading it."""
    path, _, base = name.partition(OVER)
    folder = find_model(path)
    if not is_adapter_folder(folder):
        return weights_sha256(folder)
    return _sha256_over(folder, model_sha256(_base_of(folder, base)))


def _over_its_base(
    folder: Path,
    mesh: jax.sharding.Mesh,
    *,
    name: str,
    base: str,
    dtype: type | str,
    rope_factor: float,
) -> RefModel:
    wanted = _base_of(folder, base)
    check_adapters(folder)
    factor = rope_factor or read_adapter_info(folder).rope_factor
    try:
        below = get_gemma_ref_model(wanted, mesh, dtype=dtype, rope_factor=factor)
    except ModelNotFound as error:
        raise ModelNotFound(
            f"{folder} holds adapters over {wanted!r}, which is not here: give that base, "
            f"{folder}{OVER}BASE\n{error}"
        ) from error
    model = load_adapters(
        folder, below.model, below.tokenizer, base_name=wanted, base_sha256=below.sha256
    )
    sha256 = _sha256_over(folder, below.sha256)
    return replace(below, name=name, folder=folder, model=model, sha256=sha256)


def _base_of(adapters: Path, given: str) -> str:
    name = given or read_adapter_info(adapters).base_name
    if not name:
        raise ValueError(
            f"{adapters / ADAPTER_CONFIG_FILE}: base_model_name_or_path is empty, and no manifest "
            f"names the base: give it, {adapters}{OVER}BASE"
        )
    return name


def _sha256_over(adapters: Path, base_sha256: str) -> str:
    both = f"{base_sha256} {weights_sha256(adapters)}"
    return hashlib.sha256(both.encode()).hexdigest()


def _in_full(name: str) -> str:
    """Return a model's name with its folders in full."""
    return OVER.join(
        str(Path(part).resolve()) if Path(part).exists() and not is_published(part) else part
        for part in name.split(OVER)
    )
