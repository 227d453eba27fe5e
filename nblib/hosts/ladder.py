"""The stages that an evaluation compares: those that are named, or a ladder from the base upwards.

The ladder is followed downwards: each export says which model it was trained from, the lowest one
which base. So its stages belong together, also where the runs' folder holds other ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nblib.evaluation.candidates import Candidate, parse_candidate
from nblib.files import read_object, to_jsonable
from nblib.hosts.inputs import ExportNotFound, find_export, find_start
from nblib.models.folders import MANIFEST_FILE, read_manifest
from nblib.models.names import model_sha256
from nblib.models.published import OVER, is_published
from nblib.runs import Run

# What two runs of one notebook must share to be compared; a version is all the rest.
_ALIKE = ("task", "model", "data", "seed", "eval_samples", "max_new_tokens")


class BaseMismatch(ValueError):
    """The base that is found today is not the one that was trained from."""


def find_candidates(
    given: Sequence[str], *, reads: Mapping[str, str]
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Return what is compared, the base first, and lines on how it was found.

    Args:
        given: Stages as `parse_candidate` reads them; a run's folder stands for its export. None:
            the ladder of the newest export of the last notebook in `reads` that has one.
        reads: The ladder's stages, lowest first, and the notebook that exports each, such as
            `{"sft": "v1_sft_format", "grpo": "v2_grpo"}`.

    Raises:
        ValueError: a stage in another form, fewer than two, or a name that repeats.
        ExportNotFound: no export of any of the notebooks, or a folder that is no whole model.
        BaseMismatch: the ladder's base has changed since its lowest stage was trained from it.
    """
    if not given:
        return _ladder(reads)
    return tuple(map(_resolved, named_candidates(given))), ()


def other_versions(run: Run) -> tuple[Candidate, ...]:
    """Return the answers of the newest finished run of each other version, by `parameters.version`.

    Taken are runs beside this one that answered the same questions with the same base.
    """
    own, newest = to_jsonable(run.parameters), dict[str, Path]()
    for folder in sorted(path for path in run.path.parent.iterdir() if not path.is_symlink()):
        if (folder / "result.json").is_file() and (folder / "predictions.jsonl").is_file():
            config = read_object(folder / "config.json")
            if all(config.get(name) == own[name] for name in _ALIKE):
                newest[config.get("version", "")] = folder / "predictions.jsonl"
    return tuple(
        Candidate(name=version, source=str(path), stage="tuned")
        for version, path in sorted(newest.items())
        if version != own["version"]
    )


def named_candidates(given: Sequence[str]) -> tuple[Candidate, ...]:
    """Return the stages that are named, none or at least two; nothing is looked for.

    Raises ValueError as `find_candidates` does.
    """
    candidates = tuple(parse_candidate(text) for text in given)
    names = [candidate.name for candidate in candidates]
    if len(names) == 1 or len(set(names)) < len(names):
        raise ValueError(f"stages are {names}, expected at least two, each with its own name")
    return candidates


def _ladder(reads: Mapping[str, str]) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    notes: list[str] = []
    left = list(reads)  # stages that are still to be found, lowest first
    source = str(_top_export(reads, left, notes))
    stages: list[tuple[str, str, str]] = []
    while left and not is_published(source):  # a published model has no stage before it
        name, export = left.pop(), Path(source.partition(OVER)[0])
        stages.insert(0, (name, source, "format"))
        source = _start_of(export, reads[left[-1]], notes) if left else _checked_base(export)
    base = [("base", source, "question"), ("base_format", source, "format")]
    base += [("base_few_shot", source, "few-shot")]
    return tuple(Candidate(name=n, source=s, style=w) for n, s, w in base + stages), tuple(notes)


def _top_export(reads: Mapping[str, str], left: list[str], notes: list[str]) -> Path:
    """Return the export of the last stage that has one; those above it are taken from `left`."""
    while len(left) > 1:
        try:
            return find_export(reads[left[-1]])
        except ExportNotFound:
            missing = reads[left.pop()]
            notes.append(f"no export of {missing}: the ladder ends with {reads[left[-1]]}")
    return find_export(reads[left[0]])


def _start_of(export: Path, before: str, notes: list[str]) -> str:
    """Return the model that an export began with.

    Where that one is no longer there: the newest export of `before`, the notebook before.
    """
    base = _base_of(export)
    folder = base["name"].partition(OVER)[0]
    there = Path(folder).exists() or is_published(folder)
    start = base["name"] if there else str(find_export(before))
    if model_sha256(start) != base["sha256"]:
        notes.append(
            f"{export} was trained from another {before} than {start}: its gain is over that one"
        )
    return start


def _checked_base(export: Path) -> str:
    """Return what an export was trained from, if that is what its name leads to today."""
    base = _base_of(export)
    sha256 = model_sha256(base["name"])
    if sha256 != base["sha256"]:
        raise BaseMismatch(
            f"{export} was trained from {base['name']} with weights {base['sha256'][:12]}; what is "
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
