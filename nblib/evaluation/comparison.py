"""Stages on the same items, compared: what was gained, how sure that is, and what got worse.

Every stage before the last is tested against the last, item by item, with Holm's correction for
several tests. What is compared, and what counts as the form, is said by the task.

Stages may be compared when they have the same items, token limit and prompts. Models asked here and
now differ in their prompts on purpose, and the report says how. A file's prompts were chosen
somewhere else, so they must be those of every stage beside it.
"""

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from nblib.evaluation.answers import Stage, stage_of
from nblib.evaluation.candidates import Candidate
from nblib.evaluation.forgetting import Forgotten
from nblib.evaluation.statistics import (
    Paired,
    Record,
    by_id,
    holm,
    paired_by,
    paired_comparison,
    record_figures,
    smallest_difference,
)
from nblib.tasks.comparators import normalized
from nblib.tasks.task import Metric, Task

_ITEM, _GROUP = ("question", "reference"), itemgetter("group")
_BUCKETS = 4  # of question length
_NOTHING_FORGOTTEN = Forgotten()


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the last stage gained over an earlier one; `p_holm` is corrected for all such tests."""

    over: str
    paired: Paired
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the last of several stages gained over each earlier one."""

    base: str  # name of the first stage
    tuned: str  # name of the last one
    metric: str  # the task's lenient one: it also judges a base that never learnt the form
    gains: tuple[Gain, ...]  # over each earlier stage, in headline and fallback
    by_group: Mapping[str, Paired]  # group -> gain over the first stage, in `metric`
    by_length: Mapping[str, Paired]  # words of the question, as "14 to 20 words" -> the same
    given_form: Mapping[str, Mapping[str, Any]]  # stage -> the headline of completions in the form
    smallest: float  # gain in `metric` over the first stage that these items show
    regressions: tuple[tuple[str, str], ...]  # (id, earlier stage): right there, lost in the last


def comparable(
    stages: Sequence[Stage],
    task: Task,
    candidates: Sequence[Candidate],
    *,
    allow_mismatch: bool,
) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """Return the stages on the items that all of them have, and sentences on what differs.

    Metrics are counted again where items are left out. Raises ValueError where something differs
    and `allow_mismatch` is not set, or where no item is in all stages.
    """
    files = {candidate.name for candidate in candidates if candidate.is_file}
    problems = tuple(
        f"{first.name} and {second.name}: {problem}"
        for first, second in itertools.combinations(stages, 2)
        for problem in _problems(first, second, prompts=bool({first.name, second.name} & files))
    )
    if problems and not allow_mismatch:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(
            f"these stages cannot be compared:\n{lines}\nAsk the same questions with the same "
            "settings, or allow the mismatch (--allow-mismatch, ALLOW_MISMATCH): the items in all "
            "stages are then compared, and the report says so."
        )
    return tuple(_narrowed(stages, task)), problems


def first_items(stages: Sequence[Stage], task: Task, count: int) -> tuple[Stage, ...]:
    """Return the stages with their first `count` items alone."""
    return tuple(stage_of(one.name, one.records[:count], task) for one in stages)


def compare_stages(stages: Sequence[Stage], task: Task) -> Comparison:
    """Compare the last stage with every earlier one; ValueError where they have other items."""
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
        by_group=paired_by(_GROUP, first, final, metric),
        by_length=paired_by(_length_bucket(first), first, final, metric),
        given_form=_given_form(stages, task),
        smallest=smallest_difference(first, final, metric),
        regressions=_regressions(earlier, last, task),
    )


def paired_by_group(stages: Sequence[Stage], task: Task) -> dict[str, Paired]:
    """Compare first and last stage in the headline: "all" items, then each group's; {} of none."""
    if not stages:
        return {}
    first, second = stages[0].records, stages[-1].records
    metric = task.metric(task.headline)
    groups = paired_by(_GROUP, first, second, metric)
    return {"all": paired_comparison(first, second, metric), **groups}


def comparison_metrics(
    comparison: Comparison,
    stages: Sequence[Stage],
    task: Task,
    *,
    forgotten: Forgotten = _NOTHING_FORGOTTEN,
    **more: Any,
) -> dict[str, Any]:
    """Return the content of `comparison_metrics.json`; `more` stands beside it as it is."""
    by_name = {stage.name: {"stage": stage.name, **stage.metrics} for stage in stages}
    return {
        "base": by_name[comparison.base],
        "tuned": by_name[comparison.tuned],
        "stages": by_name,
        "paired": comparison,
        "failures": failure_counts(stages, task),
        "forgetting": forgotten.checks,
        "perplexity": forgotten.perplexity,
        **more,
    }


