"""The model card: what an exported folder is, in words, from its manifest and its evaluation.

Metadata as the Hugging Face hub reads it: https://huggingface.co/docs/hub/model-cards
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.files import write_text
from nblib.models.folders import CARD_FILE, MANIFEST_FILE, is_adapter_folder, read_manifest
from nblib.models.published import EMBEDDED, GEMMA, licence_of, repository_of, root_of
from nblib.report.tables import in_words, stage_table
from nblib.sources.foundation import FoundationRows
from nblib.tasks.task import Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage


def write_model_card(folder: Path, task: Task, stages: Sequence["Stage"], *, title: str) -> None:
    """Write `README.md` into a folder of a model or adapters, in place of the one before.

    Args:
        folder: an export, as `models.exports` writes it.
        task: what it was trained for; its limits are those of the card.
        stages: what was evaluated.
        title: the heading.

    Raises ValueError when the folder has no manifest to write from.
    """
    manifest = read_manifest(folder)
    if not manifest:
        raise ValueError(f"{folder} has no {MANIFEST_FILE}: there is nothing to write a card from")
    adapters = is_adapter_folder(folder)
    sections = {
        "Data": _data(manifest),
        "Settings": _block(manifest.get("parameters", {})),
        "Evaluation": _evaluation(task, stages),
        "Same answers after loading": _parity(manifest),
        "Limits": _limits(manifest, task, stages),
        "Licence": _licence(manifest),
    }
    written = "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items() if text)
    head = _metadata(manifest, adapters=adapters)
    summary = _summary(manifest, adapters=adapters)
    write_text(folder / CARD_FILE, f"{head}\n# {title}\n\n{summary}\n{written}")


def _metadata(manifest: Mapping[str, Any], *, adapters: bool) -> str:
    """Return the YAML head; JSON strings are YAML, also where a path holds quotes."""
    root, licence = root_of(manifest), licence_of(manifest)
    values = {
        "license": licence.name if licence else "other",
        "library_name": "peft" if adapters else "transformers",
        "pipeline_tag": "text-generation",
    }
    if root in GEMMA:
        values["base_model"] = repository_of(root)
    lines = (f"{name}: {json.dumps(value)}" for name, value in values.items())
    return "\n".join(("---", *lines, "---", ""))


def _summary(manifest: Mapping[str, Any], *, adapters: bool) -> str:
    base = manifest.get("base", {})
    kind = "LoRA adapters for `peft`, over" if adapters else "A Gemma 3, whole, fine-tuned from"
    lines = [
        f"{kind} `{base.get('name', 'nothing: trained from the start')}`"
        + (f" (weights `{base['sha256'][:12]}`)." if base.get("sha256") else "."),
        f"Made by `{manifest.get('command', 'unknown')}`, {manifest.get('steps', '?')} steps.",
    ]
    return "\n".join(lines)


def _data(manifest: Mapping[str, Any]) -> str:
    data = manifest.get("data", {})
    given = data.get("sha256", {})
    named = given if isinstance(given, Mapping) else {"all": given}
    hashes = [f"- {name}: `{sha256}`" for name, sha256 in named.items()]
    return "\n".join([str(data.get("origin", "not recorded")), "", *hashes]).strip()


def _block(values: Mapping[str, Any]) -> str:
    return f"```json\n{json.dumps(values, indent=2, ensure_ascii=False)}\n```" if values else ""


def _evaluation(task: Task, stages: Sequence["Stage"]) -> str:
    if not stages:
        return "Nothing was evaluated."
    drawn = [
        f"- {in_words(stage.name)}: {json.dumps(stage.metrics['decoding'])}"
        for stage in stages
        if "decoding" in stage.metrics
    ]
    table = stage_table(task, stages).markdown()
    note = "Fractions of 1 with their 95 % intervals, on held-out questions."
    return "\n".join([note, "", table, "", "How completions were drawn:", "", *drawn]).strip()


def _parity(manifest: Mapping[str, Any]) -> str:
    from nblib.models.parity import Parity  # brings jax, which the rest of the room does without

    return "\n".join(f"- {Parity(**one)}" for one in manifest.get("parity", ()))


def _limits(manifest: Mapping[str, Any], task: Task, stages: Sequence["Stage"]) -> str:
    origin = manifest.get("data", {}).get("origin", "its own data")
    lines = [f"Measured on held-out questions of {origin}, in English; on nothing else."]
    for value in (stage.metrics[task.headline] for stage in stages if stage.name == "tuned"):
        if task.metric(task.headline).kind == "rate":
            lines.append(f"{1 - value:.1%} of its greedy answers there are wrong.")
        else:
            lines.append(
                f"{in_words(task.headline).capitalize()} of its greedy answers: {value:.3f}."
            )
        lines[-1] += " Check what it answers."
    if root_of(manifest) == EMBEDDED:
        lines.append("Its base is a toy that knows arithmetic problems and little else.")
    return "\n".join(f"- {line}" for line in (*lines, *task.limits))


def _licence(manifest: Mapping[str, Any]) -> str:
    licence = licence_of(manifest)
    return licence.sentence if licence else "That of the model that it was made from."


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
