"""Rates over the scores of one stage, each with its Wilson interval.

Aggregation only: `tasks.scoring` judges a completion, and the paired comparison of two stages is
elsewhere in this room. Imports no scipy, which takes a second to load: `python -m nblib score`
should answer at once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import sqrt
from operator import attrgetter

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
_Z = 1.959963984540054  # 97.5 % of a normal distribution lie below: 95 % between -_Z and _Z
_outcome = attrgetter(*RATE_FIELDS.values(), "failure")


class ScoreCounter:
    """Counts scores as they come and keeps none of them."""

    def __init__(self) -> None:
        self._outcomes: Counter[tuple[bool | str | None, ...]] = Counter()  # of few kinds

    def add(self, score: Score) -> None:
        """Count one more score."""
        self._outcomes[_outcome(score)] += 1

    @property
    def n(self) -> int:
        """How many there were."""
        return self._outcomes.total()

    def metrics(self) -> dict[str, int | float | list[float] | None]:
        """Return what `stage_metrics` gives for the scores so far, or its error."""
        n = self.n
        if not n:
            raise ValueError("got 0 scores: expected at least one; evaluate at least one example")
        metrics: dict[str, int | float | list[float] | None] = {"n": n}
        for position, rate in enumerate(RATES):
            if any(outcome[position] is None for outcome in self._outcomes):
                metrics |= {rate: None, f"{rate}_ci95": None}
                continue
            hits = sum(count for outcome, count in self._outcomes.items() if outcome[position])
            metrics |= _rate_and_interval(rate, hits, n)
        return metrics

    def failures(self) -> dict[str, int]:
        """Return how often each rule was the first one broken, the most frequent first."""
        counts: Counter[str] = Counter()
        for (*_, failure), count in self._outcomes.items():
            if isinstance(failure, str):
                counts[failure] += count
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def stage_metrics(scores: Iterable[Score]) -> dict[str, int | float | list[float] | None]:
    """n, each rate as a fraction of 1, and each rate's 95 % interval as "<rate>_ci95".

    A rate of something that is unknown of one score is None, and so is its interval.

    Example:
        {"n": 400, "format_accuracy": 0.145, "format_accuracy_ci95": [0.114, 0.183], ...}

    Raises:
        ValueError: There are no scores; a rate over nothing is no rate.
    """
    counter = ScoreCounter()
    for score in scores:
        counter.add(score)
    return counter.metrics()


def rate_metrics(rate: str, hits: Sequence[float]) -> dict[str, float | list[float]]:
    """Return one rate over at least one item, and its 95 % interval, as in `stage_metrics`.

    Hits are true and false, or chances in 0..1: these vary less, so the interval is on the safe
    side.
    """
    return _rate_and_interval(rate, sum(hits), len(hits))


def _rate_and_interval(rate: str, hits: float, n: int) -> dict[str, float | list[float]]:
    return {rate: hits / n, f"{rate}_ci95": _wilson_interval(hits, n)}


def _wilson_interval(hits: float, n: int) -> list[float]:
    """Where a true rate can lie: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), p. 209."""
    rate, share = hits / n, _Z**2 / n
    centre = rate + share / 2
    half = _Z * sqrt(rate * (1 - rate) / n + share / (4 * n))
    # At the ends the formula gives exactly 0 and 1; its rounding does not.
    low = 0.0 if hits == 0 else (centre - half) / (1 + share)
    high = 1.0 if hits == n else (centre + half) / (1 + share)
    return [low, high]
