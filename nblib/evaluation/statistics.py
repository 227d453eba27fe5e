"""Statistics of scored records: metrics with their intervals, and two stages compared, paired.

A record holds the value of each metric under its name: true or false for a rate, 0..1 for a mean.
The methods are in `evaluation.intervals`.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import stdev
from typing import Any, Literal, TypeVar

from nblib.evaluation.intervals import (
    mean_difference_test,
    mean_interval,
    rate_difference_test,
    smallest_detectable,
    wilson_interval,
)
from nblib.tasks.task import TRUNCATION, Metric, Task

Record = Mapping[str, Any]
_Item = TypeVar("_Item")
_Weighted = tuple[float, float]  # a value and how much it counts
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)")
_LEAVES = ("correct", "wrong", "omitted", "invented", "true_null")
# Figure of a slot -> the leaves that it is a share of, the correct ones among them.
_OF = {
    "precision": ("correct", "wrong", "invented"),
    "recall": ("correct", "wrong", "omitted"),
    "f1": ("correct", "wrong", "omitted", "invented"),
}


def stage_metrics(records: Iterable[Record], task: Task) -> dict[str, Any]:
    """Return n, each metric of the task, and its 95 % interval as "<metric>_ci95".

    The truncation rate counts the records' `truncated`; where one does not say it, rate and
    interval are None. Of rates no more is kept in memory than counts. Raises ValueError for no
    records, and for one, by its id, without a metric or with a value that the metric cannot have.

    Example:
        {"n": 400, "json_valid": 0.145, "json_valid_ci95": [0.114, 0.183], ...}
    """
    cut = task.metric(TRUNCATION)
    slots: dict[str, list[Mapping[str, int]]] = {}
    counted: Counter[tuple[_Weighted | None, ...]] = Counter()
    for one in records:
        is_cut_known = one.get("truncated") is not None
        last = (_value(one, "truncated", cut.kind), 1.0) if is_cut_known else None
        counted[(*(weighted(one, metric) for metric in task.metrics), last)] += 1
        for slot, leaves in one.get("slots", {}).items():
            slots.setdefault(slot, []).append(leaves)
    if not counted:
        raise ValueError("got 0 records: expected at least one; evaluate at least one example")
    metrics: dict[str, Any] = {"n": counted.total()}
    columns = zip(*counted.elements(), strict=True)
    for metric, values in zip((*task.metrics, cut), columns, strict=True):
        known = [value for value in values if value is not None]
        metrics |= weighted_figures(metric, known if len(known) == len(values) else [])
    return metrics | ({"slots": slot_figures(slots)} if slots else {})


def record_figures(records: Iterable[Record], metric: Metric) -> dict[str, Any]:
    """Return one metric of records, and its 95 % interval, as in `stage_metrics`."""
    return weighted_figures(metric, [weighted(one, metric) for one in records])


def metric_figures(metric: Metric, values: Sequence[float]) -> dict[str, Any]:
    """Return one metric over values that count alike, and its 95 % interval.

    The values of a rate are true and false, or chances in 0..1: these vary less, so that their true
    interval is narrower.
    """
    return weighted_figures(metric, [(value, 1.0) for value in values])


def weighted_figures(metric: Metric, values: Sequence[_Weighted]) -> dict[str, Any]:
    """Return one metric over values with weights, of which a rate's are 1; None where all are 0."""
    if not any(weight for _, weight in values):
        return {metric.name: None, f"{metric.name}_ci95": None}
    if metric.kind == "rate":
        n, total = len(values), sum(value for value, _ in values)
        return {metric.name: total / n, f"{metric.name}_ci95": list(wilson_interval(total, n))}
    low, high = mean_interval(influence(values))
    whole = math.fsum(weight for _, weight in values)
    mean = math.fsum(value * weight for value, weight in values) / whole
    return {metric.name: mean, f"{metric.name}_ci95": [max(0.0, low), min(1.0, high)]}


