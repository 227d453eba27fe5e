"""The table of a verifier: how far it is to be believed, attack by attack."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nblib.report.tables import Table

if TYPE_CHECKING:
    from nblib.evaluation.verifier import VerifierCalibration

_VERBS = {"wrong": "refused", "right": "accepted"}


def verifier_tables(calibration: "VerifierCalibration", model: str) -> tuple[Table, ...]:
    """Return the calibration of a verifier, a row a figure, then one a kind of known proof."""
    found, record = calibration, calibration.record
    trusted = "✓ trusted" if found.is_trusted else f"✗ not trusted: {found.problem}"
    rows = [
        ("verdict", trusted),
        ("false accepts", _rate(record["false_accepts"])),
        ("false rejects", _rate(record["false_rejects"])),
        *((name, str(found.outcomes.get(name, 0))) for name in ("unsure", "failed")),
        ("not asked", str(found.outcomes.get("unsent", 0))),
        *_kinds(found.made),
    ]
    return (
        Table(
            title=f"How far the verifier {model} is to be believed",
            columns=("what", "measured"),
            rows=tuple(rows),
            note="known proofs: right ones are verified exactly, wrong ones are attacks made of "
            "them; rates are of those that were called right or wrong, with 95 % intervals; "
            f"trusted: false accepts are at most {found.limit:.0%}, at the upper end",
        ),
    )


def _rate(rate: Mapping[str, Any]) -> str:
    if not rate["of"]:
        return "–"
    low, high = rate["ci95"]
    return f"{rate['rate']:.2f} [{low:.2f}, {high:.2f}] ({rate['count']} of {rate['of']})"


def _kinds(made: Mapping[str, tuple[int, int]]) -> list[tuple[str, str]]:
    return [
        (name, f"{hits} of {of} {_VERBS[name.partition(':')[0]]}")
        for name, (hits, of) in made.items()
    ]
