import itertools
from fractions import Fraction

import pytest

from nblib.tasks.exact_values import holds
from nblib.tasks.rational_points import RationalPoints, rational_root, rounded
from nblib.tasks.statements import parse_relation


@pytest.mark.parametrize(
    ("number", "denominator", "expected"),
    [
        (0.34, 3, "1/3"),
        (0.000031, 1, "1/32258"),  # not 0
        (-2.5, 2, "-5/2"),
        (1e6 + 0.1, 1, "1000000"),
        (0.0, 10, "0"),
        (-0.0, 10, "0"),
    ],
)
def test_numbers_are_rounded_to_small_fractions(number, denominator, expected):
    assert rounded(number, denominator) == Fraction(expected)


@pytest.mark.parametrize(
    ("function", "near", "expected"),
    [
        (lambda x: 3 * x - 2, 5, "2/3"),
        (lambda x: (2 * x - 1) / (x + 5), 1, "1/2"),
        (lambda x: 1 / x - 4, 1, "1/4"),
        (lambda x: x**2 - 4, 1, "2"),
        (lambda x: x**2 - 4, -1, "-2"),
        (lambda x: x - 6 / x - 1, 2, "3"),
        (lambda x: x**2 - 2, 1, None),
        (lambda x: x**3 - 3, 1, None),
        (lambda x: Fraction(1), 1, None),
        (lambda x: None, 1, None),
    ],
)
def test_roots_that_are_fractions_are_found(function, near, expected):
    found = rational_root(function, Fraction(near))
    assert found == (None if expected is None else Fraction(expected))


EQUALITIES = {  # with a target near which there are points
    "a+b+c = 3": (1.2, 0.8, 1.0),
    "abc = 1": (2.0, 0.7, 0.71),
    "ab+bc+ca = 1": (0.5, 0.6, 0.64),
    "1/(1+a)+1/(1+b)+1/(1+c) = 1": (2.2, 1.9, 1.9),
    "a^2 = bc": (2.0, 4.0, 1.0),
    "a^2+b^2+c^2 = 1": (0.6, 0.52, 0.608),
    "a^2+b^2+c^2+ab+bc+ca = 6": (1.3, 0.5, 1.1542),
    "a+b+c = 3, ab+bc+ca = 11/4": (0.5, 1.0, 1.5),
    "a+b = 2c, a+2b+3c = 6": (0.3, 1.5, 0.9),
    "a+b = 1, b+c = 1, abc = 1/8": (0.5, 0.5, 0.5),
}


@pytest.mark.parametrize("text", EQUALITIES)
def test_equalities_hold_exactly_at_points_near_the_target(text):
    equalities = tuple(map(parse_relation, text.split(",")))
    target = dict(zip("abc", EQUALITIES[text], strict=True))
    points = list(itertools.islice(RationalPoints(equalities).near([target]), 300))
    assert all(holds(one, point) for one in equalities for point in points)
    off = [max(abs(float(p[name]) - x) for name, x in target.items()) for p in points]
    assert min(off) < 0.02


def test_a_cubic_is_met_on_tangents_of_the_points_that_are_known():
    equality = parse_relation("a^3+b^3+c^3+a*b*c = 4")
    points = list(RationalPoints((equality,)).apart({"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.25}))
    assert all(holds(equality, point) for point in points)
    assert all(point["d"] == Fraction(1, 4) for point in points)  # its own variables alone
    assert len({tuple(p.values()) for p in points if min(p.values()) > 0}) >= 3


@pytest.mark.parametrize("text", ["a+b+c = sqrt(5)", "a^2+b^2 = 3", "a^4+b^4 = 1+c^4/7"])
def test_no_point_is_given_where_none_is_known(text):
    equality = parse_relation(text)
    points = RationalPoints((equality,))
    target = {"a": 1.1, "b": 0.7, "c": 0.3}
    found = [*points.near([target]), *points.apart(target)]
    assert all(holds(equality, point) for point in found)
    if text != "a^4+b^4 = 1+c^4/7":  # which has (1, b, 0), and the like
        assert not found