def influence(values: Sequence[_Weighted]) -> list[float]:
    """Return a number for each value: their mean is the weighted mean, and they vary as it does.

    The delta method: R + n w (v - R) / sum(w), with R the weighted mean. Where all weights are
    alike it is v. So a bootstrap of these numbers is one of a weighted mean.

    >>> influence([(1.0, 1), (0.0, 3)])
    [0.625, -0.125]
    """
    n, whole = len(values), math.fsum(weight for _, weight in values)
    if not whole:
        return [0.0] * n
    if all(weight == values[0][1] for _, weight in values):
        return [value for value, _ in values]
    mean = math.fsum(value * weight for value, weight in values) / whole
    return [mean + n * weight * (value - mean) / whole for value, weight in values]


def slot_figures(slots: Mapping[str, Sequence[Mapping[str, int]]]) -> dict[str, dict[str, Any]]:
    """Return precision, recall and F1 of each slot, and `n`, how many leaves there are to find.

    `slots` holds counts of leaves by how they came out, one for each record that has the slot. A
    figure is None where nothing is there that it is a share of.

    Example:
        {"price": {"n": 80, "precision": 0.9, "recall": 0.85, "f1": 0.874, "f1_ci95": [..], ...}}
    """
    return {slot: _slot_figures(leaves) for slot, leaves in slots.items()}


