"""What statements of inequalities are drawn and written with: monomials, terms, sides, steps."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

LETTERS = ("abcd", "xyzw", "pqrs", "uvwt", "klmn")

Monomial = tuple[int, ...]  # exponents of the variables
Term = tuple[int, Monomial]  # coefficient and monomial


@dataclass(frozen=True)
class Side:
    """A side of an inequality as text."""

    text: str
    bare: bool = False  # can be a factor without brackets

    @property
    def factor(self) -> str:
        """The text as a factor."""
        return self.text if self.bare else f"({self.text})"


@dataclass(frozen=True, kw_only=True)
class Known:
    """An inequality and its proof: of each step "Rule arguments" and the two sides."""

    left: Side
    right: Side
    steps: tuple[tuple[str, str, str], ...]
    product: Term | None = None  # the right side, where it is one term
    hypothesis: str = ""
    domain: str = ">"


class Draw:
    """What one statement is drawn with: its letters and a random number generator."""

    def __init__(self, rng: random.Random, sizes: Sequence[int] = (2, 3)) -> None:
        self.rng = rng
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

    def number(self, most: int = 4) -> int:
        """Draw a coefficient: as often 1 as any other."""
        return self.rng.randint(2, most) if self.rng.random() < 0.5 else 1

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
        return Side(self.sum(terms), bare=len(terms) == 1)

    def quotient(self, top: Term, bottom: str) -> str:
        """Return "top/bottom", with brackets where they are needed."""
        single = len(bottom) == 1 or (len(bottom) == 3 and bottom[1] == "^")
        return f"{self.text(top)}/{bottom if single else f'({bottom})'}"


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
    found: dict[Monomial, int] = {}
    for coefficient, monomial in terms:
        found[monomial] = found.get(monomial, 0) + coefficient
    return [(coefficient, monomial) for monomial, coefficient in found.items()]


def share(top: int, bottom: int = 1) -> str:
    """Return a number before a step in a sum: "1/2", "3", or nothing for 1."""
    found = Fraction(top, bottom)
    return "" if found == 1 else str(found)
