"""Exact arithmetic of quotients of polynomials: values of expressions, equality, signs "by sight".

A quotient keeps its denominator in factors: a/(b+c) + b/(c+a) has the bottom (b+c)(c+a), and what
is added to it later needs no other. Nothing is cancelled; two quotients are equal where the top of
their difference is 0. Every denominator is positive in the whole domain, by sight, else it is
refused.

"By sight" means from the signs alone: all coefficients are positive, and a variable that may be
negative has even exponents only. It is sound, and incomplete on purpose: a^2-2ab+b^2 is not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt, lcm
from typing import NamedTuple

from nblib.tasks.expressions import Expression
from nblib.tasks.polynomials import (
    BITS,
    DEGREE,
    FIELD,
    MAX_DEGREE,
    OVERHEAD,
    Budget,
    Elimination,
    Factor,
    Polynomial,
    Refused,
    checked,
    checked_bottom,
    small,
    solved,
    split,
    without_zeros,
)
from nblib.tasks.statements import POSITIVE, REAL


class Quotient(NamedTuple):
    """A polynomial over a number and factors, which are positive in the whole domain."""

    top: Polynomial
    number: int = 1
    factors: Mapping[Factor, int] = {}  # factor -> exponent; never changed in place


ZERO, ONE = Quotient({}), Quotient({0: 1})


@dataclass(frozen=True)
class Domain:
    """Variables in their order, with what is known of them, as masks of packed monomials."""

    rotations: tuple[Mapping[str, int], ...]  # in the k-th, a letter is that k places after it
    odd: int  # the bit that is set where the exponent of a real variable is odd
    weak: int  # the bits of all variables that may be 0
    uniform: bool  # whether the same is known of all

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> "Domain":
        """Return the domain of a statement's variables."""
        units = [1 << DEGREE | 1 << BITS * n for n in range(len(variables))]
        signs = [*variables.values()]
        return cls(
            rotations=tuple(
                dict(zip(variables, units[k:] + units[:k], strict=True)) for k in range(len(units))
            ),
            odd=sum(1 << BITS * n for n, sign in enumerate(signs) if sign == REAL),
            weak=sum(FIELD << BITS * n for n, sign in enumerate(signs) if sign != POSITIVE),
            uniform=len(set(signs)) == 1,
        )


