"""Expressions as text: how they are read, and what is refused, with its reason."""

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.expressions import ExpressionError, parse_expression, variables_of

A, B = ("variable", "a"), ("variable", "b")


def number(top, bottom=1):
    return ("number", Fraction(top, bottom))


def minus(expression):
    return ("product", (number(-1), expression))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2ab", ("product", (number(2), A, B))),
        ("1/2ab", ("product", (("quotient", number(1), number(2)), A, B))),
        ("a*b/2", ("quotient", ("product", (A, B)), number(2))),
        ("a-b", ("sum", (A, minus(B)))),
        ("-a^2", minus(("power", A, Fraction(2)))),
        ("ab^2", ("product", (A, ("power", B, Fraction(2))))),
        ("a^(-1/3)", ("power", A, Fraction(-1, 3))),
        ("sqrt(a)b", ("product", (("power", A, Fraction(1, 2)), B))),
        ("√a·b", ("product", (("power", A, Fraction(1, 2)), B))),
        ("sqrt(a)^2", ("power", ("power", A, Fraction(1, 2)), Fraction(2))),
        (" ( a ) ", A),
    ],
)
def test_reads(text, expected):
    assert parse_expression(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a/bc", "write a/\\(bc\\) or"),
        ("a/(b)c", "write a/\\(bc\\) or"),
        ("sqrt ab", "write sqrt\\(ab\\) or"),
        ("sqrt 2a", "write sqrt\\(ab\\) or"),
        ("sqrt a^2", "write sqrt\\(ab\\) or"),
        ("9^9^9", "a power of a power"),
        ("a^b", "an exponent must be a number"),
        ("a^(1/0)", "an exponent must be a number"),
        ("a^25", "an exponent above 24"),
        ("a2", "write the number first"),
        ("a+", "missing at the end"),
        ("a)", "is not expected in 'a"),
        ("(a", "not closed"),
        ("", "missing at the end"),
        ("a$b", "no part of an expression"),
        ("\u0663a", "no part of an expression"),
        ("1" * 13, "a number of 13 digits"),
        ("a" * 2001, "2001 characters"),
        ("a" + "/b" * 61, "61 divisions"),
        ("(" * 30 + "a" + ")" * 30, "more than 24 parentheses"),
    ],
)
def test_refuses(text, reason):
    with pytest.raises(ExpressionError, match=reason):
        parse_expression(text)


def test_variables():
    assert variables_of(parse_expression("2a^2/(x+1)-sqrt(b)")) == {"a", "b", "x"}


@given(st.text("ab12+-*/^() sqrt", max_size=60) | st.text(max_size=60))
def test_no_text_raises_anything_else(text):
    with suppress(ExpressionError):
        parse_expression(text)
