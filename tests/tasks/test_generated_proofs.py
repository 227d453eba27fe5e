"""What a generator is asked, what its replies hold, and the seeds that pass the truth check."""

from fractions import Fraction

import pytest

from nblib.sources.inequalities import inequalities
from nblib.tasks.exact_values import compare
from nblib.tasks.expressions import expression_text, parse_expression
from nblib.tasks.generated_proofs import LANGUAGE, TEXT, Seed, question, read_reply, read_seeds
from nblib.tasks.lean_statements import parse_lean_statement
from nblib.tasks.statements import Relation, parse_statement, statement_text

SEED = Seed(name="s", statement="a^2+b^2 >= 2ab for real a, b")
BLOCK = "<proof>\nSquare a-b: a^2+b^2 >= 2ab\n</proof>"
LINE = "Square a-b: a^2+b^2 >= 2ab"


@pytest.mark.parametrize(
    "text",
    [
        *("a^2+b^2", "2ab", "(a+b)^2/4-ab", "a/(b+c)", "-a+b", "-(a+b)", "a-(b-c)", "(a/b)c"),
        *("(a+b)(c+a)*2", "sqrt(a+b)c", "a^(1/3)", "a^(-1)", "(a^2)^3", "1/2ab", "(2/3)^2", "-2^2"),
        *("1/(a/b)", "a/b/c", "(-1)^3a", "sqrt(sqrt(a))", "(-(a+b))^2", "-(-a)", "3*4", "a^2*3"),
    ],
)
def test_the_text_of_an_expression_is_read_as_the_same_one(text):
    written = expression_text(parse_expression(text))
    assert expression_text(parse_expression(written)) == written
    at = {"a": Fraction(4096), "b": Fraction(528), "c": Fraction(5, 7)}  # whose roots are whole
    same = Relation(parse_expression(text), ">=", parse_expression(written))
    sign, *_ = compare(same, at)
    assert sign == 0


def test_statements_of_all_kinds_are_written_as_they_are_read():
    for row in inequalities(50, seed=0, split="train"):
        text = row.fields["statement"]
        assert parse_statement(statement_text(parse_statement(text))) == parse_statement(text)
    lean = parse_lean_statement("{a b c : ℝ} (ha : a > 0) (hb : b ≥ 0) (h : a + b = 2) : a ≤ c + 2")
    assert statement_text(lean) == "c+2 >= a for a > 0, b >= 0, real c with a+b = 2"


def test_seeds_are_read_in_both_syntaxes_and_false_ones_are_named_with_a_point():
    records = [
        {"name": "own", "statement": "a^2+b^2 >= 2ab for a, b > 0"},
        {"name": "lean", "lean": "{x : ℝ} (h : 0 < x) : x + 1 / x ≥ 2"},
        {"name": "false", "statement": "a^2+b^2 >= 3ab for a, b > 0"},
        {"name": "none", "statement": "a^2 >= "},
        {"proof": "?"},
    ]
    seeds, refused = read_seeds(records)
    assert [one.statement for one in seeds] == [
        "a^2+b^2 >= 2ab for a, b > 0",
        "x+1/x >= 2 for x > 0",
    ]
    assert refused["false"].startswith("false at a = ")
    assert "domain" in refused["none"] and 'expected "statement" or "lean"' in refused["seed 5"]


@pytest.mark.parametrize("form", [LANGUAGE, TEXT])
@pytest.mark.parametrize("invent", [False, True])
def test_a_question_shows_its_examples_then_the_seed(form, invent):
    asked = question(SEED, [("1 >= 0 for real a", "Given: 1 >= 0")], form=form, invent=invent)
    assert asked.index("Given: 1 >= 0") < asked.index(SEED.statement)
    assert ("Write another one" in asked) == invent
    assert ("Titu" in asked.partition("Statement")[0]) == (form == LANGUAGE)


@pytest.mark.parametrize(
    ("text", "invent", "statement", "proof", "failure"),
    [
        (BLOCK, False, SEED.statement, LINE, ""),
        (f"Here it is:\n{BLOCK}\nDone.", False, SEED.statement, LINE, ""),
        (f"<think>so <proof>\n</think>{BLOCK}", False, SEED.statement, LINE, ""),
        (f"<think>so {BLOCK}", False, SEED.statement, "", "unfinished thought"),
        ("Square a-b", False, SEED.statement, "", "no proof block"),
        (BLOCK + BLOCK, False, SEED.statement, "", "several blocks"),
        ("<proof>\n\n</proof>", False, SEED.statement, "", "empty proof"),
        (f"**Statement:** `b^2 >= 0 for real b`\n{BLOCK}", True, "b^2 >= 0 for real b", LINE, ""),
        (BLOCK, True, "", "", "no statement"),
        (f"{BLOCK}\nStatement: late", True, "", "", "no statement"),
    ],
)
def test_replies(text, invent, statement, proof, failure):
    found = read_reply(text, SEED, invent=invent)
    assert (found.statement, found.proof, found.failure) == (statement, proof, failure)
