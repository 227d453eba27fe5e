r"""Lines of a proof as text, read: `<rule> <arguments>: <left> >= <right>`.

    AM-GM 2 of a^3, b^3: 2a^3+b^3 >= 3a^2b       weights before `of`
    Titu a^2/b, b^2/a: a^2/b+b^2/a >= a+b
    Cauchy a, b; 1, 1: (a^2+b^2)*2 >= (a+b)^2
    Square a-b cyclic: a^2+b^2 >= 2ab            and b^2+c^2 >= 2bc, c^2+a^2 >= 2ca
    Sum 1/2(1)+3(2): ...                         steps by their numbers, from 1
    Times a+b (1): ...
    Product (1)(2): ...                          Chain (1)(2), So (1)
    Given: a >= b                                a hypothesis

What a line must say to be right is in `proof_rules`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from nblib.tasks.expressions import Expression, ExpressionError, parse_expression, shown
from nblib.tasks.polynomials import Refused

MAX_ARGUMENTS = 12  # of one line
_HEAD = re.compile(r"(\S+)(?:\s+(.*))?")
_WEIGHTED = re.compile(r"(\d{1,2})\s+of\s+(.*)", re.ASCII)
_STEP = r"\((\d{1,2})\)"
_STEPS = re.compile(rf"{_STEP}(?:\s*{_STEP})*", re.ASCII)
_TERM = re.compile(rf"(?:(\d{{1,6}})(?:/(\d{{1,6}}))?)?\s*{_STEP}", re.ASCII)
_TIMES = re.compile(rf"(.+){_STEP}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What stands between a rule's name and the colon."""

    expressions: tuple[Expression, ...] = ()  # of Cauchy the first half, then the second
    weights: tuple[Fraction, ...] = ()  # of AM-GM's expressions, or of Sum's steps
    steps: tuple[int, ...] = ()  # numbers of the steps that are used
    cyclic: bool = False  # whether the line stands for all its rotations


@dataclass(frozen=True)
class Line:
    """A line of the right shape."""

    rule: str
    arguments: Arguments
    left: Expression
    right: Expression


def read_line(text: str) -> Line:
    """Return what a line says.

    Raises Refused: "unreadable line", "unknown rule", "wrong arguments", or "cyclic".
    """
    head, colon, claim = text.replace("≥", ">=").partition(":")
    sides = claim.split(">=")
    named = _HEAD.fullmatch(head.strip())
    if not colon or len(sides) != 2 or named is None:
        raise Refused(
            "unreadable line", f"{shown(text)}: expected `<rule> <arguments>: <left> >= <right>`"
        )
    if named[1] not in _READ:
        raise Refused("unknown rule", f"{shown(named[1])}: expected one of {', '.join(_READ)}")
    left, right = map(_expression, sides)
    return Line(named[1], _arguments(named[1], (named[2] or "").strip()), left, right)


def _arguments(rule: str, text: str) -> Arguments:
    before, _, last = f" {text}".rpartition(" ")
    cyclic = last == "cyclic"
    if cyclic and rule not in CYCLIC:
        raise Refused("cyclic", f"{rule} is never cyclic: only {', '.join(CYCLIC)} are")
    found = _READ[rule](before.strip() if cyclic else text)
    return Arguments(**{**found.__dict__, "cyclic": cyclic})


def _weighted(text: str) -> Arguments:
    weights, expressions = [], []
    for part in _parts(text, ","):
        found = _WEIGHTED.fullmatch(part)
        weights.append(Fraction(found[1]) if found else Fraction(1))
        expressions.append(_expression(found[2] if found else part))
    if not all(weights):
        raise Refused("wrong arguments", "a weight of 0: expected a whole number above 0")
    return Arguments(expressions=tuple(expressions), weights=tuple(weights))


def _quotients(text: str) -> Arguments:
    found = tuple(map(_expression, _parts(text, ",")))
    if any(one[0] != "quotient" for one in found):
        raise Refused("wrong arguments", "expected quotients with commas: a^2/b, c^2/d")
    return Arguments(expressions=found)


def _pairs(text: str) -> Arguments:
    halves = [_parts(half, ",") for half in text.split(";")]
    if len(halves) != 2 or len(halves[0]) != len(halves[1]):
        raise Refused("wrong arguments", "expected two lists of one length: a, b; c, d")
    return Arguments(expressions=tuple(map(_expression, halves[0] + halves[1])))


def _one(text: str) -> Arguments:
    return Arguments(expressions=(_expression(text),))


def _terms(text: str) -> Arguments:
    terms = [_TERM.fullmatch(part.strip()) for part in text.split("+")]
    found = [(int(one[1] or 1), int(one[2] or 1), int(one[3])) for one in terms if one]
    if len(found) != len(terms) or not all(top and bottom for top, bottom, _ in found):
        raise Refused(
            "wrong arguments", f"{shown(text)}: expected steps times numbers above 0: 1/2(1)+3(2)"
        )
    return Arguments(
        weights=tuple(Fraction(top, bottom) for top, bottom, _ in found),
        steps=tuple(step for *_, step in found),
    )


def _times(text: str) -> Arguments:
    found = _TIMES.fullmatch(text)
    if found is None:
        raise Refused("wrong arguments", f"{shown(text)}: expected a factor and a step, a+b (1)")
    return Arguments(expressions=(_expression(found[1]),), steps=(int(found[2]),))


def _steps(least: int, most: int) -> Callable[[str], Arguments]:
    def read(text: str) -> Arguments:
        found = re.findall(_STEP, text, re.ASCII) if _STEPS.fullmatch(text) else []
        if not least <= len(found) <= most:
            example = "(1)" if most == 1 else "(1)(2)"
            raise Refused("wrong arguments", f"{shown(text)}: expected steps as in {example}")
        return Arguments(steps=tuple(map(int, found)))

    return read


def _nothing(text: str) -> Arguments:
    if text:
        raise Refused("wrong arguments", f"{shown(text)}: Given takes no arguments")
    return Arguments()


def _parts(text: str, separator: str) -> list[str]:
    found = [part.strip() for part in text.split(separator)]
    if len(found) > MAX_ARGUMENTS:
        raise Refused("wrong arguments", f"{len(found)} arguments: at most {MAX_ARGUMENTS}")
    return found


def _expression(text: str) -> Expression:
    try:
        return parse_expression(text)
    except ExpressionError as error:
        raise Refused("unreadable line", str(error)) from error


CYCLIC = ("AM-GM", "Titu", "Cauchy", "Square")  # the rules whose lines may be cyclic
_READ: Mapping[str, Callable[[str], Arguments]] = {
    "AM-GM": _weighted,
    "Titu": _quotients,
    "Cauchy": _pairs,
    "Square": _one,
    "Sum": _terms,
    "Times": _times,
    "Product": _steps(1, MAX_ARGUMENTS),
    "Chain": _steps(2, MAX_ARGUMENTS),
    "So": _steps(1, 1),
    "Given": _nothing,
}
RULES = tuple(_READ)
