"""Points where an inequality may fail, sought in floating point, many at a time.

    start     log scale, both signs where a variable is real, near-equal values, zeros and tiny ones
    equality  a hypothesis is met by scaling its own variables: (1, 2, 1) is scaled by 3/4 until
              a+b+c = 3; where that changes nothing (a = b), one variable alone is moved
    several   one after the other, then Newton's method for all together
    refine    the worst points are moved at random, by less and less, and brought back

Nothing found here is certain: `counterexamples` confirms it exactly. An array of points has a row
for each variable; points at which something has no value are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from nblib.tasks.expressions import nodes, variables_of
from nblib.tasks.float_values import differences
from nblib.tasks.statements import NONNEGATIVE, POSITIVE, REAL, Relation, Statement

Points = Float[np.ndarray, "V N"]
Values = Float[np.ndarray, " N"]

_POINTS = 2000  # to begin with, of each kind of start
_WORK = 1_000_000  # nodes times points: long statements get fewer
_KEPT = 24  # points that are refined
MILD = 4  # points near 1 that are handed out besides
_CHILDREN = 40  # of each, in a round
_WIDTHS = 0.5 ** np.arange(16)  # of the rounds' steps
_CLEARLY = 0.01  # in the sense of `differences`
_MET = 1e-13  # how near an equality must be, as a part of what is added up in it
_NOISE = 1e-11  # of a claim, in the same sense: more than what inexact equalities bring
_SCALES = np.logspace(-4, 4, 41)  # factors that are tried to meet an equality


@dataclass(frozen=True)
class PointSearch:
    """A search for points in a statement's domain at which its claim is worst.

    >>> search = PointSearch(parse_statement("a^2+b^2 >= 3ab for a, b > 0"))
    >>> points, looked_at = search.failing(seed=0)
    >>> bool(points[0, 0] ** 2 + points[1, 0] ** 2 < 3 * points[0, 0] * points[1, 0])
    True
    """

    statement: Statement

    def failing(self, seed: int) -> tuple[Points, int]:
        """Return points where the claim fails, and how many points were looked at.

        First come a few with values near 1, easy to write and to check, then the worst.
        """
        rng = np.random.default_rng(seed)
        with np.errstate(all="ignore"):
            points = self._sampled(rng)
            count, failing = points.shape[1], self._violating(points)
            kept = self._best(points, _KEPT)
            for width in _WIDTHS if kept.size else ():
                kept = self._refined(kept, width, rng)
                count += kept.shape[1] * _CHILDREN
            worst = self._violating(self._best(kept, _KEPT))
        return np.concatenate([self._mild(failing), worst], axis=1), count

    def _mild(self, failing: Points) -> Points:
        """Return the points with values near 1 among those where the claim fails clearly."""
        clearly = failing[:, self._margins(failing) < -_CLEARLY]
        failing = clearly if clearly.size else failing
        size = np.where(failing == 0, 10.0, np.abs(failing))
        spread = np.abs(np.log(size)).max(axis=0)
        return failing[:, np.argsort(spread, kind="stable")[:MILD]]

    def _sampled(self, rng: np.random.Generator) -> Points:
        """Return points of the domain at which all hypotheses hold."""
        count = max(100, min(_POINTS, _WORK // self._nodes))
        starts = [self._ordered(self._start(rng, count)) for _ in range(3)]
        solved = self._solved(starts[0], rng)
        edges = self._on_edges(starts[1], rng)
        return self._allowed(np.concatenate([*starts, solved, edges], axis=1))

    def _margins(self, points: Points) -> Values:
        """Return how far the claim holds at each point; infinite where a side has no value."""
        found = differences(self.statement.claim, self._letters, points)
        return np.where(np.isfinite(found), found, np.inf)

    def _violating(self, points: Points) -> Points:
        """Return the points at which the claim fails by more than rounding errors.

        Where a strict claim is met with equality it fails as well.
        """
        limit = _NOISE if self.statement.claim.sign == ">" else -_NOISE
        return points[:, self._margins(points) < limit]

    @cached_property
    def _letters(self) -> list[str]:
        return list(self.statement.variables)

    @cached_property
    def _domain(self) -> np.ndarray:
        return np.array(list(self.statement.variables.values()))[:, None]

    @cached_property
    def _equalities(self) -> list[Relation]:
        """The equalities between what has letters."""
        hypotheses = self.statement.hypotheses
        return [one for one in hypotheses if one.sign == "=" and self._rows([one])]

    @cached_property
    def _nodes(self) -> int:
        all_ = (self.statement.claim, *self.statement.hypotheses)
        return sum(nodes(one.left) + nodes(one.right) for one in all_)

    def _rows(self, relations: Sequence[Relation]) -> list[int]:
        used = set().union(*(variables_of(r.left) | variables_of(r.right) for r in relations))
        return [row for row, letter in enumerate(self._letters) if letter in used]

    def _start(self, rng: np.random.Generator, count: int) -> Points:
        """Return points of all kinds, some of them outside of the hypotheses."""
        shape = (len(self._letters), count)
        wide = np.where(rng.random(count) < 0.7, 2.0, 5.0)
        found = 10 ** (rng.uniform(-1, 1, shape) * wide)
        near = 10 ** rng.uniform(-1, 1, count)
        near = near * np.exp(rng.normal(size=shape) * 10 ** rng.uniform(-2, 0, count))
        small = rng.choice([1 / 3, 0.5, 1, 1, 2, 3, 4, 5], shape)
        kind = rng.random(count)
        found = np.where(kind < 0.3, near, np.where(kind < 0.5, small, found))
        tiny = np.where(self._domain == POSITIVE, 10 ** rng.uniform(-8, -3, shape), 0.0)
        found = np.where((kind > 0.8) & (rng.random(shape) < 0.4), tiny, found)
        negative = (self._domain == REAL) & (rng.random(shape) < rng.choice([0, 0.3, 0.6], count))
        return np.where(negative, -found, found)

    def _ordered(self, points: Points) -> Points:
        """Return points whose values are exchanged until hypotheses such as a >= b hold."""
        found = points.copy()
        pairs = [pair for one in self.statement.hypotheses if (pair := self._pair(one))]
        for greater, less in pairs * len(self._letters):
            high, low = found[greater].copy(), found[less].copy()
            found[greater], found[less] = np.maximum(high, low), np.minimum(high, low)
        return found

    def _pair(self, relation: Relation) -> tuple[int, int] | None:
        match relation:
            case Relation(("variable", one), ">" | ">=", ("variable", other)):
                return self._letters.index(one), self._letters.index(other)
        return None

    def _on_edges(self, points: Points, rng: np.random.Generator) -> Points:
        """Return points near an edge: each inequality among the hypotheses is nearly met."""
        found = []
        for one in self.statement.hypotheses:
            if one.sign in (">", ">=") and self._rows([one]) and not self._pair(one):
                edge = self._scaled(points, one, self._rows([one]))
                edge = edge * np.exp(0.01 * rng.normal(size=edge.shape))
                found.append(self._solved(edge, rng))
        return np.concatenate([points[:, :0], *found], axis=1)

    def _solved(self, points: Points, rng: np.random.Generator) -> Points:
        """Return points at which the equalities hold, so far as they can be met."""
        for one in self._equalities:
            rows = self._rows([one])
            before, points = points, self._scaled(points, one, rows)
            off = ~self._met(one, points)
            row = int(rng.choice(rows))
            points[:, off] = self._scaled(before[:, off], one, [row])
        return self._newton(points, 8 if len(self._equalities) > 1 else 2)

    def _scaled(self, points: Points, relation: Relation, rows: list[int]) -> Points:
        """Return points whose given rows are multiplied by one factor that meets an equality."""
        found = points.copy()
        factors = self._factors(found, relation, rows)
        found[rows] *= np.where(np.isnan(factors), 1.0, factors)
        return found

    def _factors(self, points: Points, relation: Relation, rows: list[int]) -> Values:
        """Return the factor for each point, by bisection where the sign changes; else nan."""

        def signs(factors: Values) -> Values:
            moved = points.copy()
            moved[rows] *= factors
            return np.sign(differences(relation, self._letters, moved))

        count = points.shape[1]
        table = np.stack([signs(np.full(count, scale)) for scale in _SCALES])
        change = table[1:] * table[:-1] <= 0  # not where a side has no value
        at = np.argmax(change, axis=0)
        low, high, sign = _SCALES[at], _SCALES[at + 1], table[at, np.arange(count)]
        for _ in range(30):
            middle = np.sqrt(low * high)
            same = signs(middle) == sign
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        return np.where(change.any(axis=0), np.where(sign == 0, _SCALES[at], high), np.nan)

    def _newton(self, points: Points, rounds: int) -> Points:
        """Return points moved by factors so that all equalities hold, by their least change."""
        if not self._equalities or not points.size:
            return points
        rows, count = self._rows(self._equalities), len(self._equalities)
        for _ in range(rounds):
            at, slopes = self._slopes(points, rows)  # N K 1, N K V
            across = slopes.transpose(0, 2, 1)
            square = slopes @ across
            ridge = 1e-12 * np.trace(square, axis1=1, axis2=2) + 1e-200
            change = across @ np.linalg.solve(square + ridge[:, None, None] * np.eye(count), at)
            points = points.copy()
            points[rows] *= np.exp(-np.clip(np.nan_to_num(change[:, :, 0].T), -1, 1))
        return points

    def _slopes(self, points: Points, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return how far each equality is from being met, and how that changes with factors."""
        step, found = 1e-7, []
        at = np.stack([differences(one, self._letters, points) for one in self._equalities])
        for row in rows:
            moved = points.copy()
            moved[row] *= 1 + step
            found.append([differences(one, self._letters, moved) for one in self._equalities])
        slopes = (np.array(found) - at) / step  # V K N
        bounded = np.clip(np.nan_to_num(slopes), -1e6, 1e6)
        return np.nan_to_num(at).T[:, :, None], bounded.transpose(2, 1, 0)

    def _met(self, relation: Relation, points: Points) -> Bool[np.ndarray, " N"]:
        found = differences(relation, self._letters, points)
        match relation.sign:
            case "=":
                return np.abs(found) <= _MET
            case "!=":
                return np.abs(found) > _MET
            case ">":
                return found > _MET
        return found >= 0

    def _allowed(self, points: Points) -> Points:
        """Return the points that are in the domain and meet all hypotheses."""
        return points[:, self._is_allowed(points)]

    def _is_allowed(self, points: Points) -> Bool[np.ndarray, " N"]:
        inside = np.where(self._domain == POSITIVE, points > 0, True)
        inside &= np.where(self._domain == NONNEGATIVE, points >= 0, True)
        mask = inside.all(axis=0) & np.isfinite(points).all(axis=0)
        for one in self.statement.hypotheses:
            mask &= self._met(one, points)
        return mask

    def _best(self, points: Points, count: int) -> Points:
        return points[:, np.argsort(self._margins(points), kind="stable")[:count]]

    def _refined(self, kept: Points, width: float, rng: np.random.Generator) -> Points:
        """Return the worst of each point and its children; each goes its own way."""
        count = kept.shape[1]
        around = np.repeat(kept, _CHILDREN, axis=1)
        moved = np.concatenate([kept, self._moved(around, width, rng)], axis=1)
        margins = np.where(self._is_allowed(moved), self._margins(moved), np.inf)
        margins[:count] = self._margins(kept)
        families = np.concatenate([np.arange(count), np.repeat(np.arange(count), _CHILDREN)])
        order = np.lexsort((margins, families))
        return moved[:, order[:: _CHILDREN + 1]]

    def _moved(self, around: Points, width: float, rng: np.random.Generator) -> Points:
        """Return points moved by factors, real or zero ones also by steps, and brought back."""
        still = rng.random(around.shape) < rng.choice([0.0, 0.5], around.shape[1])
        noise = np.where(still, 0.0, width * rng.normal(size=around.shape))
        scale = np.abs(around).max(axis=0, initial=0.0)
        steps = (self._domain != POSITIVE) & (rng.random(around.shape) < 0.3)
        moved = np.where(steps, around + scale * noise, around * np.exp(2 * noise))
        return self._newton(self._ordered(moved), 2)
