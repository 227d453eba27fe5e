"""Gemma 3 by name: the embedded model, a folder, or Google's weights from where a user has them.

Google's models come in the same Hugging Face layout from an attached Kaggle input, from Kaggle
through `kagglehub`, or from the Hugging Face hub; each that fails is one line of the error. There
is never a login prompt: credentials come from the environment or the host's secrets.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import sentencepiece as spm
from tunix.models.gemma3.model import Gemma3

from nblib.models.gemma3 import load_model
from nblib.sources.hubs import kaggle_errors
from nblib.tokens.tokenizer import load_tokenizer

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
KAGGLE_INPUT = Path("/kaggle/input")
# Kaggle handle and Hugging Face repository.
GEMMA: Mapping[str, tuple[str, str]] = {
    f"gemma3-{size}{kind}": (
        f"google/gemma-3/transformers/gemma-3-{size}{kind}",
        f"google/gemma-3-{size}{kind or ('-pt' if size == '1b' else '')}",
    )
    for size in ("270m", "1b")
    for kind in ("", "-it")
}


class ModelNotFound(FileNotFoundError):
    """No source has the model; the message has a line for each and says what to do."""


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

    def with_model(self, model: Gemma3, *, name: str) -> "RefModel":
        """Return the same with other weights, as after a fine-tune."""
        return replace(self, name=name, model=model)


def get_gemma_ref_model(
    name: str, mesh: jax.sharding.Mesh, *, dtype: type = jnp.float32
) -> RefModel:
    """Load a Gemma 3 by name ("embedded", "gemma3-1b-it", "gemma3-270m-it", ...) or folder.

    Weights are fp32 unless said otherwise: adapters get the base's dtype, and in bf16 small
    updates are lost. On a TPU a matrix product of fp32 weights still runs in bf16 passes.
    Raises ModelNotFound, and what `load_model` raises for a broken folder.
    """
    folder = find_model(name)
    tokenizer = load_tokenizer(folder)
    return RefModel(
        name=name,
        folder=folder,
        model=load_model(folder, tokenizer, mesh=mesh, dtype=dtype),
        tokenizer=tokenizer,
        sha256=weights_sha256(folder),
    )


def find_model(name: str) -> Path:
    """Return the folder of a model by name or path, downloading it if it must.

    Raises ModelNotFound saying what was tried.
    """
    if name == EMBEDDED:
        return EMBEDDED_FOLDER
    if Path(name).is_dir():
        return Path(name)
    if name not in GEMMA:
        known = ", ".join((EMBEDDED, *GEMMA))
        raise ModelNotFound(f"model {name!r} is no folder and no known name ({known})")
    return _first_that_works(name)


def weights_sha256(folder: Path) -> str:
    """Return one SHA-256 over the folder's weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _first_that_works(name: str) -> Path:
    kaggle_handle, repository = GEMMA[name]
    sources: tuple[tuple[str, Callable[[], Path]], ...] = (
        ("attached Kaggle input", lambda: _attached(name)),
        ("kagglehub", lambda: _from_kaggle(kaggle_handle)),
        ("Hugging Face", lambda: _from_hugging_face(repository)),
    )
    out_of_reach: tuple[type[Exception], ...] = (*kaggle_errors(), ImportError)
    lines = []
    for source, load in sources:
        try:
            return load()
        except out_of_reach as error:
            reason = str(error).strip() or repr(error)
            lines.append(f"  {source}: {type(error).__name__}: {reason.splitlines()[0][:200]}")
    raise ModelNotFound(
        f"{name} was not found:\n"
        + "\n".join(lines)
        + f"\nAttach the Kaggle model {kaggle_handle}, or accept the licence on its page and set "
        "KAGGLE_USERNAME and KAGGLE_KEY (or HF_TOKEN), or give a folder as MODEL."
    )


def _attached(name: str) -> Path:
    """Find the model among the attached inputs by its files; mount points differ between hosts."""
    wanted = name.replace("gemma3-", "gemma-3-")
    for config in sorted(KAGGLE_INPUT.rglob("config.json")):
        folder = config.parent
        if wanted in folder.parts and any(folder.glob("*.safetensors")):
            return folder
    raise FileNotFoundError(f"no folder of {wanted} under {KAGGLE_INPUT}")


def _from_kaggle(handle: str) -> Path:
    import kagglehub

    return Path(kagglehub.model_download(handle))


def _from_hugging_face(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "tokenizer.model"]
    token = os.environ.get("HF_TOKEN") or None
    return Path(snapshot_download(repository, allow_patterns=patterns, token=token))
