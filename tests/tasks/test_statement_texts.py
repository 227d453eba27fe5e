"""Statements as people write them are read; what is none stays a text."""

import pytest

from nblib.tasks.statement_texts import claim_of, read_statement
from nblib.tasks.statements import parse_statement, statement_text

SQUARE = "a^2+b^2 >= 2ab for real a, b"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a^2+b^2 >= 2ab for real a, b", SQUARE),
        ("Prove: a^2+b^2 >= 2ab for all real numbers a, b.", SQUARE),
        (r"Show that \(a^{2}+b^{2} \geq 2 a \cdot b\) for any reals a, b", SQUARE),
        (r"$\frac{a^2+b^2}{2} \ge ab$ for real a, b", "(a^2+b^2)/2 >= ab for real a, b"),
        (r"\frac{a}{b}+\dfrac{b}{a} \geqslant 2 for all positive reals a, b",
         "a/b+b/a >= 2 for a, b > 0"),
        (r"\left(a+1\right)^{2} \ge 4a for positive a", "(a+1)^2 >= 4a for a > 0"),
        (r"$\sqrt{ab} \le \frac{a+b}{2}$ for all real numbers a, b > 0",
         "(a+b)/2 >= sqrt(ab) for a, b > 0"),
        ("{a b : ℝ} (ha : a > 0) (hb : 0 < b) : 2 ≤ a / b + b / a", "a/b+b/a >= 2 for a, b > 0"),
        (r"a^{2}+1 \ge 2a for all real a, with a >= 1", "a^2+1 >= 2a for real a with a >= 1"),
        ("a^2+b^2 for real a, b", None),
        ("Let a, b be real. Then a^2+b^2 >= 2ab.", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_statement_by_hand_or_in_latex(text, same):
    found = read_statement(text)
    assert (found and statement_text(found)) == (same and statement_text(parse_statement(same)))


def test_a_claim_leaves_domain_and_inequalities_behind_and_keeps_equalities():
    one = parse_statement("a+b >= 2 for a > 0, b >= 0 with ab = 1, a >= b")
    assert statement_text(claim_of(one)) == "a+b >= 2 for real a, b with ab = 1"
