"""Tables of a judge: how far it is to be believed, and what it said of each stage."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nblib.report.tables import Table, in_words, read_estimate

if TYPE_CHECKING:
    from nblib.evaluation.calibration import Calibration
    from nblib.evaluation.judge import Judged, JudgedStage

_NOT = "not calibrated"


def judge_tables(judged: "Judged | None") -> tuple[Table, ...]:
    """Return the calibration of a judge and its verdicts by stage; nothing without a judge."""
    return () if judged is None else (calibration_table(judged), judge_table(judged))


def calibration_table(judged: "Judged") -> Table:
    """Return a row a figure of the agreement, then one a kind of known pair."""
    found, rows = judged.calibration, [("verdict", f"✗ {_NOT}: {judged.calibration.problem}")]
    if found.is_calibrated:
        rows = [("verdict", "✓ calibrated")]
    if found.pairs:
        rows += [*_agreement(found), *_kinds(found)]
    return Table(
        title=f"How far the judge {judged.model} is to be believed",
        columns=("what", "measured"),
        rows=tuple(rows),
        note="pairs made of gold: right ones in another format, wrong ones with another value; "
        "kappa is the agreement beyond chance of those that were decided",
    )


def judge_table(judged: "Judged") -> Table:
    """Return a row a stage: what became of its pairs, and its headline without and with a judge."""
    figure, words = in_words(judged.headline), [*next(iter(judged.stages)).counts]
    names = ("not asked" if word == "unsent" else in_words(word) for word in words)
    rows = [
        (
            in_words(one.name),
            str(len(one.verdicts)),
            *(str(one.counts[word]) for word in words),
            *_figures(one, judged.headline),
        )
        for one in judged.stages
    ]
    stopped = f"; stopped: {judged.stopped}" if judged.stopped else ""
    return Table(
        title="Judged values",
        columns=("stage", "pairs", *names, figure, f"{figure}, judged", "at most"),
        rows=tuple(rows),
        note='different pairs of unequal values, of slots that "judge" compares; at most: if all '
        f"were equivalent that are unsure, failed or not asked; {judged.sent} requests{stopped}",
    )


def _agreement(found: "Calibration") -> list[tuple[str, str]]:
    (right, missed), (taken, wrong) = found.table
    return [
        ("kappa", _kappa(found.record)),
        ("accuracy on right pairs", _share(right, right + missed)),
        ("accuracy on wrong pairs", _share(wrong, taken + wrong)),
        *((name, str(found.outcomes.get(name, 0))) for name in ("unsure", "failed")),
        ("not asked", str(found.outcomes.get("unsent", 0))),
        ("same verdict when exchanged", _share(found.stable, found.swapped)),
    ]


def _kinds(found: "Calibration") -> list[tuple[str, str]]:
    return [(name, f"{hits} of {of}") for name, (hits, of) in found.made.items()]


def _kappa(record: Mapping[str, Any]) -> str:
    if record["kappa"] is None:
        return "undefined"
    low, high = record["kappa_ci95"]
    return f"{record['kappa']:.2f} [{low:.2f}, {high:.2f}]"


def _share(part: int, of: int) -> str:
    return f"{part / of:.2f} ({part} of {of})" if of else "–"


def _figures(one: "JudgedStage", headline: str) -> tuple[str, str, str]:
    before = str(read_estimate(one.before, headline))
    if one.after is None or one.at_most is None:
        return before, _NOT, _NOT
    return (
        before,
        str(read_estimate(one.after, headline)),
        read_estimate(one.at_most, headline).figure,
    )
