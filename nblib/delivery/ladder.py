"""The stages that an evaluation compares: those that are named, or the ladder from base to GRPO.

The ladder is followed downwards: v2's export says which v1 it came from, v1's says which base. So
its stages belong together, whatever else lies in the runs' folder.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nblib.delivery.inputs import ExportNotFound, find_export, find_start
from nblib.evaluation.candidates import Candidate, parse_candidate
from nblib.models.folders import MANIFEST_FILE, read_manifest
from nblib.models.names import model_sha256
from nblib.models.published import OVER, is_published


class BaseMismatch(ValueError):
    """The base that is found today is not the one that was trained from."""


def find_candidates(given: Sequence[str]) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Return what is compared, the base first, and lines on how it was found.

    Args:
        given: Stages as `parse_candidate` reads them; a run's folder stands for its export. None:
            the ladder of the newest v2, or of the newest v1 where there is no v2.

    Raises:
        ValueError: a stage in another form, fewer than two, or a name that repeats.
        ExportNotFound: no v1 anywhere, or a folder that is no whole model.
        BaseMismatch: the ladder's base has changed since v1 was trained from it.
    """
    if not given:
        return _ladder()
    return tuple(map(_resolved, named_candidates(given))), ()


def named_candidates(given: Sequence[str]) -> tuple[Candidate, ...]:
    """Return the stages that are named, none or at least two; nothing is looked for.

    Raises ValueError as `find_candidates` does.
    """
    candidates = tuple(parse_candidate(text) for text in given)
    names = [candidate.name for candidate in candidates]
    if len(names) == 1 or len(set(names)) < len(names):
        raise ValueError(f"stages are {names}, expected at least two, each with its own name")
    return candidates


def _ladder() -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    notes = []
    try:
        grpo = find_export("v2_grpo")
    except ExportNotFound:
        grpo = None
        notes.append("no export of v2_grpo: the ladder ends with v1")
    start = _start_of(grpo, notes) if grpo else str(find_export("v1_sft_format"))
    straight = is_published(start)  # v2 without a v1 before it
    base = start if straight else _checked_base(Path(start.partition(OVER)[0]))
    steps = [("base", base, "question"), ("base_format", base, "format")]
    steps += [("base_few_shot", base, "few-shot")]
    steps += [] if straight else [("sft", start, "format")]
    steps += [("grpo", str(grpo), "format")] if grpo else []
    return tuple(Candidate(name=n, source=source, style=s) for n, source, s in steps), tuple(notes)


def _start_of(grpo: Path, notes: list[str]) -> str:
    """Return the model that v2 began with; the newest v1 where that one is no longer there."""
    base = _base_of(grpo)
    folder = base["name"].partition(OVER)[0]
    there = Path(folder).is_dir() or is_published(folder)
    start = base["name"] if there else str(find_export("v1_sft_format"))
    if model_sha256(start) != base["sha256"]:
        notes.append(f"{grpo} was trained from another v1 than {start}: its gain is over that one")
    return start


def _checked_base(sft: Path) -> str:
    """Return what v1 was trained from, if that is what its name leads to today."""
    base = _base_of(sft)
    sha256 = model_sha256(base["name"])
    if sha256 != base["sha256"]:
        raise BaseMismatch(
            f"{sft} was trained from {base['name']} with weights {base['sha256'][:12]}; what is "
            f"found by that name has {sha256[:12]}: get that base again, or name the stages, "
            "STAGES = ['base=folder@question', 'sft=folder']"
        )
    return base["name"]


def _base_of(export: Path) -> dict[str, str]:
    try:
        base = read_manifest(export)["base"]
        return {"name": base["name"], "sha256": base["sha256"]}
    except (OSError, ValueError, KeyError) as error:
        raise ExportNotFound(
            f"{export / MANIFEST_FILE} does not name the base that it was trained from "
            f"({error!r}): name the stages, STAGES = ['base=embedded@question', 'sft=folder']"
        ) from error


def _resolved(candidate: Candidate) -> Candidate:
    """Put a run's export for its folder; published names stay."""
    if candidate.is_file:
        return candidate
    return replace(candidate, source=find_start("", candidate.source))
