"""The model card: what an exported folder is, in words, from its manifest and its evaluation.

Metadata as the Hugging Face hub reads it: https://huggingface.co/docs/hub/model-cards
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nblib.report.tables import in_words, read_rate, stage_table
from nblib.files import write_text
from nblib.models.folders import is_adapter_folder, read_manifest
from nblib.models.licence import licence_of, root_of
from nblib.models.parity import Parity
from nblib.models.published import EMBEDDED, GEMMA, repository_of

CARD_FILE = "README.md"


def write_model_card(folder: Path, stages: Mapping[str, Mapping[str, Any]], *, title: str) -> None:
    """Write `README.md` into a folder of a model or adapters, in place of the one before.

    Args:
        folder: what `export_model` or `save_adapters` made; left alone when it is not there.
        stages: as in `result.json`.
        title: the heading.

    Raises ValueError when the folder has no manifest to tell from.
    """
    if not folder.is_dir():
        return
    manifest = read_manifest(folder)
    if not manifest:
        raise ValueError(f"{folder} has no manifest.json: there is nothing to write a card from")
    adapters = is_adapter_folder(folder)
    sections = {
        "Data": _data(manifest),
        "Settings": _block(manifest.get("parameters", {})),
        "Evaluation": _evaluation(stages),
        "Same answers after loading": _parity(manifest),
        "Limits": _limits(manifest, stages),
        "Licence": _licence(manifest),
    }
    told = "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items() if text)
    head = _metadata(manifest, adapters=adapters)
    summary = _summary(manifest, adapters=adapters)
    write_text(folder / CARD_FILE, f"{head}\n# {title}\n\n{summary}\n{told}")


def _metadata(manifest: Mapping[str, Any], *, adapters: bool) -> str:
    """Return the YAML head; JSON strings are YAML, whatever a path holds."""
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


def _evaluation(stages: Mapping[str, Mapping[str, Any]]) -> str:
    if not stages:
        return "Nothing was evaluated."
    drawn = [
        f"- {in_words(name)}: {json.dumps(stage['decoding'])}"
        for name, stage in stages.items()
        if "decoding" in stage
    ]
    table = stage_table(stages)
    note = "Rates are fractions of 1 with their 95 % intervals, on held-out questions."
    return "\n".join([note, "", table, "", "How completions were drawn:", "", *drawn]).strip()


def _parity(manifest: Mapping[str, Any]) -> str:
    return "\n".join(f"- {Parity(**one)}" for one in manifest.get("parity", ()))


def _limits(manifest: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> str:
    origin = manifest.get("data", {}).get("origin", "its own data")
    lines = [f"- Measured on held-out questions of {origin}, in English; on nothing else."]
    tuned = stages.get("tuned")
    if tuned is not None:
        wrong = 1 - read_rate(tuned, "answer_accuracy").value
        lines.append(f"- {wrong:.1%} of its greedy answers there are wrong. Check what it answers.")
    if root_of(manifest) == EMBEDDED:
        lines.append("- Its base is a toy that knows arithmetic problems and little else.")
    lines.append(
        "- The reasoning is text like any other: it may be wrong where the answer is right."
    )
    return "\n".join(lines)


def _licence(manifest: Mapping[str, Any]) -> str:
    licence = licence_of(manifest)
    return licence.sentence if licence else "That of the model that it was made from."
