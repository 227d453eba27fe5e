"""Checks a whole proof of an inequality: every line by its rule, then what the last one claims.

    statement    a^2+b^2+c^2 >= ab+bc+ca for a, b, c > 0
    proof        Square a-b cyclic: a^2+b^2 >= 2ab
                 Sum 1/2(1): a^2+b^2+c^2 >= ab+bc+ca

What is verified is true: all arithmetic is exact, and a text of any kind takes at most about 20 ms.
A true proof may be refused, where its language does not see what a person would (`quotients`). The
lines' form is in `proof_text`, their rules in `proof_rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from nblib.tasks.expressions import ExpressionError, shown
from nblib.tasks.polynomials import Elimination, Polynomial, Refused
from nblib.tasks.proof_rules import Case, Fact, check_line
from nblib.tasks.proof_text import RULES, Line, read_line
from nblib.tasks.quotients import Arithmetic, Domain, Quotient
from nblib.tasks.statements import Relation, Statement, parse_statement

MAX_CHARACTERS = 3000  # of a proof
MAX_LINES = 40
UNREADABLE = ("unreadable line", "unknown rule", "wrong arguments")  # a line without the form


@dataclass(frozen=True, kw_only=True)
class Step:
    """A line of a proof, judged."""

    number: int  # from 1
    text: str
    rule: str  # "" where it is not known
    failure: str | None = None  # the code of what is wrong; None where it is right
    problem: str | None = None  # the same in words
    used: bool = False  # whether the last line is it, or needs it
    proven: bool = False  # whether it is right, and all that it needs


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a proof is worth; the failure is that of the first bad line, or of the whole."""

    verified: bool
    steps: tuple[Step, ...] = ()
    failure: str | None = None
    line: int = 0  # the first bad one; 0 is none
    reason: str = ""
    claims_statement: bool = False  # whether the last line is what is to be proved, right or not


@dataclass(frozen=True)
class _Claim:
    """A statement, ready for its proofs."""

    domain: Domain
    gap: Quotient  # what must be at least 0
    given: tuple[Quotient, ...]
    eliminations: tuple[Elimination, ...]


def check_proof(statement: str, proof: str) -> Verdict:
    """Check a proof, the lines of a block, of a statement as `parse_statement` reads it.

    Example:
        >>> check_proof("a^2 >= 2a-1 for real a", "Square a-1: a^2 >= 2a-1").verified
        True

    Raises ValueError for a statement that the language cannot prove.
    """
    claim = _claim(statement)
    lines = proof.strip().split("\n", MAX_LINES) if len(proof) <= MAX_CHARACTERS else []
    if not 1 <= len(lines) <= MAX_LINES:
        reason = f"expected at most {MAX_CHARACTERS} characters in {MAX_LINES} lines"
        return Verdict(verified=False, failure="too long", reason=reason)
    return _Check(claim).verdict([line.strip() for line in lines])


def check_statement(statement: str) -> None:
    """Raise ValueError, with the reason, for a statement that the language cannot prove."""
    _claim(statement)


