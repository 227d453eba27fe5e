"""Checkpoints that survive a kill: whose they are, which are whole, where to go on.

Tunix's trainer restores the newest checkpoint of its folder in its constructor, whatever it is.
So before a trainer is built, `prepare_checkpoints` refuses a folder that belongs to other
parameters, and sets aside a checkpoint that is not whole. Whole means sealed: after a save is
committed, the size and SHA-256 of each of its files are written beside it.
"""

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from nblib.files import read_json, to_jsonable, write_json

# The folder of the steps is called what Tunix's RL calls it: below a root it adds "actor" itself.
_STEPS, _SEALS, _IDENTITY = "actor", "seals", "identity.json"
KEEP = 3  # Tunix's default


class ForeignCheckpoint(ValueError):
    """The folder holds checkpoints of a run with other parameters."""


def prepare_checkpoints(folder: Path, identity: Mapping[str, Any]) -> Path:
    """Return the folder to hand to the trainer: claimed by `identity`, newest checkpoint whole.

    `identity` holds whatever must agree for a checkpoint to be continued: data, tokenizer, model,
    adapters, optimizer. Damaged or half-written checkpoints are renamed to `damaged-<step>` with a
    warning, and the one before is used. Raises ForeignCheckpoint naming what differs.
    """
    steps = folder / _STEPS
    steps.mkdir(parents=True, exist_ok=True)
    _claim(folder, identity)
    for step in sorted(_step_folders(folder), reverse=True):
        problem = _problem(folder, step)
        if problem is None:
            break
        aside = _free_name(folder / f"damaged-{step}")
        (steps / str(step)).rename(aside)
        warnings.warn(
            f"checkpoint {step} in {folder} is damaged ({problem}): set aside as {aside.name}; "
            "going on from the one before",
            stacklevel=2,
        )
    _drop_stale_seals(folder)  # or one would speak for a later checkpoint of the same step
    return steps


def latest_step(folder: Path) -> int:
    """Return the step of the newest whole checkpoint, 0 when there is none."""
    whole = [step for step in _step_folders(folder) if _problem(folder, step) is None]
    return max(whole, default=0)


def unsealed_steps(folder: Path) -> set[int]:
    """Return the committed checkpoints that have no seal yet."""
    return {step for step in _step_folders(folder) if not _seal(folder, step).is_file()}


def seal_checkpoints(folder: Path) -> None:
    """Seal every committed checkpoint that has no seal, and drop seals of deleted ones."""
    _drop_stale_seals(folder)
    for step in unsealed_steps(folder):
        write_json(_seal(folder, step), _digests(folder / _STEPS / str(step)))


def checkpointing_options(save_interval: str) -> ocp.CheckpointManagerOptions:
    """Return Orbax's options for "10 steps" or "30 min", keeping the newest three.

    Saving is synchronous: a seal may only be set on what is committed.
    Raises ValueError for another form of interval.
    """
    match = re.fullmatch(r"(\d+) (steps?|min)", save_interval)
    if match is None or int(match[1]) == 0:
        raise ValueError(
            f"SAVE_INTERVAL {save_interval!r}: expected for example '10 steps' or '30 min'"
        )
    count = int(match[1])
    policies = ocp.checkpoint_managers
    policy = (
        policies.ContinuousCheckpointingPolicy(minimum_interval_secs=60 * count)
        if match[2] == "min"
        else policies.FixedIntervalPolicy(count)
    )
    return ocp.CheckpointManagerOptions(
        save_decision_policy=policy, max_to_keep=KEEP, enable_async_checkpointing=False
    )


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write down whose folder this is, or refuse it if it is another's."""
    path = folder / _IDENTITY
    wanted = to_jsonable(identity)
    if not path.is_file():
        if _step_folders(folder):
            raise ForeignCheckpoint(f"{folder} holds checkpoints without {_IDENTITY}: not ours")
        write_json(path, wanted)
        return
    found = read_json(path)
    differing = [
        f"{key}: checkpoint {found.get(key)!r}, this run {wanted.get(key)!r}"
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
    ]
    if differing:
        raise ForeignCheckpoint(
            f"the checkpoints in {folder} belong to other parameters ({'; '.join(differing)}). "
            "Use the same parameters to go on, or another run folder to start anew."
        )


def _step_folders(folder: Path) -> set[int]:
    return {int(path.name) for path in (folder / _STEPS).glob("*") if path.name.isdigit()}


def _seal(folder: Path, step: int) -> Path:
    return folder / _SEALS / f"{step}.json"


def _drop_stale_seals(folder: Path) -> None:
    steps = _step_folders(folder)
    for seal in (folder / _SEALS).glob("*.json"):
        if int(seal.stem) not in steps:
            seal.unlink()


def _problem(folder: Path, step: int) -> str | None:
    """Return what is wrong with a checkpoint, None when it equals its seal."""
    seal = _seal(folder, step)
    if not seal.is_file():
        return "never sealed: the save did not end"
    wanted, found = read_json(seal), _digests(folder / _STEPS / str(step))
    changed = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    return f"{changed[0]} changed or missing" if changed else None


def _digests(step: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint by its relative path."""
    return {
        str(path.relative_to(step)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(step.rglob("*"))
        if path.is_file()
    }


def _free_name(path: Path) -> Path:
    """Return `path`, or the first of `path-1`, `path-2`, ... that is not taken."""
    number = 0
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
