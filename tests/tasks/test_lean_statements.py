import json

import pytest

from nblib.tasks.expressions import ExpressionError
from nblib.tasks.lean_statements import parse_lean_statement
from nblib.tasks.statements import Statement, parse_relation, parse_statement

# Lean's text -> the same in our own syntax.
SAME = {
    # what is known of a variable, in any order and form
    "{a b : ℝ} (ha : a > 0) (hb : 0 ≤ b) : a ≥ b": "a >= b for a > 0, b >= 0",
    "{a : ℝ} (h : a ≥ 0) (h : a > 0) (h : 0 ≤ a) : a ≥ 1": "a >= 1 for a > 0",
    "{a b : ℝ} : a ≤ b": "b >= a for real a, b",
    "{a b : ℝ} (h : a >= 0) : a <= b": "b >= a for a >= 0, real b",
    "(a : ℝ) (b : Real) (h₁ : 0 < a ∧ (b > 0 ∧ a ≥ b)) : a > b": "a > b for a, b > 0 with a >= b",
    "theorem amgm {a b : ℝ} (h' : a > 0) : a ≥ b := by\n  sorry": "a >= b for a > 0, real b",
    "example {a : ℝ} : a ^ 2 ≥ 0": "a^2 >= 0 for real a",
    # hypotheses: equalities, orders, those of numbers alone
    "{a b c : ℝ} (h : a*b*c=1) (h : a ≠ b) : a ≥ b": "a >= b for real a, b, c with abc = 1, a != b",
    "{a b : ℝ} (h_ : a - b ≥ 0) (h : a * b < 1) : a ≥ 0": "a >= 0 for real a, b with a-b>=0, 1>ab",
    "{a : ℝ} (h : 2 * sqrt 3 - 1 > 0) : a ≥ 0": "a >= 0 for real a with 2sqrt(3)-1 > 0",
    # precedence
    "{a b c : ℝ} : a / b * c ≥ 0": "(a/b)*c >= 0 for real a, b, c",
    "{a b : ℝ} : -a ^ 2 * b ≥ 0": "-(a^2*b) >= 0 for real a, b",
    "{a b : ℝ} : a * -b ^ 2 ≥ a - -b": "a*(-1)*b^2 >= a-(-1)*b for real a, b",
    "{a b : ℝ} : a / -b ≥ 0": "(a/(-1))/b >= 0 for real a, b",
    "{a b c : ℝ} : (5 * c ^ 2 + a * b)^2 / 3 ≥ 0": "(5c^2+ab)^2/3 >= 0 for real a, b, c",
    "{a b : ℝ} : (a ≥ b)": "a >= b for real a, b",
    # roots
    "{a b : ℝ} : sqrt a * b ≥ sqrt (a + b)": "sqrt(a)*b >= sqrt(a+b) for real a, b",
    "{a : ℝ} : Real.sqrt a ^ 3 ≥ √a / 2": "sqrt(a)^3 >= sqrt(a)/2 for real a",
    "{a : ℝ} : sqrt(a) / sqrt 2 ≥ 0": "sqrt(a)/sqrt(2) >= 0 for real a",
    "{a : ℝ} : (a ^ 2) ^ (1 / 3) ≥ a ^ ((2 : ℝ) / 3)": "(a^2)^(1/3) >= a^(2/3) for real a",
}


@pytest.mark.parametrize("text", SAME)
def test_lean_is_read_as_our_own_syntax(text):
    found, expected = parse_lean_statement(text), parse_statement(SAME[text])
    assert found == expected
    assert list(found.variables) == list(expected.variables)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{a : ℝ} : a ^ a ≥ 1", "an exponent must be a number"),
        ("{a b : ℝ} : a b ≥ 1", "'b' behind 'a' without an operator"),
        ("{a b : ℝ} : a (b) ≥ 1", "'.' behind 'a' without"),
        ("{a : ℝ} : 2a ≥ 1", "'a' behind '2' without"),
        ("{a b : ℝ} : ab ≥ 1", "'ab': variables are single letters"),
        ("{a : ℝ} : sqrt a a ≥ 1", "'a' behind 'a' without"),
        ("{a : ℝ} : sqrt - a ≥ 1", "'-' behind sqrt"),
        ("{a : ℝ} : |a| ≥ 1", "no part of an expression"),
        ("{a : ℝ} : exp a ≥ sqrt3", "'exp': variables are single"),
        ("{a : ℝ} : a = 1", "the claim is no inequality"),
        ("{a : ℝ} : a ≥ 1 ∧ a ≥ 2", "2 claims"),
        ("{a : ℝ} : 0 ≤ a ≤ 1", "several signs"),
        ("{a : ℝ} : b ≥ 1", "variable b is not in the domain"),
        ("{a : ℝ} (h : b > 0) : a ≥ 1", "variable b is not in the domain"),
        ("{x₁ : ℝ} : 1 ≥ 1", "expected a single letter"),
        ("{a a : ℝ} : a ≥ 1", "bound twice"),
        ("{a : Nat} : a ≥ 1", "a : Nat: expected variables in ℝ"),
        ("{a : ℝ} (h) : a ≥ 1", "says nothing"),
        ("{a : ℝ a ≥ 1", "not closed"),
        ("{a : ℝ} a ≥ 1", "behind the hypotheses"),
        ("{a : ℝ} :", "no sign"),
        ("", "behind the hypotheses"),
        ("∀ a : ℝ, a ≥ 1", "behind the hypotheses"),
        ("{a : ℝ} : " + "(" * 3000 + "a", "not closed"),
        ("{a : ℝ} : a ≥ 1" + " " * 4000, "characters: expected at most"),
    ],
)
def test_what_is_not_read_says_why(text, problem):
    with pytest.raises(ExpressionError, match=problem):
        parse_lean_statement(text)


def test_brackets_within_brackets_are_refused_and_not_a_crash():
    texts = ("(" * 1900 + "a" + ")" * 1900 + " ≥ 1", "a ≥ 1 ∧ " * 400 + "a ≥ 1")
    for text in (*texts, "(a ≥ 1 ∧" * 300 + "a ≥ 1" + ")" * 300, "(" * 99 + "a ≥ 1" + ")" * 99):
        with pytest.raises(ExpressionError):
            parse_lean_statement("{a : ℝ} : " + text)


def test_152_of_the_154_published_statements_are_read(published_inequalities):
    refused, read = {}, {}
    for line in published_inequalities.read_text().splitlines():
        record = json.loads(line)
        try:
            read[record["name"]] = parse_lean_statement(record["lean"])
        except ExpressionError as error:
            refused[record["name"]] = str(error)
    assert len(read) == 152
    assert {name: "exponent" in text for name, text in refused.items()} == {
        "Evan_chen/P42": True,
        "INT_MO/P20": True,
    }
    assert read["567_P2/P56"] == Statement(
        claim=parse_relation("abc+ab+bc+ca >= 4".replace("abc", "a*b*c")),
        variables=dict.fromkeys("abc", ">"),
        hypotheses=(parse_relation("a+b+c = 1/a+1/b+1/c"),),
    )
    assert read["567_P3/P76"].variables == {"a": "real", "b": "real", "c": "real", "d": ">="}
    assert [one.sign for one in read["567_P3/P76"].hypotheses] == [">=", ">=", ">=", "="]
