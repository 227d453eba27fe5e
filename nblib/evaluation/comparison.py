"""Stages on the same items, compared: what was gained, how sure that is, and what got worse.

Every stage before the last is tested against the last, item by item, with Holm's correction for
several tests. What is compared, and what counts as the form, is said by the task.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nblib.evaluation.answers import Stage
from nblib.evaluation.statistics import (
    Paired,
    holm,
    metric_figures,
    paired_by,
    paired_comparison,
    smallest_difference,
)
from nblib.tasks.task import Metric, Task

_BUCKETS = 4  # of question length


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the last stage gained over an earlier one; `p_holm` is corrected for all such tests."""

    over: str
    paired: Paired
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the last of several stages gained over each earlier one.

    Attributes:
        base: Name of the first stage.
        tuned: Name of the last one.
        metric: The task's lenient metric, which also judges a base that never learnt the form.
        gains: Over each earlier stage, in the headline and in the fallback, where there is one.
        by_group: Group -> the gain over the first stage on its items, in `metric`.
        by_length: Words of the question, as "14 to 20 words" -> the same on those items.
        given_form: Stage -> the headline among the completions in the strict form; stages without
            one are left out.
        smallest: The smallest gain in `metric` over the first stage that these items show.
        regressions: (id, earlier stage) of items right in `metric` that the last stage lost.
    """

    base: str
    tuned: str
    metric: str
    gains: tuple[Gain, ...]
    by_group: Mapping[str, Paired]
    by_length: Mapping[str, Paired]
    given_form: Mapping[str, Mapping[str, Any]]
    smallest: float
    regressions: tuple[tuple[str, str], ...]


def compare_stages(stages: Sequence[Stage], task: Task) -> Comparison:
    """Compare the last stage with every earlier one, on the same items.

    Raises:
        ValueError: fewer than two stages, a name that repeats, or other items.
    """
    names = [stage.name for stage in stages]
    if len(stages) < 2 or len(set(names)) < len(names):
        raise ValueError(f"stages are {names}, expected at least two, each with its own name")
    *earlier, last = stages
    first, final, metric = stages[0].records, last.records, task.metric(task.lenient)
    tested = [task.metric(name) for name in dict.fromkeys((task.headline, task.lenient))]
    return Comparison(
        base=names[0],
        tuned=last.name,
        metric=metric.name,
        gains=tuple(gain for each in tested for gain in _gains(earlier, last, each)),
        by_group=paired_by(first, final, lambda record: record["group"], metric),
        by_length=paired_by(first, final, _length_bucket(first), metric),
        given_form=_given_form(stages, task),
        smallest=smallest_difference(first, final, metric),
        regressions=_regressions(earlier, last, task),
    )


def gains_by_group(stages: Sequence[Stage], task: Task) -> dict[str, Paired]:
    """Return what the last stage gained over the first in the headline: "all", then each group.

    {} where nothing was evaluated.
    """
    if not stages:
        return {}
    first, last, headline = stages[0].records, stages[-1].records, task.metric(task.headline)
    by_group = paired_by(first, last, lambda record: record["group"], headline)
    return {"all": paired_comparison(first, last, headline), **by_group}


def comparison_metrics(
    comparison: Comparison, stages: Sequence[Stage], **more: Any
) -> dict[str, Any]:
    """Return the content of `comparison_metrics.json`; `more` stands beside it as it is."""
    by_name = {stage.name: {"stage": stage.name, **stage.metrics} for stage in stages}
    return {
        "base": by_name[comparison.base],
        "tuned": by_name[comparison.tuned],
        "stages": by_name,
        "paired": comparison,
        **more,
    }


def failure_kind(record: Mapping[str, Any], task: Task) -> str | None:
    """Return the first rule of the form that a completion broke, None where the form is whole.

    A completion that was cut counts as "truncated". A wrong answer in the right form is no failure
    of the form.
    """
    if task.is_right(record, task.form) and record["answer"] is not None:
        return None
    return "truncated" if record["truncated"] else record["failure"] or "other failure"


def failure_counts(stages: Sequence[Stage], task: Task) -> dict[str, dict[str, int]]:
    """Return stage -> kind of failure -> number of items, the kinds of all stages, commonest first.

    "wrong answer" is counted as well: it is what remains when the form is learnt.
    """
    counts = {
        stage.name: Counter(
            failure_kind(one, task) or one["failure"] or "none" for one in stage.records
        )
        for stage in stages
    }
    total = sum(counts.values(), Counter[str]())
    kinds = [kind for kind, _ in total.most_common() if kind != "none"]
    return {name: {kind: count[kind] for kind in kinds} for name, count in counts.items()}


def schema_failures(stages: Sequence[Stage], task: Task) -> list[dict[str, Any]]:
    """Return a record for every completion that is not in the form, with the rule it broke first.

    These are the records of `schema_failures_debug.jsonl`.
    """
    kept = ("id", "stage", "reference", "completion", "answer", "truncated", "details")
    return [
        {"broke": kind, **{name: record[name] for name in kept}}
        for stage in stages
        for record in stage.records
        if (kind := failure_kind(record, task)) is not None
    ]


def _gains(earlier: Sequence[Stage], last: Stage, metric: Metric) -> list[Gain]:
    tests = [paired_comparison(stage.records, last.records, metric) for stage in earlier]
    corrected = holm([test.p_value for test in tests])
    return [
        Gain(over=stage.name, paired=test, p_holm=p)
        for stage, test, p in zip(earlier, tests, corrected, strict=True)
    ]


def _length_bucket(records: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], str]:
    """Return a function from a record to its bucket: as many records are in each."""
    lengths = sorted(map(_words, records))
    cuts = sorted({lengths[len(lengths) * part // _BUCKETS] for part in range(1, _BUCKETS)})
    lows, highs = [lengths[0], *cuts], [*(cut - 1 for cut in cuts), lengths[-1]]

    def bucket(record: Mapping[str, Any]) -> str:
        place = sum(_words(record) >= cut for cut in cuts)
        return f"{lows[place]} to {highs[place]} words"

    return bucket


def _words(record: Mapping[str, Any]) -> int:
    return len(str(record.get("question", record.get("prompt", ""))).split())


def _given_form(stages: Sequence[Stage], task: Task) -> dict[str, dict[str, Any]]:
    found = {
        stage.name: [one[task.headline] for one in stage.records if task.is_right(one, task.form)]
        for stage in stages
    }
    headline = task.metric(task.headline)
    return {
        name: {"n": len(values), **metric_figures(headline, values)}
        for name, values in found.items()
        if values
    }


def _regressions(earlier: Sequence[Stage], last: Stage, task: Task) -> tuple[tuple[str, str], ...]:
    lost = {one["id"] for one in last.records if not task.is_right(one, task.lenient)}
    return tuple(
        (record["id"], stage.name)
        for stage in earlier
        for record in stage.records
        if task.is_right(record, task.lenient) and record["id"] in lost
    )
