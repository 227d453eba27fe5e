"""Rollouts: what the policy wrote in each step of GRPO, in figures and in a log.

A loss says little in GRPO: it is near zero in a healthy run and in a dead one. What tells is the
spread of the rewards in a group, length, truncation and the task's metrics. When a figure becomes
an alarm is decided in `alarms`. Plain numpy.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nblib.files import append_jsonl, read_jsonl, write_jsonl
from nblib.runs import Run

LIMIT_BYTES, KEEP_FULL = 64 * 2**20, 8  # of a file of the log, and full files
_LOG_NAME = "rollouts.jsonl"
_SPREAD = 1e-9  # rewards nearer than this differ by rounding alone


def step_signals(
    rewards: Float[np.ndarray, "P G"],
    terms: Mapping[str, Float[np.ndarray, "P G"]],
    metrics: Mapping[str, np.ndarray],
    tokens: Int[np.ndarray, "P G"],
    truncated: Bool[np.ndarray, "P G"],
) -> dict[str, Any]:
    """Return the figures of one step's completions, for its record in `metrics.jsonl`.

    Each row holds the group of one prompt. Figures are means over the step, metrics as fractions of
    1, lengths in tokens; the standard deviation is over the whole step. In a zero-variance group
    all rewards are equal, so it has no gradient.

    Raises ValueError for a reward that is no finite number.
    """
    if not np.isfinite(rewards).all():
        raise ValueError(f"rewards must be finite, got {rewards[~np.isfinite(rewards)][0]}")
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "terms": {name: float(values.mean()) for name, values in terms.items()},
        "zero_variance_groups": float((np.ptp(rewards, axis=1) < _SPREAD).mean()),
        "truncation_rate": float(truncated.mean()),
        **{name: float(values.mean()) for name, values in metrics.items()},
        "completion_tokens": float(tokens.mean()),
        "longest": int(tokens.max()),
    }


def group_advantages(
    rewards: Float[np.ndarray, "P G"], *, scaled: bool = True
) -> Float[np.ndarray, "P G"]:
    """Reward minus the group's mean and, if `scaled`, over the group's standard deviation.

    What Tunix computes from the same rewards: GRPO scales, Dr. GRPO does not.

    >>> group_advantages(np.array([[1.0, 0.0], [1.0, 1.0]])).round(2)
    array([[ 0.71, -0.71],
           [ 0.  ,  0.  ]])
    """
    equal = np.ptp(rewards, axis=1, keepdims=True) < _SPREAD
    centred = np.where(equal, 0.0, rewards - rewards.mean(axis=1, keepdims=True))
    return centred / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-6) if scaled else centred


def append_rollouts(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add the records of one step, one a completion, to `rollouts.jsonl`.

    A full file becomes `rollouts.1.jsonl`, `rollouts.2.jsonl`, ...: only the newest of them stay,
    so that a long run cannot fill the disk.
    """
    path = folder / _LOG_NAME
    for record in records:
        append_jsonl(path, record)
    if path.is_file() and path.stat().st_size >= LIMIT_BYTES:
        full = _full_files(folder)
        number = 1 + max(full, default=0)
        path.rename(folder / f"rollouts.{number}.jsonl")
        for old in sorted(full)[: max(0, len(full) + 1 - KEEP_FULL)]:
            full[old].unlink()


def read_rollouts(run: Run) -> list[Any]:
    """Return all records that are kept, the oldest first."""
    return [record for path in _files(run.path) for record in read_jsonl(path)]


def forget_rollouts_after(folder: Path, step: int) -> None:
    """Drop what a killed run drew after its last checkpoint: those steps are done again."""
    for path in _files(folder):
        records = read_jsonl(path)
        kept = [record for record in records if record["step"] <= step]
        if len(kept) < len(records):
            write_jsonl(path, kept)


def _files(folder: Path) -> list[Path]:
    full, newest = _full_files(folder), folder / _LOG_NAME
    return [full[number] for number in sorted(full)] + [newest] * newest.is_file()


def _full_files(folder: Path) -> dict[int, Path]:
    return {int(path.stem.split(".")[1]): path for path in folder.glob("rollouts.*.jsonl")}
