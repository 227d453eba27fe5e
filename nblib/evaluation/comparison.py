"""Stages on the same items, compared: what was gained, how sure that is, and what got worse.

Every stage before the last is tested against the last, item by item. The rates of one stage are in
`evaluation.metrics`, the test of two in `evaluation.paired`; here stands what several stages need:
Holm's correction, groups of items, the answers given the form, and what broke.

Correction: S. Holm, Scandinavian Journal of Statistics 6 (1979), p. 65.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nblib.evaluation.evaluate import Stage
from nblib.evaluation.metrics import LENIENT, rate_metrics
from nblib.evaluation.paired import (
    Paired,
    paired_by,
    paired_by_level,
    paired_comparison,
    smallest_detectable,
)
from nblib.evaluation.tables import in_words

_FIELDS = ("correct", LENIENT)
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
        gains: Over each earlier stage, in right answers and in right answers whatever the form.
        by_level: Level -> the gain over the first stage on its items, whatever the form.
        by_length: Words of the question, as "14 to 20 words" -> the same on those items.
        given_format: Stage -> the rate of right answers among those strictly in the form; stages
            without one are left out.
        smallest: The smallest gain over the first stage, whatever the form, that these items show.
        regressions: (id, earlier stage) of items that the last stage lost, whatever the form.
    """

    base: str
    tuned: str
    gains: tuple[Gain, ...]
    by_level: Mapping[int, Paired]
    by_length: Mapping[str, Paired]
    given_format: Mapping[str, Mapping[str, Any]]
    smallest: float
    regressions: tuple[tuple[str, str], ...]


def compare_stages(stages: Sequence[Stage]) -> Comparison:
    """Compare the last stage with every earlier one, on the same items.

    Raises:
        ValueError: fewer than two stages, a name that repeats, or other items.
    """
    names = [stage.name for stage in stages]
    if len(stages) < 2 or len(set(names)) < len(names):
        raise ValueError(f"stages are {names}, expected at least two, each with its own name")
    *earlier, last = stages
    gains = [gain for field in _FIELDS for gain in _gains(earlier, last, field)]
    first = sorted(stages[0].records, key=_words)  # so that the shortest questions come first
    whole = next(one.paired for one in gains if one.paired.rate == f"{LENIENT}_accuracy")
    discordant = max(1, whole.only_first + whole.only_second)
    return Comparison(
        base=names[0],
        tuned=last.name,
        gains=tuple(gains),
        by_level=paired_by_level(first, last.records, field=LENIENT),
        by_length=paired_by(first, last.records, _length_bucket(first), field=LENIENT),
        given_format=_given_format(stages),
        smallest=smallest_detectable(whole.n, discordant / whole.n),
        regressions=_regressions(earlier, last),
    )


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


def comparison_lead(comparison: Comparison, stages: Sequence[Stage]) -> str:
    """Return the report's first paragraph: the rates of the first and the last, and the gain."""
    first, last = stages[0], stages[-1]
    lenient = next(
        gain.paired
        for gain in comparison.gains
        if gain.over == comparison.base and gain.paired.rate == f"{LENIENT}_accuracy"
    )
    low, high = (100 * bound for bound in lenient.ci95)
    return (
        f"Strict format went from {first.metrics['format_accuracy']:.1%} ({in_words(first.name)}) "
        f"to {last.metrics['format_accuracy']:.1%} ({in_words(last.name)}) on the same "
        f"{lenient.n:,} held-out questions. Right answers, whatever the form, changed by "
        f"{100 * lenient.difference:+.1f} points [{low:+.1f}, {high:+.1f}], "
        f"from {first.metrics['lenient_accuracy']:.1%} to {last.metrics['lenient_accuracy']:.1%}."
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for being several, in their order (Holm's step-down).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def failure_kind(record: Mapping[str, Any]) -> str | None:
    """Return the first rule of the form that a completion broke, None where the form is whole.

    A completion that was cut is "truncated", whatever the cut took away. A wrong number in the
    right form is no failure of the form.
    """
    if record["format"] and record["extractable"]:
        return None
    return "truncated" if record["truncated"] else record["failure"]


def failure_counts(stages: Sequence[Stage]) -> dict[str, dict[str, int]]:
    """Return stage -> kind of failure -> number of items, the kinds of all stages, commonest first.

    "wrong answer" is counted as well: it is what remains when the form is learnt.
    """
    counts = {
        stage.name: Counter(failure_kind(one) or one["failure"] or "none" for one in stage.records)
        for stage in stages
    }
    total = sum(counts.values(), Counter[str]())
    kinds = [kind for kind, _ in total.most_common() if kind != "none"]
    return {name: {kind: count[kind] for kind in kinds} for name, count in counts.items()}


def schema_failures(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return a record for every completion that is not in the form, with the rule it broke first.

    These are the records of `schema_failures_debug.jsonl`.
    """
    kept = ("id", "stage", "reference", "completion", "answer", "truncated")
    return [
        {"broke": kind, **{name: record[name] for name in kept}}
        for stage in stages
        for record in stage.records
        if (kind := failure_kind(record)) is not None
    ]


def _gains(earlier: Sequence[Stage], last: Stage, field: str) -> list[Gain]:
    tests = [paired_comparison(stage.records, last.records, field=field) for stage in earlier]
    corrected = holm([test.p_value for test in tests])
    return [
        Gain(over=stage.name, paired=test, p_holm=p)
        for stage, test, p in zip(earlier, tests, corrected, strict=True)
    ]


def _length_bucket(
    records: Sequence[Mapping[str, Any]],
) -> Callable[[Mapping[str, Any]], str | None]:
    """Return a function from a record to its bucket: parts of the records, which are in order."""
    lengths = [_words(record) for record in records]
    cuts = sorted({lengths[len(lengths) * part // _BUCKETS] for part in range(1, _BUCKETS)})
    lows, highs = [lengths[0], *cuts], [*(cut - 1 for cut in cuts), lengths[-1]]

    def bucket(record: Mapping[str, Any]) -> str | None:
        words = _words(record)
        place = sum(words >= cut for cut in cuts)
        return f"{lows[place]} to {highs[place]} words"

    return bucket


def _words(record: Mapping[str, Any]) -> int:
    return len(str(record.get("question", record.get("prompt", ""))).split())


def _given_format(stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    right = {stage.name: [r["correct"] for r in stage.records if r["format"]] for stage in stages}
    return {
        name: {"n": len(hits), **rate_metrics("answer_accuracy", hits)}
        for name, hits in right.items()
        if hits
    }


def _regressions(earlier: Sequence[Stage], last: Stage) -> tuple[tuple[str, str], ...]:
    lost = {record["id"] for record in last.records if not record[LENIENT]}
    return tuple(
        (record["id"], stage.name)
        for stage in earlier
        for record in stage.records
        if record[LENIENT] and record["id"] in lost
    )
