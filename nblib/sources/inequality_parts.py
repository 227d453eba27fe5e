"""What statements of inequalities are drawn and written with: monomials, terms, sides, steps.

A side is text, and its value beside it: `normal` says by the values which statements are the same.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, groupby, permutations, product
from math import gcd

LETTERS = ("abcd", "xyzw", "pqrs", "uvwt", "klmn")

Monomial = tuple[int, ...]  # exponents of the variables
Term = tuple[int, Monomial]  # coefficient and monomial
Polynomial = dict[Monomial, int]


@dataclass(frozen=True)
class Side:
    """A side of an inequality as text, and its value: a polynomial over another."""

    text: str
    top: Polynomial
    bottom: Polynomial
    bare: bool = False  # can be a factor without brackets

    @property
    def factor(self) -> str:
        """The text as a factor."""
        return self.text if self.bare else f"({self.text})"

    def __add__(self, other: "Side") -> "Side":
        """Return this side and another with a plus between them."""
        text = f"{self.text}+{other.text}"
        if self.bottom == other.bottom:
            return Side(text, _sum(self.top, other.top), self.bottom)
        top = _sum(_product(self.top, other.bottom), _product(other.top, self.bottom))
        return Side(text, top, _product(self.bottom, other.bottom))

    def __mul__(self, other: "Side") -> "Side":
        """Return the product, both as factors."""
        tops, bottoms = _product(self.top, other.top), _product(self.bottom, other.bottom)
        return Side(f"{self.factor}{other.factor}", tops, bottoms, bare=True)

    def __truediv__(self, other: "Side") -> "Side":
        """Return the quotient, with brackets where they are needed; `other` has no fractions."""
        below = other.text
        single = len(below) == 1 or (len(below) == 3 and below[1] == "^")
        text = f"{self.text}/{below if single else f'({below})'}"
        return Side(text, self.top, _product(self.bottom, other.top))

    def squared(self) -> "Side":
        """Return the square."""
        top, bottom = _product(self.top, self.top), _product(self.bottom, self.bottom)
        return Side(f"({self.text})^2", top, bottom, bare=True)


@dataclass(frozen=True, kw_only=True)
class Known:
    """An inequality and its proof: of each step "Rule arguments" and the two sides."""

    left: Side
    right: Side
    steps: tuple[tuple[str, str, str], ...]
    product: Term | None = None  # the right side, where it is one term
    given: tuple[Side, Side] | None = None  # the two sides of an equality
    domain: str = ">"


def drawn_numbers(rng: random.Random) -> Callable[[int], int]:
    """Return what draws a coefficient up to a number: as often 1 as any other."""
    return lambda most: rng.randint(2, most) if rng.random() < 0.5 else 1


def unlike_numbers() -> Callable[[int], int]:
    """Return what draws large numbers: terms cancel only where they do by all numbers."""
    rng = random.Random(0)
    return lambda _: rng.randrange(10**5, 10**6)


class Draw:
    """What one statement is drawn with: its letters, a random number generator, its numbers."""

    def __init__(
        self, rng: random.Random, number: Callable[[int], int], sizes: Sequence[int] = (2, 3)
    ) -> None:
        self.rng, self.number = rng, number
        self.letters = rng.choice(LETTERS)[: rng.choice(sizes)]

    def monomials(self, count: int, degree: int, *, least: int = 1) -> list[Monomial]:
        """Draw different monomials, each of a degree from `least` to `degree`."""
        found: list[Monomial] = []
        while len(found) < count:
            exponents = [0] * len(self.letters)
            for _ in range(self.rng.randint(least, degree)):
                exponents[self.rng.randrange(len(self.letters))] += 1
            if tuple(exponents) not in found:
                found.append(tuple(exponents))
        return found

    def coprime(self, count: int, degree: int) -> list[Monomial]:
        """Draw monomials of which neighbours, the last and the first too, share no letter."""
        while True:
            found = self.monomials(count, degree)
            pairs = zip(found, (*found[1:], found[0]), strict=True)
            if not any(p and q for u, v in pairs for p, q in zip(u, v, strict=True)):
                return found

    def turning(self, degree: int) -> list[Monomial]:
        """Draw a monomial that is another one for each rotation of the letters."""
        found = self.monomials(1, degree)
        while len({*rotations(found[0])}) < len(self.letters):
            found = self.monomials(1, degree)
        return found

    def variable(self, place: int) -> Monomial:
        """Return a single variable as a monomial."""
        return tuple(int(place == other) for other in range(len(self.letters)))

    def text(self, term: Term) -> str:
        """Return a term as text: "2a^2b", "1", "a"."""
        coefficient, monomial = term
        powers = "".join(
            letter + (f"^{exponent}" if exponent > 1 else "")
            for letter, exponent in zip(self.letters, monomial, strict=True)
            if exponent
        )
        return powers if powers and coefficient == 1 else f"{coefficient}{powers}"

    def sum(self, terms: Sequence[Term]) -> str:
        """Return terms with a plus between them."""
        return "+".join(map(self.text, terms))

    def side(self, *terms: Term) -> Side:
        """Return a sum of terms as a side."""
        top = _sum(*({monomial: coefficient} for coefficient, monomial in terms))
        one = {(0,) * len(self.letters): 1}
        return Side(self.sum(terms), top, one, bare=len(terms) == 1)


def normal(known: Known, *, numbers: bool) -> str:
    """Return what two statements share that say the same, in any letters, scaled or cleared.

    It is left - right over what both have in common, and without numbers its monomials alone.
    """
    pairs = ((known.left, known.right), *([known.given] if known.given else []))
    gaps = [_gap(*pair, positive=known.domain == ">") for pair in pairs]
    terms = [[(c if numbers else 1, m) for m, c in gap.items()] for gap in gaps]
    columns = range(len(next(iter(known.left.bottom))))

    def profile(n: int) -> list[list[tuple[int, int, int]]]:
        return [sorted((m[n], sum(m), c) for c, m in one) for one in terms]

    def written(order: Sequence[int]) -> list[list[tuple[int, Monomial]]]:
        return [sorted((c, tuple(m[n] for n in order)) for c, m in one) for one in terms]

    used = sorted((n for n in columns if any(m[n] for one in terms for _, m in one)), key=profile)
    alike = [permutations(group) for _, group in groupby(used, key=profile)]
    orders = (tuple(chain(*one)) for one in product(*alike))
    return f"{known.domain} {min(map(written, orders))}"


def have_same_terms(known: Known, other: Known) -> bool:
    """Whether left - right has terms, and the same ones of both but for numbers."""
    gaps = [_gap(one.left, one.right, positive=False) for one in (known, other)]
    return bool(gaps[0]) and gaps[0].keys() == gaps[1].keys()


def _gap(left: Side, right: Side, *, positive: bool) -> Polynomial:
    """Return the top of left - right, divided by what its numbers and positive letters share."""
    minus = {monomial: -c for monomial, c in _product(right.top, left.bottom).items()}
    terms = {m: c for m, c in _sum(_product(left.top, right.bottom), minus).items() if c}
    return primitive(terms, positive=positive)


def primitive(terms: Polynomial, *, positive: bool = True) -> Polynomial:
    """Return a polynomial divided by what its numbers, and its positive letters, share."""
    content = gcd(*terms.values())
    least = [min(column) if positive else 0 for column in zip(*terms, strict=True)]
    return {
        tuple(e - one for e, one in zip(m, least, strict=True)): c // content
        for m, c in terms.items()
    }


def _sum(*parts: Polynomial) -> Polynomial:
    found: Polynomial = {}
    for monomial, coefficient in chain(*(part.items() for part in parts)):
        found[monomial] = found.get(monomial, 0) + coefficient
    return found


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    return _sum(*({times(m, n): c * d for m, c in left.items()} for n, d in right.items()))


def times(*monomials: Monomial) -> Monomial:
    """Return the product of monomials."""
    return tuple(map(sum, zip(*monomials, strict=True)))


def power(monomial: Monomial, exponent: int) -> Monomial:
    """Return a power of a monomial."""
    return tuple(exponent * one for one in monomial)


def rotations(monomial: Monomial) -> list[Monomial]:
    """Return what a -> b -> c -> a makes of a monomial, itself first."""
    size = len(monomial)
    return [tuple(monomial[(place - by) % size] for place in range(size)) for by in range(size)]


def merged(terms: Sequence[Term]) -> list[Term]:
    """Add up terms of one monomial, in the order in which each comes first."""
    found = _sum(*({monomial: coefficient} for coefficient, monomial in terms))
    return [(coefficient, monomial) for monomial, coefficient in found.items()]


def share(top: int | Fraction, bottom: int = 1) -> str:
    """Return a number before a step in a sum: "1/2", "3", or nothing for 1."""
    found = Fraction(top, bottom)
    return "" if found == 1 else str(found)


def one_step(rule: str, left: Side, right: Side, **more: object) -> Known:
    """Return an inequality that one step proves."""
    step = (rule, left.text, right.text)
    return Known(left=left, right=right, steps=(step,), **more)  # type: ignore[arg-type]


def weighted(powers: Iterable[tuple[int, str]]) -> str:
    """Return arguments of AM-GM: "2 of a^3, b^3"."""
    return ", ".join(f"{weight} of {one}" if weight > 1 else one for weight, one in powers)
