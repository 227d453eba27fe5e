"""Sorts generated proofs: verified exactly, to be judged by a model, or lost, and why.

    statement true, new, in no held-out set; proof in the language, every line right   verified
    the same, the proof a free text                                                   unjudged
    all else                                                                          lost

What the verdicts mean, and what to do about each reason, is in `proof_verdicts`.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from nblib.sources.rows import control_piece
from nblib.sources.splits import words_of
from nblib.tasks.contamination import HeldOut, keys_of
from nblib.tasks.counterexamples import FALSE, NO_POINT, find_counterexample
from nblib.tasks.normal_form import template_key
from nblib.tasks.proof_check import UNREADABLE, check_proof
from nblib.tasks.proof_text import RULES
from nblib.tasks.proof_verdicts import FREE_TEXT, LOST, UNJUDGED, VERIFIED, Word
from nblib.tasks.statement_texts import claim_of, read_statement
from nblib.tasks.statements import Statement, statement_text

_JOINED = ("Sum", "Chain", "So")  # rules that put lines together
_MOST = 200  # characters of a detail


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """What became of a proof."""

    verdict: Word
    reason: str = ""  # one of `proof_verdicts.REASONS`; "" where it is verified or judged
    detail: str = ""  # the line, the point, the statement that is repeated
    technique: str = ""
    key: str = ""  # the statement's normal form
    statement: str = ""  # in the language's syntax, or as it came; "" where it was not looked at

    @property
    def fields(self) -> dict[str, str]:
        """What a row holds of it."""
        names = ("verdict", "reason", "detail", "technique")
        stated = {"statement": self.statement} if self.statement else {}
        return {**stated, **{name: getattr(self, name) for name in names}}


def lost(reason: str, detail: str = "") -> Sorted:
    """Return what became of a proof that is of no use."""
    return Sorted(verdict=LOST, reason=reason, detail=detail)


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
        read = read_statement(statement)
        text = statement_text(read) if read else statement
        keys, _ = keys_of(text)
        self.keys[keys[0]] += 1
        if text not in self._problems:
            self._problems[text] = self._problem(text, read)
        reason, detail = self._problems[text]
        if not reason and not self._proved.isdisjoint(keys):
            reason, detail = "duplicate", "its statement is proved already"
        found = lost(reason, detail) if reason else self._checked(text, proof, keys, read)
        return replace(found, key=keys[0], statement=text)

    def _problem(self, text: str, read: Statement | None) -> tuple[str, str]:
        """Return what is wrong with a statement, its reason empty where nothing is."""
        if read is None and not self.free_text:
            return "statement not read", ""
        if read is not None:
            found = find_counterexample(read)
            if found.verdict == FALSE and found.point:
                at = ", ".join(f"{letter} = {value}" for letter, value in found.point.items())
                return "false statement", f"at {at}"
            if found.reason == NO_POINT or _is_seen(text):
                return "trivial", "" if _is_seen(text) else NO_POINT
        repeated = self.held_out.find(text)
        return ("held out", repeated) if repeated else ("", "")

    def _checked(
        self, text: str, proof: str, keys: tuple[str, ...], read: Statement | None
    ) -> Sorted:
        """Check a proof by its language, or leave it to be judged."""
        failure, detail = ("not in the language", "") if read is None else _refusal(text, proof)
        if not failure:
            self._proved.update(keys)
            return Sorted(verdict=VERIFIED, technique=technique_of(proof))
        if failure != "not in the language" or not self.free_text:
            return lost(failure, detail)
        words = words_of(proof)
        if (keys[0], words) in self._texts:
            return lost("duplicate", "the same proof")
        self._texts.add((keys[0], words))
        return Sorted(verdict=UNJUDGED, reason="not judged yet", technique=FREE_TEXT)


def technique_of(proof: str) -> str:
    """Return the rules that a proof in the language puts together: "Titu + AM-GM"."""
    rules = [line.split(maxsplit=1)[0] for line in proof.splitlines() if line.strip()]
    found = dict.fromkeys(one for one in rules if one in RULES and one not in _JOINED)
    return " + ".join(found) or "So"


def template_of(statement: str) -> str:
    """Return a claim's normal form without its numbers, or its words: what splits part."""
    read = read_statement(statement)
    return template_key(claim_of(read)) if read else words_of(statement)


def _is_seen(statement: str) -> bool:
    """Whether a statement needs no proof: its signs say it, or it is one of its hypotheses."""
    claim = statement.partition(" for ")[0]
    return not _refusal(statement, f"Given: {claim}")[0]


def _refusal(statement: str, proof: str) -> tuple[str, str]:
    """Return why a proof is not verified; "" where it is.

    A line that is wrong by its own rule makes a proof wrong, also beside lines of free text.
    """
    try:
        verdict = check_proof(statement, proof)
    except ValueError as error:  # roots: the language cannot prove such a statement
        return "not in the language", str(error)
    if verdict.verified:
        return "", ""
    wrong = next((one for one in verdict.steps if (one.failure or "").endswith(" fails")), None)
    if wrong is not None:
        return "not proved", f"line {wrong.number}, {wrong.failure}: {wrong.problem}"[:_MOST]
    codes = {verdict.failure, *(step.failure for step in verdict.steps)}
    if not codes.isdisjoint(("too long", *UNREADABLE)):
        return "not in the language", f"line {verdict.line}: {verdict.reason}"[:_MOST]
    return "not proved", f"line {verdict.line}, {verdict.failure}: {verdict.reason}"[:_MOST]
