"""Known inequalities with drawn monomials and numbers, each with its proof: parts of statements.

Every function draws one `Known`. What puts several together is in `inequalities`.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from nblib.sources.inequality_parts import (
    Draw,
    Known,
    Monomial,
    Side,
    Term,
    merged,
    power,
    rotations,
    share,
    times,
)


def _one_step(rule: str, left: Side, right: Side, **more: object) -> Known:
    step = (rule, left.text, right.text)
    return Known(left=left, right=right, steps=(step,), **more)  # type: ignore[arg-type]


def am_gm_pair(draw: Draw) -> Known:
    """4a^2+9b^2 >= 12ab, times a monomial."""
    u, v = draw.monomials(2, 2)
    (m,) = draw.monomials(1, 1, least=0)
    k, p, q = (draw.number(3) for _ in range(3))
    terms = ((k * p * p, times(m, power(u, 2))), (k * q * q, times(m, power(v, 2))))
    return _am_gm(draw, terms, (1, 1), (2 * k * p * q, times(m, u, v)))


def am_gm_three(draw: Draw) -> Known:
    """2a^3+2b^3+2c^3 >= 6abc, of any monomials."""
    monomials = draw.monomials(3, 2, least=0)
    k = draw.number(4)
    terms = [(k, power(one, 3)) for one in monomials]
    return _am_gm(draw, terms, (1, 1, 1), (3 * k, times(*monomials)))


def am_gm_weighted(draw: Draw) -> Known:
    """2a^3+b^3 >= 3a^2b; weights of 3 or 4 in all."""
    u, v = draw.monomials(2, 2 if draw.rng.random() < 0.5 else 1, least=0)
    weights = draw.rng.choice([(1, 2), (2, 1), (3, 1), (1, 3)])
    total = sum(weights)
    terms = [(w, power(one, total)) for w, one in zip(weights, (u, v), strict=True)]
    return _am_gm(draw, terms, weights, (total, times(power(u, weights[0]), power(v, weights[1]))))


def _am_gm(draw: Draw, terms: Sequence[Term], weights: Sequence[int], right: Term) -> Known:
    """Return a step of terms, each being its weight times what the mean is taken of."""
    given = [
        draw.text((coefficient // weight, monomial))
        for (coefficient, monomial), weight in zip(terms, weights, strict=True)
    ]
    named = [f"{w} of {one}" if w > 1 else one for w, one in zip(weights, given, strict=True)]
    return _one_step(
        f"AM-GM {', '.join(named)}",
        draw.side(*terms),
        draw.side(right),
        product=right,
    )


def am_gm_fractions(draw: Draw) -> Known:
    """4a/b+b/a >= 4, a^2/b+b >= 2a, or a/b+b/c+c/a >= 3."""
    size, p, q = len(draw.letters), draw.number(4), draw.number(4)
    form = draw.rng.choice(["pair", "whole"] if size < 3 else ["pair", "whole", "cycle"])
    monomials = draw.coprime(3 if form == "cycle" else 2, 2)
    u, v = monomials[:2]
    one = power(u, 0)
    if form == "pair":
        tops, bottoms, right = [(p * p, u), (q * q, v)], [v, u], (2 * p * q, one)
    elif form == "whole":
        tops, bottoms, right = [(p * p, power(u, 2)), (q * q, v)], [v, one], (2 * p * q, u)
    else:
        tops, bottoms = [(p, each) for each in monomials], [*monomials[1:], u]
        right = (3 * p, one)
    parts = [
        draw.quotient(top, draw.text((1, bottom))) if any(bottom) else draw.text(top)
        for top, bottom in zip(tops, bottoms, strict=True)
    ]
    left = Side("+".join(parts))
    return _one_step(f"AM-GM {', '.join(parts)}", left, draw.side(right), product=right)


def square_pair(draw: Draw) -> Known:
    """4a^2+9b^2 >= 12ab, or a^2+9 >= 6a, for all real numbers."""
    u, v = draw.monomials(2, 2, least=0)
    p, q = draw.number(5), draw.number(5)
    left = draw.side((p * p, power(u, 2)), (q * q, power(v, 2)))
    rule = f"Square {draw.text((p, u))}-{draw.text((q, v))}"
    right = (2 * p * q, times(u, v))
    return _one_step(rule, left, draw.side(right), product=right, domain="real")


def square_three(draw: Draw) -> Known:
    """a^2+b^2+c^2+2bc >= 2ab+2ac, for all real numbers."""
    u, v, w = draw.monomials(3, 2, least=0)
    p, q, r = draw.number(3), draw.number(3), draw.number(3)
    squares = [(n * n, power(one, 2)) for n, one in ((p, u), (q, v), (r, w))]
    left = draw.side(*squares, (2 * q * r, times(v, w)))
    right = draw.side((2 * p * q, times(u, v)), (2 * p * r, times(u, w)))
    rule = f"Square {draw.text((p, u))}-{draw.text((q, v))}-{draw.text((r, w))}"
    return _one_step(rule, left, right, domain="real")


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
        draw.quotient((n * n, power(top, 2)), draw.sum([(1, one) for one in bottom]))
        for n, top, bottom in zip(numbers, tops, bottoms, strict=True)
    ]
    roots = draw.sum(list(zip(numbers, tops, strict=True)))
    below = draw.sum(merged([(1, one) for bottom in bottoms for one in bottom]))
    whole = f"({below})" if "+" in below else below
    left, right = Side("+".join(parts)), Side(f"({roots})^2/{whole}")
    return _one_step(f"Titu {', '.join(parts)}", left, right)


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
    p, q = [draw.number(3), draw.number(3)], [draw.number(3), draw.number(3)]

    def squares(numbers: Sequence[int], monomials: Sequence[Monomial]) -> str:
        return draw.sum([(n * n, power(one, 2)) for n, one in zip(numbers, monomials, strict=True)])

    def listed(numbers: Sequence[int], monomials: Sequence[Monomial]) -> str:
        return ", ".join(map(draw.text, zip(numbers, monomials, strict=True)))

    mixed = [(m * n, times(u, v)) for m, n, u, v in zip(p, q, x, y, strict=True)]
    left = Side(f"({squares(p, x)})({squares(q, y)})", bare=True)
    right = Side(f"({draw.sum(mixed)})^2", bare=True)
    rule = f"Cauchy {listed(p, x)}; {listed(q, y)}"
    return _one_step(rule, left, right, domain="real")


def squares_in_turn(draw: Draw) -> Known:
    """a^2+b^2+c^2 >= ab+bc+ca, of any monomial in place of a."""
    (u,) = draw.turning(3)
    around = rotations(u)
    pairs = [times(one, other) for one, other in zip(around, (*around[1:], u), strict=True)]
    k = draw.number(20)
    first, second = draw.text((1, u)), draw.text((1, around[1]))
    squares = draw.sum([(1, power(u, 2)), (1, power(around[1], 2))])
    one = (f"Square {first}-{second} cyclic", squares, draw.text((2, pairs[0])))
    left = draw.side(*((k, power(each, 2)) for each in around))
    right = draw.side(*((k, each) for each in pairs))
    total = (f"Sum {share(k, 2)}(1)", left.text, right.text)
    return Known(left=left, right=right, steps=(one, total), domain="real")


def squares_listed(draw: Draw) -> Known:
    """a^2+3b^2+2c^2 >= 2ab+4bc: several squares, each with a number of its own."""
    u, v, w = draw.monomials(3, 2, least=0)
    p, q = draw.number(3), draw.number(3)
    steps, squares = [], [(p, power(u, 2)), (p + q, power(v, 2)), (q, power(w, 2))]
    for one, other in ((u, v), (v, w)):
        head = f"Square {draw.text((1, one))}-{draw.text((1, other))}"
        added = draw.sum([(1, power(one, 2)), (1, power(other, 2))])
        steps.append((head, added, draw.text((2, times(one, other)))))
    left = draw.side(*squares)
    right = draw.side((2 * p, times(u, v)), (2 * q, times(v, w)))
    steps.append((f"Sum {share(p)}(1)+{share(q)}(2)", left.text, right.text))
    return Known(left=left, right=right, steps=tuple(steps), domain="real")


def means_in_turn(draw: Draw) -> Known:
    """a^3+b^3+c^3 >= a^2b+b^2c+c^2a, by a weighted AM-GM for each pair."""
    (u,) = draw.turning(2)
    first, second = draw.rng.choice([(1, 2), (2, 1), (3, 1), (1, 3)])
    total, around = first + second, rotations(u)
    named = [f"{w} of " if w > 1 else "" for w in (first, second)]
    powers = [draw.text((1, power(one, total))) for one in around]
    mixed = [
        (1, times(power(one, first), power(other, second)))
        for one, other in zip(around, (*around[1:], u), strict=True)
    ]
    head = f"AM-GM {named[0]}{powers[0]}, {named[1]}{powers[1]} cyclic"
    sides = draw.sum([(first, power(u, total)), (second, power(around[1], total))])
    one = (head, sides, draw.text((total, mixed[0][1])))
    k = draw.number(20)
    left = draw.side(*((k, power(each, total)) for each in around))
    right = draw.side(*((k, each) for _, each in mixed))
    return Known(
        left=left,
        right=right,
        steps=(one, (f"Sum {share(k, total)}(1)", left.text, right.text)),
    )


def chain(draw: Draw) -> Known:
    """a^4+b^4+c^4 >= a^2bc+b^2ca+c^2ab: squares in turn, twice."""
    (u,) = draw.turning(2)
    k, sums = draw.number(20), [[power(one, 4) for one in rotations(u)]]
    steps: list[tuple[str, str, str]] = []
    for _ in range(2):
        roots = [tuple(exponent // 2 for exponent in one) for one in sums[-1]]
        pairs = [times(*pair) for pair in zip(roots, (*roots[1:], roots[0]), strict=True)]
        squares = draw.sum([(1, one) for one in sums[-1][:2]])
        head = f"Square {draw.text((1, roots[0]))}-{draw.text((1, roots[1]))} cyclic"
        steps.append((head, squares, draw.text((2, pairs[0]))))
        above, below = (draw.sum([(k, one) for one in side]) for side in (sums[-1], pairs))
        steps.append((f"Sum {share(k, 2)}({len(steps)})", above, below))
        sums.append(pairs)
    left, _, right = (draw.side(*((k, one) for one in each)) for each in sums)
    steps.append(("Chain (2)(4)", left.text, right.text))
    return Known(left=left, right=right, steps=tuple(steps), domain="real")


def given_sum(draw: Draw) -> Known:
    """a^2+b^2+c^2 >= 12 with a+b+c = 6, by tangent lines; of any power in place of a."""
    size, k, c = len(draw.letters), draw.rng.randint(1, 6), draw.number(6)
    exponent = draw.rng.randint(1, 3)
    roots = [power(draw.variable(place), exponent) for place in range(size)]
    one = power(roots[0], 0)
    squares = [(1, power(roots[0], 2)), (k * k, one)]
    head = f"Square {draw.text((1, roots[0]))}-{k} cyclic"
    first = (head, draw.sum(squares), draw.text((2 * k, roots[0])))
    left = draw.side(*((c, power(root, 2)) for root in roots))
    right = draw.side((c * size * k * k, one))
    total = (f"Sum {share(c)}(1)", left.text, right.text)
    hypothesis = f"{draw.sum([(1, root) for root in roots])} = {size * k}"
    return Known(left=left, right=right, steps=(first, total), hypothesis=hypothesis)


def given_product(draw: Draw) -> Known:
    """a^2+b^2+c^2 >= 12 with abc = 8."""
    size, k, c = len(draw.letters), draw.rng.randint(1, 3), draw.number(6)
    exponent = draw.rng.randint(1, 6 if k == 1 else 2)
    terms = [(c, power(draw.variable(place), exponent)) for place in range(size)]
    right = draw.side((size * c * k**exponent, power(terms[0][1], 0)))
    rule = f"AM-GM {', '.join(map(draw.text, terms))}"
    hypothesis = f"{draw.letters} = {k**size}"
    return _one_step(rule, draw.side(*terms), right, hypothesis=hypothesis)


def given_sum_titu(draw: Draw) -> Known:
    """1/a+4/b >= 3 with a+b = 3; of any power in place of a."""
    exponent, size = draw.rng.randint(1, 4), len(draw.letters)
    numbers = [draw.number(4) for _ in range(size)]
    k = draw.rng.choice([k for k in range(1, 10) if sum(numbers) ** 2 % k == 0])
    bottoms = [draw.text((1, power(draw.variable(place), exponent))) for place in range(size)]
    one = power(draw.variable(0), 0)
    pairs = zip(numbers, bottoms, strict=True)
    parts = [draw.quotient((n * n, one), bottom) for n, bottom in pairs]
    right = draw.side((sum(numbers) ** 2 // k, one))
    rule, hypothesis = f"Titu {', '.join(parts)}", f"{'+'.join(bottoms)} = {k}"
    return _one_step(rule, Side("+".join(parts)), right, hypothesis=hypothesis)


Maker = Callable[[Draw], Known]
# technique -> its forms, and how many letters each is drawn with
FAMILIES: Mapping[str, tuple[tuple[Maker, tuple[int, ...]], ...]] = {
    "AM-GM": ((am_gm_pair, (2, 3)), (am_gm_three, (2, 3))),
    "weighted AM-GM": ((am_gm_weighted, (2, 3)),),
    "fractions": ((am_gm_fractions, (2, 3)),),
    "square": ((square_pair, (2, 3)), (square_three, (2, 3))),
    "Titu": ((titu, (2, 3)),),
    "Cauchy": ((cauchy, (2, 3)),),
    "squares in turn": ((squares_in_turn, (3,)),),
    "squares": ((squares_listed, (2, 3)),),
    "means in turn": ((means_in_turn, (3,)),),
    "chain": ((chain, (3,)),),
    "AM-GM, product given": ((given_product, (2, 3, 4)),),
    "Titu, sum given": ((given_sum_titu, (2, 3)),),
    "squares, sum given": ((given_sum, (2, 3)),),
}
