"""Whether an inequality is false: points are sought where it fails, and confirmed exactly.

    a^2+b^2 >= 3ab for a, b > 0      false           a = 1, b = 1: 2 < 3
    a^2+b^2 >= 2ab for a, b > 0      no counterexample

"No counterexample" does not say "true". "False" is certain: at the point, which is rational, every
hypothesis holds and the claim does not, by arithmetic on fractions (`exact_values`). The search in
floating point is `point_search`, the way from there to fractions `rational_points`.

A division by zero and a root of a negative number have no value here; a point where one occurs is
no counterexample. Lean calls both 0, so that a statement may be false there for that alone.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from nblib.tasks.exact_values import NoValueError, Point, as_text, compare, holds
from nblib.tasks.expressions import ExpressionError, variables_of
from nblib.tasks.lean_statements import parse_lean_statement
from nblib.tasks.point_search import MILD, PointSearch
from nblib.tasks.rational_points import RationalPoints
from nblib.tasks.statements import NONNEGATIVE, POSITIVE, Statement, parse_statement

FALSE, NOT_FOUND, NOT_READ = "false", "no counterexample", "not read"
NO_POINT = "no point was found where all hypotheses hold"
_TARGETS = 8  # of the worst points, to be rounded
_MAX_CHECKED = 1000  # rational points, of each kind


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a statement; point and sides are given where it is false.

    The sides are those of `left >= right`: a claim with `<=` is turned round.
    """

    verdict: str  # FALSE, NOT_FOUND or NOT_READ
    reason: str
    point: Mapping[str, Fraction] | None = None
    left: str | None = None
    right: str | None = None


def find_counterexample(statement: Statement, *, seed: int = 0) -> Verdict:
    """Return whether a point was found at which a statement is false.

    >>> found = find_counterexample(parse_statement("a^2+b^2 >= 3ab for a, b > 0"))
    >>> found.verdict, found.left, found.right
    ('false', '2', '3')
    """
    failing, count = PointSearch(statement).failing(seed)
    searched = f"searched {count} points"
    if not count:
        return Verdict(verdict=NOT_FOUND, reason=NO_POINT)
    if not failing.size:
        return Verdict(verdict=NOT_FOUND, reason=f"{searched}; this does not prove the statement")
    letters = list(statement.variables)
    targets = [dict(zip(letters, map(float, column), strict=True)) for column in failing.T]
    for point in _candidates(statement, targets[:_TARGETS]):
        if is_counterexample(statement, point):
            return _refuted(statement, point)
    return Verdict(
        verdict=NOT_FOUND,
        reason=f"{searched}; it seems to fail near {_shown(targets[0])}, but no rational "
        "point there could be confirmed exactly",
    )


def _candidates(statement: Statement, targets: Sequence[dict[str, float]]) -> Iterator[Point]:
    """Yield rational points at which equality hypotheses hold: near the first targets first."""
    equalities = tuple(
        one
        for one in statement.hypotheses
        if one.sign == "=" and variables_of(one.left) | variables_of(one.right)
    )
    points = RationalPoints(equalities)
    for some in (points.near(targets[:MILD]), points.near(targets[MILD:])):
        yield from itertools.islice(some, _MAX_CHECKED)
    yield from itertools.islice(points.apart(targets[0]), _MAX_CHECKED)


def is_counterexample(statement: Statement, point: Point) -> bool:
    """Whether at a point all hypotheses hold and the claim does not, both proven exactly."""
    for letter, domain in statement.variables.items():
        number = point[letter]
        if (domain == POSITIVE and number <= 0) or (domain == NONNEGATIVE and number < 0):
            return False
    return holds(statement.claim, point) is False and all(
        holds(one, point) is True for one in statement.hypotheses
    )


def truth_of(text: str, *, lean: bool = False) -> Verdict:
    """Return the verdict on a statement as text, in our own syntax or in Lean's."""
    try:
        statement = parse_lean_statement(text) if lean else parse_statement(text)
    except ExpressionError as error:
        return Verdict(verdict=NOT_READ, reason=str(error))
    return find_counterexample(statement)


def _refuted(statement: Statement, point: Point) -> Verdict:
    try:
        _, left, right = compare(statement.claim, point)
    except NoValueError as error:
        raise ValueError(f"{point} is no counterexample: {error}") from error
    left_text, right_text = as_text(left, right)
    return Verdict(
        verdict=FALSE,
        reason=f"exact: all hypotheses hold, and left {statement.claim.sign} right does not",
        point=point,
        left=left_text,
        right=right_text,
    )


def _shown(target: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {number:.6g}" for name, number in target.items())
