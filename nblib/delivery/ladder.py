"""The stages that an evaluation compares: those that are named, or the ladder from base to GRPO.

The ladder is followed downwards: v2's export says which v1 it came from, v1's says which base. So
its stages belong together, whatever else lies in the runs' folder.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nblib.delivery.inputs import ExportNotFound, find_export
from nblib.evaluation.candidates import Candidate, parse_candidate
from nblib.models.names import weights_sha256


def find_candidates(given: Sequence[str]) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Return what is compared, the base first, and lines on how it was found.

    Args:
        given: Stages as `parse_candidate` reads them; a run's folder stands for its export. None:
            the ladder of the newest v2, or of the newest v1 where there is no v2.

    Raises:
        ValueError: a stage in another form, fewer than two, or a name that repeats.
        ExportNotFound: no v1 anywhere, or a folder that is no whole model.
    """
    if not given:
        return _ladder()
    candidates = tuple(_resolved(parse_candidate(text)) for text in given)
    names = [candidate.name for candidate in candidates]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"stages are {names}, expected at least two, each with its own name")
    return candidates, ()


def _ladder() -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    notes = []
    try:
        grpo = find_export("v2_grpo")
    except ExportNotFound:
        grpo = None
        notes.append("no export of v2_grpo: the ladder ends with v1")
    sft = _sft_of(grpo, notes) if grpo else find_export("v1_sft_format")
    base = str(_base_of(sft)["name"])
    steps = [("base", base, "question"), ("base_format", base, "format")]
    steps += [("base_few_shot", base, "few-shot"), ("sft", str(sft), "format")]
    steps += [("grpo", str(grpo), "format")] if grpo else []
    return tuple(Candidate(name=n, source=source, style=s) for n, source, s in steps), tuple(notes)


def _sft_of(grpo: Path, notes: list[str]) -> Path:
    """Return the export that v2 began with; the newest v1 where that one is no longer there."""
    base = _base_of(grpo)
    named = Path(str(base["name"]))
    sft = named if named.is_dir() else find_export("v1_sft_format")
    if weights_sha256(sft) != base["sha256"]:
        notes.append(f"{grpo} was trained from another v1 than {sft}: its gain is over that one")
    return sft


def _base_of(export: Path) -> dict[str, Any]:
    manifest = export / "manifest.json"
    try:
        base = json.loads(manifest.read_text(encoding="utf-8"))["base"]
        return {"name": base["name"], "sha256": base["sha256"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportNotFound(
            f"{manifest} does not name the base that it was trained from ({error!r}): "
            "name the stages, STAGES = ['base=embedded@question', 'sft=folder']"
        ) from error


def _resolved(candidate: Candidate) -> Candidate:
    """Put a run's export for its folder; names and model folders stay."""
    if candidate.is_file or not Path(candidate.source).is_dir():
        return candidate
    return replace(candidate, source=str(find_export("", candidate.source)))
