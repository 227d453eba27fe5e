"""Which completions a person is shown: a few items, with what every stage made of each."""

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nblib.evaluation.statistics import by_id
from nblib.report.tables import Table, as_text, in_words
from nblib.tasks.task import Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage

KINDS = ("newly right", "right throughout", "wrong at the end")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One item, with the record of each stage in the order of time."""

    id: str
    kind: str  # one of KINDS
    group: str
    question: str
    reference: str
    records: Mapping[str, Mapping[str, Any]]


def pick_samples(
    task: Task, stages: Sequence["Stage"], *, count: int, seed: int
) -> tuple[Sample, ...]:
    """Pick `count` items, one of each kind in turn, so that failures are always among them.

    An item is right in a stage that has the whole headline. The kinds say what became of it from
    the first stage to the last. Items that only some stages answered are left out.

    Args:
        task: Its headline judges.
        stages: In the order of time.
        count: Items wanted; fewer come back where there are fewer.
        seed: Decides which items of a kind; the order of the records does not.

    Raises ValueError for a negative count, or an item given twice.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")
    answers = [by_id(stage.records, stage.name) for stage in stages]
    shared = set.intersection(*map(set, answers)) if answers else ()
    names = [stage.name for stage in stages]
    samples = [
        _sample(task, dict(zip(names, (found[id_] for found in answers), strict=True)))
        for id_ in sorted(shared)
    ]
    random.Random(seed).shuffle(samples)
    queues = [[one for one in samples if one.kind == kind] for kind in KINDS]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return tuple(itertools.islice(filter(None, in_turn), count))


def samples_table(task: Task, samples: Iterable[Sample], *, last: int = 2) -> Table:
    """Return a row a sample: question, reference, and what each of the `last` stages wrote.

    ```
    | item | question | reference | base | tuned |
    | --- | --- | --- | --- | --- |
    | pens/17 newly right | `Ann has ...` | `14` | `✗ wrong`<br>`14 pens` | `✓ right`<br>... |
    ```
    """
    samples = [*samples]
    shown = list(samples[0].records)[-last:] if samples else []
    columns = ("question", "reference", *map(in_words, shown))
    return Table(
        columns=("item", *columns),
        rows=tuple(
            (
                *(f"{one.id}\n{one.kind}", one.question, one.reference),
                *(_judged(task, one.records[name]) for name in shown),
            )
            for one in samples
        ),
        verbatim=columns,
    )


def outcome(task: Task, record: Mapping[str, Any]) -> str:
    """Return whether a record has the whole headline; of a mean, how much of it."""
    right = task.is_right(record)
    if task.metric(task.headline).kind == "rate":
        return "✓ right" if right else "✗ wrong"
    return f"{'✓' if right else '✗'} {in_words(task.headline)} {record[task.headline]:.3f}"


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


def _sample(task: Task, records: Mapping[str, Mapping[str, Any]]) -> Sample:
    first, *_, last = [next(iter(records.values())), *records.values()]
    newly_right, right_throughout, wrong_at_the_end = KINDS
    right = right_throughout if task.is_right(first) else newly_right
    return Sample(
        id=last["id"],
        kind=right if task.is_right(last) else wrong_at_the_end,
        group=last["group"],
        question=last.get("question") or last.get("prompt", ""),
        reference=as_text(last["reference"]),
        records=records,
    )


def _judged(task: Task, record: Mapping[str, Any]) -> str:
    return f"{outcome(task, record)}\n{record['completion']}"
