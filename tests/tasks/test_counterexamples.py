"""What is found false is confirmed with `decimal`, at 60 digits: another arithmetic."""

import json
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.tasks.counterexamples import (
    FALSE,
    NOT_FOUND,
    NOT_READ,
    find_counterexample,
    is_counterexample,
    truth_of,
)
from nblib.tasks.expressions import ExpressionError
from nblib.tasks.lean_statements import parse_lean_statement
from nblib.tasks.statements import Relation, parse_statement

# Its two sides are exchanged by mistake; as it stands, a = 1, b = 1, c = 1/2 is a counterexample.
FALSE_AS_PUBLISHED = "567_P1/P1"
# a+b+c = sqrt(5) has no rational solution, and only rational points are confirmed.
IRRATIONAL = "567_P1/P10"


@pytest.fixture(scope="session")
def confirmed(decimal_value):
    """Whether the hypotheses hold at a point to 50 digits and the claim clearly does not."""

    def near(one, point):
        left, right = (decimal_value(side, point) for side in (one.left, one.right))
        difference, close = left - right, Decimal("1e-50") * (1 + abs(left) + abs(right))
        return {
            "=": abs(difference) <= close,
            "!=": abs(difference) > close,
            ">=": difference >= -close,
            ">": difference > close,
        }

    def check(statement, point):
        inside = {">": lambda x: x > 0, ">=": lambda x: x >= 0, "real": lambda x: True}
        domain = (inside[kind](point[name]) for name, kind in statement.variables.items())
        with localcontext(prec=70):
            given = [near(one, point)[one.sign] for one in statement.hypotheses]
            return all(domain) and all(given) and not near(statement.claim, point)[">="]

    return check


TRUE = [
    "a^2+b^2 >= 2ab for a, b > 0",
    "a^2+b^2 >= 2ab for real a, b",
    "a+b+c >= 3 for a, b, c > 0 with abc = 1",
    "(a+b)^2 >= a^2+2ab+b^2 for real a, b",  # an identity
    "sqrt(2)*sqrt(3)*a >= sqrt(6)*a for a > 0",
    "sqrt(a)+sqrt(b) >= sqrt(a+b) for a, b >= 0",
    "(a+b)/2 >= (a*b)^(1/2) for a, b > 0",
    "a/b+b/a > 2 for a, b > 0 with a != b",
    "a^2+b^2+c^2 >= 6 for a, b, c > 0 with a+b+c = 4, ab+bc+ca = 5",
    "abc >= 50/27 for a, b, c > 0 with a+b+c = 4, ab+bc+ca = 5",
    "a+b+c+d >= 4 for a, b, c, d > 0 with ab = 1, cd = 1",
    "a+b >= c for a, b, c > 0 with a >= b, b >= c",
    "sqrt(a-1) >= 0 for a > 0",  # no value is no counterexample
    "1/(a-a) >= 0 for real a",
    "((((a^24)^24)^24)^24)^24 >= 0 for real a",
    "a >= 1 for a > 0 with a+1 = 0",  # nothing to be searched
]


@pytest.mark.parametrize("text", TRUE)
def test_nothing_is_said_against_what_is_true(text):
    found = truth_of(text)
    assert (found.verdict, found.point, found.left, found.right) == (NOT_FOUND, None, None, None)
    assert found.reason


