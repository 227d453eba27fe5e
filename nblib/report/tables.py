"""Rates with their intervals as text: what a stage of `result.json` says, in a table.

Reads the stage dictionaries of the run's contract ({"n", rate, rate + "_ci95"}); computes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RATE_MEANINGS: Mapping[str, str] = {
    "format_accuracy": "the whole completion has the strict form",
    "tag_order_accuracy": "both tag pairs, reasoning before answer",
    "answer_extractable": "a number can be read from the answer",
    "answer_accuracy": "the number is right",
    "joint_accuracy": "strict form and right number",
    "lenient_accuracy": "the last number is right, whatever the form",
    "preamble_rate": "text before the first tag; lower is better",
    "truncation_rate": "cut at the token limit; lower is better",
}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A fraction of `n` items with its 95 % interval, all fractions of 1; NaN where unknown."""

    value: float
    low: float
    high: float
    n: int

    @property
    def figure(self) -> str:
        """The fraction alone: `0.995`."""
        return "unknown" if math.isnan(self.value) else f"{self.value:.3f}"

    @property
    def interval(self) -> str:
        """The interval and the number of items: `[0.981, 0.999] (n=200)`."""
        return f"[{self.low:.3f}, {self.high:.3f}] (n={self.n})"

    def __str__(self) -> str:
        """The rate in one line: `0.995 [0.981, 0.999] (n=200)`."""
        return self.figure if math.isnan(self.value) else f"{self.figure} {self.interval}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts, for a notebook (`markdown`) and for the report alike."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table in Markdown, without its note."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(map(escape_cell, line)) + " |" for line in lines)


def read_rate(metrics: Mapping[str, Any], rate: str) -> Rate:
    """Read one rate of a stage.

    Raises:
        ValueError: the stage lacks the rate, its interval or `n`.
    """
    missing = [key for key in (rate, f"{rate}_ci95", "n") if key not in metrics]
    if missing:
        raise ValueError(f"stage lacks {missing}; it has {sorted(metrics)}. Use stage_metrics()")
    if metrics[rate] is None:
        return Rate(value=math.nan, low=math.nan, high=math.nan, n=metrics["n"])
    low, high = metrics[f"{rate}_ci95"]
    return Rate(value=metrics[rate], low=low, high=high, n=metrics["n"])


def rate_names(stages: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of all rates with an interval, in the order in which the stages give them."""
    names = (key for metrics in stages.values() for key in metrics if f"{key}_ci95" in metrics)
    return tuple(dict.fromkeys(names))


def in_words(name: str) -> str:
    """Name of a rate or a stage as a reader sees it: `tag_order_accuracy` -> tag order accuracy."""
    return name.replace("_", " ")


def stage_table(stages: Mapping[str, Mapping[str, Any]], rates: Sequence[str] | None = None) -> str:
    """Markdown table: one row a rate, one column a stage; "not measured" where a stage lacks one.

    ```
    | rate | base | tuned |
    | --- | --- | --- |
    | format accuracy | 0.000 [0.000, 0.019] (n=200) | 0.995 [0.972, 0.999] (n=200) |
    ```
    """
    if not stages:
        return "nothing was evaluated"
    names = rate_names(stages) if rates is None else rates
    return Table(
        columns=("rate", *map(in_words, stages)),
        rows=tuple(
            (in_words(name), *(_cell(metrics, name) for metrics in stages.values()))
            for name in names
        ),
    ).markdown()


def escape_cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table: no bar ends it, no line break the row."""
    return text.replace("|", "\\|").replace("\n", " ")


def _cell(metrics: Mapping[str, Any], rate: str) -> str:
    return str(read_rate(metrics, rate)) if rate in metrics else "not measured"
