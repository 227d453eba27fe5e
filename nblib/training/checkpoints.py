"""Checkpoints that survive a kill: whose they are, which are whole, where to go on.

    checkpoints/identity.json     what must agree for a checkpoint to be continued
    checkpoints/actor/30/...      Orbax: weights and optimizer state after 30 updates
    checkpoints/seals/30.json     the SHA-256 of each of these files, written after the save

Tunix's trainer restores the newest checkpoint of its folder in its constructor, without a check.
So before a trainer is built, `prepare_checkpoints` refuses a folder that belongs to other
parameters, and sets aside a checkpoint whose files do not match their checksums.
"""

import hashlib
import re
import shutil
import warnings
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from nblib.files import read_json, to_jsonable, write_json
from nblib.models.processes import is_first

# The folder of the steps is called what Tunix's RL calls it: below a root it adds "actor" itself.
_STEPS, _CHECKSUMS, _IDENTITY = "actor", "seals", "identity.json"
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
    _claim(folder, to_jsonable(identity))
    for step in sorted(_step_folders(folder), reverse=True):
        problem = _problem(folder, step)
        if problem is None:
            break
        names = (f"damaged-{step}" + (f"-{number}" if number else "") for number in count())
        aside = next(folder / name for name in names if not (folder / name).exists())
        (steps / str(step)).rename(aside)
        warnings.warn(
            f"checkpoint {step} in {folder} is damaged ({problem}): set aside as {aside.name}; "
            "going on from the one before",
            stacklevel=2,
        )
    _drop_stale_checksums(folder)  # or they would speak for a later checkpoint of the same step
    if resume_from and not _step_folders(folder):
        _copy_newest(Path(resume_from).expanduser(), folder, to_jsonable(identity))
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
    steps = sorted(_step_folders(folder), reverse=True)
    return next((step for step in steps if not _problem(folder, step)), 0)


def has_new_steps(folder: Path) -> bool:
    """Whether a committed checkpoint has no checksums yet."""
    return any(not _checksums_file(folder, step).is_file() for step in _step_folders(folder))


def write_checksums(folder: Path) -> None:
    """Write the checksums of every committed checkpoint that has none; drop stale ones.

    Among several processes the first one alone does.
    """
    if not is_first():
        return
    _drop_stale_checksums(folder)
    for step in _step_folders(folder):
        if not _checksums_file(folder, step).is_file():
            write_json(_checksums_file(folder, step), _checksums(folder / _STEPS / str(step)))


def drop_checkpoints_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of all later steps."""
    for later in _step_folders(folder):
        if later > step:
            shutil.rmtree(folder / _STEPS / str(later))
    _drop_stale_checksums(folder)


def checkpointing_options(save_interval: str) -> ocp.CheckpointManagerOptions:
    """Return Orbax's options for "10 steps" or "30 min", keeping the newest three.

    Saving is synchronous: checksums may only be written of what is committed.
    Raises ValueError for another form of interval.
    """
    match = re.fullmatch(r"(\d+) (steps?|min)", save_interval)
    if match is None or int(match[1]) == 0:
        raise ValueError(
            f"SAVE_INTERVAL {save_interval!r}: expected for example '10 steps' or '30 min'"
        )
    number, policies = int(match[1]), ocp.checkpoint_managers
    policy = policies.FixedIntervalPolicy(number)
    if match[2] == "min":
        policy = policies.ContinuousCheckpointingPolicy(minimum_interval_secs=60 * number)
    return ocp.CheckpointManagerOptions(
        save_decision_policy=policy, max_to_keep=KEEP, enable_async_checkpointing=False
    )


def _claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Write down whose folder this is, or refuse it if it is another's."""
    path = folder / _IDENTITY
    if not path.is_file():
        if _step_folders(folder):
            raise ForeignCheckpoint(f"{folder} holds checkpoints without {_IDENTITY}: not ours")
        write_json(path, wanted)
    elif differing := _differing(read_json(path), wanted):
        raise ForeignCheckpoint(
            f"the checkpoints in {folder} belong to other parameters ({differing}). "
            "Use the same parameters to go on, or another run folder to start from step 0."
        )


def _copy_newest(source: Path, folder: Path, wanted: Mapping[str, Any]) -> None:
    """Copy the newest whole checkpoint of another run, its checksums last."""
    check_resume_from(str(source))
    step = latest_step(source)
    differing = _differing(read_json(source / _IDENTITY), wanted, MAY_DIFFER)
    if differing:
        raise ForeignCheckpoint(
            f"the checkpoints in {source} cannot be gone on from with these parameters "
            f"({differing}). These may differ: {', '.join(sorted(MAY_DIFFER))}."
        )
    shutil.copytree(source / _STEPS / str(step), folder / _STEPS / str(step))
    write_json(_checksums_file(folder, step), read_json(_checksums_file(source, step)))
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


def _checksums_file(folder: Path, step: int) -> Path:
    return folder / _CHECKSUMS / f"{step}.json"


def _drop_stale_checksums(folder: Path) -> None:
    steps = _step_folders(folder)
    for file in (folder / _CHECKSUMS).glob("*.json"):
        if int(file.stem) not in steps:
            file.unlink()


def _problem(folder: Path, step: int) -> str | None:
    """Return what is wrong with a checkpoint, None when its files match their checksums."""
    file = _checksums_file(folder, step)
    if not file.is_file():
        return "no checksums: the save did not end"
    wanted, found = read_json(file), _checksums(folder / _STEPS / str(step))
    changed = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    return f"{changed[0]} changed or missing" if changed else None


def _checksums(step: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint by its relative path."""
    return {
        str(path.relative_to(step)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(step.rglob("*"))
        if path.is_file()
    }
