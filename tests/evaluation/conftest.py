"""A task that is nothing like GSM8K: JSON answers, a mean as the headline, no fallback."""

import json

import pytest

from nblib.tasks.task import Example, Metric, Score, Task


def slots_score(completion, example):
    """F1 of the slots of a JSON object; a reference that is none cannot be scored against."""
    if not isinstance(example.reference, dict):
        raise ValueError(f"unreadable reference {example.reference!r}: expected an object")
    try:
        found = json.loads(completion)
    except ValueError:
        found = None
    is_object = isinstance(found, dict)
    right = len(found.items() & example.reference.items()) if is_object else 0
    slots = len(found) + len(example.reference) if is_object else 1
    f1 = 2 * right / slots
    return Score(
        values={"slot_f1": f1, "schema_valid": is_object, "prose": not is_object},
        answer=found if is_object else None,
        failure=None if f1 == 1 else "wrong slots" if is_object else "no object",
        details={"right": right, "empty": found == {}},
    )


def slots_examples(rows):
    return tuple(
        Example(
            id=row.id,
            prompt=row.fields["text"],
            completion=json.dumps(row.fields["slots"]),
            reference=row.fields["slots"],
            group=row.group,
        )
        for row in rows
    )


@pytest.fixture(scope="session")
def slots():
    """The task "slots": headline `slot_f1` (a mean), form `schema_valid`."""
    return Task(
        name="slots",
        system_prompt="Answer with one JSON object.",
        metrics=(
            Metric(name="slot_f1", meaning="F1 of the slots", kind="mean"),
            Metric(name="schema_valid", meaning="one JSON object"),
            Metric(name="prose", meaning="no object", better="lower"),
        ),
        headline="slot_f1",
        form="schema_valid",
        examples=slots_examples,
        score=slots_score,
        reward_weights={"slot_f1": 1.0},
    )
