"""Folders of a model or its adapters: what lies in them, and writing them whole or not at all.

Only a folder that was made here is replaced: one whose manifest has the tokenizer's hash, which
every writer here adds. This module imports no jax.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sentencepiece as spm

from nblib.files import OBJECT, POSITIVE, TEXT, field, read_object, write_json
from nblib.tokens.tokenizer import check_tokenizer, tokenizer_hashes

MANIFEST_FILE = "manifest.json"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"  # for other programs
ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
CARD_FILE = "README.md"
GGUF_KINDS = ("f16", "q8_0")  # that are written: of the matrices; norms are fp32
_HASH = "tokenizer_sha256"  # of `tokenizer_hashes`


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a model folder's manifest, empty when its maker wrote none (as in a download).

    Raises ValueError, naming file and field, for one that says of its base or tokenizer what
    cannot be read.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return {}
    manifest = read_object(path)
    base = field(manifest, "base", OBJECT, path) if "base" in manifest else {}
    for values, name in ((base, "name"), (base, "sha256"), (base, "root"), (manifest, _HASH)):
        if name in values:
            field(values, name if values is manifest else f"base.{name}", TEXT, path)
    field(base, "base.rope_factor", POSITIVE, path, default=1.0)
    return manifest


def orbax_trees(folder: Path) -> list[Path]:
    """Return the Orbax trees in a folder, as Kaggle's Flax variations hold one."""
    return sorted(mark.parent for mark in folder.glob("*/_METADATA"))


def weights_sha256(folder: Path) -> str:
    """Return one SHA-256 over the folder's weight files, in the order of their names.

    A folder without safetensors holds an Orbax tree one level below: all of its files count.
    """
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors")) or sorted(set(folder.rglob("*/*")))
    for path in filter(Path.is_file, files):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def gguf_name(kind: str) -> str:
    """Return the name of the GGUF file that is written for a kind."""
    return f"model-{kind}.gguf"


def gguf_files(folder: Path) -> list[Path]:
    """Return the GGUF files in a folder, in the order of their names."""
    return sorted(folder.glob("*.gguf"))


def is_gguf_folder(folder: Path) -> bool:
    """Return whether a folder holds one GGUF file and no model in another layout."""
    return len(gguf_files(folder)) == 1 and not (folder / CONFIG_FILE).is_file()


def is_adapter_folder(folder: Path) -> bool:
    """Return whether a folder holds adapters rather than a model."""
    return (folder / ADAPTER_CONFIG_FILE).is_file()


def check_folders_tokenizer(
    folder: Path, tokenizer: spm.SentencePieceProcessor, *, size: int
) -> None:
    """Raise TokenizerMismatch for another tokenizer than the one that a folder was made with."""
    sha256 = read_manifest(folder).get(_HASH)
    check_tokenizer(tokenizer, size=size, sha256=sha256, where=str(folder))


@contextmanager
def new_folder(
    folder: Path, tokenizer: spm.SentencePieceProcessor, manifest: Mapping[str, Any], *, size: int
) -> Iterator[Path]:
    """Yield an empty folder; it gets its name and a manifest when the block ends well.

    The manifest gains the tokenizer's size and fingerprint. A folder that an earlier start of this
    run wrote is replaced.
    Raises FileExistsError for another folder, and TokenizerMismatch for a tokenizer that has not as
    many pieces as the model's vocabulary, `size`.
    """
    check_tokenizer(tokenizer, size=size, sha256=None, where="the model")
    check_replaceable(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        write_json(partial / MANIFEST_FILE, {**manifest, **tokenizer_hashes(tokenizer)})
        rename_folder(partial, folder)
    except BaseException:  # half a model would only take disk space
        shutil.rmtree(partial, ignore_errors=True)
        raise


def rename_folder(source: Path, folder: Path) -> None:
    """Give `source` the name `folder`, in place of what an earlier start of this run wrote.

    A kill leaves the old folder or the new one under that name, or none, never half of either.
    Raises FileExistsError when `folder` holds something that was not made here.
    """
    check_replaceable(folder)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    source.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raise FileExistsError when `folder` holds something that was not made here."""
    try:
        own = not folder.exists() or _HASH in read_manifest(folder)
    except ValueError:  # another program's manifest
        own = False
    if not own:
        raise FileExistsError(f"{folder} holds something else: choose a new folder for the model")
