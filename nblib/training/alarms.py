"""Alarms of GRPO: when a run has begun to go wrong, judged by its records alone.

Each says what was seen, its likely cause, and which parameter of the notebook to change. The
records are those of `metrics.jsonl`: the `signals` of each step, and the answers on a fixed probe.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class AlarmLimits:
    """When a signal becomes an alarm. Limits are for means over `window` steps, not for one step.

    "The start" is the first window of the run; it is compared from the second window on.
    """

    window: int = 10  # steps; one step of a hundred completions moves by 5 points by chance
    flat_groups: float = 0.7  # share; above, fewer than a third of the completions teach anything
    truncation: float = 0.2  # share; a cut completion has no answer, so a fifth is wasted
    truncation_rise: float = 0.1  # above the start: soon it will be high
    length_ratio: float = 1.5  # to the start, either way; honest gains rarely change length by half
    kl: float = 0.3  # nats a token; over 100 tokens e^30: no longer the model that was fine-tuned
    preamble: float = 0.05  # share; after v1 it is 0, and one in twenty is the start of a habit
    reward_rise: float = 0.1  # above the start, in reward; less is noise. Right answers are worth 1
    probe_share: float = 0.2  # of that rise: the least that the probe's accuracy must have gained
    entropy_share: float = 0.25  # of the start; below, a group is copies of one completion
    format_fall: float = 0.1  # below the start; what v1 taught is being lost
    recompiling_steps: int = 2  # in a window; a resumed run compiles in its first two steps again

    def __post_init__(self) -> None:
        """Refuse limits that no figure could pass, or every one."""
        if self.window < 1:
            raise ValueError(f"window {self.window} must be at least 1 step")
        if self.recompiling_steps < 0:
            raise ValueError(f"recompiling_steps {self.recompiling_steps} must be at least 0")
        for name in ("kl", "reward_rise"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0 and finite")
        if not 1 < self.length_ratio < math.inf:
            raise ValueError(f"length_ratio {self.length_ratio} must be above 1 and finite")
        others = {"window", "recompiling_steps", "kl", "reward_rise", "length_ratio"}
        for name in (field.name for field in fields(self) if field.name not in others):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """What is going wrong: a short name, and what was seen, why it is likely so, what to change."""

    name: str
    message: str


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The records of a run so far, as the checks ask for them."""

    steps: Sequence[Mapping[str, Any]]
    probes: Sequence[Mapping[str, Any]]
    limits: AlarmLimits

    def now(self, name: str) -> float | None:
        """Mean of a figure over the last window; None where there is no window or no figure."""
        window = self.limits.window
        return _mean(self.steps[-window:], name) if len(self.steps) >= window else None

    def start(self, name: str) -> float | None:
        """Mean over the first window; None while the last window is not wholly after it."""
        window = self.limits.window
        return _mean(self.steps[:window], name) if len(self.steps) >= 2 * window else None


def check_alarms(
    history: Sequence[Mapping[str, Any]],
    limits: AlarmLimits = AlarmLimits(),
) -> tuple[Alarm, ...]:
    """The alarms that hold now, in the order of `ALARM_NAMES`; the same records, the same alarms.

    Args:
        history: the records of `metrics.jsonl` so far, those of steps and of probes. A figure that
            is missing or null raises no alarm; one that is not a number does.
        limits: when a signal becomes an alarm.
    """
    seen = _Seen(
        steps=[record for record in history if "reward" in record],
        probes=[record for record in history if record.get("probe_accuracy") is not None],
        limits=limits,
    )
    messages = {name: check(seen) for name, check in _CHECKS.items()}
    return tuple(Alarm(name=name, message=text) for name, text in messages.items() if text)


def new_alarms(
    history: Sequence[Mapping[str, Any]],
    limits: AlarmLimits = AlarmLimits(),
) -> tuple[Alarm, ...]:
    """The alarms that hold now and are not announced yet; one that cleared may come back.

    Args:
        history: as for `check_alarms`. The newest record is the one to be judged; records judged
            before it have "alarms", the names announced with them.
        limits: when a signal becomes an alarm.
    """
    judged = [index for index, record in enumerate(history[:-1]) if "alarms" in record]
    before = history[: judged[-1] + 1] if judged else ()
    announced = {name for record in before for name in record.get("alarms", ())}
    holding = {alarm.name for alarm in check_alarms(before, limits)} & announced
    return tuple(alarm for alarm in check_alarms(history, limits) if alarm.name not in holding)


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [record[name] for record in records if record.get(name) is not None]
    return float(np.mean(values)) if values else None


def _flat_groups(seen: _Seen) -> str | None:
    flat, right = seen.now("flat_groups"), seen.now("answer_accuracy")
    if flat is None or flat <= seen.limits.flat_groups:
        return None
    text = f"In {flat:.0%} of the groups all rewards are equal, so they give no gradient. "
    if right is not None and right >= 0.5:
        return text + (
            f"{right:.0%} of the answers are right: the prompts are too easy. Give "
            "DIFFICULTY_FILTER harder levels, leave out what is always solved "
            "(PASS_RATE_SAMPLES), or raise TEMPERATURE or NUM_GENERATIONS."
        )
    shown = "Few" if right is None else f"{right:.0%}"
    return text + (
        f"{shown} of the answers are right: the prompts are too hard. Give DIFFICULTY_FILTER "
        "easier levels, leave out what is never solved (PASS_RATE_SAMPLES), or raise "
        "NUM_GENERATIONS."
    )


