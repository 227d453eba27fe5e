"""Relations as one sum: left - right as the numerator of a quotient, in its shortest form.

    2x/y >= 4-2y/x, x and y above 0        x^2-2xy+y^2
    1/(a-b) >= 1, a and b real             (1-a+b)(a-b), where a-b is not 0

A sum is a set of terms, a term a monomial and its coefficient, a monomial a set of (unit,
exponent). Units are letters; where there are roots, or where the limits of `polynomials` are
passed, also numbers and sums: those under a root, and those that are divided by. For most uses
prefer `normal_form`.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm, prod
from typing import Any

from nblib.tasks.expressions import Expression
from nblib.tasks.polynomials import BITS, FIELD, MAX_BITS, MAX_TERMS, Factor, Polynomial, Refused
from nblib.tasks.quotients import Arithmetic, Domain, Quotient
from nblib.tasks.statements import POSITIVE, REAL, Relation

_MOST_IN_ALL = 1000  # terms of a statement; where it has more, none of its relations is expanded
_MOST_TERMS = 60  # of a product beside roots; of a larger one each factor is a unit
_POINT = (2, 3, 5, 7, 11, 13)  # where a divisor is tried first

Monomial = frozenset[tuple[Any, Fraction]]
Sum = frozenset[tuple[Monomial, Fraction]]
_Terms = dict[Monomial, Fraction]  # a sum in the making


def gaps(relations: Sequence[Relation], signs: Mapping[str, str]) -> list[tuple[Sum, Sum]]:
    """Return for each relation a sum with the sign of left - right, and one that is not 0.

    The first is divided by what its numbers and the powers of its positive letters share. The
    second is empty where signs say that all denominators are positive.
    """
    found = [_gap(one, signs) for one in relations]
    if sum(len(side) for one in found for side in one) > _MOST_IN_ALL:
        return [(_shortest(_difference(one, signs), signs), frozenset()) for one in relations]
    return found


def _gap(relation: Relation, signs: Mapping[str, str]) -> tuple[Sum, Sum]:
    arithmetic = _AnySign(Domain.of(signs))
    try:
        sides = [arithmetic.value(side) for side in (relation.left, relation.right)]
        top, other = _numerator(arithmetic, arithmetic.difference(*sides))
    except Refused:
        top, other = _difference(relation, signs), {}
    return _shortest(top, signs), _shortest(other, signs)


def _difference(relation: Relation, signs: Mapping[str, str]) -> _Terms:
    turned: Expression = ("product", (("number", Fraction(-1)), relation.right))
    return _terms(("sum", (relation.left, turned)), signs)


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


def _shortest(terms: _Terms, signs: Mapping[str, str]) -> Sum:
    """Divide by what all coefficients share, and by the powers of positive letters that all do."""
    if not terms:
        return frozenset()
    content, powers = _content(terms), [dict(monomial) for monomial in terms]
    common: dict[object, Fraction] = {
        letter: -least
        for letter, sign in signs.items()
        if sign == POSITIVE and (least := min(one.get(letter, Fraction(0)) for one in powers))
    }
    return frozenset((_times(one, common), number / content) for one, number in terms.items())


def _content(terms: _Terms) -> Fraction:
    tops, bottoms = zip(*(one.as_integer_ratio() for one in terms.values()), strict=True)
    return Fraction(gcd(*tops), lcm(*bottoms))


def _times(monomial: Monomial, other: Mapping[object, Fraction]) -> Monomial:
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
    if sum(len(one) > 1 for one in factors) > 1 and prod(map(len, factors)) > _MOST_TERMS:
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
            return _product([{raised: Fraction(1)}, _raised(number, exponent)])
    if whole and exponent >= 0:
        return _product([base] * exponent.numerator)
    return _unit(base, exponent) if base else {}


def _raised(number: Fraction, exponent: Fraction) -> _Terms:
    """Return a power of a number, which is a unit where it is a root or large."""
    bits = max(map(int.bit_length, number.as_integer_ratio())) * abs(exponent)
    if exponent.denominator == 1 and bits <= MAX_BITS:
        return {frozenset(): number**exponent.numerator}
    return {frozenset({(number, exponent)} if number != 1 else ()): Fraction(1)}


def _unit(base: _Terms, exponent: Fraction) -> _Terms:
    """Return a sum as a unit; what its coefficients share stands before it, but under a root."""
    content = _content(base) if exponent.denominator == 1 else Fraction(1)
    unit = frozenset((monomial, one / content) for monomial, one in base.items())
    return {frozenset({(unit, exponent)}): content**exponent.numerator}