class Arithmetic:
    """Sums, products, quotients and comparisons in a domain, until the budget of products is spent.

    All methods raise Refused: "too large", or "denominator" for a division by what may be 0.
    """

    def __init__(self, domain: Domain, eliminations: Sequence[Elimination] = ()) -> None:
        self.domain, self._eliminations = domain, eliminations
        self._budget = Budget()

    def value(self, expression: Expression, rotation: int = 0) -> Quotient:
        """Return what an expression is, its variables moved on by `rotation` places."""
        return self._value(expression, self.domain.rotations[rotation])

    def _value(self, expression: Expression, units: Mapping[str, int]) -> Quotient:
        kind = expression[0]
        if kind == "sum":
            return self.total([self._value(part, units) for part in expression[1]])
        if kind == "quotient":
            top, bottom = (self._value(part, units) for part in expression[1:])
            return self.divided(top, bottom)
        if kind == "product":
            return self._product(expression[1], units)
        if kind == "power" and expression[1][0] != "variable":
            return self.power(self._value(expression[1], units), _whole(expression[2]))
        return self._product((expression,), units)

    def _product(self, parts: Sequence[Expression], units: Mapping[str, int]) -> Quotient:
        """Multiply numbers and powers of variables into one term, then what else there is."""
        number, monomial, others = Fraction(1), 0, []
        for part in parts:
            kind = part[0]
            if kind == "number":
                number *= part[1]
            elif kind == "variable":
                monomial += _unit(part, units)
            elif kind == "power" and part[1][0] == "variable" and part[2] >= 0:
                monomial += _unit(part[1], units) * _whole(part[2])
            else:
                others.append(part)
        self._budget.spend(len(parts) * 2 + OVERHEAD)
        if monomial >> DEGREE > MAX_DEGREE:
            raise Refused("too large", f"a degree above {MAX_DEGREE}")
        top = checked({monomial: number.numerator} if number else {})
        found = Quotient(top, number.denominator)
        for part in others:
            if part[0] == "power" and part[1][0] == "variable":  # a negative exponent
                base = Quotient({_unit(part[1], units): 1})
                found = self.times(found, self.power(base, _whole(part[2])))
            else:
                found = self.times(found, self._value(part, units))
        return found

    def total(self, values: Sequence[Quotient]) -> Quotient:
        """Return the sum, over the least common multiple of the denominators as they stand."""
        self._budget.spend(OVERHEAD * len(values))
        values = [one for one in values if one.top]
        self._budget.spend(sum(map(_length, values)))
        number, bottom = 1, dict[Factor, int]()
        for one in values:
            number = lcm(number, one.number)
            for factor, exponent in one.factors.items():
                bottom[factor] = max(exponent, bottom.get(factor, 0))
        found: Polynomial = {}
        small(number)
        for one in values:
            top, scale = one.top, number // one.number
            self._budget.spend(len(bottom) * 2)
            for factor, exponent in bottom.items():
                for _ in range(exponent - one.factors.get(factor, 0)):
                    top = self._budget.multiplied(top, dict(factor))
            self._budget.spend(len(top) * 2 + OVERHEAD)
            for monomial, coefficient in top.items():
                found[monomial] = found.get(monomial, 0) + coefficient * scale
        return Quotient(checked(without_zeros(found)), number, bottom)

    def difference(self, left: Quotient, right: Quotient) -> Quotient:
        """Return left - right."""
        return self.total([left, self.scaled(right, Fraction(-1))])

    def scaled(self, value: Quotient, number: Fraction) -> Quotient:
        """Return a quotient times a number."""
        top = self._budget.multiplied(value.top, {0: number.numerator} if number else {})
        return Quotient(top, small(value.number * number.denominator), value.factors)

    def times(self, left: Quotient, right: Quotient) -> Quotient:
        """Return left * right."""
        self._budget.spend(OVERHEAD)
        if not (left.top and right.top):
            return ZERO
        self._budget.spend(2 * (_length(left) + _length(right)))
        factors = left.factors
        if right.factors:
            names = {**left.factors, **right.factors}
            factors = checked_bottom(
                {f: left.factors.get(f, 0) + right.factors.get(f, 0) for f in names}
            )
        top = self._budget.multiplied(left.top, right.top)
        return Quotient(top, small(left.number * right.number), factors)

    def divided(self, top: Quotient, bottom: Quotient) -> Quotient:
        """Return top / bottom, where the bottom is positive or negative by sight."""
        divisor = bottom.top
        if not divisor:
            raise Refused("denominator", "a division by 0")
        if not self.is_positive(bottom):
            divisor = {monomial: -coefficient for monomial, coefficient in divisor.items()}
            if not self.is_positive(Quotient(divisor)):
                raise Refused("denominator", "a denominator that may be 0 or negative")
            top = self.scaled(top, Fraction(-1))
        self._budget.spend(len(divisor) * 4 + OVERHEAD)
        content, factors = split(divisor, len(self.domain.rotations))
        for given, sign in ((top.factors, 1), (bottom.factors, -1)):
            for factor, exponent in given.items():
                factors[factor] = factors.get(factor, 0) + sign * exponent
        found = self._budget.multiplied(top.top, {0: bottom.number})
        for factor, exponent in factors.items():
            for _ in range(-exponent):
                found = self._budget.multiplied(found, dict(factor))
        below = checked_bottom(
            {factor: exponent for factor, exponent in factors.items() if exponent > 0}
        )
        return Quotient(found, small(top.number * content), below) if found else ZERO

    def power(self, base: Quotient, exponent: int) -> Quotient:
        """Return base^exponent; a negative exponent divides by the base."""
        if exponent < 0:
            return self.divided(ONE, self.power(base, -exponent))
        if exponent and not base.top:
            return ZERO
        top, number = ONE.top, 1
        for _ in range(exponent):
            top, number = self._budget.multiplied(top, base.top), small(number * base.number)
        factors = checked_bottom({f: e * exponent for f, e in base.factors.items() if exponent})
        return Quotient(top, number, factors)

    def is_nonnegative(self, value: Quotient) -> bool:
        """Whether a quotient is seen to be at least 0 in the whole domain."""
        self._budget.spend(len(value.top) // 2)
        odd = self.domain.odd
        return all(c > 0 and not monomial & odd for monomial, c in value.top.items())

    def is_positive(self, value: Quotient) -> bool:
        """Whether a quotient is seen to be above 0: one term has no variable that may be 0."""
        weak = self.domain.weak
        return self.is_nonnegative(value) and any(not monomial & weak for monomial in value.top)

    def equal(self, left: Quotient, right: Quotient) -> bool:
        """Whether two quotients are the same wherever the equality hypotheses hold."""
        return left == right or self.vanishes(self.difference(left, right).top)

    def vanishes(self, top: Polynomial) -> bool:
        """Whether a polynomial is 0 wherever the equality hypotheses hold, as far as is seen."""
        for one in self._eliminations:
            top = self._budget.without(top, one)
        return not top

    def elimination(self, hypothesis: Polynomial) -> Elimination | None:
        """Return how `hypothesis = 0` eliminates a variable after those before it, or None.

        What the variable is multiplied by must not be 0 in the domain: it is positive by sight, or
        the rest is a number, as in ab = 1, which no 0 solves.
        """
        for one in self._eliminations:
            hypothesis = self._budget.without(hypothesis, one)
        places = range(0, BITS * len(self.domain.rotations), BITS)
        usable = [
            one
            for one in (solved(hypothesis, place) for place in places)
            if one and (one.rest.keys() == {0} or self.is_positive(Quotient(one.lead)))
        ]
        return min(usable, key=lambda one: (one.power, max(one.lead)), default=None)


def _length(value: Quotient) -> int:
    """Return how many terms the factors of a denominator have, which are hashed one by one."""
    return sum(map(len, value.factors))


def square_root(value: Quotient) -> Quotient | None:
    """Return the monomial whose square a quotient is, such as 2a of 4a^2; None where it is none."""
    if len(value.top) != 1 or value.factors:
        return None
    ((monomial, coefficient),) = value.top.items()
    roots = isqrt(max(coefficient, 0)), isqrt(value.number)
    even = not any(monomial >> place & 1 for place in range(0, DEGREE + 1, BITS))
    if even and (roots[0] ** 2, roots[1] ** 2) == (coefficient, value.number):
        return Quotient({monomial >> 1: roots[0]}, roots[1])
    return None


def _unit(variable: Expression, units: Mapping[str, int]) -> int:
    if variable[1] not in units:
        known = ", ".join(units)
        raise Refused("unreadable line", f"{variable[1]} is none of the variables {known}")
    return units[variable[1]]


def _whole(exponent: Fraction) -> int:
    if exponent.denominator != 1:
        raise Refused("unreadable line", "a root: write it without, as the language has none")
    return exponent.numerator
