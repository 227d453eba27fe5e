"""Verdicts: a measured figure against its target, and what to try next when it falls short.

A verdict records; it never stops a run. Printing and laying out a page is the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One target of a run, what was measured, and whether it was met."""

    name: str
    target: str
    measured: str
    met: bool
    advice: str

    @property
    def word(self) -> str:
        """The outcome in words, so that it reads without colour."""
        return "met" if self.met else "not met"


def at_least(name: str, value: float, limit: float, advice: str) -> Verdict:
    """Verdict on a figure that must reach `limit`; NaN never does.

    >>> at_least("strict format", 0.995, 0.99, "train longer").word
    'met'
    """
    return Verdict(
        name=name,
        target=f"at least {_number(limit)}",
        measured=_apart_from(value, limit),
        met=bool(value >= limit),
        advice=advice,
    )


def at_most(name: str, value: float, limit: float, advice: str) -> Verdict:
    """Verdict on a figure that must not pass `limit`; NaN always does."""
    return Verdict(
        name=name,
        target=f"at most {_number(limit)}",
        measured=_apart_from(value, limit),
        met=bool(value <= limit),
        advice=advice,
    )


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as aligned plain text, one a line; the advice follows where a target was missed."""
    if not verdicts:
        return "no verdicts"
    heading = ("verdict", "what", "target", "measured", "what to try next")
    rows = [heading, *(_cells(verdict) for verdict in verdicts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cells(verdict: Verdict) -> tuple[str, ...]:
    outcome = "met" if verdict.met else "NOT MET"
    advice = "" if verdict.met else verdict.advice
    cells = (outcome, verdict.name, verdict.target, verdict.measured, advice)
    return tuple(" ".join(cell.split()) for cell in cells)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _apart_from(value: float, limit: float) -> str:
    """Text of `value`, in full where rounding would show a missed limit as reached."""
    return repr(value) if value != limit and _number(value) == _number(limit) else _number(value)
