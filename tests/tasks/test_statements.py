"""Statements as text: sides, domain, hypotheses, and what is refused."""

import pytest

from nblib.tasks.expressions import ExpressionError, parse_expression
from nblib.tasks.statements import NONNEGATIVE, POSITIVE, REAL, parse_statement


def test_reads_sides_domain_and_hypotheses():
    found = parse_statement("2ab <= a^2+b^2 for a > 0, b >= 0, real x, y with a+b = 1, x < 2.")
    assert found.claim.left == parse_expression("a^2+b^2") and found.claim.sign == ">="
    assert found.claim.right == parse_expression("2ab")
    assert [*found.variables.items()] == [
        *[("a", POSITIVE), ("b", NONNEGATIVE), ("x", REAL), ("y", REAL)]
    ]
    assert [one.sign for one in found.hypotheses] == ["=", ">"]
    assert found.hypotheses[1].left == parse_expression("2")  # turned round


def test_the_prompt_itself_is_read_too():
    assert parse_statement("Prove: a ≥ 0 for a ≥ 0") == parse_statement("a >= 0 for a >= 0")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a >= 0", "no domain"),
        ("a = 0 for a > 0", "no inequality"),
        ("a for a > 0", "no sign"),
        ("a >= b >= c for a, b, c > 0", "several signs"),
        ("a >= b for a > 0", "variable b is not in the domain a"),
        ("a >= 0 for a, a > 0", "variable a is in the domain twice"),
        ("a >= 0 for a > 0, real a", "variable a is in the domain twice"),
        ("a >= 0 for a > 0 and b > 0", "expected `with`, or the end"),
        ("a >= 0 for a > 1", "behind the domain|no domain"),
        ("a >= 0 for a, b, c, d, e, f, g > 0", "7 variables"),
        ("a >= 0 for a > 0 with " + ", ".join(["a = 1"] * 9), "9 hypotheses"),
        ("a" * 4001, "4001 characters"),
    ],
)
def test_refuses(text, reason):
    with pytest.raises(ExpressionError, match=reason):
        parse_statement(text)
