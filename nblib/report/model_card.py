"""The model card: what an exported folder is, in words, from its manifest and its evaluation.

The text is in `model_card.md.j2`. Metadata as the Hugging Face hub reads it:
https://huggingface.co/docs/hub/model-cards
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from nblib.files import write_text
from nblib.models.folders import (
    CARD_FILE,
    MANIFEST_FILE,
    is_adapter_folder,
    is_gguf_folder,
    orbax_trees,
    read_manifest,
)
from nblib.models.licences import licence_of, root_of
from nblib.models.published import EMBEDDED, GEMMA, repository_of
from nblib.report.tables import in_words, stage_table
from nblib.sources.foundation import FoundationRows
from nblib.tasks.task import Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage


def write_model_card(folder: Path, task: Task, stages: Sequence["Stage"], *, title: str) -> None:
    """Write `README.md` into a folder that `export_run` made.

    Raises ValueError when the folder has no manifest to write from.
    """
    manifest = read_manifest(folder)
    if not manifest:
        raise ValueError(f"{folder} has no {MANIFEST_FILE}: there is nothing to write a card from")
    root = root_of(manifest)
    card = _template().render(
        title=title,
        task=task,
        stages=stages,
        table=stage_table(task, stages).markdown(),
        manifest=manifest,
        base=manifest.get("base", {}),
        data=manifest.get("data", {}),
        adapters=is_adapter_folder(folder),
        gguf=is_gguf_folder(folder),
        flax=bool(orbax_trees(folder)),
        licence=licence_of(manifest),
        base_model=repository_of(root) if root in GEMMA else "",
        toy=root == EMBEDDED,
        parity=_parity(manifest),
    )
    write_text(folder / CARD_FILE, card)


def foundation_manifest(
    parameters: Mapping[str, Any],
    rows: FoundationRows,
    stage: "Stage",
    history: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return which command made a foundation, from which data, with which figures by group."""
    return {
        "command": f"python -m nblib run v0_foundation -p RECIPE {parameters['recipe']}",
        "parameters": dict(parameters),
        "data": {"origin": rows.origin, "sha256": rows.sha256},
        "steps": sum("loss" in record for record in history),
        "training_minutes": sum(record.get("seconds", 0.0) for record in history) / 60,
        "validation_loss": [one["val_loss"] for one in history if "val_loss" in one][-1],
        "groups": dict(stage.by_group),
    }


def _parity(manifest: Mapping[str, Any]) -> list[str]:
    from nblib.models.parity import Parity  # brings jax

    return [str(Parity(**one)) for one in manifest.get("parity", ())]


def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("nblib", "report")
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    # JSON strings are YAML, also where a path holds quotes.
    as_json = functools.partial(json.dumps, ensure_ascii=False)
    environment.filters |= {"as_json": as_json, "in_words": in_words}
    return environment.get_template("model_card.md.j2")
