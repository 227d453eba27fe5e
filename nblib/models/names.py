"""Gemma 3 by name or folder, with the tokenizer of its own folder: what every notebook starts from.

A folder of adapters is loaded over the base that it names.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import sentencepiece as spm
from tunix.models.gemma3.model import Gemma3

from nblib.models.adapters import is_adapter_folder, load_adapters, read_adapter_info
from nblib.models.flax_folder import load_flax_model
from nblib.models.folders import orbax_trees, read_manifest
from nblib.models.gemma3 import load_model
from nblib.models.published import ModelNotFound, find_model
from nblib.models.weight_files import weights_sha256
from nblib.tokens.tokenizer import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class RefModel:
    """A loaded model with the tokenizer of its own folder.

    `sha256` is the hash of the folder's weights: two runs on the same base have the same one.
    """

    name: str
    folder: Path
    model: Gemma3
    tokenizer: spm.SentencePieceProcessor
    sha256: str

    @property
    def described(self) -> dict[str, str]:
        """What the manifest of a fine-tune says of its base; `root` is what all began with.

        A folder is named in full: what `latest` points at moves on.
        """
        folder = self.folder.resolve()
        name = str(folder) if Path(self.name).resolve() == folder else self.name
        base = read_manifest(self.folder).get("base", {})
        return {"name": name, "sha256": self.sha256, "root": base.get("root", name)}

    def with_model(self, model: Gemma3, *, name: str) -> "RefModel":
        """Return the same with other weights, as after a fine-tune."""
        return replace(self, name=name, model=model)


def get_gemma_ref_model(
    name: str, mesh: jax.sharding.Mesh, *, dtype: type = jnp.float32, base: str = ""
) -> RefModel:
    """Load a Gemma 3 by name ("embedded", "gemma3-1b-it", "gemma3-270m-it", ...) or folder.

    A folder of adapters is merged into the base it was made over: the one that it names, or `base`
    (a name or folder) where that one lies elsewhere.

    Weights are fp32 unless said otherwise: adapters get the base's dtype, and in bf16 small
    updates are lost. On a TPU a matrix product of fp32 weights still runs in bf16 passes.
    Raises ModelNotFound, AdapterMismatch, and what `load_model` raises for a broken folder.
    """
    folder = find_model(name)
    if is_adapter_folder(folder):
        return _over_its_base(folder, mesh, dtype=dtype, name=name, base=base)
    if base:
        raise ValueError(f"base {base!r} is given, but {folder} is a whole model: leave it out")
    tokenizer = load_tokenizer(folder)
    load = load_flax_model if orbax_trees(folder) else load_model
    return RefModel(
        name=name,
        folder=folder,
        model=load(folder, tokenizer, mesh=mesh, dtype=dtype),
        tokenizer=tokenizer,
        sha256=weights_sha256(folder),
    )


def _over_its_base(
    folder: Path, mesh: jax.sharding.Mesh, *, dtype: type, name: str, base: str
) -> RefModel:
    wanted = base or read_adapter_info(folder).base_name
    try:
        below = get_gemma_ref_model(wanted, mesh, dtype=dtype)
    except ModelNotFound as error:
        raise ModelNotFound(
            f"{folder} holds adapters over {wanted!r}, which is not here: give that base's folder"
            f"\n{error}"
        ) from error
    model = load_adapters(
        folder, below.model, below.tokenizer, base_name=wanted, base_sha256=below.sha256
    )
    both = f"{below.sha256} {weights_sha256(folder)}"
    sha256 = hashlib.sha256(both.encode()).hexdigest()
    return replace(below, name=name, folder=folder, model=model, sha256=sha256)
