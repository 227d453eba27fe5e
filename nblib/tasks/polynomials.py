"""Polynomials with integer coefficients, multiplied within a budget.

A monomial is one int: eight bits for each variable's exponent, and the degree above them, so that
two monomials are multiplied by adding them. A polynomial is a dictionary of them:

    a^2+2ab of a, b      {a^2: 1, ab: 2}, where a^2 is 2 << 48 | 2 and ab is 2 << 48 | 1 << 8 | 1

The cost of every product is counted before it is made, and sizes have limits: no text makes the
arithmetic slow. For most uses prefer `quotients`, which reads expressions.
"""

from math import gcd
from typing import NamedTuple

MAX_TERMS = 400  # of one polynomial
MAX_DEGREE = 100
MAX_BITS = 512  # of one coefficient
MAX_PRODUCTS = 30_000  # of two terms, for one budget: about 8 ms
OVERHEAD = 10  # what an operation costs beside its products, in products

Polynomial = dict[int, int]  # packed monomial -> coefficient, which is never 0
Factor = tuple[tuple[int, int], ...]  # the sorted items of a polynomial without a common divisor

BITS, FIELD, DEGREE = 8, 255, 48  # of an exponent; its mask; the place of the degree
_LARGEST = 1 << MAX_BITS


class Refused(ValueError):
    """A step that is not accepted: `code` is one of `proofs.FAILURES`, the message says why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Elimination(NamedTuple):
    """`lead * v^power + rest = 0`, an equality hypothesis; `lead` is never 0 where it holds."""

    place: int  # of the bits of v
    power: int
    lead: Polynomial
    rest: Polynomial


class Budget:
    """Counts products of terms, and makes them. Methods raise Refused with "too large"."""

    def __init__(self) -> None:
        self._left = MAX_PRODUCTS

    def spend(self, products: int) -> None:
        """Count what is about to be done."""
        self._left -= products
        if self._left < 0:
            raise Refused("too large", "the proof needs too many products of terms")

    def multiplied(self, left: Polynomial, right: Polynomial) -> Polynomial:
        """Multiply; the cost is counted before."""
        if not left or not right:
            return {}
        self.spend(len(left) * len(right) + OVERHEAD)
        if (max(left) >> DEGREE) + (max(right) >> DEGREE) > MAX_DEGREE:
            raise Refused("too large", f"a degree above {MAX_DEGREE}")
        found: Polynomial = {}
        for one, factor in right.items():
            for monomial, coefficient in left.items():
                monomial += one
                found[monomial] = found.get(monomial, 0) + coefficient * factor
        return checked(without_zeros(found))

    def without(self, top: Polynomial, by: Elimination) -> Polynomial:
        """Put v^power = -rest/lead into a polynomial, times a power of `lead`."""
        parts: dict[int, Polynomial] = {}  # how often v^power divides a term -> what is left of it
        unit = unit_at(by.place) * by.power
        for monomial, coefficient in top.items():
            times = (monomial >> by.place & FIELD) // by.power
            parts.setdefault(times, {})[monomial - unit * times] = coefficient
        highest = max(parts, default=0)
        if not highest:
            return top
        minus = {monomial: -coefficient for monomial, coefficient in by.rest.items()}
        # Horner: ((p_n * -rest) + p_(n-1) lead) * -rest + p_(n-2) lead^2 ...
        scale: Polynomial = {0: 1}
        found = parts[highest]
        for times in range(highest - 1, -1, -1):
            found, scale = self.multiplied(found, minus), self.multiplied(scale, by.lead)
            for monomial, coefficient in self.multiplied(parts.get(times, {}), scale).items():
                found[monomial] = found.get(monomial, 0) + coefficient
        return checked(without_zeros(found))


def solved(hypothesis: Polynomial, place: int) -> Elimination | None:
    """Write `hypothesis = 0` as an elimination of the variable at a place; None where it is none.

    The variable must have one exponent in all terms that hold it. The sign is turned where all
    coefficients of `lead` are negative; whether it is above 0 is for the caller to see.
    """
    exponents = {monomial >> place & FIELD for monomial in hypothesis} - {0}
    if len(exponents) != 1:
        return None
    (power,) = exponents
    unit, terms = unit_at(place) * power, hypothesis.items()
    lead = {m - unit: c for m, c in terms if m >> place & FIELD}
    rest = {m: c for m, c in terms if not m >> place & FIELD}
    if all(c < 0 for c in lead.values()):
        lead, rest = ({m: -c for m, c in part.items()} for part in (lead, rest))
    return Elimination(place, power, lead, rest)


def split(divisor: Polynomial, variables: int) -> tuple[int, dict[Factor, int]]:
    """Write a polynomial as a number, variables and one factor that none of them divides."""
    content = gcd(*divisor.values())
    common, factors = 0, dict[Factor, int]()
    for place in range(0, BITS * variables, BITS):
        exponent = min(monomial >> place & FIELD for monomial in divisor)
        if exponent:
            factors[((unit_at(place), 1),)] = exponent
            common += unit_at(place) * exponent
    rest = sorted((monomial - common, c // content) for monomial, c in divisor.items())
    if rest != [(0, 1)]:
        factors[tuple(rest)] = 1
    return content, factors


def unit_at(place: int) -> int:
    """Return the variable whose bits begin at a place."""
    return 1 << DEGREE | 1 << place


def without_zeros(top: Polynomial) -> Polynomial:
    """Return a polynomial without the terms that have cancelled."""
    return {monomial: c for monomial, c in top.items() if c}


def checked(top: Polynomial) -> Polynomial:
    """Return a polynomial whose size is within the limits."""
    if len(top) > MAX_TERMS:
        raise Refused("too large", f"a polynomial of {len(top)} terms: at most {MAX_TERMS}")
    if top:
        small(max(max(top.values()), -min(top.values())))
    return top


def small(number: int) -> int:
    """Return a number that is within the limits."""
    if number >= _LARGEST:
        raise Refused("too large", f"a number of more than {MAX_BITS} bits")
    return number


def checked_bottom(factors: dict[Factor, int]) -> dict[Factor, int]:
    """Return the factors of a denominator, whose exponents are within the limits."""
    if factors and max(factors.values()) > MAX_DEGREE:
        raise Refused("too large", f"a degree above {MAX_DEGREE}")
    return factors
