"""Statements of inequalities as text: `a^2+b^2 >= 2ab for a, b > 0 with a+b = 1`.

The two sides, then what is known of each variable (`> 0`, `>= 0`, or nothing: `for real a, b`),
then hypotheses. `<=` is turned round. `lean_statements` reads Lean into the same value. Whether a
statement is true is for `counterexamples`, whether a proof proves it for `proofs`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nblib.tasks.expressions import (
    Expression,
    ExpressionError,
    expression_text,
    parse_expression,
    shown,
    variables_of,
)

POSITIVE, NONNEGATIVE, REAL = ">", ">=", "real"  # what is known of a variable
MAX_VARIABLES = 6
MAX_HYPOTHESES = 8
_MAX_CHARACTERS = 4000
_RELATION = re.compile(r"(>=|<=|!=|≥|≤|≠|>|<|=)")
_PLAIN = {"≥": ">=", "≤": "<=", "≠": "!="}
_TURNED = {"<=": ">=", "<": ">"}
_SIGNS = re.compile(r"(?P<letters>[A-Za-z](?:\s*,\s*[A-Za-z])*)\s*(?P<sign>>=|≥|>)\s*0", re.ASCII)
_LETTERS = re.compile(r"real\s+[A-Za-z](?:\s*,\s*[A-Za-z])*", re.ASCII)


@dataclass(frozen=True)
class Relation:
    """Two sides and what is between them: `>=`, `>`, `=` or `!=`."""

    left: Expression
    sign: str
    right: Expression


@dataclass(frozen=True, kw_only=True)
class Statement:
    """An inequality with the domain of its variables, in the order in which they are named."""

    claim: Relation  # `>=` or `>`
    variables: Mapping[str, str]  # letter -> POSITIVE, NONNEGATIVE or REAL
    hypotheses: tuple[Relation, ...] = ()


def parse_relation(text: str) -> Relation:
    """Return the one relation that a text writes, `<=` and `<` turned round.

    Raises ExpressionError.
    """
    parts = _RELATION.split(text)
    if len(parts) != 3:
        found = "no sign" if len(parts) == 1 else "several signs"
        raise ExpressionError(f"{found} in {shown(text)}: expected one of >=, <=, >, <, =")
    left, right = parse_expression(parts[0]), parse_expression(parts[2])
    sign = _PLAIN.get(parts[1], parts[1])
    if sign in _TURNED:
        return Relation(right, _TURNED[sign], left)
    return Relation(left, sign, right)


def parse_statement(text: str) -> Statement:
    """Return the statement that a text writes.

    Raises ExpressionError, which is a ValueError.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ExpressionError(f"{len(text)} characters: expected at most {_MAX_CHARACTERS}")
    claim, _, domain = text.strip().removeprefix("Prove:").removesuffix(".").partition(" for ")
    signs, _, given = domain.partition(" with ")
    if not domain:
        raise ExpressionError(f"no domain in {shown(text)}: expected `... for a, b > 0`")
    hypotheses = tuple(map(parse_relation, given.split(","))) if given.strip() else ()
    return checked_statement(parse_relation(claim), _domain(signs), hypotheses)


def statement_text(statement: Statement) -> str:
    """Return a text that `parse_statement` reads as the same statement, variables of any sign last.

    >>> statement_text(parse_statement("2*a*b <= a^2 + b^2 for a > 0, b > 0"))
    'a^2+b^2 >= 2ab for a, b > 0'
    """
    signs = statement.variables
    domains = [
        f"{'real ' * (sign == REAL)}{', '.join(letters)}{f' {sign} 0' * (sign != REAL)}"
        for sign in (POSITIVE, NONNEGATIVE, REAL)
        if (letters := [letter for letter, one in signs.items() if one == sign])
    ]
    given = ", ".join(map(_relation_text, statement.hypotheses))
    claim = f"{_relation_text(statement.claim)} for {', '.join(domains)}"
    return f"{claim} with {given}" if given else claim


def _relation_text(relation: Relation) -> str:
    left, right = map(expression_text, (relation.left, relation.right))
    return f"{left} {relation.sign} {right}"


def checked_statement(
    claim: Relation, variables: Mapping[str, str], hypotheses: tuple[Relation, ...]
) -> Statement:
    """Return a statement, every letter of which is one of its variables. Raises ExpressionError."""
    if claim.sign not in (">=", ">"):
        raise ExpressionError(f"the claim is no inequality: its sign is {claim.sign}")
    if not 1 <= len(variables) <= MAX_VARIABLES or len(hypotheses) > MAX_HYPOTHESES:
        raise ExpressionError(
            f"{len(variables)} variables and {len(hypotheses)} hypotheses: expected 1 to "
            f"{MAX_VARIABLES}, and at most {MAX_HYPOTHESES}"
        )
    sides = [side for one in (claim, *hypotheses) for side in (one.left, one.right)]
    unknown = sorted(set().union(*map(variables_of, sides)) - variables.keys())
    if unknown:
        raise ExpressionError(f"variable {unknown[0]} is not in the domain {', '.join(variables)}")
    return Statement(claim=claim, variables=variables, hypotheses=hypotheses)


def _domain(text: str) -> dict[str, str]:
    """Read `a, b > 0, c >= 0` or `real a, b`, in any order."""
    found: dict[str, str] = {}
    rest = text.strip()
    while rest:
        signs, letters = _SIGNS.match(rest), _LETTERS.match(rest)
        if signs:
            sign = _PLAIN.get(signs["sign"], signs["sign"])
            named, end = re.findall(r"[A-Za-z]", signs["letters"]), signs.end()
        elif letters:
            sign, named, end = REAL, re.findall(r"\b[A-Za-z]\b", letters[0]), letters.end()
        else:
            raise ExpressionError(f"{shown(rest)} is no domain: expected `a, b > 0` or `real a, b`")
        again = [letter for letter in named if letter in found or named.count(letter) > 1]
        if again:
            raise ExpressionError(f"variable {again[0]} is in the domain twice")
        found.update(dict.fromkeys(named, sign))
        rest = rest[end:].lstrip()
        if rest and not rest.startswith(","):
            raise ExpressionError(f"{shown(rest)} behind the domain: expected `with`, or the end")
        rest = rest.removeprefix(",").lstrip()
    return found
