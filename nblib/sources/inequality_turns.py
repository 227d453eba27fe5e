"""Known inequalities for all rotations of their letters, and those with a hypothesis.

Parts of statements like those of `inequality_families`, which names them.
"""

import math
from fractions import Fraction
from functools import reduce
from operator import add
from typing import NamedTuple

from nblib.sources.inequality_parts import (
    Draw,
    Known,
    Monomial,
    Term,
    merged,
    one_step,
    power,
    rotations,
    share,
    times,
    weighted,
)


def squares_in_turn(draw: Draw) -> Known:
    """5a^2+5b^2+5c^2 >= 4ab+4bc+4ca, or of any two monomials: a^2+...+12 >= 4a+4b+4c."""
    (u,) = draw.turning(3)
    v = rotations(u)[1] if draw.rng.random() < 0.5 else draw.monomials(1, 2, least=0)[0]
    turn = _turn(draw, (u, v), (1, 1), (draw.number(5), draw.number(5)), square=True)
    return _added_up(draw, turn, draw.number(4), domain="real")


def means_in_turn(draw: Draw) -> Known:
    """a^3+b^3+c^3 >= a^2b+b^2c+c^2a, by a weighted AM-GM for each pair; or of any two monomials."""
    (u,) = draw.turning(3)
    v = rotations(u)[1] if draw.rng.random() < 0.3 else draw.monomials(1, 2, least=0)[0]
    weights = draw.rng.choice([(1, 2), (2, 1), (3, 1), (1, 3)])
    turn = _turn(draw, (u, v), weights, (draw.number(3), draw.number(3)), square=False)
    return _added_up(draw, turn, draw.number(4), domain=">")


class _Turn(NamedTuple):
    """A step for all rotations, and the terms of both sides of their sum."""

    step: tuple[str, str, str]
    above: list[Term]
    below: list[Term]


def _turn(
    draw: Draw,
    roots: tuple[Monomial, Monomial],
    weights: tuple[int, int],
    numbers: tuple[int, int],
    *,
    square: bool,
) -> _Turn:
    """Return the weighted mean of (pu)^n and (qv)^n; for weights of 1 also as a square."""
    total = sum(weights)
    means = [*zip(weights, numbers, roots, strict=True)]
    if square:
        head = f"Square {'-'.join(draw.text((n, root)) for _, n, root in means)}"
    else:
        powers = [(w, draw.text((n**total, power(root, total)))) for w, n, root in means]
        head = f"AM-GM {weighted(powers)}"
    terms = merged([(w * n**total, power(root, total)) for w, n, root in means])
    number = total * math.prod(n**w for w, n, _ in means)
    mixed = [(number, times(*(power(root, w) for w, _, root in means)))]
    above, below = (
        merged([(n, around) for n, one in side for around in rotations(one)])
        for side in (terms, mixed)
    )
    return _Turn((f"{head} cyclic", draw.sum(terms), draw.sum(mixed)), above, below)