def _truncation(seen: _Seen) -> str | None:
    rate, start = seen.now("truncation_rate"), seen.start("truncation_rate")
    if rate is None:
        return None
    rise = 0.0 if start is None else rate - start
    if rate <= seen.limits.truncation and rise <= seen.limits.truncation_rise:
        return None
    since = "" if start is None else f" (at the start {start:.0%})"
    return (
        f"{rate:.0%} of the completions{since} are cut at the length limit and lose their answer. "
        "The limit is too low, or the model no longer stops. Raise MAX_NEW_TOKENS; if the text "
        "runs on without an end, raise REWARD_TRUNCATED and lower LEARNING_RATE."
    )


def _length_drift(seen: _Seen) -> str | None:
    now, start = seen.now("completion_tokens"), seen.start("completion_tokens")
    if now is None or not start:
        return None
    if 1 / seen.limits.length_ratio <= now / start <= seen.limits.length_ratio:
        return None
    text = f"Completions have {now:.0f} tokens, at the start they had {start:.0f}. "
    if now < start:
        return text + (
            "The model leaves its steps out. Lower REWARD_BREVITY, raise BETA, or lower "
            "LEARNING_RATE."
        )
    return text + (
        "The model writes more than it needs, or repeats itself. Set REWARD_BREVITY to "
        "a small value, lower REWARD_STEPS, raise BETA, or try LOSS 'dr-grpo'."
    )


def _kl(seen: _Seen) -> str | None:
    kl = seen.now("kl")
    if kl is None or kl <= seen.limits.kl:  # a KL that is not a number goes on
        return None
    return (
        f"The KL to the reference is {kl:.2f} nats a token, over {seen.limits.kl:g}: the policy "
        "has left the model it started from. Updates are too large. Lower LEARNING_RATE or "
        "raise BETA, and go on from an earlier checkpoint."
    )


def _preamble(seen: _Seen) -> str | None:
    rate = seen.now("preamble_rate")
    if rate is None or rate <= seen.limits.preamble:
        return None
    return (
        f"{rate:.0%} of the completions begin with text before <reasoning>. The strict form is "
        "worth too little, or was never learnt. Raise REWARD_FORMAT or BETA, or start "
        "from the model of v1_sft_format."
    )


def _reward_without_answers(seen: _Seen) -> str | None:
    if len(seen.probes) < 2:
        return None
    first, newest = seen.probes[0], seen.probes[-1]
    # What came after the newest probe is not for it to confirm.
    steps = [record for record in seen.steps if record["step"] <= newest["step"]]
    until = _Seen(steps=steps, probes=seen.probes, limits=seen.limits)
    now, start = until.now("reward"), until.start("reward")
    if now is None or start is None or now - start <= seen.limits.reward_rise:
        return None
    before, after = first["probe_accuracy"], newest["probe_accuracy"]
    if after - before >= seen.limits.probe_share * (now - start):
        return None
    return (
        f"The reward rose from {start:.2f} to {now:.2f}, the probe's answers went from "
        f"{before:.1%} to {after:.1%}. The model has found rewards that are not right answers: "
        "read the rollouts with the best rewards. Lower REWARD_FORMAT, "
        "REWARD_STEPS and REWARD_BREVITY; if the rollouts' answers did improve, raise NUM_SAMPLES "
        "or lower LEARNING_RATE."
    )


def _entropy_collapse(seen: _Seen) -> str | None:
    now, start = seen.now("entropy"), seen.start("entropy")
    if now is None or start is None or now >= seen.limits.entropy_share * start:
        return None
    return (
        f"Entropy fell from {start:.3f} to {now:.3f} nats a token: completions of a group become "
        "copies of one another, and there is nothing left to choose from. Lower LEARNING_RATE, "
        "raise BETA or TEMPERATURE."
    )


def _no_reward(seen: _Seen) -> str | None:
    window = seen.steps[-seen.limits.window :]
    if len(window) < seen.limits.window:
        return None
    if any(record["reward"] != 0 or record.get("reward_std", 0) != 0 for record in window):
        return None
    return (
        f"Every reward of the last {len(window)} steps is 0: nothing is learnt. The model does not "
        "write the form at all, or is cut before its answer. Read a rollout; start from the model "
        "of v1_sft_format, raise MAX_NEW_TOKENS, or set TEMPERATURE to 1.0 or lower."
    )


def _format_falling(seen: _Seen) -> str | None:
    now, start = seen.now("format_accuracy"), seen.start("format_accuracy")
    if now is None or start is None or start - now <= seen.limits.format_fall:
        return None
    return (
        f"Strict form fell from {start:.0%} to {now:.0%} of the completions: what v1_sft_format "
        "taught is being lost. Lower LEARNING_RATE, raise BETA or REWARD_FORMAT."
    )


def _recompiling(seen: _Seen) -> str | None:
    window = seen.steps[2:][-seen.limits.window :]  # the first two compile what a step needs
    compiled = [record["step"] for record in window if (record.get("compilations") or 0) > 0]
    if len(compiled) <= seen.limits.recompiling_steps:
        return None
    shown = ", ".join(map(str, compiled[-5:]))
    return (
        f"{len(compiled)} of the last {len(window)} steps compiled a program again (newest: "
        f"{shown}), which costs their time. A shape changes from step to step: keep "
        "PROMPTS_PER_STEP, NUM_GENERATIONS and MAX_NEW_TOKENS fixed, and MAX_PROMPT_LENGTH above "
        "the longest prompt."
    )


_CHECKS: Mapping[str, Callable[[_Seen], str | None]] = {
    "flat groups": _flat_groups,
    "truncation": _truncation,
    "length drift": _length_drift,
    "KL": _kl,
    "preamble": _preamble,
    "reward without answers": _reward_without_answers,
    "entropy collapse": _entropy_collapse,
    "no reward": _no_reward,
    "format falling": _format_falling,
    "recompiling": _recompiling,
}
ALARM_NAMES = tuple(_CHECKS)