class _Check:
    """One proof in the making: what its lines claim so far."""

    def __init__(self, claim: _Claim) -> None:
        self._claim = claim
        self._arithmetic = Arithmetic(claim.domain, claim.eliminations)
        self._lines: dict[int, Line] = {}
        self._facts: dict[int, tuple[Fact, ...]] = {}

    def verdict(self, texts: list[str]) -> Verdict:
        """Judge all lines, the last one also as the conclusion."""
        steps = [self._step(number, text) for number, text in enumerate(texts, start=1)]
        other = self._conclusion(len(steps))
        used, proven = self._needed(len(steps)), self._proven(steps)
        steps = [
            replace(one, used=one.number in used, proven=one.number in proven) for one in steps
        ]
        bad = next((one for one in steps if one.failure), None)
        code, line, reason = other.code if other else None, len(steps), str(other or "")
        if bad is not None:
            code, line, reason = bad.failure, bad.number, bad.problem or ""
        return Verdict(
            verified=code is None,
            steps=tuple(steps),
            failure=code,
            line=line if code else 0,
            reason=reason,
            claims_statement=other is None,
        )

    def _step(self, number: int, text: str) -> Step:
        """Judge a line, given what those that it names claim, right or not."""
        name = text.partition(" ")[0].removesuffix(":")
        rule = name if name in RULES else ""
        try:
            line = self._lines[number] = read_line(text)
            self._facts[number] = self._claimed(line)
            self._follows(number, line)
        except Refused as error:
            return Step(number=number, text=text, rule=rule, failure=error.code, problem=str(error))
        return Step(number=number, text=text, rule=rule)

    def _claimed(self, line: Line) -> tuple[Fact, ...]:
        """Return the inequalities that a line stands for, one for each rotation."""
        value = self._arithmetic.value
        rotations = len(self._claim.domain.rotations) if line.arguments.cyclic else 1
        return tuple(Fact(value(line.left, n), value(line.right, n)) for n in range(rotations))

    def _follows(self, number: int, line: Line) -> None:
        """Check all rotations of a line; one stands for all where nothing tells variables apart."""
        for step in line.arguments.steps:
            if not 1 <= step < number:
                raise Refused("unknown step", f"({step}) is no step before ({number})")
            if step not in self._facts:
                raise Refused("unknown step", f"({step}) has no sides that can be read")
        facts = self._facts[number]
        if self._claim.domain.uniform and not self._claim.eliminations:
            facts = facts[:1]
        for rotation, fact in enumerate(facts):
            check_line(
                Case(
                    line=line,
                    fact=fact,
                    rotation=rotation,
                    named=tuple(self._facts[step] for step in line.arguments.steps),
                    given=self._claim.given,
                    arithmetic=self._arithmetic,
                )
            )

    def _conclusion(self, number: int) -> Refused | None:
        """Return why the last line is not what is to be proved."""
        line, facts = self._lines.get(number), self._facts.get(number, ())
        if line and line.arguments.cyclic:
            return Refused("cyclic", "the last line is cyclic: end with a Sum of it")
        try:
            for fact in facts:
                gap = self._arithmetic.difference(fact.left, fact.right)
                if self._arithmetic.equal(gap, self._claim.gap):
                    return None
        except Refused as error:
            return error
        return Refused("another conclusion", "the last line is not what is to be proved")

    def _proven(self, steps: Sequence[Step]) -> set[int]:
        """Return the numbers of the lines that are right and name only such lines."""
        found = set[int]()
        for step in steps:
            if not step.failure and found.issuperset(self._lines[step.number].arguments.steps):
                found.add(step.number)
        return found

    def _needed(self, last: int) -> set[int]:
        """Return the numbers of the last line and of all those that it needs."""
        found, open_ = set[int](), [last]
        while open_:
            number = open_.pop()
            if number not in found:
                found.add(number)
                line = self._lines.get(number)
                open_ += [n for n in line.arguments.steps if 1 <= n < number] if line else []
        return found


@lru_cache(maxsize=1024)
def _claim(text: str) -> _Claim:
    """Read a statement once for all its proofs."""
    try:
        return _read_claim(parse_statement(text))
    except ValueError as error:
        raise ValueError(f"{shown(text)} cannot be proved in this language: {error}") from error


def _read_claim(statement: Statement) -> _Claim:
    claim, domain = statement.claim, Domain.of(statement.variables)
    if claim.sign != ">=":
        raise ExpressionError(f"the sign of its claim is {claim.sign}, expected >=")
    arithmetic = Arithmetic(domain)

    def gap(relation: Relation) -> Quotient:
        return arithmetic.difference(*map(arithmetic.value, (relation.left, relation.right)))

    given = [(one.sign, gap(one)) for one in statement.hypotheses if one.sign != "!="]
    return _Claim(
        domain=domain,
        gap=gap(claim),
        given=tuple(one for sign, one in given if sign != "="),
        eliminations=_eliminations(domain, [one.top for sign, one in given if sign == "="]),
    )


def _eliminations(domain: Domain, hypotheses: list[Polynomial]) -> tuple[Elimination, ...]:
    """Return what equality hypotheses eliminate, in turn; those that would cost much nothing."""
    found: list[Elimination] = []
    for hypothesis in hypotheses:
        try:
            one = Arithmetic(domain, found).elimination(hypothesis)
        except Refused:
            continue
        found += [one] if one else []
    return tuple(found)
