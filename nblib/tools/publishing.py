"""What would be published of an export, for Kaggle or the Hugging Face hub; `sending` sends it.

Everything that a hub would refuse late is refused here, before a byte is sent: names, licence,
card, metadata. The export is read and never changed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.files import read_json
from nblib.hosts.inputs import ExportNotFound, find_export
from nblib.models.folders import (
    CARD_FILE,
    MANIFEST_FILE,
    is_adapter_folder,
    orbax_trees,
    read_manifest,
)
from nblib.models.licences import LICENCES, Licence, licence_of, root_of
from nblib.models.published import credential_values
from nblib.tools.metadata import (
    REPOSITORY,
    CardMetadata,
    DatasetMetadata,
    Metadata,
    VariationMetadata,
)
from nblib.tools.notebooks import notebook_infos


@dataclass(frozen=True, kw_only=True)
class Package:
    """What would be sent, checked: an export's files, its Orbax trees, and a hub's metadata."""

    target: str
    name: str
    folder: Path
    licence: Licence
    metadata: Any  # of nblib.tools.metadata
    files: tuple[Path, ...]
    trees: tuple[Path, ...]

    def __str__(self) -> str:
        """What goes where, a line a file."""
        lines = [f"{self.folder} to {self.target} {self.name}, private"]
        lines += [f"  {path.name:36}{_kilobytes(path)}" for path in self.files]
        for tree in self.trees:
            inside = files_of(tree)
            lines.append(f"  {tree.name + '.zip':36}{_kilobytes(*inside)}, {len(inside)} files")
        content = json.dumps(self.metadata.content, indent=2, ensure_ascii=False)
        return "\n".join([*lines, f"{self.metadata.file}: {content}", self.licence.sentence])


def newest_export(given: str = "") -> Path:
    """Return a folder as `find_export` takes it, or a notebook's export; "": the newest tuned one.

    An export that another notebook has gone on from gives way to that one's: with both there,
    GRPO's is taken, not that of the SFT before it.

    Raises ExportNotFound.
    """
    infos = notebook_infos()
    if given:
        return find_export(given) if given in infos else find_export("", given)
    found: dict[str, Path] = {}
    looked = []
    for name in [name for name, info in infos.items() if info.is_tuned]:
        try:
            found[name] = find_export(name)
        except ExportNotFound as error:
            looked.append(str(error))
    if not found:
        none = "no notebook here exports a tuned model: give a folder"
        raise ExportNotFound("\n".join(looked) or none)
    gone_on = {read for name in found for read in infos[name].reads}
    last = [path for name, path in found.items() if name not in gone_on]
    return max(last, key=lambda folder: (folder / MANIFEST_FILE).stat().st_mtime)


def plan_package(
    target: str, name: str, folder: Path, *, licence: str = "", gguf: str = ""
) -> Package:
    """Check an export and all that a hub wants to know of it; nothing is sent.

    The target is "kaggle-dataset", "kaggle-model" or "huggingface"; the name of a Kaggle model may
    be `owner/name/variation`. A `dataset-metadata.json` of one's own in the folder wins over what
    would be made, key by key. A licence is needed where the export's root is none that is known.
    With `gguf`, one of `GGUF_KINDS`, the model goes along as such a file.

    Raises ValueError and FileNotFoundError saying what is wrong or missing.
    """
    manifest = read_manifest(folder)
    _check_export(folder, manifest)
    chosen = _chosen_licence(manifest, licence)
    metadata = _metadata(target, name, folder, manifest, chosen)
    along = (_gguf_file(folder, gguf),) if gguf else ()
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    for path in files:
        text = path.read_text(encoding="utf-8") if path.suffix in (".json", ".md") else ""
        if any(secret in text for secret in credential_values()):
            raise ValueError(
                f"{path} holds one of your credentials: take it out, and make a new one"
            )
    return Package(
        target=target,
        name=name,
        folder=folder,
        licence=chosen,
        metadata=metadata,
        files=(*(path for path in files if path.name != DatasetMetadata.file), *along),
        trees=tuple(orbax_trees(folder)),
    )


def _gguf_file(export: Path, kind: str) -> Path:
    from nblib.models.exports import gguf_of  # brings jax

    try:
        return gguf_of(export, kind)
    except (ImportError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def _check_export(folder: Path, manifest: Mapping[str, Any]) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give an export")
    if "not_equal" in manifest:
        raise ValueError(f"{folder} did not answer as the model in memory: export it again")
    if "tokenizer_sha256" not in manifest:
        raise ValueError(
            f"{folder} has no {MANIFEST_FILE} of an export: give what a notebook exported"
        )
    trees = orbax_trees(folder)
    if not trees and not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder} holds no weights: export the model again")
    if not (folder / CARD_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} has no model card, {CARD_FILE}: its notebook writes it, run that to the end"
        )
    others = [path.name for path in folder.iterdir() if path.is_dir() and path not in trees]
    if others:
        raise ValueError(f"{folder} holds the folder {others[0]}, no Orbax tree: move it elsewhere")


def _chosen_licence(manifest: Mapping[str, Any], given: str) -> Licence:
    known = licence_of(manifest)
    if known is None and not given:
        raise ValueError(
            f"all began with {root_of(manifest) or 'no model'!r}, whose licence is not known here: "
            f"say it, --licence {' or '.join(LICENCES)}"
        )
    if known and given not in ("", known.name):
        raise ValueError(f"the licence is {known.name}, that of its root, and cannot be {given!r}")
    return known or LICENCES[given]


def _metadata(
    target: str, name: str, folder: Path, manifest: Mapping[str, Any], licence: Licence
) -> Metadata:
    from huggingface_hub import metadata_load

    parts = name.split("/")
    match target:
        case "huggingface":
            if not re.fullmatch(REPOSITORY, name) or len(name) > 96:
                expected = "owner/name of at most 96 characters"
                raise ValueError(f"repository is {name!r}, expected {expected}")
            return CardMetadata.checked(
                (metadata_load(folder / CARD_FILE) or {}) | {"license": licence.name}
            )
        case "kaggle-dataset":
            values = {
                "id": name,
                "title": parts[-1].replace("-", " "),
                "licenses": [{"name": licence.kaggle_dataset}],
                "description": (folder / CARD_FILE)
                .read_text("utf-8")
                .split("\n---\n", 1)[-1]
                .strip(),
            }
            own = folder / DatasetMetadata.file
            given = read_json(own) if own.is_file() else {}
            if given.get("id", name) != name:
                raise ValueError(f"{own}: id is {given['id']!r}, the command says {name!r}: which?")
            return DatasetMetadata.checked(values | given)
    if len(parts) not in (2, 3):
        raise ValueError(f"model is {name!r}, expected owner/name or owner/name/variation")
    kind = "-adapters" if is_adapter_folder(folder) else ""
    variation = f"{manifest.get('notebook', 'default')}{kind}".replace("_", "-")
    values = {
        "ownerSlug": parts[0],
        "modelSlug": parts[1],
        "instanceSlug": parts[2] if len(parts) == 3 else variation,
        "framework": "flax" if orbax_trees(folder) else "transformers",
        "licenseName": licence.kaggle_model,
    }
    return VariationMetadata.checked(values)


def files_of(tree: Path) -> list[Path]:
    """Return the files below a folder, in the order of their names."""
    return sorted(path for path in tree.rglob("*") if path.is_file())


def _kilobytes(*files: Path) -> str:
    return f"{sum(path.stat().st_size for path in files) / 1e3:12,.1f} kB"
