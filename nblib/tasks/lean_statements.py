"""Statements of inequalities in Lean 4, as provers' benchmarks publish them.

    {a b : ℝ} (ha : a > 0) (hb : b > 0) (h : a + b = 2) : 1 / a + 1 / b ≥ 2

is read as `1/a+1/b >= 2 for a, b > 0 with a+b = 2`: what a hypothesis says of one variable's sign
becomes its domain. A binder's name means nothing, two may be called alike.

Two things are read as mathematics has them, not as Lean has: `x ^ (1 / 3)` is the cube root, and
division by zero and roots of negative numbers have no value, where Lean says 0. Variables are
single letters, and real; absolute values, functions other than `sqrt`, and exponents that are
variables are not read.
"""

import re

from nblib.tasks.expressions import MAX_DEPTH, ExpressionError, shown
from nblib.tasks.statements import (
    NONNEGATIVE,
    POSITIVE,
    REAL,
    Relation,
    Statement,
    checked_statement,
    parse_relation,
)

_MAX_CHARACTERS = 4000
_HEAD = re.compile(r"\s*(?:(?:theorem|lemma)\s+\S+|example)(?=[\s({:])")
_PROOF = re.compile(r":=.*", re.DOTALL)
_ASCRIBED = re.compile(r"\(\s*(\d+)\s*:\s*(?:ℝ|Real)\s*\)")  # (1 : ℝ)
_TOKEN = re.compile(r"\s*(?:(Real\.sqrt\b|sqrt\b|√)|(\d+|[A-Za-z_][\w.']*)|([<>!]=|.))", re.DOTALL)
_TYPE = re.compile(r"[^\W\d][\w.]*")
_PAIRS = {"{": "}", "(": ")"}
_ZERO = parse_relation("0 = 0").left
_SIGNS = {">": POSITIVE, ">=": NONNEGATIVE}


def parse_lean_statement(text: str) -> Statement:
    """Return the statement that Lean's text writes, its name and its proof left out.

    >>> parse_lean_statement("{x : ℝ} (h : 0 < x) : x + 1 / x ≥ 2").variables
    {'x': '>'}

    Raises ExpressionError, which is a ValueError.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ExpressionError(f"{len(text)} characters: expected at most {_MAX_CHARACTERS}")
    head = _HEAD.match(text)
    text = _ASCRIBED.sub(r"\1", _PROOF.sub("", text[head.end() if head else 0 :]))
    binders, claim = _binders(text)
    variables: dict[str, str] = {}
    relations: list[Relation] = []
    for names, said in binders:
        if said in ("ℝ", "Real"):
            _add(variables, names)
        elif _TYPE.fullmatch(said):
            raise ExpressionError(f"{' '.join(names)} : {said}: expected variables in ℝ")
        else:
            relations += map(parse_relation, map(_own_syntax, _conjuncts(said)))
    hypotheses = tuple(one for one in relations if not _is_domain(one, variables))
    claims = [_own_syntax(one) for one in _conjuncts(claim)]
    if len(claims) != 1:
        raise ExpressionError(f"{len(claims)} claims: expected one inequality")
    return checked_statement(parse_relation(claims[0]), variables, hypotheses)


def _binders(text: str) -> tuple[list[tuple[list[str], str]], str]:
    """Return the names and what is said of them for each binder, and the claim behind them."""
    found, rest = [], text.strip()
    while rest[:1] in _PAIRS:
        end = _closing(rest)
        names, colon, said = rest[1:end].partition(":")
        if not colon:
            raise ExpressionError(f"{shown(rest[: end + 1])} says nothing: expected `(h : a > 0)`")
        found.append((names.split(), said.strip()))
        rest = rest[end + 1 :].lstrip()
    if not rest.startswith(":"):
        raise ExpressionError(
            f"{shown(rest)} behind the hypotheses: expected `{{a b : ℝ}} (h : a > 0) : a ≥ b`"
        )
    return found, rest[1:].strip()


def _closing(text: str) -> int:
    """Return where the bracket closes with which a text begins."""
    depth, close = 0, _PAIRS[text[0]]
    for place, sign in enumerate(text):
        depth += (sign == text[0]) - (sign == close)
        if not depth:
            return place
    raise ExpressionError(f"a bracket is not closed in {shown(text)}")


def _add(variables: dict[str, str], names: list[str]) -> None:
    for name in names:
        if not re.fullmatch("[A-Za-z]", name):
            raise ExpressionError(f"variable {shown(name)}: expected a single letter")
        if name in variables:
            raise ExpressionError(f"variable {name} is bound twice")
        variables[name] = REAL


def _is_domain(relation: Relation, variables: dict[str, str]) -> bool:
    """Whether a hypothesis is a variable's sign; the variable's domain then says so."""
    match relation:
        case Relation(("variable", letter), (">" | ">=") as sign, zero) if (
            zero == _ZERO and letter in variables
        ):
            if variables[letter] != POSITIVE:
                variables[letter] = _SIGNS[sign]
            return True
    return False


def _conjuncts(text: str, depth: int = 0) -> list[str]:
    """Return the parts of `p ∧ q`, without the parentheses around each."""
    if depth > MAX_DEPTH:
        raise ExpressionError(f"more than {MAX_DEPTH} parentheses within each other")
    text = text.strip()
    if text.startswith("(") and _closing(text) == len(text) - 1:
        return _conjuncts(text[1:-1], depth + 1)
    parts, level = [""], 0
    for sign in text:
        level += (sign == "(") - (sign == ")")
        if sign == "∧" and not level:
            parts.append("")
        else:
            parts[-1] += sign
    return parts if len(parts) == 1 else [q for p in parts for q in _conjuncts(p, depth + 1)]


def _own_syntax(text: str) -> str:
    """Return Lean's relation as `statements` writes one.

    Factors that only stand side by side are an application in Lean, and refused; a sign behind an
    operator, as in `a * -b`, becomes a factor of -1.
    """
    found, before = [], ""
    for root, word, sign in _TOKEN.findall(text.strip()):
        if len(word) > 1 and not word.isdecimal():
            raise ExpressionError(f"{word!r}: variables are single letters, functions only sqrt")
        token = "sqrt" if root else word or sign
        begins = bool(root or word or sign == "(")
        if begins and (before == ")" or (before.isalnum() and before != "sqrt")):
            raise ExpressionError(f"{token!r} behind {before!r} without an operator")
        if before == "sqrt" and not (begins and not root):
            raise ExpressionError(f"{token!r} behind sqrt: expected `sqrt a` or `sqrt (a + b)`")
        if token == "-" and before in ("+", "-", "*", "/"):
            token = "(-1)/" if before == "/" else "(-1)*"
        found.append(f"({token})" if before == "sqrt" and word else token)
        before = token[-1] if token.startswith("(-") else token
    return " ".join(found)
