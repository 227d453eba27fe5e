"""What became of a generated proof, as a row of a file says it: its `verdict`, and the `reason`.

    verified    every line by exact arithmetic
    judged      accepted by another model, whose false accepts are known to be few
    unjudged    a free text that waits for its judgement
    lost        of no use; kept, so that a reader sees how many were lost where

`proof_sieve` gives verdicts that are exact, `evaluation.proof_verification` a model's. The verified
and the judged are never added up.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from nblib.sources.rows import Row

Word = Literal["verified", "judged", "unjudged", "lost"]
VERIFIED: Word = "verified"
JUDGED: Word = "judged"
UNJUDGED: Word = "unjudged"
LOST: Word = "lost"
FREE_TEXT = "free text"  # the technique of a proof that is not in the language
MODELS = "models"  # of a row: the names that the model behind it is known by
AT_MOST = "false_accepts_at_most"  # of a row that a verifier accepted: its rate of false accepts
FALSE_ACCEPT_LIMIT = 0.10  # of the upper end of the interval: none of 35, 1 of 53, 2 of 69

# Why a row is lost, or waits -> what to do about it; in the order in which rows are sorted.
REASONS: Mapping[str, str] = {
    "failed": "the server gave no answer: start again, these are asked once more",
    "truncated": "raise --max-tokens",
    "empty": "try another model, or a lower temperature",
    "refused": "the server filters: look at the transcript",
    "unfinished thought": "raise --max-tokens: the model was still thinking",
    "no proof block": "show more worked examples (--shots), or try a stronger model",
    "several blocks": "show more worked examples (--shots), or try a stronger model",
    "empty proof": "try another model, or a lower temperature",
    "no statement": "show more worked examples (--shots), or try a stronger model",
    "control piece": "the text holds a piece that controls a chat",
    "statement not read": "the language has one inequality, letters, and signs of variables",
    "false statement": "its reason names a point: nothing to learn from it",
    "trivial": "its signs or a hypothesis say it, or nothing fulfils its hypotheses",
    "held out": "it repeats a statement that evaluation asks",
    "duplicate": "draw more seeds rather than more samples of each",
    "not in the language": "ask for free text (--form text), and have it judged",
    "not proved": "exact: a line is wrong, or is not seen; its reason names the line",
    "not judged yet": "python -m nblib verify FILE --out JUDGED",
    "verifier not trusted": "take a stronger verifier: its calibration says where it fails",
    "judged wrong": "a model's word: kept, never learnt",
    "unsure": "a model's word: kept, never learnt",
    "no verdict": "look at the verifier's transcript",
    "not sent": "raise the budget, and give the same command again",
}


def losses(rows: Iterable[Row]) -> dict[tuple[str, str], int]:
    """Return (verdict, reason) -> rows; the verdicts first, then the reasons, in their order."""
    counts = Counter(
        (str(row.fields["verdict"]), str(row.fields.get("reason", "")))
        for row in rows
        if "verdict" in row.fields
    )
    order, verdicts = [*REASONS], (VERIFIED, JUDGED, UNJUDGED, LOST)

    def place(found: tuple[str, str]) -> tuple[int, int, str]:
        verdict, reason = found
        return (
            verdicts.index(verdict) if verdict in verdicts else len(verdicts),
            order.index(reason) if reason in order else len(order),
            reason,
        )

    return {found: counts[found] for found in sorted(counts, key=place)}


def passed(rows: Sequence[Row], *, judged: bool = False) -> tuple[Row, ...]:
    """Return the rows to learn from: those without a verdict are for their task to check.

    `judged` are those too that a verifier accepted, if it is believed. Raises ValueError, with what
    became of all, where none is left.
    """
    kept = tuple(
        row
        for row in rows
        if row.fields.get("verdict", VERIFIED) == VERIFIED or (judged and is_believed(row.fields))
    )
    if kept or not rows:
        return kept
    found = ", ".join(
        f"{count:,} {f'{verdict}: {reason}' if reason else verdict}"
        for (verdict, reason), count in losses(rows).items()
    )
    raise ValueError(
        f"none of {len(rows):,} rows can be learnt ({found}): "
        + (
            "expected some that are verified, or judged by a verifier whose false accepts are at "
            f"most {FALSE_ACCEPT_LIMIT:.0%} (python -m nblib verify)"
            if judged
            else "expected some that are verified exactly; TASK text_proofs learns judged ones"
        )
    )


def is_believed(fields: Mapping[str, Any]) -> bool:
    """Whether a verifier accepted a row, and its false accepts are known to be few enough."""
    at_most = fields.get(AT_MOST)
    if not isinstance(at_most, int | float) or isinstance(at_most, bool):
        return False
    return fields.get("verdict") == JUDGED and 0 <= at_most <= FALSE_ACCEPT_LIMIT
