"""A file of proofs, verified: exactly where they are in the language, else by another model.

    generated.jsonl   every reply, sorted           ->   exact checks again, then a verifier's word
    judged.jsonl      the same rows, each with its verdict, its reason and its split

The verifier is calibrated first, in the same run, on proofs of known truth and on attacks. If its
false accepts may be too many, nothing is asked of it, and no row is `judged`. Each row that it
accepted says how many they may be, so that a training can refuse it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from nblib.evaluation.closed_questions import Verdict
from nblib.evaluation.verifier import (
    Verifier,
    VerifierCalibration,
    calibrate_verifier,
)
from nblib.files import write_jsonl
from nblib.sources.endpoint import Client
from nblib.sources.inequalities import inequalities
from nblib.sources.json_lines import read_objects
from nblib.tasks.known_proofs import Claim, KnownProof, known_proofs, rejected_proofs
from nblib.tasks.proof_sieve import Sieve, Sorted, lost, template_of
from nblib.tasks.proof_verdicts import AT_MOST, FREE_TEXT, JUDGED, MODELS, UNJUDGED, VERIFIED

_TEST_EVERY = 10  # statements, one of so many is for the test
_RIGHT = "right"  # of a row whose truth is known
_ROWS, _SHOWN = 400, 100  # built-in rows that known proofs are made of; the first for examples
_MOST_REJECTED = 20  # of a generator's own wrong proofs, to calibrate on
SHOTS, RIGHT, WRONG = 8, 40, 80  # of a verifier: examples it sees, known proofs of its calibration


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The rows of a file with their verdicts, and what is known of the verifier."""

    rows: tuple[dict[str, Any], ...]
    model: str = ""  # the verifier's; "" where nothing was to be judged
    calibration: VerifierCalibration | None = None
    sent: int = 0
    stopped: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> rows; what is verified and what is judged are never added up."""
        return Counter(row["verdict"] for row in self.rows)


def read_proofs(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the rows of a file, of `generate` or by other hands: statement and proof, as texts.

    Raises SourceError and ValueError, by file and line.
    """
    rows = []
    for _, place, record in read_objects(path):
        for name in ("statement", "proof"):
            if not isinstance(record.get(name), str):
                raise ValueError(f"{place}: expected {name!r}, a text")
        rows.append(record)
    if not rows:
        raise ValueError(f"{path}: no proof in it, expected a JSON line of each")
    return tuple(rows)


def read_known(path: Path) -> tuple[KnownProof, ...]:
    """Return proofs of known truth: rows with statement, proof and `right`, true or false."""
    rows = read_proofs(path)
    wrong = [n for n, row in enumerate(rows, start=1) if not isinstance(row.get(_RIGHT), bool)]
    if wrong:
        raise ValueError(f"{path}: proof {wrong[0]} has no {_RIGHT!r}: expected true or false")
    return tuple(
        KnownProof(
            claim=Claim(statement=row["statement"], proof=row["proof"]),
            right=row[_RIGHT],
            made="given",
        )
        for row in rows
    )


