"""Right proofs by every rule, and an evaluation of texts that shares nothing with the checker.

A block is a statement, behind `|` how variables follow from others where an equality hypothesis
holds, and the proof.
"""

import random
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from nblib.tasks.expressions import parse_expression
from nblib.tasks.statements import NONNEGATIVE, POSITIVE, parse_statement

_TEXT = """\
a^2+b^2+c^2 >= ab+bc+ca for a, b, c > 0
AM-GM a^2, b^2: a^2+b^2 >= 2ab
AM-GM b^2, c^2: b^2+c^2 >= 2bc
AM-GM c^2, a^2: c^2+a^2 >= 2ca
Sum 1/2(1)+1/2(2)+1/2(3): a^2+b^2+c^2 >= ab+bc+ca

a^2+b^2+c^2 >= ab+bc+ca for real a, b, c
Square a-b cyclic: a^2+b^2 >= 2ab
Sum 1/2(1): a^2+b^2+c^2 >= ab+bc+ca

(a+b)(b+c)(c+a) >= 8abc for a, b, c >= 0
AM-GM a^2b, b^2c, c^2a, ab^2, bc^2, ca^2: a^2b+b^2c+c^2a+ab^2+bc^2+ca^2 >= 6abc
So (1): (a+b)(b+c)(c+a) >= 8abc

a/b+b/c+c/a >= 3 for a, b, c > 0
AM-GM a/b, b/c, c/a: a/b+b/c+c/a >= 3

a/(b+c)+b/(c+a)+c/(a+b) >= 3/2 for a, b, c > 0
Titu a^2/(ab+ac), b^2/(bc+ba), c^2/(ca+cb): a/(b+c)+b/(c+a)+c/(a+b) >= (a+b+c)^2/(2ab+2bc+2ca)
Square a-b cyclic: a^2+b^2 >= 2ab
Sum 1/2(2): (a+b+c)^2 >= 3(ab+bc+ca)
Times 1/(2ab+2bc+2ca) (3): (a+b+c)^2/(2ab+2bc+2ca) >= 3/2
Chain (1)(4): a/(b+c)+b/(c+a)+c/(a+b) >= 3/2

1/a+1/b+1/c >= 3 for a, b, c > 0 with a+b+c = 3 | c: 3-a-b
Titu 1/a, 1/b, 1/c: 1/a+1/b+1/c >= 3

a+b+c >= 3 for a, b, c > 0 with abc = 1 | c: 1/(ab)
AM-GM a, b, c: a+b+c >= 3

a^2+b^2+c^2 >= a+b+c for a, b, c > 0 with abc = 1 | c: 1/(ab)
Square a-1 cyclic: a^2+1 >= 2a
AM-GM a, b, c: a+b+c >= 3
Sum (1)+(2): a^2+b^2+c^2 >= a+b+c

(a^2+b^2)(x^2+y^2) >= (ax+by)^2 for real a, b, x, y
Cauchy a, b; x, y: (a^2+b^2)(x^2+y^2) >= (ax+by)^2

3(a^2+b^2+c^2) >= (a+b+c)^2 for real a, b, c
Cauchy a, b, c; 1, 1, 1: 3(a^2+b^2+c^2) >= (a+b+c)^2

a^3+b^3 >= a^2b+ab^2 for a, b >= 0
Square a-b: a^2+b^2 >= 2ab
Times a+b (1): a^3+b^3 >= a^2b+ab^2

2x^3+y^3 >= 3x^2y for x, y > 0
AM-GM 2 of x^3, y^3: 2x^3+y^3 >= 3x^2y

(p^2+1)(q^2+1) >= 4pq for p, q > 0
Square p-1: p^2+1 >= 2p
Square q-1: q^2+1 >= 2q
Product (1)(2): (p^2+1)(q^2+1) >= 4pq

(a+b)^2(b+c)^2(c+a)^2 >= 64a^2b^2c^2 for a, b, c > 0
Square a-b cyclic: (a+b)^2 >= 4ab
Product (1): (a+b)^2(b+c)^2(c+a)^2 >= 64a^2b^2c^2

a^4+b^4+c^4 >= abc(a+b+c) for real a, b, c
Square a^2-b^2 cyclic: a^4+b^4 >= 2a^2b^2
Sum 1/2(1): a^4+b^4+c^4 >= a^2b^2+b^2c^2+c^2a^2
Square ab-bc cyclic: a^2b^2+b^2c^2 >= 2ab^2c
Sum 1/2(3): a^2b^2+b^2c^2+c^2a^2 >= abc(a+b+c)
Chain (2)(4): a^4+b^4+c^4 >= abc(a+b+c)

a^2 >= ab for a, b > 0 with a >= b | a: a+b
Given: a >= b
Times a (1): a^2 >= ab

x^2+y^2 >= 2y^2 for x, y > 0 with x > y | x: x+y
Given: x >= y
Times x (1): x^2 >= xy
Times y (1): xy >= y^2
Chain (2)(3): x^2 >= y^2
So (4): x^2+y^2 >= 2y^2

p^2/q+q^2/p >= p+q for p, q > 0
Titu p^2/q, q^2/p: p^2/q+q^2/p >= p+q

(x+y)^2/z+4z >= 4(x+y) for x, y, z > 0
Titu (x+y)^2/z, 4z^2/z: (x+y)^2/z+4z >= (x+y+2z)^2/(2z)
Square x+y-2z: (x+y+2z)^2 >= 8z(x+y)
Times 1/(2z) (2): (x+y+2z)^2/(2z) >= 4(x+y)
Chain (1)(3): (x+y)^2/z+4z >= 4(x+y)

1/x+4/y >= 9 for x, y > 0 with x+y = 1 | y: 1-x
Titu 1/x, 4/y: 1/x+4/y >= 9

a^2+b^2 >= 1/2 for real a, b with a+b = 1 | b: 1-a
Square a-b: a^2+b^2 >= 2ab
Sum 1/2(1): a^2+b^2 >= 1/2

1/3 >= ab+bc+ca for a, b, c >= 0 with a+b+c = 1 | c: 1-a-b
Square a-b cyclic: a^2+b^2 >= 2ab
Sum 1/6(1): 1/3 >= ab+bc+ca

(a+b+c)(1/a+1/b+1/c) >= 9 for a, b, c > 0
AM-GM a/b, b/a cyclic: a/b+b/a >= 2
Sum (1): (a+b+c)(1/a+1/b+1/c) >= 9

a^4+b^4+c^4+d^4 >= 4abcd for a, b, c, d >= 0
AM-GM a^4, b^4, c^4, d^4: a^4+b^4+c^4+d^4 >= 4abcd

a^2+b^2+c^2 >= 1 for a, b, c > 0 with ab+bc+ca = 1 | c: (1-ab)/(a+b)
Square a-b cyclic: a^2+b^2 >= 2ab
Sum 1/2(1): a^2+b^2+c^2 >= 1

3 >= (a+b+c)^2 for real a, b, c with a^2+b^2+c^2 = 1 | a: 2a/(1+a^2+b^2), \
b: 2b/(1+a^2+b^2), c: (1-a^2-b^2)/(1+a^2+b^2)
Square a-b cyclic: a^2+b^2 >= 2ab
Sum (1): 3 >= (a+b+c)^2

a^2+c^2 >= 12b^2 for a, b, c > 0 with a = 2b, c = 3b | a: 2b, c: 3b
Square b: a^2+c^2 >= 12b^2

x^2/(x+y)+y^2/(y+z)+z^2/(z+x) >= (x+y+z)/2 for x, y, z > 0
Titu x^2/(x+y), y^2/(y+z), z^2/(z+x): x^2/(x+y)+y^2/(y+z)+z^2/(z+x) >= (x+y+z)/2
"""


