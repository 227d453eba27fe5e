"""Sorts generated proofs: verified exactly, to be judged by a model, or lost, and why.

    statement true, new, in no held-out set; proof in the language, every line right   verified
    the same, the proof a free text                                                   unjudged
    all else                                                                          lost

What the verdicts mean, and what to do about each reason, is in `proof_verdicts`.
"""

from collections import Counter
from dataclasses import dataclass, field

from nblib.sources.rows import control_piece
from nblib.sources.splits import words_of
from nblib.tasks.contamination import HeldOut
from nblib.tasks.counterexamples import FALSE, find_counterexample
from nblib.tasks.expressions import ExpressionError
from nblib.tasks.normal_form import statement_key, template_key
from nblib.tasks.proof_check import UNREADABLE, check_proof
from nblib.tasks.proof_text import RULES
from nblib.tasks.proof_verdicts import FREE_TEXT, LOST, UNJUDGED, VERIFIED, Word
from nblib.tasks.statements import parse_statement

_JOINED = ("Sum", "Chain", "So")  # rules that put lines together


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """What became of a proof."""

    verdict: Word
    reason: str = ""  # one of `proof_verdicts.REASONS`; "" where it is verified or judged
    detail: str = ""  # the line, the point, the statement that is repeated
    technique: str = ""
    key: str = ""  # the statement's normal form

    @property
    def fields(self) -> dict[str, str]:
        """What a row holds of it."""
        names = ("verdict", "reason", "detail", "technique")
        return {name: getattr(self, name) for name in names}


def lost(reason: str, detail: str = "", *, key: str = "") -> Sorted:
    """Return what became of a proof that is of no use."""
    return Sorted(verdict=LOST, reason=reason, detail=detail, key=key)


@dataclass(kw_only=True)
class Sieve:
    """Sorts proofs one after the other; the first that is verified of a statement is kept.

    Attributes:
        free_text: Whether proofs outside the language go on, to be judged.
        keys: Normal forms of all statements that were seen, copies counted.
    """

    held_out: HeldOut
    free_text: bool
    keys: Counter[str] = field(default_factory=Counter)
    _proved: set[str] = field(default_factory=set)
    _texts: set[tuple[str, str]] = field(default_factory=set)
    _problems: dict[str, tuple[str, str]] = field(default_factory=dict)  # of a statement

    def sort(self, statement: str, proof: str) -> Sorted:
        """Return what becomes of a proof."""
        piece = control_piece(f"{statement}\n{proof}")
        if piece:
            return lost("control piece", piece)
        if not proof.strip():
            return lost("empty proof")
        key, readable = _key(statement)
        self.keys[key] += 1
        if key not in self._problems:
            self._problems[key] = self._problem(statement, readable)
        reason, detail = self._problems[key]
        if reason:
            return lost(reason, detail, key=key)
        if key in self._proved:
            return lost("duplicate", "its statement is proved already", key=key)
        return self._checked(statement, proof, key, readable)

    def _problem(self, statement: str, readable: bool) -> tuple[str, str]:
        """Return what is wrong with a statement, its reason empty where nothing is."""
        if not (readable or self.free_text):
            return "statement not read", ""
        if readable:
            found = find_counterexample(parse_statement(statement))
            if found.verdict == FALSE and found.point:
                at = ", ".join(f"{letter} = {value}" for letter, value in found.point.items())
                return "false statement", f"at {at}"
        repeated = self.held_out.find(statement)
        return ("held out", repeated) if repeated else ("", "")

    def _checked(self, statement: str, proof: str, key: str, readable: bool) -> Sorted:
        """Check a proof by its language, or leave it to be judged."""
        failure, detail = ("not in the language", "")
        if readable:
            failure, detail = _refusal(statement, proof)
        if not failure:
            self._proved.add(key)
            return Sorted(verdict=VERIFIED, technique=technique_of(proof), key=key)
        if failure == "not in the language" and self.free_text:
            text = words_of(proof)
            if (key, text) in self._texts:
                return lost("duplicate", "the same proof", key=key)
            self._texts.add((key, text))
            return Sorted(verdict=UNJUDGED, reason="not judged yet", technique=FREE_TEXT, key=key)
        return lost(failure, detail, key=key)


def technique_of(proof: str) -> str:
    """Return the rules that a proof in the language puts together: "Titu + AM-GM"."""
    rules = [line.split(maxsplit=1)[0] for line in proof.splitlines() if line.strip()]
    found = dict.fromkeys(one for one in rules if one in RULES and one not in _JOINED)
    return " + ".join(found) or "So"


def template_of(statement: str) -> str:
    """Return a statement's normal form without its numbers, or its words: what splits part."""
    try:
        return template_key(parse_statement(statement))
    except ExpressionError:
        return words_of(statement)


def _key(statement: str) -> tuple[str, bool]:
    """Return a statement's normal form, or its words where it cannot be read."""
    try:
        return statement_key(parse_statement(statement)), True
    except ExpressionError:
        return words_of(statement), False


def _refusal(statement: str, proof: str) -> tuple[str, str]:
    """Return why a proof is not verified; "" where it is."""
    try:
        verdict = check_proof(statement, proof)
    except ValueError as error:  # roots: the language cannot prove such a statement
        return "not in the language", str(error)
    if verdict.verified:
        return "", ""
    codes = {verdict.failure, *(step.failure for step in verdict.steps)}
    if not codes.isdisjoint(("too long", *UNREADABLE)):
        return "not in the language", f"line {verdict.line}: {verdict.reason}"[:200]
    return "not proved", f"line {verdict.line}, {verdict.failure}: {verdict.reason}"[:200]