def failure_kind(record: Record, task: Task) -> str | None:
    """Return the first rule of the form that a completion broke, None where the form is whole.

    A completion that was cut counts as "truncated"; a wrong answer breaks no rule of the form.
    """
    if task.is_right(record, task.form) and record["answer"] is not None:
        return None
    return "truncated" if record["truncated"] else record["failure"] or "other failure"


def failure_counts(stages: Sequence[Stage], task: Task) -> dict[str, dict[str, int]]:
    """Return stage -> kind of failure -> number of items, the kinds of all stages, commonest first.

    "wrong answer" is counted as well: it is what remains when the form is learnt.
    """
    counts = {
        stage.name: Counter(failure_kind(one, task) or one["failure"] for one in stage.records)
        for stage in stages
    }
    total = sum(counts.values(), Counter[str | None]())
    kinds = [kind for kind, _ in total.most_common() if kind]
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


def _problems(first: Stage, second: Stage, *, prompts: bool) -> Iterator[str]:
    before, after = by_id(first.records, first.name), by_id(second.records, second.name)
    both = [id_ for id_ in before if id_ in after]
    alone = len(before) + len(after) - 2 * len(both)
    if alone:
        yield f"{alone} items are in one of them only ({len(both)} in both)"
    for keys in (_ITEM, ("prompt",) if prompts else ()):
        other = [id_ for id_ in both if not _same(before[id_], after[id_], keys)]
        if other:
            yield f"{len(other)} items have another {' or '.join(keys)}, such as {other[0]!r}"
    limits = [sorted({str(r.get("max_new_tokens")) for r in s.records}) for s in (first, second)]
    if limits[0] != limits[1] or len(limits[0]) > 1:
        yield f"max_new_tokens is {' and '.join(limits[0])}, and {' and '.join(limits[1])}"


def _narrowed(stages: Sequence[Stage], task: Task) -> Iterator[Stage]:
    """Yield the stages with the items alone that are the same in all of them."""
    found = [by_id(stage.records, stage.name) for stage in stages]
    common = {
        id_
        for id_, record in found[0].items()
        if all(id_ in there and _same(record, there[id_], _ITEM) for there in found[1:])
    }
    if not common:
        names = ", ".join(stage.name for stage in stages)
        raise ValueError(f"no item is in all of {names}: there is nothing to compare")
    for stage in stages:
        kept = [record for record in stage.records if record["id"] in common]
        yield stage if len(kept) == len(stage.records) else stage_of(stage.name, kept, task)


def _same(first: Record, second: Record, keys: Sequence[str]) -> bool:
    return all(first.get(key) == second.get(key) for key in keys)


def _gains(earlier: Sequence[Stage], last: Stage, metric: Metric) -> list[Gain]:
    tests = [paired_comparison(stage.records, last.records, metric) for stage in earlier]
    found = zip(earlier, tests, holm([test.p_value for test in tests]), strict=True)
    return [Gain(over=stage.name, paired=test, p_holm=p) for stage, test, p in found]


def _length_bucket(records: Sequence[Record]) -> Callable[[Record], str]:
    """Return a function from a record to its bucket: as many records are in each."""
    lengths = sorted(map(_words, records))
    cuts = sorted({lengths[len(lengths) * part // _BUCKETS] for part in range(1, _BUCKETS)})
    ends = zip([lengths[0], *cuts], [*(cut - 1 for cut in cuts), lengths[-1]], strict=True)
    names = [f"{low} to {high} words" for low, high in ends]
    return lambda record: names[bisect_right(cuts, _words(record))]


def _words(record: Record) -> int:
    return len(str(record.get("question", record.get("prompt", ""))).split())


def _given_form(stages: Sequence[Stage], task: Task) -> dict[str, dict[str, Any]]:
    found, headline = {}, task.metric(task.headline)
    for stage in stages:
        kept = [one for one in stage.records if task.is_right(one, task.form)]
        if kept:
            found[stage.name] = {"n": len(kept), **record_figures(kept, headline)}
    return found


def _regressions(earlier: Sequence[Stage], last: Stage, task: Task) -> tuple[tuple[str, str], ...]:
    lost = {one["id"] for one in last.records if not task.is_right(one, task.lenient)}
    records = ((one, stage.name) for stage in earlier for one in stage.records if one["id"] in lost)
    return tuple((one["id"], name) for one, name in records if task.is_right(one, task.lenient))


def confusion(stage: Stage) -> dict[str, dict[str, int]]:
    """Return right word -> answered word -> items, of those that are answered by one word.

    What is the right word of no item is "something else": a model can write anything.
    """
    records = [one for one in stage.records if isinstance(one["reference"], str)]
    words = {normalized(one["reference"]): one["reference"] for one in records}
    counts: dict[str, Counter[str]] = {}
    for record in records:
        word = words.get(normalized(record["answer"] or ""), "something else")
        counts.setdefault(record["reference"], Counter())[word] += 1
    return {right: dict(counts[right].most_common()) for right in sorted(counts)}
