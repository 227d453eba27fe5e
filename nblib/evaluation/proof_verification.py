"""A file of proofs, verified: exactly where they are in the language, else by another model.

    generated.jsonl   every reply, sorted           ->   exact checks again, then a verifier's word
    judged.jsonl      the same rows, each with its verdict, its reason and its split

The verifier is calibrated first, in the same run, on proofs of known truth and on attacks. If its
false accepts may be too many, nothing is asked of it, and no row is `judged`. Each row that it
accepted says how many they may be, so that a training can refuse it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from nblib.evaluation.closed_questions import Verdict
from nblib.evaluation.verifier import (
    Verifier,
    VerifierCalibration,
    calibrate_verifier,
)
from nblib.files import shown, write_jsonl
from nblib.sources.endpoint import Client
from nblib.sources.inequalities import inequalities
from nblib.sources.json_lines import read_objects
from nblib.tasks.known_proofs import Claim, KnownProof, known_proofs, rejected_proofs
from nblib.tasks.proof_sieve import Sieve, Sorted, lost, template_of
from nblib.tasks.proof_verdicts import AT_MOST, JUDGED, LOST, MODELS, UNJUDGED, VERIFIED, Word

_TEST_EVERY = 10  # statements, one of so many is for the test
_RIGHT = "right"  # of a row whose truth is known
_ROWS, _SHOWN = 400, 100  # built-in rows that known proofs are made of; the first for examples
_MOST_REJECTED = 20  # of a generator's own wrong proofs, to calibrate on


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
        models = record.get(MODELS, [])
        if not isinstance(models, list) or not all(isinstance(one, str) for one in models):
            raise ValueError(
                f"{place}: {MODELS!r} is {shown(models)}, expected a list, the names of the "
                "model that wrote the proof"
            )
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
    shots: int = 8,
    right: int = 40,
    wrong: int = 80,
    max_tokens: int = 1024,
    given: Sequence[KnownProof] = (),
    rows: Sequence[dict[str, Any]] = (),
) -> tuple[Verifier, tuple[KnownProof, ...]]:
    """Return a verifier, and the known proofs that it is calibrated on.

    `shots` are examples that it sees, `right` and `wrong` proofs of its calibration. All are made
    of built-in rows, others for its examples; the calibration also has those `given`, and proofs
    among `rows` that their generator got wrong for sure.
    """
    built_in = inequalities(_ROWS, seed=2, split="train")
    examples = known_proofs(built_in[:_SHOWN], shots - shots // 2, shots // 2)
    shown = {one.claim.statement for one in examples}
    own = (*given, *rejected_proofs(rows)[:_MOST_REJECTED])
    more = [one for one in own if one.claim.statement not in shown]
    known = known_proofs(built_in[_SHOWN:], right, wrong, more=more)
    return Verifier(client, examples, max_tokens=max_tokens), known


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
    claims = _to_judge(rows, found)
    calibration, at_most = None, dict[str, float]()
    if verifier and claims:
        verifier.check_context([*claims.values()])
        calibration = calibrate_verifier(verifier, known)
        if calibration.is_trusted:
            at_most[AT_MOST] = calibration.at_most
            _ask_one_each(verifier, claims, found)
        else:
            for n in claims:
                found[n] = _became(found[n], UNJUDGED, "verifier not trusted", calibration.problem)
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


def _to_judge(rows: Sequence[dict[str, Any]], found: list[Sorted]) -> dict[int, Claim]:
    """Return the claims that a model is to judge; none of a statement that is proved exactly."""
    proved = {one.key for one in found if one.verdict == VERIFIED}
    claims = {}
    for n, one in enumerate(found):
        if one.verdict == UNJUDGED and one.key in proved:
            found[n] = _became(one, LOST, "duplicate", "its statement is proved already")
        elif one.verdict == UNJUDGED:
            claims[n] = Claim(statement=one.statement, proof=rows[n]["proof"])
    return claims


def _ask_one_each(verifier: Verifier, claims: Mapping[int, Claim], found: list[Sorted]) -> None:
    """Ask of one proof of each statement, of the next one where it was not accepted, and so on."""
    waiting: dict[str, list[int]] = {}
    for n in claims:
        waiting.setdefault(found[n].key, []).append(n)
    while waiting:
        asked = {key: numbers.pop(0) for key, numbers in waiting.items()}
        words = verifier.ask(claims[n] for n in asked.values())
        for key, n in asked.items():
            found[n] = _judged(found[n], words[claims[n]])
            if found[n].verdict == JUDGED:
                for other in waiting[key]:
                    found[other] = _became(found[other], LOST, "duplicate", "one is judged right")
                waiting[key] = []
        waiting = {key: numbers for key, numbers in waiting.items() if numbers}


def _judged(found: Sorted, verdict: Verdict) -> Sorted:
    """Return what a verifier's word makes of a free text."""
    if verdict.word == "right":
        return _became(found, JUDGED)
    if verdict.word == "unsent":
        return _became(found, UNJUDGED, "not sent", verdict.reason)
    reasons = {"wrong": "judged wrong", "unsure": "unsure"}
    return _became(found, LOST, reasons.get(verdict.word, "no verdict"), verdict.reason[:200])


def _became(found: Sorted, verdict: Word, reason: str = "", detail: str = "") -> Sorted:
    return replace(found, verdict=verdict, reason=reason, detail=detail)


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