class Right(NamedTuple):
    """A right proof, and how variables follow from others: letter -> text."""

    statement: str
    proof: str
    follow: dict[str, str]


def _right(block):
    head, _, proof = block.strip().partition("\n")
    statement, _, follow = head.partition(" | ")
    pairs = [one.split(": ") for one in follow.split(", ") if one]
    return Right(statement, proof, dict(pairs))


RIGHT = tuple(map(_right, _TEXT.split("\n\n")))


def value(expression, point):
    """Return what an expression is at a point; ZeroDivisionError where it is nothing."""
    match expression:
        case ("number", number):
            return number
        case ("variable", letter):
            return point[letter]
        case ("sum", parts):
            return sum(value(part, point) for part in parts)
        case ("product", parts):
            found = Fraction(1)
            for part in parts:
                found *= value(part, point)
            return found
        case ("quotient", top, bottom):
            return value(top, point) / value(bottom, point)
        case ("power", base, exponent):
            return value(base, point) ** int(exponent)
    raise AssertionError(expression)


def points(statement, follow, count, seed=0):
    """Return rational points of a statement's domain, where its hypotheses hold."""
    rng, found = random.Random(seed), []
    known, follow = parse_statement(statement), {k: parse_expression(v) for k, v in follow.items()}
    while len(found) < count:
        free = {letter: Fraction(rng.randint(-12, 12), rng.randint(1, 9)) for letter in "abcdxyzpq"}
        free = {k: v if known.variables.get(k) == "real" else abs(v) for k, v in free.items()}
        if any(free[k] == 0 for k, sign in known.variables.items() if sign == POSITIVE):
            continue
        point = {**free, **{letter: value(one, free) for letter, one in follow.items()}}
        if is_inside(known, point):
            found.append({letter: point[letter] for letter in known.variables})
    return found


def is_inside(statement, point):
    """Whether a point is in a statement's domain and its hypotheses hold there."""
    signs = {POSITIVE: lambda x: x > 0, NONNEGATIVE: lambda x: x >= 0}
    relations = {"=": lambda x: x == 0, ">=": lambda x: x >= 0, ">": lambda x: x > 0}
    return all(
        signs.get(sign, lambda x: True)(point[k]) for k, sign in statement.variables.items()
    ) and all(
        relations[one.sign](value(one.left, point) - value(one.right, point))
        for one in statement.hypotheses
    )


def gap(claim, point):
    """Return left - right of the text `left >= right` at a point."""
    left, right = _sides(claim)
    return value(left, point) - value(right, point)


@cache
def _sides(claim):
    return tuple(map(parse_expression, claim.split(">=")))