def make_verifier(
    client: Client,
    *,
    shots: int = SHOTS,
    right: int = RIGHT,
    wrong: int = WRONG,
    given: Sequence[KnownProof] = (),
    rows: Sequence[dict[str, Any]] = (),
) -> tuple[Verifier, tuple[KnownProof, ...]]:
    """Return a verifier, and the known proofs that it is calibrated on.

    They are made of built-in rows, others than its examples; with those `given`, and with proofs
    among `rows` that their generator got wrong for sure.
    """
    built_in = inequalities(_ROWS, seed=2, split="train")
    examples = known_proofs(built_in[:_SHOWN], shots - shots // 2, shots // 2)
    more = (*given, *rejected_proofs(rows)[:_MOST_REJECTED])
    known = known_proofs(built_in[_SHOWN:], right, wrong, more=more)
    return Verifier(client, examples), known


def generators(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return all names of the models that wrote the proofs."""
    return tuple(dict.fromkeys(str(name) for row in rows for name in row.get(MODELS, ())))


def verify(
    rows: Sequence[dict[str, Any]],
    sieve: Sieve,
    out: Path,
    *,
    verifier: Verifier | None,
    known: Sequence[KnownProof] = (),
) -> Verified:
    """Return the rows with their verdicts, and write them.

    What a generator's reply lost stays lost. Without a `verifier` free texts stay unjudged.
    """
    found = [_sorted(row, sieve) for row in rows]
    claims = {
        n: Claim(statement=rows[n]["statement"], proof=rows[n]["proof"])
        for n, one in enumerate(found)
        if one.verdict == UNJUDGED
    }
    calibration, at_most = None, dict[str, float]()
    if verifier and claims:
        verifier.check_context([*claims.values()])
        calibration = calibrate_verifier(verifier, known)
        if calibration.is_trusted:
            at_most[AT_MOST] = calibration.at_most
            words = verifier.ask(claims.values())
            for n, claim in claims.items():
                found[n] = _judged(found[n], words[claim])
        else:
            for n in claims:
                found[n] = _waiting(found[n], "verifier not trusted", calibration.problem)
    _keep_one_each(found)
    splits = _splits([row["statement"] for row in rows], found)
    judged = {JUDGED: at_most | ({"verifier": verifier.client.endpoint.model} if verifier else {})}
    written = tuple(
        {**row, **one.fields, **judged.get(one.verdict, {}), "split": split}
        for row, one, split in zip(rows, found, splits, strict=True)
    )
    write_jsonl(out, written)
    return Verified(
        rows=written,
        model=verifier.client.endpoint.model if verifier and claims else "",
        calibration=calibration,
        sent=verifier.client.budget.sent if verifier else 0,
        stopped=verifier.stopped if verifier else "",
    )


def _sorted(row: dict[str, Any], sieve: Sieve) -> Sorted:
    if not row["proof"].strip() and row.get("reason"):  # a reply that held no proof
        return lost(row["reason"], row.get("detail", ""))
    return sieve.sort(row["statement"], row["proof"])


def _judged(found: Sorted, verdict: Verdict) -> Sorted:
    """Return what a verifier's word makes of a free text."""
    if verdict.word == "right":
        return Sorted(verdict=JUDGED, technique=FREE_TEXT, key=found.key)
    if verdict.word == "unsent":
        return _waiting(found, "not sent", verdict.reason)
    reasons = {"wrong": "judged wrong", "unsure": "unsure"}
    return lost(reasons.get(verdict.word, "no verdict"), verdict.reason[:200], key=found.key)


def _waiting(found: Sorted, reason: str, detail: str) -> Sorted:
    return Sorted(
        verdict=UNJUDGED, reason=reason, detail=detail, technique=found.technique, key=found.key
    )


def _keep_one_each(found: list[Sorted]) -> None:
    """Keep one proof of each statement: a verified one, else the first that was accepted."""
    proved = {one.key for one in found if one.verdict == VERIFIED}
    for n, one in enumerate(found):
        if one.verdict == JUDGED and one.key in proved:
            found[n] = lost("duplicate", "its statement is proved already", key=one.key)
        elif one.verdict == JUDGED:
            proved.add(one.key)


def _splits(statements: Sequence[str], found: Sequence[Sorted]) -> list[str]:
    """Return each row's split, by its statement without numbers: one in ten is for the test.

    At least one of those that are kept is.
    """
    templates = [*map(template_of, statements)]
    digests = {one: sha256(one.encode(errors="replace")).digest() for one in templates}
    test = {one for one in digests if digests[one][0] % _TEST_EVERY == 0}
    kept = {
        one
        for one, is_in in zip(templates, found, strict=True)
        if is_in.verdict in (VERIFIED, JUDGED)
    }
    if kept and not kept & test:
        test.add(min(kept, key=digests.__getitem__))
    return ["test" if one in test else "train" for one in templates]
