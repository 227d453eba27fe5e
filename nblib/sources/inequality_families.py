"""Known inequalities with drawn monomials and numbers, each with its proof: parts of statements.

Every function draws one `Known`. What puts several together is in `inequalities`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

from nblib.sources.inequality_parts import (
    Draw,
    Known,
    Monomial,
    Side,
    Term,
    merged,
    one_step,
    power,
    primitive,
    share,
    times,
    weighted,
)
from nblib.sources.inequality_turns import (
    chain,
    given_product,
    given_sum,
    given_sum_titu,
    means_in_turn,
    squares_in_turn,
)


def am_gm_pair(draw: Draw) -> Known:
    """4a^2+9b^2 >= 12ab, times a monomial."""
    u, v = draw.monomials(2, 3)
    (m,) = draw.monomials(1, 1, least=0)
    k, p, q = draw.number(3), draw.number(6), draw.number(6)
    terms = ((k * p * p, times(m, power(u, 2))), (k * q * q, times(m, power(v, 2))))
    return _am_gm(draw, terms, (1, 1), (2 * k * p * q, times(m, u, v)))


def am_gm_three(draw: Draw) -> Known:
    """2a^3+16b^3+2c^3 >= 12abc, of any monomials."""
    monomials = draw.monomials(3, 2, least=0)
    k, numbers = draw.number(4), [draw.number(3) for _ in range(3)]
    terms = [(k * n**3, power(one, 3)) for n, one in zip(numbers, monomials, strict=True)]
    return _am_gm(draw, terms, (1, 1, 1), (3 * k * math.prod(numbers), times(*monomials)))


def am_gm_weighted(draw: Draw) -> Known:
    """2a^3+8b^3 >= 6a^2b; weights of 3, 4 or 5 in all."""
    monomials = draw.monomials(2, draw.rng.randint(1, 3), least=0)
    weights = draw.rng.choice([(1, 2), (2, 1), (3, 1), (1, 3), (2, 3), (3, 2)])
    total = sum(weights)
    numbers = [draw.number(3 if total < 5 else 2) for _ in weights]
    means = [*zip(weights, numbers, monomials, strict=True)]
    right = math.prod(n**w for w, n, _ in means), times(*(power(one, w) for w, _, one in means))
    terms = [(w * n**total, power(one, total)) for w, n, one in means]
    return _am_gm(draw, terms, weights, (total * right[0], right[1]))


def _am_gm(draw: Draw, terms: Sequence[Term], weights: Sequence[int], right: Term) -> Known:
    """Return a step of terms, each being its weight times what the mean is taken of."""
    given = [
        draw.text((coefficient // weight, monomial))
        for (coefficient, monomial), weight in zip(terms, weights, strict=True)
    ]
    rule = f"AM-GM {weighted(zip(weights, given, strict=True))}"
    return one_step(rule, draw.side(*terms), draw.side(right), product=right)


def am_gm_fractions(draw: Draw) -> Known:
    """4a/b+b/a >= 4, a^2/b+b >= 2a, or 8a/b+b/c+c/a >= 6."""
    form = draw.rng.choice(["pair", "whole"] if len(draw.letters) < 3 else
                           ["pair", "whole", "cycle"])  # fmt: skip
    monomials = draw.coprime(3 if form == "cycle" else 2, 3)
    u, v = monomials[:2]
    p, q, r = draw.number(6), draw.number(6), draw.number(3)
    one = power(u, 0)
    if form == "pair":
        tops, bottoms, right = [(p * p, u), (q * q, v)], [v, u], (2 * p * q, one)
    elif form == "whole":
        tops, bottoms, right = [(p * p, power(u, 2)), (q * q, v)], [v, one], (2 * p * q, u)
    else:
        p, q = draw.number(3), draw.number(3)
        tops = [(n**3, each) for n, each in zip((p, q, r), monomials, strict=True)]
        bottoms, right = [*monomials[1:], u], (3 * p * q * r, one)
    parts = [
        draw.side(top) / draw.side((1, bottom)) if any(bottom) else draw.side(top)
        for top, bottom in zip(tops, bottoms, strict=True)
    ]
    rule = f"AM-GM {', '.join(part.text for part in parts)}"
    return one_step(rule, reduce(add, parts), draw.side(right), product=right)


def square_pair(draw: Draw) -> Known:
    """4a^2+9b^2 >= 12ab, or a^2+9 >= 6a, for all real numbers."""
    u, v = draw.monomials(2, 2, least=0)
    p, q = draw.number(5), draw.number(5)
    left = draw.side((p * p, power(u, 2)), (q * q, power(v, 2)))
    rule = f"Square {draw.text((p, u))}-{draw.text((q, v))}"
    right = (2 * p * q, times(u, v))
    return one_step(rule, left, draw.side(right), product=right, domain="real")


def square_three(draw: Draw) -> Known:
    """a^2+b^2+c^2+2bc >= 2ab+2ac, for all real numbers."""
    u, v, w = draw.monomials(3, 2, least=0)
    p, q, r = draw.number(3), draw.number(3), draw.number(3)
    squares = [(n * n, power(one, 2)) for n, one in ((p, u), (q, v), (r, w))]
    left = draw.side(*squares, (2 * q * r, times(v, w)))
    right = draw.side((2 * p * q, times(u, v)), (2 * p * r, times(u, w)))
    rule = f"Square {draw.text((p, u))}-{draw.text((q, v))}-{draw.text((r, w))}"
    return one_step(rule, left, right, domain="real")


def titu(draw: Draw) -> Known:
    """a^2/b+4c^2/d >= (a+2c)^2/(b+d); bottoms are variables, products or sums."""
    count = draw.rng.choice([2, 2, 3])
    tops, bottoms = draw.monomials(count, 2, least=0), _bottoms(draw, count)
    while any(
        len(bottom) == 1 and any(p and q for p, q in zip(top, bottom[0], strict=True))
        for top, bottom in zip(tops, bottoms, strict=True)
    ):  # a fraction that could be reduced
        tops, bottoms = draw.monomials(count, 2, least=0), _bottoms(draw, count)
    numbers = [draw.number(3) for _ in tops]
    parts = [
        draw.side((n * n, power(top, 2))) / draw.side(*((1, one) for one in bottom))
        for n, top, bottom in zip(numbers, tops, bottoms, strict=True)
    ]
    roots = draw.side(*zip(numbers, tops, strict=True))
    below = draw.side(*merged([(1, one) for bottom in bottoms for one in bottom]))
    if primitive(roots.top) == primitive(below.top):  # (a+b)^2/(a+b)
        return titu(draw)
    rule = f"Titu {', '.join(part.text for part in parts)}"
    return one_step(rule, reduce(add, parts), roots.squared() / below)


def _bottoms(draw: Draw, count: int) -> list[list[Monomial]]:
    """Draw what is divided by: variables, monomials or sums of two variables; none twice."""
    size = len(draw.letters)
    form = draw.rng.choice(["variables", "monomials", "sums"])
    if form == "sums" and math.comb(size, 2) >= count:
        pairs = [[draw.variable(i), draw.variable(j)] for i in range(size) for j in range(i)]
        return draw.rng.sample(pairs, count)
    if form == "variables" and size >= count:
        return [[draw.variable(place)] for place in draw.rng.sample(range(size), count)]
    return [[one] for one in draw.monomials(count, 2)]


def cauchy(draw: Draw) -> Known:
    """(a^2+b^2)(c^2+4d^2) >= (ac+2bd)^2."""
    x, y = draw.monomials(2, 2, least=0), draw.monomials(2, 1, least=0)
    while times(x[0], y[0]) == times(x[1], y[1]):  # a sum of one term
        x, y = draw.monomials(2, 2, least=0), draw.monomials(2, 1, least=0)
    p, q = [draw.number(3), draw.number(3)], [draw.number(3), draw.number(3)]

    def squares(numbers: Sequence[int], monomials: Sequence[Monomial]) -> Side:
        pairs = zip(numbers, monomials, strict=True)
        return draw.side(*((n * n, power(one, 2)) for n, one in pairs))

    def listed(numbers: Sequence[int], monomials: Sequence[Monomial]) -> str:
        return ", ".join(map(draw.text, zip(numbers, monomials, strict=True)))

    mixed = [(m * n, times(u, v)) for m, n, u, v in zip(p, q, x, y, strict=True)]
    rule = f"Cauchy {listed(p, x)}; {listed(q, y)}"
    left, right = squares(p, x) * squares(q, y), draw.side(*mixed).squared()
    return one_step(rule, left, right, domain="real")


def squares_listed(draw: Draw) -> Known:
    """a^2+3b^2+2c^2 >= 2ab+4bc: several squares, each with a number of its own."""
    u, v, w = draw.monomials(3, 2, least=0)
    p, q = draw.number(5), draw.number(5)
    steps, squares = [], [(p, power(u, 2)), (p + q, power(v, 2)), (q, power(w, 2))]
    for one, other in ((u, v), (v, w)):
        head = f"Square {draw.text((1, one))}-{draw.text((1, other))}"
        added = draw.sum([(1, power(one, 2)), (1, power(other, 2))])
        steps.append((head, added, draw.text((2, times(one, other)))))
    left = draw.side(*squares)
    right = draw.side((2 * p, times(u, v)), (2 * q, times(v, w)))
    steps.append((f"Sum {share(p)}(1)+{share(q)}(2)", left.text, right.text))
    return Known(left=left, right=right, steps=tuple(steps), domain="real")


Maker = Callable[[Draw], Known]
# technique -> its forms, and how many letters each is drawn with
FAMILIES: Mapping[str, tuple[tuple[Maker, tuple[int, ...]], ...]] = {
    "AM-GM": ((am_gm_pair, (2, 3, 4)), (am_gm_three, (2, 3))),
    "weighted AM-GM": ((am_gm_weighted, (2, 3, 4)),),
    "fractions": ((am_gm_fractions, (2, 3, 4)),),
    "square": ((square_pair, (2, 3)), (square_three, (2, 3))),
    "Titu": ((titu, (2, 3)),),
    "Cauchy": ((cauchy, (2, 3)),),
    "squares in turn": ((squares_in_turn, (3, 4)),),
    "squares": ((squares_listed, (2, 3, 4)),),
    "means in turn": ((means_in_turn, (2, 3, 4)),),
    "chain": ((chain, (2, 3)),),
    "AM-GM, product given": ((given_product, (2, 3, 4)),),
    "Titu, sum given": ((given_sum_titu, (2, 3)),),
    "squares, sum given": ((given_sum, (2, 3, 4)),),
}
