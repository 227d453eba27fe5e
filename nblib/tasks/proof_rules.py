"""Rules of proofs: when a line follows, exactly; `D` is left - right of a line.

    AM-GM    left = sum w x, each x and right >= 0, right^W = W^W prod x^w, W = sum w: no root
    Titu     left = sum x^2/y, each y > 0, right = (sum x)^2 / sum y
    Cauchy   left = sum x^2 * sum y^2, right = (sum x y)^2
    Square   D = q^2
    Sum      D = sum c D_i
    Times    D = x D_1, x >= 0
    Product  left = prod left_i, right = prod right_i, each right_i >= 0
    Chain    left = left_1, right_i = left_(i+1), right = right_n
    So       D = D_1
    Given    D is that of a hypothesis of the statement, or seen to be at least 0

`>= 0` and `> 0` are seen by sight (`quotients`); `=` holds wherever the statement's equality
hypotheses do. A cyclic line, where it is named, stands for all its rotations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import pairwise

from nblib.tasks.expressions import Expression
from nblib.tasks.polynomials import Refused
from nblib.tasks.proof_text import Line
from nblib.tasks.quotients import ONE, Arithmetic, Quotient, square_root

MAX_WEIGHT = 12  # W of AM-GM


@dataclass(frozen=True)
class Fact:
    """An inequality left >= right, in one rotation of its line."""

    left: Quotient
    right: Quotient


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one rotation of a line is judged by."""

    line: Line
    fact: Fact
    rotation: int
    named: tuple[tuple[Fact, ...], ...]  # of each step that the line names, its rotations
    given: tuple[Quotient, ...]  # D of the statement's hypotheses
    arithmetic: Arithmetic

    @property
    def values(self) -> list[Quotient]:
        """The values of the arguments."""
        return [self.value(one) for one in self.line.arguments.expressions]

    def value(self, expression: Expression) -> Quotient:
        """Return the value of an expression in this rotation."""
        return self.arithmetic.value(expression, self.rotation)

    def gap(self, fact: Fact | None = None) -> Quotient:
        """Return D of a fact, or of this one."""
        one = fact or self.fact
        return self.arithmetic.difference(one.left, one.right)

    def single(self) -> list[Fact]:
        """Return the facts of the steps that are named, none of which may be cyclic."""
        if any(len(facts) > 1 for facts in self.named):
            raise Refused("cyclic", f"{self.line.rule} names a cyclic step: only Sum, Product may")
        return [fact for (fact,) in self.named]

    def expect(self, found: Quotient, expected: Quotient, reason: str) -> None:
        """Refuse the line where two quotients differ."""
        if not self.arithmetic.equal(found, expected):
            raise Refused(f"{self.line.rule} fails", reason)

    def expect_nonnegative(self, value: Quotient, name: str) -> None:
        """Refuse the line where a quotient is not seen to be at least 0."""
        if not self.arithmetic.is_nonnegative(value):
            raise Refused("not by sight", f"{name} is not seen to be at least 0")


def check_line(case: Case) -> None:
    """Check that a line follows from its arguments and from the steps that it names.

    Raises Refused.
    """
    _RULES[case.line.rule](case)


def _am_gm(case: Case) -> None:
    arithmetic, weights, values = case.arithmetic, case.line.arguments.weights, case.values
    whole = sum(weights)
    if not 2 <= whole <= MAX_WEIGHT:
        raise Refused("wrong arguments", f"weights of {whole} together: 2 to {MAX_WEIGHT}")
    for number, value in enumerate(values, start=1):
        case.expect_nonnegative(value, f"argument {number}")
    case.expect_nonnegative(case.fact.right, "the right side")
    pairs = list(zip(values, weights, strict=True))
    total = arithmetic.total([arithmetic.scaled(x, weight) for x, weight in pairs])
    case.expect(case.fact.left, total, "the left side is not the sum of the arguments")
    product = _product(arithmetic, [arithmetic.power(x, int(weight)) for x, weight in pairs])
    case.expect(
        arithmetic.power(case.fact.right, int(whole)),
        arithmetic.scaled(product, Fraction(whole**whole)),
        f"the right side is not {whole} times the root of the arguments' product",
    )


