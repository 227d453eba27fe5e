"""Alarms of GRPO: when a run has begun to go wrong, by its records alone.

Each says what was seen, its likely cause, and which parameter of the notebook to change. The
records are those of `metrics.jsonl`: the `signals` of each step, and the answers on a fixed probe.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from nblib.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class AlarmLimits:
    """When a signal becomes an alarm. Limits are for means over `window` steps, not for one step.

    "The start" is the first window of the run; it is compared from the second window on.
    """

    window: int = 10  # steps; one step of a hundred completions moves by 5 points by chance
    zero_variance_groups: float = 0.7  # share; above, under a third of the completions teach
    truncation: float = 0.2  # share; a cut completion has no answer, so a fifth is wasted
    truncation_rise: float = 0.1  # above the start: soon it will be high
    length_ratio: float = 1.5  # to the start, either way; honest gains rarely change length by half
    entropy_ratio: float = 4.0  # of the start to now; above, a group is copies of one completion
    kl: float = 0.3  # nats a token; over 100 tokens e^30: no longer the model that was fine-tuned
    unwanted_rate: float = 0.05  # share; one in twenty is the start of a habit
    reward_rise: float = 0.1  # above the start, in reward; less is noise. Right answers are worth 1
    probe_share: float = 0.2  # of that rise: the least that the probe must have gained
    form_fall: float = 0.1  # below the start; what was taught is being lost
    recompiling_steps: int = 2  # in a window; a resumed run compiles in its first two steps again

    def __post_init__(self) -> None:
        """Refuse limits that no figure could pass, or every one."""
        for name, least in {"window": 1, "recompiling_steps": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} must be at least {least}")
        apart = {"length_ratio": (1, math.inf), "entropy_ratio": (1, math.inf)}
        apart |= {"kl": (0, math.inf), "reward_rise": (0, math.inf)}
        for name in {field.name for field in fields(self)} - {"window", "recompiling_steps"}:
            low, high = apart.get(name, (0, 1))
            if not low < getattr(self, name) < high:
                raise ValueError(f"{name} {getattr(self, name)} must be between {low} and {high}")


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
    task: Task

    def now(self, name: str) -> float | None:
        """Mean of a figure over the last window; None where there is no window or no figure."""
        window = self.limits.window
        return _mean(self.steps[-window:], name) if len(self.steps) >= window else None

    def start(self, name: str) -> float | None:
        """Mean over the first window; None while the last window is not wholly after it."""
        window = self.limits.window
        return _mean(self.steps[:window], name) if len(self.steps) >= 2 * window else None


def check_alarms(
    history: Sequence[Mapping[str, Any]], limits: AlarmLimits, task: Task
) -> tuple[Alarm, ...]:
    """The alarms that hold now; the same records, the same alarms.

    Args:
        history: the records of `metrics.jsonl` so far, those of steps and of probes. A figure that
            is missing or null raises no alarm; one that is not a number does.
        limits: when a signal becomes an alarm.
        task: names the metrics that are looked at.
    """
    seen = _Seen(
        steps=[record for record in history if "reward" in record],
        probes=[record for record in history if record.get("probe_accuracy") is not None],
        limits=limits,
        task=task,
    )
    found = [(name, check(seen)) for name, check in _CHECKS.items()]
    found += [(rule.name, _message(rule, seen)) for rule in (*_RULES, *_rules_of(task))]
    messages: dict[str, str] = {}
    for name, text in found:
        if text:
            messages.setdefault(name, text)
    return tuple(Alarm(name=name, message=text) for name, text in messages.items())


def new_alarms(
    history: Sequence[Mapping[str, Any]], limits: AlarmLimits, task: Task
) -> tuple[Alarm, ...]:
    """The alarms that hold now and are not announced yet; one that cleared may come back.

    Args:
        history: as for `check_alarms`. The newest record is the one to be looked at; records looked
            at before it have "alarms", the names announced with them.
        limits: when a signal becomes an alarm.
        task: names the metrics that are looked at.
    """
    seen = [index for index, record in enumerate(history[:-1]) if "alarms" in record]
    before = history[: seen[-1] + 1] if seen else ()
    announced = {name for record in before for name in record.get("alarms", ())}
    holding = {alarm.name for alarm in check_alarms(before, limits, task)} & announced
    return tuple(
        alarm for alarm in check_alarms(history, limits, task) if alarm.name not in holding
    )


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [record[name] for record in records if record.get(name) is not None]
    return float(np.mean(values)) if values else None


class _Rule(NamedTuple):
    """An alarm of one figure; `text` is filled in with `now`, `start`, `limit` and `meaning`."""

    name: str
    figure: str
    healthy: str  # one of `_HEALTHY`
    limit: str  # a field of `AlarmLimits`
    text: str


# (over the last window, over the first, limit) -> whether all is well; of a NaN it never is
_HEALTHY: Mapping[str, Callable[[float, float, float], bool]] = {
    "low": lambda now, start, limit: now <= limit,
    "not risen": lambda now, start, limit: now - start <= limit,
    "not fallen": lambda now, start, limit: start - now <= limit,
    "not grown": lambda now, start, limit: now <= limit * start,
    "not shrunk": lambda now, start, limit: start <= limit * now,
}
_CUT = (
    "are cut at the length limit and lose their answer. The limit is too low, or the model no "
    "longer stops. Raise MAX_NEW_TOKENS; if the text runs on without an end, raise 'truncated' in "
    "REWARDS and lower LEARNING_RATE."
)
_LENGTH = "Completions have {now:.0f} tokens, at the start they had {start:.0f}. "
_RULES = (
    _Rule(
        *("truncation", "truncation_rate", "low", "truncation"),
        "{now:.0%} of the completions " + _CUT,
    ),
    _Rule(
        *("truncation", "truncation_rate", "not risen", "truncation_rise"),
        "{now:.0%} of the completions (at the start {start:.0%}) " + _CUT,
    ),
    _Rule(
        *("length drift", "completion_tokens", "not grown", "length_ratio"),
        _LENGTH + "The model writes more than it needs, or repeats itself. Set 'brevity' in "
        "REWARDS to a small value, lower the terms that a longer text earns more of, raise BETA, "
        "or try LOSS 'dr-grpo'.",
    ),
    _Rule(
        *("length drift", "completion_tokens", "not shrunk", "length_ratio"),
        _LENGTH + "The model leaves its steps out. Lower 'brevity' in REWARDS, raise BETA, or "
        "lower LEARNING_RATE.",
    ),
    _Rule(
        *("KL", "kl", "low", "kl"),
        "The KL to the reference is {now:.2f} nats a token, over {limit:g}: the policy has left "
        "the model it started from. Updates are too large. Lower LEARNING_RATE or raise BETA, and "
        "go on from an earlier checkpoint.",
    ),
    _Rule(
        *("entropy collapse", "entropy", "not shrunk", "entropy_ratio"),
        "Entropy fell from {start:.3f} to {now:.3f} nats a token: completions of a group become "
        "copies of one another, and there is nothing left to choose from. Lower LEARNING_RATE, "
        "raise BETA or TEMPERATURE.",
    ),
)


def _rules_of(task: Task) -> tuple[_Rule, ...]:
    """Return the rules of a task's own metrics: no unwanted rate high, no loss of the form."""
    unwanted = (
        _Rule(
            *(_words(one.name), one.name, "low", "unwanted_rate"),
            f"{_words(one.name)} is {{now:.0%}} ({{meaning}}). The strict form is worth too "
            f"little, or was never learnt. Raise '{task.form}' in REWARDS or BETA, or start from "
            "a MODEL that was fine-tuned to the form.",
        )
        for one in task.metrics
        if one.better == "lower" and one.kind == "rate"
    )
    falling = _Rule(
        *("form falling", task.form, "not fallen", "form_fall"),
        f"{_words(task.form)} fell from {{start:.0%}} to {{now:.0%}}: what the fine-tuning taught "
        f"is being lost. Lower LEARNING_RATE, raise BETA or '{task.form}' in REWARDS.",
    )
    return (*unwanted, falling)


