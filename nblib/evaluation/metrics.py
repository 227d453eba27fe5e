"""Rates over the scores of one stage, each with its Wilson interval.

Aggregation only: `tasks.scoring` judges a completion, and the paired comparison of two stages is
elsewhere in this room.
"""

from collections.abc import Sequence

from scipy.stats import binomtest

from nblib.tasks.scoring import Score

# Rate -> the field of a score that it counts.
RATE_FIELDS = {
    "format_accuracy": "format",
    "tag_order_accuracy": "tag_order",
    "answer_extractable": "extractable",
    "answer_accuracy": "correct",
    "joint_accuracy": "joint",
    "preamble_rate": "preamble",
    "truncation_rate": "truncated",
}
RATES = tuple(RATE_FIELDS)
# Not of the contract: right wherever the number stands, so that a model which was never taught the
# form is judged by what it can do. As a field of a record, and "lenient_accuracy" as a rate.
LENIENT = "lenient"


def stage_metrics(scores: Sequence[Score]) -> dict[str, int | float | list[float]]:
    """n, each rate as a fraction of 1, and each rate's 95 % interval as "<rate>_ci95".

    Example:
        {"n": 400, "format_accuracy": 0.145, "format_accuracy_ci95": [0.114, 0.183], ...}

    Raises:
        ValueError: There are no scores; a rate over nothing is no rate.
    """
    if not scores:
        raise ValueError("got 0 scores: expected at least one; evaluate at least one example")
    metrics: dict[str, int | float | list[float]] = {"n": len(scores)}
    for rate, field in RATE_FIELDS.items():
        metrics |= rate_metrics(rate, [getattr(one, field) for one in scores])
    return metrics


def rate_metrics(rate: str, hits: Sequence[bool]) -> dict[str, float | list[float]]:
    """Return one rate over at least one item, and its 95 % interval, as in `stage_metrics`."""
    found = sum(hits)
    interval = _wilson_interval(found, len(hits))
    return {rate: found / len(hits), f"{rate}_ci95": interval}


def _wilson_interval(hits: int, n: int) -> list[float]:
    interval = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    return [float(interval.low), float(interval.high)]
