import numpy as np
import pytest

from nblib.tasks.point_search import PointSearch
from nblib.tasks.statements import parse_statement


def failing(text, seed=0):
    return PointSearch(parse_statement(text)).failing(seed)


@pytest.mark.parametrize(
    ("domain", "holds"),
    [
        ("a, b, c > 0", lambda a, b, c: (a > 0) & (b > 0) & (c > 0)),
        ("a, b >= 0, c > 0", lambda a, b, c: (a >= 0) & (b >= 0) & (c > 0)),
        ("a, b, c > 0 with a+b+c = 3", lambda a, b, c: np.isclose(a + b + c, 3)),
        ("a, b, c > 0 with abc = 1", lambda a, b, c: np.isclose(a * b * c, 1)),
        ("real a, b, c with abc = -1", lambda a, b, c: np.isclose(a * b * c, -1)),
        ("real a, b, c with a+b = -1", lambda a, b, c: np.isclose(a + b, -1)),
        ("a, b, c > 0 with a = b", lambda a, b, c: np.isclose(a, b)),
        ("a, b, c > 0 with a >= b, b >= c", lambda a, b, c: (a >= b) & (b >= c)),
        ("a, b, c > 0 with a+b > c, a*b < 1", lambda a, b, c: (a + b > c) & (a * b < 1)),
        ("a, b, c > 0 with a != b", lambda a, b, c: a != b),
        ("a, b, c > 0 with a^2+b^2+c^2+abc <= 4", lambda a, b, c: a**2 + b**2 + c**2 <= 4),
        (
            "a, b, c > 0 with a+b+c = 4, ab+bc+ca = 5",
            lambda a, b, c: np.isclose(a + b + c, 4) & np.isclose(a * b + b * c + c * a, 5),
        ),
        (
            "a, b, c > 0 with a+b+c = 3, abc = 1/2, a >= b",
            lambda a, b, c: np.isclose(a + b + c, 3) & np.isclose(a * b * c, 1 / 2) & (a >= b),
        ),
    ],
)
def test_points_are_in_the_domain_and_meet_the_hypotheses(domain, holds):
    points, count = failing(f"0 >= 1 for {domain}")
    assert count > 2000
    assert points.shape[1] > 10
    assert holds(*points).all()


@pytest.mark.parametrize(
    "text",
    [
        "a^2+b^2 >= 2ab for a, b > 0",
        "a+b+c >= 3 for a, b, c > 0 with abc = 1",
        "a^2+b^2+c^2 >= 6 for a, b, c > 0 with a+b+c = 4, ab+bc+ca = 5",
        "a+b >= c for a, b, c > 0 with a+b > c",
        "sqrt(a)+sqrt(b) >= sqrt(a+b) for a, b >= 0",
    ],
)
def test_equality_is_no_failure(text):
    assert not failing(text)[0].size


def test_the_worst_is_refined_where_few_points_fail():
    # Fails only within 1e-3 of a = 1.2345, b = 0.4321.
    text = "(a-12345/10^4)^2+(b-4321/10^4)^2 >= 1/10^6 for a, b > 0"
    points = failing(text)[0]
    assert points.size
    assert np.allclose(points, [[1.2345], [0.4321]], atol=1e-3)


def test_values_are_put_in_the_order_of_the_hypotheses():
    text = "0 >= 1 for a, b, c, d, x, y > 0 with a >= b, b >= c, c >= d, d >= x, x >= y"
    points, count = failing(text)
    assert count > 20_000  # of random ones, one in 720 is in order
    assert (np.diff(points, axis=0) <= 0).all()


def test_clear_failures_near_1_come_first():
    points = failing("a^2+b^2 >= 3ab for a, b > 0")[0]
    assert (np.abs(np.log(points[:, :4])) < 1).all()


def test_a_seed_gives_the_same_points_and_contradictions_none():
    text = "a^2+b^2+c^2 >= 1 for real a, b, c with a+b+c = 1"
    np.testing.assert_array_equal(failing(text, 3)[0], failing(text, 3)[0])
    assert not np.array_equal(failing(text, 3)[0], failing(text, 4)[0])
    points, count = failing("a >= 1 for a, b > 0 with a+b = 0, a = b")
    assert (points.size, count) == (0, 0)
