"""Which completions a person is shown: a few items, with what every stage made of each.

Picks only; the page that shows them is in `report.py`.
"""

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

KINDS = ("newly right", "right throughout", "wrong at the end")
_NEEDED = frozenset(
    {
        "id",
        "stage",
        "prompt",
        "completion",
        "reference",
        "answer",
        "correct",
        "format",
        "failure",
        "truncated",
    }
)


def pick_samples(
    predictions: Sequence[Mapping[str, Any]], *, count: int, seed: int
) -> list[dict[str, Any]]:
    """Pick `count` items, one of each kind in turn, so that failures are always among them.

    Args:
        predictions: Records of `predictions.jsonl`, the stages in the order of time.
        count: Items wanted; fewer come back where there are fewer.
        seed: Decides which items of a kind; the order of the file does not.

    Returns:
        `{"id", "kind", "question", "reference", "level", "stages": {stage: record}}` each. Items
        that only some stages answered are left out.

    Raises:
        ValueError: a negative count, a record without its fields, or an item given twice.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")
    groups = _by_item(predictions)
    most = max(map(len, groups.values()), default=0)
    items = [_sample(groups[name]) for name in sorted(groups) if len(groups[name]) == most]
    random.Random(seed).shuffle(items)
    queues = ([item for item in items if item["kind"] == kind] for kind in KINDS)
    return list(itertools.islice(_in_turn(queues), count))


def _by_item(predictions: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in predictions:
        if missing := sorted(_NEEDED - record.keys()):
            raise ValueError(f"prediction {record.get('id')!r} lacks {missing}")
        stages = groups.setdefault(record["id"], {})
        if record["stage"] in stages:
            raise ValueError(
                f"item {record['id']!r} has two predictions for stage {record['stage']!r}, "
                "expected one: was predictions.jsonl appended to twice?"
            )
        stages[record["stage"]] = record
    return groups


def _sample(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first, *_, last = [next(iter(stages.values())), *stages.values()]
    return {
        "id": last["id"],
        "kind": _kind(first, last),
        "question": last.get("question", last["prompt"]),
        "reference": last["reference"],
        "level": last.get("level"),
        "stages": dict(stages),
    }


def _kind(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    newly_right, right_throughout, wrong_at_the_end = KINDS
    if not last["correct"]:
        return wrong_at_the_end
    return right_throughout if first["correct"] else newly_right


def _in_turn(queues: Iterable[Sequence[dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    for one_of_each in itertools.zip_longest(*queues):
        yield from (item for item in one_of_each if item is not None)
