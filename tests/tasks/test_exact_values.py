"""Values are compared with those of `decimal`, at 120 digits: another arithmetic."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.exact_values import (
    NoValueError,
    as_text,
    compare,
    exact_difference,
    exact_root,
    holds,
    integer_root,
    value,
)
from nblib.tasks.expressions import parse_expression
from nblib.tasks.statements import parse_relation

POINT = {"a": Fraction(1, 2), "b": Fraction(3), "c": Fraction(-2), "d": Fraction(0)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/a+b", "5"),
        ("a-b*c", "13/2"),
        ("(a+b)/(c-1)", "-7/6"),
        ("a^2", "1/4"),
        ("c^3*a^(-2)", "-32"),
        ("d^0", "1"),
        ("sqrt(a/2)", "1/2"),
        ("(8/27)^(2/3)", "4/9"),
        ("16^(-1/4)", "1/2"),
        ("sqrt(d)", "0"),
        ("sqrt(2)^2", None),  # 2, but not as fractions
        ("a+sqrt(3)", None),
    ],
)
def test_values_are_exact_where_no_root_is_irrational(text, expected):
    found = value(parse_expression(text), POINT, 40)
    assert found.exact == (expected is not None)
    if expected:
        assert found.low == Fraction(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 >= 2", False),
        ("sqrt(2)+sqrt(3) > sqrt(99/10)", False),  # 3.14626 and 3.14642
        ("sqrt(2)*sqrt(3) >= sqrt(6)", None),  # equal, not seen
        ("sqrt(2)*sqrt(3) != sqrt(6)", None),
        ("sqrt(8) = 2sqrt(2)", None),
        ("sqrt(9/4) = 3a", True),
        ("a+a = 1", True),
        ("a != a", False),
        ("a > a", False),
        ("a >= a", True),
        ("1/d >= 0", None),
        ("1/(sqrt(2)-sqrt(2)) >= 0", None),
        ("1/(sqrt(2)-14142135623/10^10) >= 10^9", True),  # closer bounds are needed
        ("sqrt(c) >= 0", None),
        ("c^(1/3) >= -2", None),
        ("sqrt(sqrt(2)-14142135623/10^10) > 0", True),
        ("(((9^24)^24)^24)^24 >= 0", None),
        ("(sqrt(2)-3/2)^2 >= 0", True),
        ("(sqrt(2)*sqrt(3)-sqrt(6))^2 > 0", None),  # a square of what may be 0
        ("(c+sqrt(3))^3 >= 0", False),
    ],
)
def test_what_is_said_to_hold_is_proven(text, expected):
    assert holds(parse_relation(text), POINT) is expected


FRACTIONS = st.fractions(min_value=Fraction(1, 50), max_value=50, max_denominator=50)
TEXTS = st.recursive(
    st.sampled_from(["a", "b", "2", "1/3"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map("({0[0]}){0[1]}({0[2]})".format),
        st.tuples(inner, inner).map("({0[0]})/(1+({0[1]})^2)".format),
        st.tuples(inner, st.sampled_from(["2", "3", "(-1)"])).map("({0[0]})^{0[1]}".format),
        st.tuples(inner, st.sampled_from(["1/2", "2/3", "-1/5"])).map(
            "(({0[0]})^2)^({0[1]})".format
        ),
    ),
    max_leaves=8,
)


@given(TEXTS, FRACTIONS, FRACTIONS, st.sampled_from([40, 100, 200]))
def test_the_bounds_hold_the_value(decimal_value, text, a, b, bits):
    expression, point = parse_expression(text), {"a": a, "b": b}
    try:
        found = value(expression, point, bits)
    except NoValueError:
        return
    with localcontext(prec=120, Emax=10**9, Emin=-(10**9)):
        expected = decimal_value(expression, point)
        low, high = (Decimal(x.numerator) / x.denominator for x in (found.low, found.high))
        slack = abs(expected) * Decimal("1e-90") + Decimal("1e-90")
        assert low - slack <= expected <= high + slack


@given(st.integers(0, 10**60), st.integers(1, 24))
def test_integer_roots(number, degree):
    root = integer_root(number, degree)
    assert root**degree <= number < (root + 1) ** degree
    assert exact_root(Fraction(number**degree, 7**degree), degree) == Fraction(number, 7)
    assert exact_root(Fraction(number**2 + 1), 2) is None or number == 0


def test_a_difference_is_given_where_it_is_a_fraction():
    assert exact_difference(parse_relation("a+b = sqrt(4)"), POINT) == Fraction(3, 2)
    assert exact_difference(parse_relation("a = sqrt(2)"), POINT) is None
    assert exact_difference(parse_relation("a = 1/d"), POINT) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2a >= c/3", ("1", "-2/3")),
        ("sqrt(2) >= 3/2", ("1.414213 to 1.414214", "3/2")),
        ("-sqrt(2) >= -1", ("-1.414214 to -1.414213", "-1")),
        ("sqrt(2)/10^9 >= sqrt(3)/10^9", ("0.000000001414 to 0.000000001415",
                                          "0.000000001732 to 0.000000001733")),
    ],
)  # fmt: skip
def test_sides_are_written_so_that_they_differ(text, expected):
    assert as_text(*compare(parse_relation(text), POINT)[1:]) == expected