def _slot_figures(leaves: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    counts = {name: sum(one.get(name, 0) for one in leaves) for name in _LEAVES}
    figures: dict[str, Any] = {"n": sum(counts[name] for name in _OF["recall"])}
    for name, parts in _OF.items():
        doubled = {"correct", "wrong"} if name == "f1" else set()
        times = {part: 2 if part in doubled else 1 for part in parts}
        each = []
        for one in leaves:
            of = sum(count * one.get(part, 0) for part, count in times.items())
            right = times["correct"] * one.get("correct", 0)
            each.append((right / of if of else 0.0, float(of)))
        figures |= weighted_figures(Metric(name=name, meaning="", kind="mean"), each)
    return figures | counts


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in their natural order: numbers in them count as numbers.

    >>> in_order(["10", "2"]), in_order(["level 10", "level 2", "easy"])
    (['2', '10'], ['easy', 'level 2', 'level 10'])
    """

    def parts(name: str) -> list[Any]:  # every second one is a number
        return [float(part) if n % 2 else part for n, part in enumerate(_NUMBER.split(name))]

    return sorted(names, key=parts)


def grouped(items: Iterable[_Item], key: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    """Return the items by their keys, in the order in which they come."""
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One metric of two stages on the same `n` items: counts, and fractions of 1."""

    metric: str
    kind: Literal["rate", "mean"] = "rate"
    n: int
    both_right: int | None  # of a rate, items that have it in both stages; None for a mean
    only_first: int  # items that have it in the first stage alone; of a mean, higher there
    only_second: int
    neither: int | None  # of a rate, items that have it in no stage; None for a mean
    difference: float  # the second stage's metric less the first's: above 0 the second is higher
    ci95: tuple[float, float]  # of the difference
    p_value: float  # two-sided, for no difference; below 0.05 exactly where `ci95` leaves 0 out


def paired_comparison(first: Sequence[Record], second: Sequence[Record], metric: Metric) -> Paired:
    """Compare one metric of two stages, item by item; the records' order does not count.

    Raises ValueError, by the item, for no records, an item that repeats or that one stage lacks,
    another reference, and a value that the metric cannot have.
    """
    return _compared(_items(first, second), metric)


def paired_by(
    group: Callable[[Record], str],
    first: Sequence[Record],
    second: Sequence[Record],
    metric: Metric,
) -> dict[str, Paired]:
    """Do the `paired_comparison` on the items of each group, the groups `in_order`.

    `group` names the group of a record of `first`; items of the group "" are left out.
    """
    groups = grouped(_items(first, second), lambda pair: group(pair[0]))
    return {name: _compared(groups[name], metric) for name in in_order(filter(None, groups))}


def smallest_difference(first: Sequence[Record], second: Sequence[Record], metric: Metric) -> float:
    """Return the smallest difference that these items show, from how far the two stages differ.

    At least one item counts as different.
    """
    differences = [after - before for before, after in _values(_items(first, second), metric)]
    n, is_rate = len(differences), metric.kind == "rate"
    share = max(1, sum(map(abs, differences))) / n
    spread = share if is_rate else stdev([*differences, -1.0, 1.0])
    return smallest_detectable(n, spread, kind=metric.kind)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for being several, in their order.

    The step-down of S. Holm, Scandinavian Journal of Statistics 6 (1979), p. 65.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    steps = (min(1.0, (len(order) - rank) * p_values[i]) for rank, i in enumerate(order))
    return [p for _, p in sorted(zip(order, accumulate(steps, max), strict=True))]


def _value(record: Record, key: str, kind: str) -> float:
    value, is_rate = record.get(key), kind == "rate"
    is_number = isinstance(value, int | float) and isinstance(value, bool) == is_rate
    if is_number and 0 <= value <= 1:  # type: ignore[operator]
        return value  # type: ignore[return-value]
    expected = "true or false" if is_rate else "a number in 0..1"
    raise ValueError(f"item {record.get('id')!r}: {key} is {value!r}, expected {expected}")


def weighted(record: Record, metric: Metric) -> _Weighted:
    """Return a record's value of a metric and its weight."""
    weights = record.get("weights") or {}
    return _value(record, metric.name, metric.kind), float(weights.get(metric.name, 1))


def _values(items: Sequence[tuple[Record, Record]], metric: Metric) -> list[tuple[float, float]]:
    """Return a metric's values of both records; of a mean, numbers as `influence` makes them."""
    stages = ([weighted(one, metric) for one in side] for side in zip(*items, strict=True))
    if metric.kind == "rate":
        return list(zip(*([value for value, _ in stage] for stage in stages), strict=True))
    return list(zip(*map(influence, stages), strict=True))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _compared(items: Sequence[tuple[Record, Record]], metric: Metric) -> Paired:
    values = _values(items, metric)
    n, is_rate = len(values), metric.kind == "rate"
    differences = [after - before for before, after in values]
    signs = [_sign(weighted(b, metric)[0] - weighted(a, metric)[0]) for a, b in items]
    lost, gained = signs.count(-1), signs.count(1)
    ci95, p_value = (
        rate_difference_test(gained, lost, n) if is_rate else mean_difference_test(differences)
    )
    return Paired(
        metric=metric.name,
        kind=metric.kind,
        n=n,
        both_right=values.count((True, True)) if is_rate else None,
        only_first=lost,
        only_second=gained,
        neither=values.count((False, False)) if is_rate else None,
        difference=math.fsum(differences) / n,
        ci95=ci95,
        p_value=p_value,
    )


def _items(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Return both records of each item, in the order of the first stage."""
    before, after = by_id(first, "first"), by_id(second, "second")
    for here, there, which in ((before, after, "second"), (after, before, "first")):
        missing = [id_ for id_ in here if id_ not in there]
        if missing:
            raise ValueError(
                f"the {which} stage lacks {len(missing)} items of the other, such as "
                f"{missing[0]!r}: expected the same items in both"
            )
    for id_, record in before.items():
        if record["reference"] != after[id_]["reference"]:
            raise ValueError(
                f"item {id_!r} has the reference {record['reference']!r} in the first stage and "
                f"{after[id_]['reference']!r} in the second: expected the same items in both"
            )
    return [(record, after[id_]) for id_, record in before.items()]


def by_id(records: Sequence[Record], stage: str) -> dict[str, Record]:
    """Return the records of one stage by their items; ValueError for none, or one that repeats."""
    if not records:
        raise ValueError(f"the {stage} stage has no records: expected one an item")
    found: dict[str, Record] = {}
    for record in records:
        if record["id"] in found:
            raise ValueError(
                f"item {record['id']!r} repeats in the {stage} stage: "
                "expected the records of one stage, one an item"
            )
        found[record["id"]] = record
    return found
