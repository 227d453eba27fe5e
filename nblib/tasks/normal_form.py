"""Normal forms of statements: two that say the same in other words have one key.

    a^2+b^2 >= 2ab for a, b > 0         x/y+y/x >= 2 for x, y > 0         one key
    a^2+b^2 >= 3ab for a, b > 0                                           another key

The same are statements with other letters, in another order, turned round, scaled (both sides times
a positive number), with terms moved, or multiplied by their denominators. The key is the numerator
of left - right, divided by what its numbers and its positive variables have in common, in those
letters that make its text the smallest.

Not seen: that a hypothesis was used to rewrite the claim; a factor other than a variable on both
sides, as in (a+b)x >= (a+b)y; one scale for all variables where the claim or a hypothesis mixes
degrees; what an identity of roots rewrites, and denominators beside roots. An expression with
roots, or one above the limits of `polynomials`, is a sum whose roots and denominators are units.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import gcd, lcm, prod
from typing import Any

from nblib.tasks.expressions import Expression
from nblib.tasks.polynomials import BITS, FIELD, MAX_TERMS, Factor, Polynomial, Refused
from nblib.tasks.quotients import Arithmetic, Domain, Quotient
from nblib.tasks.statements import POSITIVE, REAL, Relation, Statement

_MOST_TERMS = 60  # of a product of sums beside roots; a larger one stays a product
_POINT = (2, 3, 5, 7, 11, 13)  # where a divisor is tried first

# A sum is a set of (monomial, coefficient), a monomial a set of (unit, exponent); a unit is a
# letter, a number or a sum.
_Monomial = frozenset[tuple[Any, Fraction]]
_Sum = frozenset[tuple[_Monomial, Fraction]]
_Terms = dict[_Monomial, Fraction]  # a sum in the making
_Written = Callable[[Fraction], str]  # how a coefficient is written


@dataclass(frozen=True)
class _Part:
    """A claim or a hypothesis: the sum has the sign, the other sum is not 0."""

    sign: str
    left: _Sum
    other: _Sum


def statement_key(statement: Statement) -> str:
    """Return a text that is the same for statements that say the same in other words.

    >>> statement_key(parse_statement("2x/y >= 4-2y/x for x, y > 0"))
    '+1*a^2+1*b^2-2*a*b >= 0 for a >, b >'
    """
    return _least(statement, str)


def template_key(statement: Statement) -> str:
    """Return the key without its numbers: of each coefficient only the sign is left."""
    return _least(statement, lambda _: "")


def _least(statement: Statement, written: _Written) -> str:
    """Return the smallest text of a statement, its letters being named a, b, c in any order."""
    claim, *given = _parts(statement)
    letters = sorted(_letters([claim, *given]))

    def text(names: Mapping[str, str]) -> str:
        parts = [_part_text(one, names, written) for one in (claim, *given)]
        domain = sorted(f"{names[letter]} {statement.variables[letter]}" for letter in letters)
        behind = f" with {', '.join(sorted(parts[1:]))}" if given else ""
        return f"{parts[0]} for {', '.join(domain)}{behind}"

    own = {letter: letter for letter in letters}
    twins = {letter: letter for letter in letters}  # those that can change places
    for one, other in combinations(letters, 2):
        if twins[other] == other and text(own) == text({**own, one: other, other: one}):
            twins[other] = twins[one]
    return min(_namings(text, dict.fromkeys(letters, 0), twins))


def _namings(
    text: Callable[[Mapping[str, str]], str], ranks: dict[str, int], twins: Mapping[str, str]
) -> Iterator[str]:
    """Yield texts, with each naming that the places of letters in the text do not decide."""
    ranks = _refined(text, ranks)
    shared = [rank for rank in ranks.values() if [*ranks.values()].count(rank) > 1]
    if not shared:
        yield text({letter: chr(ord("a") + rank) for letter, rank in ranks.items()})
        return
    rank = min(shared)
    first = {twins[letter]: letter for letter in ranks if ranks[letter] == rank}
    for chosen in first.values():
        behind = {letter: one + (one == rank) for letter, one in ranks.items()}
        yield from _namings(text, {**behind, chosen: rank}, twins)


def _refined(text: Callable[[Mapping[str, str]], str], ranks: dict[str, int]) -> dict[str, int]:
    """Rank letters by what the text says of them, until that tells no more of them apart.

    Ranks leave room for those that share one: 0, 1, 1, 3.
    """
    while True:
        seen = {}
        for letter, rank in ranks.items():
            names = {other: f"#{one}" for other, one in ranks.items()}
            seen[letter] = rank, text({**names, letter: "#"})
        order = sorted(seen.values())
        found = {letter: order.index(one) for letter, one in seen.items()}
        if found == ranks or len({*found.values()}) == len({*ranks.values()}):
            return found
        ranks = found


def _part_text(part: _Part, names: Mapping[str, str], written: _Written) -> str:
    texts = [_sum_text(part.left, names, written)]
    if part.sign in ("=", "!="):  # -a = 0 says the same
        texts.append(_sum_text(_negative(part.left), names, written))
    bottom = ""
    if part.other:
        both = (part.other, _negative(part.other))
        bottom = f", {min(_sum_text(one, names, written) for one in both)} != 0"
    return f"{min(texts)} {part.sign} 0{bottom}"


def _negative(one: _Sum) -> _Sum:
    return frozenset((monomial, -coefficient) for monomial, coefficient in one)


def _sum_text(terms: _Sum, names: Mapping[str, str], written: _Written) -> str:
    """Return the terms in the order of their texts."""
    texts = []
    for monomial, coefficient in terms:
        units = []
        for unit, exponent in monomial:
            name = names[unit] if isinstance(unit, str) else _unit_text(unit, names, written)
            units.append(f"*{name}^{exponent}" if exponent != 1 else f"*{name}")
        sign, number = "-" if coefficient < 0 else "+", written(abs(coefficient))
        texts.append(f"{sign}{number}{''.join(sorted(units))}")
    return "".join(sorted(texts)) or "0"


def _unit_text(unit: Any, names: Mapping[str, str], written: _Written) -> str:
    if isinstance(unit, Fraction):
        return f"({written(unit)})"
    return f"({_sum_text(unit, names, written)})"


def _letters(parts: Sequence[_Part]) -> set[str]:
    """Return the letters that are left."""
    found, sums = set[str](), [side for one in parts for side in (one.left, one.other)]
    while sums:
        for unit in (unit for monomial, _ in sums.pop() for unit, _ in monomial):
            if isinstance(unit, str):
                found.add(unit)
            elif isinstance(unit, frozenset):
                sums.append(unit)
    return found


def _parts(statement: Statement) -> list[_Part]:
    """Return the claim, and the hypotheses that say more than the signs of variables."""
    signs = statement.variables
    claim, *given = (_part(one, signs) for one in (statement.claim, *statement.hypotheses))
    return [claim, *{one for one in given if not _holds(one, signs)}]


def _part(relation: Relation, signs: Mapping[str, str]) -> _Part:
    """Return the numerator of left - right, with what it is divided by."""
    arithmetic = _AnySign(Domain.of(signs))
    try:
        sides = [arithmetic.value(side) for side in (relation.left, relation.right)]
        found = _numerator(arithmetic, arithmetic.difference(*sides))
    except Refused:
        turned: Expression = ("product", (("number", Fraction(-1)), relation.right))
        found = _terms(("sum", (relation.left, turned)), signs), {}
    left, other = (frozenset(_reduced(one, signs).items()) for one in found)
    return _Part(relation.sign, left, other)


def _holds(part: _Part, signs: Mapping[str, str]) -> bool:
    """Whether the signs of variables say that a hypothesis holds."""
    if part.sign == "=" or not part.left:
        return not part.left and part.sign in ("=", ">=")
    never_negative = all(
        coefficient > 0
        and all(signs.get(str(unit), REAL) != REAL or not exponent % 2 for unit, exponent in one)
        for one, coefficient in part.left
    )
    above = any(all(signs.get(str(u)) == POSITIVE for u, _ in one) for one, _ in part.left)
    return never_negative and (above or part.sign == ">=") and not part.other


class _AnySign(Arithmetic):
    """Arithmetic that divides by what is not 0; the highest coefficient of a factor is positive."""

    def is_positive(self, value: Quotient) -> bool:
        return value.top[max(value.top)] > 0


def _numerator(arithmetic: Arithmetic, gap: Quotient) -> tuple[_Terms, _Terms]:
    """Return a polynomial with the sign of a quotient, and the product of factors of any sign."""
    top, other = gap.top, Quotient({0: 1})
    for factor, exponent in gap.factors.items():
        while exponent and (less := _divided(top, factor)) is not None:
            top, exponent = less, exponent - 1
        divisor = Quotient(dict(factor))
        if exponent and not arithmetic.is_nonnegative(divisor):
            other = arithmetic.times(other, divisor)
            top = arithmetic.times(Quotient(top), divisor).top if exponent % 2 else top
    letters = [*arithmetic.domain.rotations[0]]
    return _unpacked(top, letters), {} if other.top == {0: 1} else _unpacked(other.top, letters)


def _unpacked(top: Polynomial, letters: Sequence[str]) -> _Terms:
    return {
        frozenset((x, Fraction(e)) for n, x in enumerate(letters) if (e := m >> BITS * n & FIELD)):
        Fraction(coefficient) for m, coefficient in top.items()
    }  # fmt: skip


def _divided(top: Polynomial, factor: Factor) -> Polynomial | None:
    """Return top / factor; None where a rest is left."""
    below = _value_at(dict(factor))
    if not top or (below and _value_at(top) % below):
        return None
    rest, found, (lead, number) = dict(top), dict[int, int](), factor[-1]
    while rest:
        first = max(rest)
        fits = all(first >> n & FIELD >= lead >> n & FIELD for n in range(0, BITS * 6, BITS))
        if not fits or rest[first] % number or len(found) == MAX_TERMS:
            return None
        times, by = first - lead, rest[first] // number
        found[times] = by
        for monomial, coefficient in factor:
            left = rest.get(monomial + times, 0) - coefficient * by
            rest[monomial + times] = left
            if not left:
                del rest[monomial + times]
    return found


def _value_at(top: Polynomial) -> int:
    """Return what a polynomial with whole coefficients is at a point: its divisors divide that."""
    return sum(
        coefficient * prod(x ** (m >> BITS * n & FIELD) for n, x in enumerate(_POINT))
        for m, coefficient in top.items()
    )


def _reduced(terms: _Terms, signs: Mapping[str, str]) -> _Terms:
    """Divide by what all coefficients share, and by the powers of positive letters that all do."""
    if not terms:
        return {}
    tops, bottoms = zip(*(one.as_integer_ratio() for one in terms.values()), strict=True)
    content = Fraction(gcd(*tops), lcm(*bottoms))
    powers = [dict(monomial) for monomial in terms]
    common: dict[object, Fraction] = {
        letter: -least
        for letter, sign in signs.items()
        if sign == POSITIVE and (least := min(one.get(letter, Fraction(0)) for one in powers))
    }
    return {_times(one, common): coefficient / content for one, coefficient in terms.items()}


def _times(monomial: _Monomial, other: Mapping[object, Fraction]) -> _Monomial:
    found = dict(monomial)
    for unit, exponent in other.items():
        found[unit] = found.get(unit, Fraction(0)) + exponent
    return frozenset((unit, exponent) for unit, exponent in found.items() if exponent)


def _terms(expression: Expression, signs: Mapping[str, str]) -> _Terms:
    """Return the terms of an expression with roots; sums under a root or a division are units."""
    match expression:
        case ("number", value):
            return {frozenset(): value} if value else {}
        case ("variable", letter):
            return {frozenset({(letter, Fraction(1))}): Fraction(1)}
        case ("sum", parts):
            return _added([_terms(part, signs) for part in parts])
        case ("product", _):
            return _product([_terms(part, signs) for part in _factors(expression)])
        case ("quotient", top, bottom):
            return _product([_terms(top, signs), _power(_terms(bottom, signs), -1, signs)])
    return _power(_terms(expression[1], signs), expression[2], signs)


def _factors(expression: Expression) -> list[Expression]:
    if expression[0] != "product":
        return [expression]
    return [factor for part in expression[1] for factor in _factors(part)]


def _added(sums: Sequence[_Terms]) -> _Terms:
    found: _Terms = {}
    for monomial, coefficient in (term for one in sums for term in one.items()):
        found[monomial] = found.get(monomial, Fraction(0)) + coefficient
    return {monomial: coefficient for monomial, coefficient in found.items() if coefficient}


def _product(factors: Sequence[_Terms]) -> _Terms:
    """Multiply out; where that makes many terms, every factor of several is a unit."""
    if prod(map(len, factors)) > _MOST_TERMS:
        factors = [one if len(one) == 1 else _unit(one, Fraction(1)) for one in factors]
    found: _Terms = {frozenset(): Fraction(1)}
    for factor in factors:
        found = _added([
            {_times(one, dict(other)): c * d for one, c in found.items()}
            for other, d in factor.items()
        ])  # fmt: skip
    return found


def _power(base: _Terms, exponent: Fraction | int, signs: Mapping[str, str]) -> _Terms:
    """Raise to a power; the root of a product is that of its letters where none is negative."""
    exponent = Fraction(exponent)
    whole = exponent.denominator == 1
    if len(base) == 1:
        ((monomial, number),) = base.items()
        apart = number > 0 and all(signs.get(str(unit), REAL) != REAL for unit, _ in monomial)
        if whole or apart:
            raised = frozenset((unit, power * exponent) for unit, power in monomial if exponent)
            if whole:
                return {raised: number**exponent.numerator}
            return _product([{raised: Fraction(1)}, _unit_of(number, exponent)])
    if whole and exponent >= 0:
        return _product([base] * exponent.numerator)
    return _unit(base, exponent) if base else {}


def _unit_of(number: Fraction, exponent: Fraction) -> _Terms:
    """Return a number's root."""
    return {frozenset({(number, exponent)} if number != 1 else ()): Fraction(1)}


def _unit(base: _Terms, exponent: Fraction) -> _Terms:
    """Return a sum as a unit; what its coefficients share stands before it, but under a root."""
    content = Fraction(1)
    if exponent.denominator == 1:
        tops, bottoms = zip(*(one.as_integer_ratio() for one in base.values()), strict=True)
        content = Fraction(gcd(*tops), lcm(*bottoms))
    unit = frozenset((monomial, one / content) for monomial, one in base.items())
    return {frozenset({(unit, exponent)}): content**exponent.numerator}
