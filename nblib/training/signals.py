"""Live signals of GRPO: what one step's rewards and completions say, beyond the loss.

A loss says little in GRPO: it is near zero in a healthy run and in a dead one. What tells is the
spread of the rewards in a group, length, truncation and the task's metrics. When a signal becomes
an alarm is said in `alarms`. Plain numpy: nothing is trained and nothing is written here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

_SPREAD = 1e-9  # rewards nearer than this differ by rounding alone


def step_signals(
    rewards: Float[np.ndarray, "P G"],
    terms: Mapping[str, Float[np.ndarray, "P G"]],
    metrics: Mapping[str, np.ndarray],
    tokens: Int[np.ndarray, "P G"],
    truncated: Bool[np.ndarray, "P G"],
) -> dict[str, Any]:
    """Figures of one step's completions, for its record in `metrics.jsonl`.

    Args:
        rewards: of P prompts, G completions each: a row is a group.
        terms: the unweighted terms of the rewards.
        metrics: the task's metrics of each completion, by their names.
        tokens: length of each completion.
        truncated: whether the length limit cut it.

    Returns:
        Means over the step: metrics as fractions of 1, lengths in tokens. The standard deviation is
        over the whole step; in a zero-variance group all rewards are equal, so it has no gradient.

    Raises:
        ValueError: arrays of other shapes than the rewards', no completion, a reward that is no
            finite number.
    """
    named = {f"terms[{name!r}]": values for name, values in terms.items()}
    _check(rewards, {"tokens": tokens, "truncated": truncated, **named, **metrics})
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


def _check(rewards: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
    if rewards.ndim != 2 or rewards.size == 0:
        raise ValueError(f"rewards have shape {rewards.shape}: expected (prompts, completions)")
    if not np.isfinite(rewards).all():
        raise ValueError(f"rewards must be finite, got {rewards[~np.isfinite(rewards)][0]}")
    for name, values in arrays.items():
        if values.shape != rewards.shape:
            raise ValueError(f"{name} has shape {values.shape}, rewards have {rewards.shape}")
