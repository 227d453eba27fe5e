"""Whether GRPO improved the answers: verdicts on the paired comparison, and a sentence."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from nblib.evaluation.paired import Paired
from nblib.report.verdicts import Verdict, at_least, at_most
from nblib.training.session import Trained

_MORE = "train for more NUM_STEPS; look at the alarms; is flat_groups low enough to learn from?"
_FORMAT_TARGET = 0.98
_P_VALUE = 0.01
_TRUNCATION_RISE = 0.02  # items of a hundred: less is one or two items of the test


def grpo_verdicts(
    stages: Mapping[str, Mapping[str, Any]], paired: Paired, *, gain_target: float
) -> tuple[Verdict, ...]:
    """Judge the tuned stage against v1's on the same items: stages `base` (v1) and `tuned`."""
    base, tuned = stages["base"], stages["tuned"]
    return (
        at_least("answer accuracy gained", paired.difference, gain_target, _MORE),
        at_most(
            "p, exact McNemar",
            paired.p_value,
            _P_VALUE,
            "evaluate on more EVAL_SAMPLES, or train for more NUM_STEPS",
        ),
        at_least(
            "strict format, tuned",
            tuned["format_accuracy"],
            _FORMAT_TARGET,
            "raise the weight of the format, or lower LEARNING_RATE",
        ),
        at_most(
            "truncation risen by",
            tuned["truncation_rate"] - base["truncation_rate"],
            _TRUNCATION_RISE,
            "set REWARD_TRUNCATED above 0, or raise MAX_NEW_TOKENS",
        ),
    )


def grpo_lead(
    stages: Mapping[str, Mapping[str, Any]], paired: Paired | None, trained: Trained
) -> str:
    """Return the report's first paragraph."""
    done = f"GRPO trained the policy for {trained}"
    if paired is None:
        return f"{done}; nothing was evaluated (EVAL_AT_END is off)."
    low, high = (100 * bound for bound in paired.ci95)
    base, tuned = stages["base"]["answer_accuracy"], stages["tuned"]["answer_accuracy"]
    return (
        f"{done}. Right answers went from {base:.1%} to {tuned:.1%} on the same {paired.n} "
        f"held-out questions: {100 * paired.difference:+.1f} points [{low:+.1f}, {high:+.1f}], "
        f"exact McNemar p = {paired.p_value:.2g}."
    )


def rollout_samples(
    rollouts: Sequence[Mapping[str, Any]], *, count: int, seed: int
) -> list[dict[str, Any]]:
    """Return `count` completions spread over the training, each a random one of its step.

    Records of `rollouts.jsonl`, the oldest first; fewer come back where there are fewer steps.
    """
    steps = sorted({record["step"] for record in rollouts})
    if not steps or count < 1:
        return []
    picked = sorted({steps[round(i * (len(steps) - 1) / max(1, count - 1))] for i in range(count)})
    rng = random.Random(seed)
    by_step = {step: [one for one in rollouts if one["step"] == step] for step in picked}
    return [dict(rng.choice(by_step[step])) for step in picked]
