"""Rational points near given ones at which equality hypotheses hold exactly.

Values are rounded to fractions of small denominators; then, for an equality hypothesis:

    one variable    h is solved for it: where h is linear in it or in its inverse, or quadratic
                    with roots that are fractions: a+b+c = 3, abc = 1, 1/a+1/b = 1, a^2 = bc
    several         one within the other: b = f(c) from the first, then c from the second
    a line          through a known rational point, where h has one more root on it: all rational
                    points of a sphere, a^2+b^2+c^2 = 1; of a cubic, a^3+b^3+c^3+abc = 4, those
                    on tangents

No degree is looked up: a root is guessed from three values, and kept where h is exactly 0. An
equality without rational solutions, such as a+b+c = sqrt(5), gives none.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from nblib.tasks.exact_values import Point, exact_difference, exact_root
from nblib.tasks.expressions import nodes, variables_of
from nblib.tasks.statements import Relation

Function = Callable[[Fraction], Fraction | None]
Pairing = tuple[tuple[Relation, str], ...]

DENOMINATORS = (1, 2, 3, 4, 6, 10, 20, 50, 200, 1000, 10**5, 10**8)
_SMALL = tuple(map(Fraction, ("1", "2", "1/2", "0", "3", "1/3", "3/2", "2/3", "4")))
_MAX_TRIED = 150  # points of small fractions, to find known ones
_MAX_KNOWN = 6
_MAX_TOUCHED = 20  # known points whose tangents are followed
_MAX_TANGENTS = 32  # of each
_STEPS = (1, 2, 3, -2)  # of a tangent's direction
_MAX_PAIRINGS = 12  # of equalities with the variables for which they are solved
_MAX_EQUALITIES = 3
_MAX_NODES = 300  # of all equalities: longer ones are not solved


def rounded(number: float, denominator: int) -> Fraction:
    """Return a fraction near a number, or below 1 the inverse of one: 0.00031 is 1/3226, not 0."""
    if abs(number) < 1e-300:
        return Fraction(0)
    if abs(number) >= 1:
        return Fraction(number).limit_denominator(denominator)
    return 1 / Fraction(1 / number).limit_denominator(denominator)


def rational_root(function: Function, near: Fraction) -> Fraction | None:
    """Return a root of a function, the one near a number where there are two.

    Found are those of (p+qx)/(r+sx), of quadratics, and of quadratics over x.
    """
    places = (near, near + 1, near + 2)
    values = [function(place) for place in places]
    if any(one is None for one in values):
        return None
    for guess in _guesses(near, [one for one in values if one is not None]):
        if function(guess) == 0:
            return guess
    return None


def _guesses(x: Fraction, values: Sequence[Fraction]) -> Iterator[Fraction]:
    """Yield where functions of known kinds with these values at x, x+1, x+2 are zero."""
    first, second, third = values
    if first == 0:
        yield x
    # (p+qx)/(r+sx) keeps the cross-ratio of four places, one of them the root.
    one, other = 2 * (second - third) * first, (first - third) * second
    if one != other:
        yield x + one / (one - other)
    for weights in ((1, 1, 1), (x, x + 1, x + 2)):
        a, b, c = first * weights[0], second * weights[1], third * weights[2]
        square = (c - 2 * b + a) / 2
        slope = b - a - square
        discriminant = slope**2 - 4 * square * a
        root = exact_root(discriminant, 2) if discriminant >= 0 else None
        if square and root is not None:
            ends = [(-slope + sign * root) / (2 * square) for sign in (1, -1)]
            yield from (x + end for end in sorted(ends, key=abs))


@dataclass(frozen=True)
class RationalPoints:
    """The rational points near others at which equalities hold.

    >>> circle = RationalPoints((parse_relation("a^2+b^2 = 1"),))
    >>> next(circle.near([{"a": 0.6, "b": 0.8}]))
    {'a': Fraction(3, 5), 'b': Fraction(4, 5)}
    """

    equalities: tuple[Relation, ...]  # each between what has letters

    def near(self, targets: Sequence[dict[str, float]]) -> Iterator[Point]:
        """Yield points, those of small denominators first; targets name all variables."""
        for denominator in DENOMINATORS:
            for target in targets:
                start = {name: rounded(number, denominator) for name, number in target.items()}
                yield from self._at(start) if self.equalities else (start,)

    def apart(self, target: dict[str, float]) -> Iterator[Point]:
        """Yield points of one equality that cannot be solved; its own variables are not near."""
        if self._needs_lines:
            start = {name: rounded(number, 10) for name, number in target.items()}
            yield from ({**start, **point} for point in self._known)
            yield from ({**start, **point} for point in self._on_tangents())

    def _at(self, start: Point) -> Iterator[Point]:
        for pairing in self._pairings:
            point = _solved(start, pairing)
            if point is not None:
                yield point
        for known in self._known if self._needs_lines else ():
            line = {name: start[name] - number for name, number in known.items()}
            point = _other_end(self.equalities[0], known, line)
            if point is not None:
                yield {**start, **point}

    @cached_property
    def _tractable(self) -> bool:
        size = sum(nodes(one.left) + nodes(one.right) for one in self.equalities)
        return len(self.equalities) <= _MAX_EQUALITIES and size <= _MAX_NODES

    @cached_property
    def _pairings(self) -> list[Pairing]:
        """Return ways to solve each equality for a variable of its own, best those that always do.

        Each costs about six evaluations of an equality, times six for each further equality.
        """
        if not self._tractable:
            return []
        choices = itertools.product(*map(_letters, self.equalities))
        pairings: list[Pairing] = [
            tuple(zip(self.equalities, one, strict=True))
            for one in choices
            if len(set(one)) == len(one)
        ]
        always = [one for one in pairings[:_MAX_PAIRINGS] if self._solves(one)]
        return always[:4] or pairings[: _MAX_PAIRINGS // len(self.equalities) ** 2]

    def _solves(self, pairing: Pairing) -> bool:
        """Whether a pairing works at two points of no special kind."""
        letters = sorted(set().union(*map(_letters, self.equalities)))
        starts = (
            {name: Fraction(7 + 5 * place, number) for place, name in enumerate(letters)}
            for number in (11, 23)
        )
        return all(_solved(start, pairing) is not None for start in starts)

    @cached_property
    def _needs_lines(self) -> bool:
        if len(self.equalities) != 1 or not self._tractable:
            return False
        return not any(map(self._solves, self._pairings))

    @cached_property
    def _known(self) -> list[Point]:
        """Return points of small fractions at which the one equality holds, positive ones first."""
        equality = self.equalities[0]
        *others, last = _letters(equality)
        places = itertools.product(range(len(_SMALL)), repeat=len(others))
        found: list[Point] = []
        for chosen in sorted(places, key=sum)[:_MAX_TRIED]:
            start = {name: _SMALL[place] for name, place in zip(others, chosen, strict=True)}
            point = _solved({**start, last: Fraction(1)}, ((equality, last),))
            if point is not None:
                found.append(point)
        return sorted(found, key=lambda point: min(point.values()) <= 0)[:_MAX_KNOWN]

    def _on_tangents(self) -> Iterator[Point]:
        """Yield rational points of a cubic: on tangents of known points, then on those of these."""
        equality = self.equalities[0]
        reached = {tuple(point.values()): point for point in self._known}
        for known in itertools.islice(_growing(reached), _MAX_TOUCHED):
            for tangent in itertools.islice(_tangents(equality, known), _MAX_TANGENTS):
                point = _other_end(equality, known, tangent)
                if point is not None and tuple(point.values()) not in reached:
                    reached[tuple(point.values())] = point
                    yield point


def _growing(found: dict[tuple[Fraction, ...], Point]) -> Iterator[Point]:
    """Yield the values of a dictionary that grows meanwhile."""
    place = 0
    while place < len(found):
        yield list(found.values())[place]
        place += 1


def _letters(relation: Relation) -> list[str]:
    return sorted(variables_of(relation.left) | variables_of(relation.right))


def _solved(point: Point, pairing: Pairing) -> Point | None:
    """Return a point at which each equality was solved for its variable, the first innermost."""
    if not pairing:
        return point
    *inner, (equality, letter) = pairing

    def moved(number: Fraction) -> Point | None:
        return _solved({**point, letter: number}, tuple(inner))

    def difference(number: Fraction) -> Fraction | None:
        at = moved(number)
        return None if at is None else exact_difference(equality, at)

    root = rational_root(difference, point[letter])
    return None if root is None else moved(root)


def _along(known: Point, line: Point, step: Fraction) -> Point:
    return {name: number + step * line[name] for name, number in known.items()}


def _other_end(equality: Relation, known: Point, line: Point) -> Point | None:
    """Return where a line through a known point meets the surface again."""
    if not any(line.values()):
        return None

    def rest(step: Fraction) -> Fraction | None:
        found = exact_difference(equality, _along(known, line, step)) if step else None
        return None if found is None else found / step

    step = rational_root(rest, Fraction(3, 2))
    return None if step is None else _along(known, line, step)


def _tangents(equality: Relation, known: Point) -> Iterator[Point]:
    """Yield directions in the tangent plane at a known point.

    Slopes are exact where the equality is a polynomial of degree 4 at most.
    """
    slopes = {}
    for name in known:
        values = [
            exact_difference(equality, {**known, name: known[name] + step})
            for step in (1, -1, 2, -2)
        ]
        one, back, two, far_back = (Fraction(0) if value is None else value for value in values)
        slopes[name] = (8 * (one - back) - (two - far_back)) / 12
    steepest = max(slopes, key=lambda name: abs(slopes[name]))
    others = [name for name in known if name != steepest]
    for steps in itertools.product(_STEPS if slopes[steepest] else (), repeat=len(others)):
        line = dict(zip(others, map(Fraction, steps), strict=True))
        rise = sum((slopes[name] * line[name] for name in others), Fraction(0))
        yield {**line, steepest: -rise / slopes[steepest]}
