"""Checkpoints that survive a kill: whose they are, which are whole, where to go on.

Tunix's trainer restores the newest checkpoint of its folder in its constructor, without a check.
So before a trainer is built, `prepare_checkpoints` refuses a folder that belongs to other
parameters, and sets aside a checkpoint that is not whole. Whole means sealed: after a save is
committed, the size and SHA-256 of each of its files are written beside it.
"""

import hashlib
import re
import shutil
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from nblib.files import read_json, to_jsonable, write_json

# The folder of the steps is called what Tunix's RL calls it: below a root it adds "actor" itself.
_STEPS, _SEALS, _IDENTITY = "actor", "seals", "identity.json"
KEEP = 3  # Tunix's default
# What says how steps are made, and not what the saved state is or how far it is in which data.
MAY_DIFFER = frozenset({
    *("learning_rate", "warmup_share", "final_share", "weight_decay", "clip_norm"),
    *("beta", "kl", "epsilon", "temperature", "weights", "remat", "evaluations", "save_interval"),
    *("eval_samples", "eval_batch", "format_target", "gain_target", "probe_every", "resume_from"),
    "grpo",  # v2's configuration as a whole: its fields are compared one by one
})  # fmt: skip


class ForeignCheckpoint(ValueError):
    """The folder holds checkpoints of a run with other parameters."""


def prepare_checkpoints(
    folder: Path, identity: Mapping[str, Any], *, resume_from: str | None = None
) -> Path:
    """Return the folder to hand to the trainer: claimed by `identity`, newest checkpoint whole.

    `identity` holds what must agree for a checkpoint to be continued: data, tokenizer, model,
    adapters, optimizer. Damaged or half-written checkpoints are renamed to `damaged-<step>` with a
    warning, and the one before is used. Where none is left, the newest of the folder `resume_from`
    is copied, if one is given: its identity may differ in `MAY_DIFFER`.
    Raises ForeignCheckpoint naming what differs.
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
    if resume_from and not latest_step(folder):
        _copy_newest(Path(resume_from).expanduser(), folder, identity)
    return steps


def check_resume_from(folder: str) -> str:
    """Return `folder` as it is; ValueError unless it is "" or holds a whole checkpoint."""
    if folder and not latest_step(Path(folder).expanduser()):
        raise ValueError(
            f"RESUME_FROM {folder!r} holds no whole checkpoint: give the folder `checkpoints` of a "
            "run that has saved one"
        )
    return folder


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


def drop_checkpoints_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of all later steps."""
    for later in _step_folders(folder):
        if later > step:
            shutil.rmtree(folder / _STEPS / str(later))
    _drop_stale_seals(folder)


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
    differing = _differing(read_json(path), wanted)
    if differing:
        raise ForeignCheckpoint(
            f"the checkpoints in {folder} belong to other parameters ({differing}). "
            "Use the same parameters to go on, or another run folder to start from step 0."
        )


def _copy_newest(source: Path, folder: Path, identity: Mapping[str, Any]) -> None:
    """Copy the newest whole checkpoint of another run, its seal last."""
    check_resume_from(str(source))
    step = latest_step(source)
    differing = _differing(read_json(source / _IDENTITY), to_jsonable(identity), MAY_DIFFER)
    if differing:
        raise ForeignCheckpoint(
            f"the checkpoints in {source} cannot be gone on from with these parameters "
            f"({differing}). These may differ: {', '.join(sorted(MAY_DIFFER))}."
        )
    for name in read_json(_seal(source, step)):
        file = folder / _STEPS / str(step) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / _STEPS / str(step) / name, file)
    write_json(_seal(folder, step), read_json(_seal(source, step)))
    print(f"going on from step {step} of {source}", flush=True)


def _differing(
    found: Mapping[str, Any], wanted: Mapping[str, Any], besides: Collection[str] = ()
) -> str:
    """Return what differs between a checkpoint's identity and this run's, in words."""
    return "; ".join(
        f"{key}: checkpoint {found.get(key)!r}, this run {wanted.get(key)!r}"
        for key in sorted({*found, *wanted} - {*besides})
        if found.get(key) != wanted.get(key)
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
