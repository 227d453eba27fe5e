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
    the first stage to the last. Items that only some stages answered are left out. The order of the
    records does not count. Raises ValueError for a negative count, or an item given twice.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")
    answers = {stage.name: by_id(stage.records, stage.name) for stage in stages}
    shared = set.intersection(*map(set, answers.values())) if answers else ()
    samples = []
    for id_ in sorted(shared):
        records = {name: found[id_] for name, found in answers.items()}
        first, *_, last = [*records.values()] * 2  # a single stage is first and last
        right = KINDS[task.is_right(first)]
        sample = Sample(
            id=id_,
            kind=right if task.is_right(last) else KINDS[2],
            group=last["group"],
            question=last.get("question") or last.get("prompt", ""),
            reference=as_text(last["reference"]),
            records=records,
        )
        samples.append(sample)
    random.Random(seed).shuffle(samples)
    queues = [[one for one in samples if one.kind == kind] for kind in KINDS]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return tuple(itertools.islice(filter(None, in_turn), count))


def samples_table(task: Task, samples: Iterable[Sample]) -> Table:
    """Return a row a sample: question, reference, and what each of the last two stages wrote.

    ```
    | item | question | reference | base | tuned |
    | --- | --- | --- | --- | --- |
    | pens/17 newly right | `Ann has ...` | `14` | `✗ wrong`<br>`14 pens` | `✓ right`<br>... |
    ```
    """
    samples = [*samples]
    shown = [*samples[0].records][-2:] if samples else []
    columns = ("question", "reference", *map(in_words, shown))
    rows = []
    for one in samples:
        records = [one.records[name] for name in shown]
        wrote = (f"{outcome(task, record)}\n{record['completion']}" for record in records)
        rows.append((f"{one.id}\n{one.kind}", one.question, one.reference, *wrote))
    return Table(columns=("item", *columns), rows=tuple(rows), verbatim=columns)


def rollout_table(rollouts: Sequence[Mapping[str, Any]], *, count: int, seed: int) -> Table:
    """Return `count` completions spread over the training, each a random one of its step.

    `rollouts` are records of `rollouts.jsonl`; fewer come back where there are fewer steps.
    """
    steps = sorted({record["step"] for record in rollouts})
    places = {round(i * (len(steps) - 1) / max(1, count - 1)) for i in range(count if steps else 0)}
    rng, rows = random.Random(seed), []
    for step in (steps[place] for place in sorted(places)):
        one = rng.choice([one for one in rollouts if one["step"] == step])
        figures = (f"{one['reward']:.2f}", f"{one['advantage']:+.2f}")
        cut = ", cut at the token limit" if one["truncated"] else ""
        rows.append((f"{step}\n{one['id']}{cut}", *figures, one["completion"]))
    return Table(
        title="Completions through the training",
        columns=("step", "reward", "advantage", "completion"),
        rows=tuple(rows),
        note="one of the step's, drawn with its noise" if rows else "",
        verbatim=("completion",),
    )


def outcome(task: Task, record: Mapping[str, Any]) -> str:
    """Return whether a record has the whole headline; of a mean, how much of it."""
    right = task.is_right(record)
    if task.metric(task.headline).kind == "rate":
        return "✓ right" if right else "✗ wrong"
    return f"{'✓' if right else '✗'} {in_words(task.headline)} {record[task.headline]:.3f}"