def _message(rule: _Rule, seen: _Seen) -> str | None:
    now, start = seen.now(rule.figure), seen.start(rule.figure)
    limit = getattr(seen.limits, rule.limit)
    if now is None or (rule.healthy != "low" and start is None):
        return None
    if _HEALTHY[rule.healthy](now, start or 0.0, limit):
        return None
    meaning = {one.name: one.meaning for one in seen.task.metrics}.get(rule.figure)
    return rule.text.format(now=now, start=start, limit=limit, meaning=meaning)


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _zero_variance_groups(seen: _Seen) -> str | None:
    share, headline = seen.now("zero_variance_groups"), seen.task.headline
    if share is None or share <= seen.limits.zero_variance_groups:
        return None
    reached = seen.now(headline) or 0.0
    which, other, easily = (
        ("harder", "always", "easy") if reached >= 0.5 else ("easier", "never", "hard")
    )
    return (
        f"In {share:.0%} of the groups all rewards are equal, so they give no gradient. "
        f"{_words(headline)} is {reached:.0%}: the prompts are too {easily}. Give "
        f"DIFFICULTY_FILTER {which} groups, leave out what is {other} solved (PASS_RATE_SAMPLES), "
        "or raise NUM_GENERATIONS or TEMPERATURE."
    )


def _reward_without_answers(seen: _Seen) -> str | None:
    if len(seen.probes) < 2:
        return None
    first, newest = seen.probes[0], seen.probes[-1]
    # What came after the newest probe is not for it to confirm.
    steps = [record for record in seen.steps if record["step"] <= newest["step"]]
    until = replace(seen, steps=steps)
    now, start = until.now("reward"), until.start("reward")
    if now is None or start is None or now - start <= seen.limits.reward_rise:
        return None
    before, after = first["probe_accuracy"], newest["probe_accuracy"]
    if after - before >= seen.limits.probe_share * (now - start):
        return None
    headline = seen.task.headline
    return (
        f"The reward rose from {start:.2f} to {now:.2f}, the probe's {_words(headline)} "
        f"went from {before:.1%} to {after:.1%}. The model has found rewards that are not right "
        "answers: read the rollouts with the best rewards. Lower what REWARDS pays besides "
        f"'{headline}'; if the rollouts' answers did improve, raise NUM_SAMPLES or lower "
        "LEARNING_RATE."
    )


def _no_reward(seen: _Seen) -> str | None:
    window = seen.steps[-seen.limits.window :]
    if len(window) < seen.limits.window:
        return None
    if any(record["reward"] != 0 or record.get("reward_std", 0) != 0 for record in window):
        return None
    return (
        f"Every reward of the last {len(window)} steps is 0: nothing is learnt. The model does not "
        "write the form at all, or is cut before its answer. Read a rollout; start from a MODEL "
        "that was fine-tuned to the form, raise MAX_NEW_TOKENS, or set TEMPERATURE to 1.0 or lower."
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
    "zero-variance groups": _zero_variance_groups,
    "no reward": _no_reward,
    "reward without answers": _reward_without_answers,
    "recompiling": _recompiling,
}
