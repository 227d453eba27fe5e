"""Alarms of GRPO: when a run has begun to go wrong, by its records in `metrics.jsonl` alone.

Each says what was seen, its likely cause, and which parameter of the notebook to change: see
`alarms.toml`. An alarm looks at means over the last `WINDOW` steps, not at one step. "The start" is
the first window of the run; it is compared from the second window on.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from nblib.tasks.task import Task

WINDOW = 10  # steps; one step of a hundred completions moves by 5 points by chance
_REWARD_RISE = 0.1  # above the start, in reward; less is noise. Right answers are worth 1
_PROBE_SHARE = 0.2  # of that rise: the least that the probe must have gained
_RECOMPILING = 2  # steps of a window; a resumed run compiles in its first two steps again

Records = Sequence[Mapping[str, Any]]

# (over the last window, over the first, limit) -> whether all is well; of a NaN it never is
_HEALTHY: Mapping[str, Callable[[float, float, float], bool]] = {
    "low": lambda now, start, limit: now <= limit,
    "not risen": lambda now, start, limit: now - start <= limit,
    "not fallen": lambda now, start, limit: start - now <= limit,
    "not grown": lambda now, start, limit: now <= limit * start,
    "not shrunk": lambda now, start, limit: start <= limit * now,
}


def check_alarms(history: Records, task: Task) -> dict[str, str]:
    """Return the messages of the alarms that hold now, by their names.

    `history` holds the records of `metrics.jsonl` so far, those of steps and of probes. A figure
    that is missing or null raises no alarm; one that is not a number does.
    """
    steps = [record for record in history if "reward" in record]
    messages: dict[str, str] = {}
    for alarm in _alarms(task):
        check = _CHECKS.get(alarm["name"], partial(_unhealthy, alarm))
        seen = check(steps, history)
        if seen is not None:
            words = _words(alarm["figure"], steps, task)
            messages.setdefault(alarm["name"], alarm["text"].strip().format(**words, **seen))
    return messages


def new_alarms(history: Records, task: Task) -> dict[str, str]:
    """Return the alarms that hold now and are not announced yet; one that cleared may come back.

    The newest record is the one to be looked at. Records looked at before it have "alarms", the
    names announced with them.
    """
    seen = [index for index, record in enumerate(history[:-1]) if "alarms" in record]
    before = history[: seen[-1] + 1] if seen else ()
    announced = {name for record in before for name in record.get("alarms", ())}
    holding = check_alarms(before, task).keys() & announced
    found = check_alarms(history, task)
    return {name: message for name, message in found.items() if name not in holding}


@cache
def _table() -> list[dict[str, Any]]:
    return list(tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["alarm"])


def _alarms(task: Task) -> Iterator[dict[str, Any]]:
    """Yield the alarms of `alarms.toml`, with the task's own metrics for FORM and UNWANTED."""
    unwanted = [one.name for one in task.metrics if one.better == "lower" and one.kind == "rate"]
    for alarm in _table():
        figure = alarm["figure"]
        for name in {"FORM": [task.form], "UNWANTED": unwanted}.get(figure, [figure]):
            yield alarm | {"figure": name, "name": alarm["name"].replace("UNWANTED", _plain(name))}


def _now(steps: Records, name: str) -> float | None:
    """Return a figure's mean over the last window; None where there is no window or no figure."""
    return _mean(steps[-WINDOW:], name) if len(steps) >= WINDOW else None


def _start(steps: Records, name: str) -> float | None:
    """Return its mean over the first window; None while the last is not wholly after it."""
    return _mean(steps[:WINDOW], name) if len(steps) >= 2 * WINDOW else None


def _mean(records: Records, name: str) -> float | None:
    values = [record[name] for record in records if record.get(name) is not None]
    return float(np.mean(values)) if values else None


def _plain(metric: str) -> str:
    return metric.replace("_", " ")


def _words(figure: str, steps: Records, task: Task) -> dict[str, Any]:
    """Return what a text may say besides what its check has seen."""
    reached = _now(steps, task.headline) or 0.0
    easy = reached >= 0.5
    return {
        "task": task,
        "headline": _plain(task.headline),
        "metric": _plain(figure),
        "meaning": {one.name: one.meaning for one in task.metrics}.get(figure),
        "reached": reached,
        "easily": "easy" if easy else "hard",
        "which": "harder" if easy else "easier",
        "other": "always" if easy else "never",
    }


def _unhealthy(alarm: Mapping[str, Any], steps: Records, history: Records) -> dict[str, Any] | None:
    """Return the figure and its limit where it is not healthy, else None."""
    now, start = _now(steps, alarm["figure"]), _start(steps, alarm["figure"])
    if now is None or (alarm["healthy"] != "low" and start is None):
        return None
    if _HEALTHY[alarm["healthy"]](now, start or 0.0, alarm["limit"]):
        return None
    return {"now": now, "start": start, "limit": alarm["limit"]}


def _no_reward(steps: Records, history: Records) -> dict[str, Any] | None:
    window = steps[-WINDOW:]
    earned = any(one["reward"] != 0 or one.get("reward_std", 0) != 0 for one in window)
    return None if earned or len(window) < WINDOW else {"window": WINDOW}


def _reward_without_answers(steps: Records, history: Records) -> dict[str, Any] | None:
    probes = [record for record in history if record.get("probe_accuracy") is not None]
    if len(probes) < 2:
        return None
    # What came after the newest probe is not for it to confirm.
    steps = [record for record in steps if record["step"] <= probes[-1]["step"]]
    now, start = _now(steps, "reward"), _start(steps, "reward")
    if now is None or start is None or now - start <= _REWARD_RISE:
        return None
    before, after = probes[0]["probe_accuracy"], probes[-1]["probe_accuracy"]
    if after - before >= _PROBE_SHARE * (now - start):
        return None
    return {"now": now, "start": start, "before": before, "after": after}


def _recompiling(steps: Records, history: Records) -> dict[str, Any] | None:
    window = steps[2:][-WINDOW:]  # the first two compile what a step needs
    compiled = [record["step"] for record in window if (record.get("compilations") or 0) > 0]
    if len(compiled) <= _RECOMPILING:
        return None
    newest = ", ".join(map(str, compiled[-5:]))
    return {"compiled": len(compiled), "window": len(window), "newest": newest}


_CHECKS: Mapping[str, Callable[[Records, Records], dict[str, Any] | None]] = {
    "no reward": _no_reward,
    "reward without answers": _reward_without_answers,
    "recompiling": _recompiling,
}