def _added_up(draw: Draw, turn: _Turn, k: int, *, domain: str) -> Known:
    """Return a step for all rotations, and the sum of them, shortened, times k."""
    whole = math.gcd(*(n for n, _ in (*turn.above, *turn.below)))
    left, right = (
        draw.side(*((k * n // whole, one) for n, one in side)) for side in (turn.above, turn.below)
    )
    total = (f"Sum {share(k, whole)}(1)", left.text, right.text)
    return Known(left=left, right=right, steps=(turn.step, total), domain=domain)


def chain(draw: Draw) -> Known:
    """a^4+b^4+c^4 >= a^2bc+b^2ca+c^2ab: squares in turn, twice; or means in turn, and again."""
    square = len(draw.letters) > 2 and draw.rng.random() < 0.3
    weights = (1, 1) if square else draw.rng.choice([(2, 1), (1, 2), (3, 1), (1, 3)])
    (u,) = draw.turning(2)
    m = times(*(power(one, w) for one, w in zip(rotations(u), weights, strict=False)))
    pairs = [(draw.number(3), draw.number(3)) for _ in range(2)]
    ups = (power(u, 2), power(rotations(u)[1], 2)), (m, rotations(m)[1])
    one, other = (
        _turn(draw, roots, parts, numbers, square=square)
        for roots, parts, numbers in zip(ups, (weights, (1, 1)), pairs, strict=True)
    )
    # one * x and other * y meet in the middle
    middle = math.lcm(one.below[0][0], other.above[0][0])
    x, y = (Fraction(middle, n) for n in (one.below[0][0], other.above[0][0]))
    every = [(x, one.above), (x, one.below), (y, other.below)]
    whole = math.gcd(*(int(n * scale) for scale, side in every for n, _ in side))
    sides = [
        draw.side(*((int(n * scale) // whole, monomial) for n, monomial in side))
        for scale, side in every
    ]
    links = [
        (f"Sum {share(scale / whole)}({n})", sides[at].text, sides[at + 1].text)
        for at, (n, scale) in enumerate([(1, x), (3, y)])
    ]
    ends = ("Chain (2)(4)", sides[0].text, sides[2].text)
    steps = (one.step, links[0], other.step, links[1], ends)
    domain = "real" if square else ">"
    return Known(left=sides[0], right=sides[2], steps=steps, domain=domain)


def given_sum(draw: Draw) -> Known:
    """2a^2+b^2 >= 6 with a+b = 3, by tangent lines at 1 and 2; of any monomial in place of a."""
    size, u = len(draw.letters), draw.variable(0)
    if size > 2 and draw.rng.random() < 0.5:
        u = times(u, draw.variable(1))
    u = power(u, draw.rng.randint(1, 4))
    around, even = rotations(u), draw.rng.random() < 0.3
    points = [draw.number(6)] * len(around) if even else [draw.number(6) for _ in around]
    slope = math.lcm(*points)
    c = draw.number(6)
    one, weights = power(u, 0), [c * slope // point for point in points]
    steps = [
        (
            f"Square {draw.text((1, root))}-{point}{' cyclic' if even else ''}",
            draw.sum([(1, power(root, 2)), (point * point, one)]),
            draw.text((2 * point, root)),
        )
        for root, point in zip(around, points, strict=True)
    ][: 1 if even else size]
    left = draw.side(*((w, power(root, 2)) for w, root in zip(weights, around, strict=True)))
    right = draw.side((c * slope * sum(points), one))
    shares = "+".join(f"{share(weights[n])}({n + 1})" for n in range(len(steps)))
    given = draw.side(*((1, root) for root in around)), draw.side((sum(points), one))
    total = (f"Sum {shares}", left.text, right.text)
    return Known(left=left, right=right, steps=(*steps, total), given=given)


def given_product(draw: Draw) -> Known:
    """a^2+b^2+c^2 >= 12 with abc = 8; of any monomial in place of a^2."""
    (u,), size = draw.turning(4), len(draw.letters)
    k = draw.rng.randint(1, (3, 3, 2, 1, 1)[sum(u)])
    c, numbers = draw.number(4), [draw.number((5, 3, 2)[size - 2]) for _ in range(size)]
    one, whole = power(u, 0), tuple(1 for _ in u)
    terms = [(c * n**size, root) for n, root in zip(numbers, rotations(u), strict=True)]
    right = draw.side((size * c * math.prod(numbers) * k ** sum(u), one))
    given = draw.side((1, whole)), draw.side((k**size, one))
    rule = f"AM-GM {', '.join(map(draw.text, terms))}"
    return one_step(rule, draw.side(*terms), right, given=given)


def given_sum_titu(draw: Draw) -> Known:
    """1/a+4/b >= 3 with a+b = 3; of any power in place of a."""
    exponent, size = draw.rng.randint(1, 6), len(draw.letters)
    numbers = [draw.number(5) for _ in range(size)]
    k = draw.rng.choice([k for k in range(1, 10) if sum(numbers) ** 2 % k == 0])
    bottoms = [draw.side((1, power(draw.variable(place), exponent))) for place in range(size)]
    one = power(draw.variable(0), 0)
    parts = [draw.side((n * n, one)) / bottom for n, bottom in zip(numbers, bottoms, strict=True)]
    right = draw.side((sum(numbers) ** 2 // k, one))
    rule = f"Titu {', '.join(part.text for part in parts)}"
    given = reduce(add, bottoms), draw.side((k, one))
    return one_step(rule, reduce(add, parts), right, given=given)