WRONG = [
    "a^2+b^2 >= 3ab for a, b > 0",
    "a+b >= 2 for real a, b with ab = 1",
    "sqrt(a^2+b^2) >= a+b for a, b >= 0",
    "abc >= 1 for a, b, c > 0 with a+b+c = 3",
    "a+b+c <= 2 for a, b, c >= 0 with a+b+c+abc = 4",
    "abc >= 15/8 for a, b, c > 0 with a+b+c = 4, ab+bc+ca = 5",
    "a^2+b^2+c^2 >= 8 for a, b, c > 0 with a+b+c = 4, ab+bc+ca = 5",
    "a+b+c+d >= 5 for a, b, c, d > 0 with ab = 1, cd = 1",
    "a+b+c >= 2 for a, b, c > 0 with a^2+b^2+c^2 = 1",
    "a/b >= 1 for real a, b with a^2 = b^2",
    "b+c >= 2a for a, b, c > 0 with a >= b, b >= c",
    "a >= 1000000 for a > 0",
    "a+b >= 1/1000000 for a, b >= 0",
    "a^2+1/10^9 >= 2a-1+2/10^9 for a > 0",
    "1 >= 2 for a > 0",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_counterexample_is_found_to_what_is_false(text, confirmed):
    found, statement = truth_of(text), parse_statement(text)
    assert found.verdict == FALSE
    assert confirmed(statement, found.point)
    assert find_counterexample(statement) == found  # the same each time


def test_a_point_can_be_checked_by_hand():
    found = truth_of("{a b : ℝ} (ha : a > 0) (hb : b > 0) : 3 * a * b ≤ a ^ 2 + b ^ 2", lean=True)
    assert (found.point, found.left, found.right) == ({"a": 1, "b": 1}, "2", "3")
    strict = truth_of("a^2+b^2 > 2ab for a, b > 0")
    assert (strict.verdict, strict.left, strict.right) == (FALSE, "2", "2")


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("1 2 0", True),
        ("1 1 1", False),  # equality
        ("2 2 -1", False),  # not in the domain
        ("1 1 0", False),  # a hypothesis does not hold
        ("0 1/2 5/2", True),
    ],
)
def test_a_counterexample_meets_all_hypotheses(point, expected):
    statement = parse_statement("abc >= 1 for a, b, c >= 0 with a+b+c = 3")
    at = dict(zip("abc", map(Fraction, point.split()), strict=True))
    assert is_counterexample(statement, at) is expected


def test_what_cannot_be_confirmed_or_read_says_so():
    found = truth_of("a*b >= 1 for a, b > 0 with a+b = sqrt(5)")
    assert found.verdict == NOT_FOUND
    assert "could be confirmed exactly" in found.reason
    assert truth_of("a^a >= 1 for a > 0").verdict == NOT_READ
    assert "no domain" in truth_of("a >= 1").reason


TOKENS = [
    *"aab120^()+-*/= ",
    "sqrt",
    ">=",
    "<",
    " for a > 0",
    ", real b",
    " with ",
    "a = ",
    "^(1/2)",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_no_text_is_an_error(text):
    for one in (text, f"a+b >= {text} for a > 0, real b", f"a >= b for a, b >= 0 with {text}"):
        found = truth_of(one)
        assert (found.verdict == FALSE) == (found.point is not None)


@pytest.fixture(scope="module")
def statements(published_inequalities):
    found = {}
    for line in published_inequalities.read_text().splitlines():
        record = json.loads(line)
        try:
            found[record["name"]] = parse_lean_statement(record["lean"])
        except ExpressionError:
            continue
    return found


@pytest.fixture(scope="module")
def refuted(confirmed):
    """Names what is found false of statements, each confirmed."""

    def find(statements):
        verdicts = {name: find_counterexample(one) for name, one in statements.items()}
        points = {name: one.point for name, one in verdicts.items() if one.verdict == FALSE}
        assert [n for n, point in points.items() if not confirmed(statements[n], point)] == []
        return points.keys()

    return find


def test_one_published_statement_is_false_and_there_is_no_false_alarm(statements, refuted):
    assert refuted(statements) == {FALSE_AS_PUBLISHED}


def test_all_flipped_statements_are_caught(statements, refuted):
    flipped = {
        name: replace(one, claim=Relation(one.claim.right, one.claim.sign, one.claim.left))
        for name, one in statements.items()
    }
    assert flipped.keys() - refuted(flipped) == {FALSE_AS_PUBLISHED, IRRATIONAL}


def test_tightened_statements_are_caught_where_the_sides_can_be_equal(statements, refuted):
    larger = ("number", Fraction(21, 20))
    tightened = {
        name: replace(
            one, claim=Relation(one.claim.left, ">=", ("product", (larger, one.claim.right)))
        )
        for name, one in statements.items()
    }
    # One side is 0 (P2), or there is a gap of 7 % or more: these stay true.
    gaps = "567_P1/P2 567_P1/P9 567_P1/P12 567_P1/P13 567_P2/P44 567_P2/P50 567_P2/P57 567_P3/P65"
    gaps += " 567_P3/P73 567_P3/P81 Evan_chen/P18 Evan_chen/P38"
    assert tightened.keys() - refuted(tightened) == {*gaps.split(), IRRATIONAL}
