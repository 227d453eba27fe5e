"""Tables of a verifier: how far it is to be believed, attack by attack, and what it said."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nblib.report.tables import Estimate, Table, in_words, p_text

if TYPE_CHECKING:
    from nblib.evaluation.proof_judging import JudgedProofs
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


def judged_proofs_tables(judged: "JudgedProofs | None") -> tuple[Table, ...]:
    """Return the calibration of a judge of free texts, then a row a stage; nothing without one."""
    if judged is None:
        return ()
    rows = []
    for stage in judged.stages:
        found = judged.rate(stage)
        words = (str(found.get(word, 0)) for word in _OUTCOMES)
        rows.append((in_words(stage), str(found["n"]), *words, _judged_right(found)))
    gain, note = judged.gain, "judged by a model, not verified: see how far it is to be believed"
    if gain:
        low, high = gain["ci95"]
        note += (
            f"; first to last, {gain['n']} items that both have decided: "
            f"{100 * gain['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], "
            f"p {p_text(gain['p_value'])}"
        )
    stopped = f"; stopped: {judged.stopped}" if judged.stopped else ""
    return (
        *verifier_tables(judged.calibration, judged.model),
        Table(
            title="Judged proofs",
            columns=("stage", "proofs", *_OUTCOMES.values(), "judged right"),
            rows=tuple(rows),
            note=f"{note}; {judged.sent} requests{stopped}",
        ),
    )


_OUTCOMES = {
    **{"no proof": "no proof block", "right": "right", "wrong": "wrong", "unsure": "unsure"},
    **{"failed": "failed", "unsent": "not asked"},
}


def _judged_right(found: Mapping[str, Any]) -> str:
    if found["judged_right"] is None:
        return "no figure"
    low, high = found["judged_right_ci95"]
    return str(Estimate(value=found["judged_right"], low=low, high=high, n=found["decided"]))


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