def _titu(case: Case) -> None:
    arithmetic, tops, bottoms, parts = case.arithmetic, [], [], []
    for number, (_, top, bottom) in enumerate(case.line.arguments.expressions, start=1):
        root, below = _root(case, top), case.value(bottom)
        if root is None:
            raise Refused("not by sight", f"the top of argument {number} is not seen as a square")
        if not arithmetic.is_positive(below):
            raise Refused("not by sight", f"the bottom of argument {number} is not seen above 0")
        tops.append(root)
        bottoms.append(below)
        parts.append(arithmetic.divided(arithmetic.times(root, root), below))
    left = arithmetic.total(parts)
    case.expect(case.fact.left, left, "the left side is not the sum of the arguments")
    top, below = arithmetic.total(tops), arithmetic.total(bottoms)
    right = arithmetic.divided(arithmetic.times(top, top), below)
    case.expect(case.fact.right, right, "the right side is not (x1+x2+...)^2/(y1+y2+...)")


def _root(case: Case, expression: Expression) -> Quotient | None:
    """Return what an expression is the square of, by sight: a^2, (a+b)^4, 4a^2, 4(a+b)^2."""
    if expression[0] == "power" and expression[2].numerator % 2 == 0:
        return case.value((*expression[:2], expression[2] / 2))
    root = square_root(case.value(expression))
    if root is None and expression[0] == "product":
        roots = [_root(case, part) for part in expression[1]]
        known = [one for one in roots if one is not None]
        root = _product(case.arithmetic, known) if len(known) == len(roots) else None
    return root


def _cauchy(case: Case) -> None:
    arithmetic, values = case.arithmetic, case.values
    half = len(values) // 2
    squares = [arithmetic.times(x, x) for x in values]
    left = arithmetic.times(arithmetic.total(squares[:half]), arithmetic.total(squares[half:]))
    case.expect(case.fact.left, left, "the left side is not (x1^2+...)(y1^2+...)")
    pairs = zip(values[:half], values[half:], strict=True)
    root = arithmetic.total([arithmetic.times(x, y) for x, y in pairs])
    right = arithmetic.times(root, root)
    case.expect(case.fact.right, right, "the right side is not (x1y1+x2y2+...)^2")


def _square(case: Case) -> None:
    (root,) = case.values
    square = case.arithmetic.times(root, root)
    case.expect(case.gap(), square, "left - right is not the square")


def _sum(case: Case) -> None:
    weighted = zip(case.line.arguments.weights, case.named, strict=True)
    gaps = [
        case.arithmetic.scaled(case.gap(fact), weight)
        for weight, facts in weighted
        for fact in facts
    ]
    reason = "left - right is not the sum of the steps' left - right"
    case.expect(case.gap(), case.arithmetic.total(gaps), reason)


def _times(case: Case) -> None:
    (factor,), (fact,) = case.values, case.single()
    case.expect_nonnegative(factor, "the factor")
    product = case.arithmetic.times(factor, case.gap(fact))
    case.expect(case.gap(), product, "left - right is not the factor times the step's left - right")


def _products(case: Case) -> None:
    facts = [fact for facts in case.named for fact in facts]
    for fact in facts:
        case.expect_nonnegative(fact.right, "the right side of a step")
    left = _product(case.arithmetic, [fact.left for fact in facts])
    case.expect(case.fact.left, left, "the left side is not the product of the steps' left sides")
    right = _product(case.arithmetic, [fact.right for fact in facts])
    case.expect(case.fact.right, right, "the right side is not the product of the right sides")


def _chain(case: Case) -> None:
    facts = case.single()
    case.expect(case.fact.left, facts[0].left, "the left side is not that of the first step")
    for before, after in pairwise(facts):
        case.expect(before.right, after.left, "a step does not begin where the one before it ends")
    case.expect(case.fact.right, facts[-1].right, "the right side is not that of the last step")


def _so(case: Case) -> None:
    (fact,) = case.single()
    case.expect(case.gap(), case.gap(fact), "left - right is not that of the step")


def _given(case: Case) -> None:
    gap, arithmetic = case.gap(), case.arithmetic
    if arithmetic.is_nonnegative(gap) or arithmetic.vanishes(gap.top):
        return
    if not any(arithmetic.equal(gap, one) for one in case.given):
        reason = "this is no hypothesis of the statement, and is not seen from the variables' signs"
        raise Refused("Given fails", reason)


def _product(arithmetic: Arithmetic, values: Sequence[Quotient]) -> Quotient:
    return reduce(arithmetic.times, values, ONE)


_RULES: Mapping[str, Callable[[Case], None]] = {
    "AM-GM": _am_gm,
    "Titu": _titu,
    "Cauchy": _cauchy,
    "Square": _square,
    "Sum": _sum,
    "Times": _times,
    "Product": _products,
    "Chain": _chain,
    "So": _so,
    "Given": _given,
}
