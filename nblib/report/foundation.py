"""Whether a foundation learnt something, and what its manifest says of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nblib.evaluation.evaluate import Stage
from nblib.report.verdicts import Verdict, at_least, at_most
from nblib.sources.foundation import FoundationRows


def foundation_verdicts(history: Sequence[Mapping[str, Any]], stage: Stage) -> tuple[Verdict, ...]:
    """Judge loss and answers against the field's thresholds.

    `history` holds the records of metrics.jsonl. A run without validation records is a ValueError.
    """
    losses, val_losses = _values(history, "loss"), _values(history, "val_loss")
    if not losses or not val_losses:
        raise ValueError("metrics.jsonl has no loss or no val_loss: training did not run")
    return (
        at_most(
            "last training loss over first",
            _mean(losses[-20:]) / losses[0],
            0.5,
            "the loss did not fall: lower LEARNING_RATE, or train for more steps",
        ),
        at_most(
            "validation loss at the end",
            val_losses[-1],
            3.0,
            "over 5.0 nothing was learnt: lower LEARNING_RATE; over 3.0: raise NUM_SAMPLES",
        ),
        at_least(
            "right answers",
            stage.metrics["answer_accuracy"],
            0.20,
            "raise NUM_SAMPLES, or lower DIFFICULTY_FILTER to [1]",
        ),
        at_least(
            "answers that can be read",
            stage.metrics["answer_extractable"],
            0.70,
            "train for more steps; look at the samples for endless text",
        ),
    )


def foundation_manifest(
    parameters: Mapping[str, Any],
    rows: FoundationRows,
    stage: Stage,
    history: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return which command made the model, from which data, with which figures by level."""
    return {
        "command": f"python -m nblib run v0_foundation -p RECIPE {parameters['recipe']}",
        "parameters": dict(parameters),
        "data": {"origin": rows.origin, "sha256": rows.sha256},
        "steps": len(_values(history, "loss")),
        "training_minutes": sum(record.get("seconds", 0.0) for record in history) / 60,
        "validation_loss": _values(history, "val_loss")[-1],
        "levels": {str(level): dict(metrics) for level, metrics in stage.by_level.items()},
    }


def _values(history: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return one figure of all records that have it; JSON's null is a NaN that training met."""
    values = [record[name] for record in history if name in record]
    return [math.nan if value is None else value for value in values]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
