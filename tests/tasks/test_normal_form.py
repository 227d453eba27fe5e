"""Statements that say the same have one key, and others have another."""

import json
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.sources.inequalities import inequalities
from nblib.tasks.expressions import expression_text
from nblib.tasks.lean_statements import parse_lean_statement
from nblib.tasks.normal_form import statement_key, template_key
from nblib.tasks.statements import POSITIVE, REAL, Relation, parse_statement, statement_text

BUILT_IN = [row.fields["statement"] for row in inequalities(480, seed=0, split="test")]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def key(text):
    return statement_key(parse_statement(text))


def template(text):
    return template_key(parse_statement(text))


SAME = [
    ("a^2+b^2 >= 2ab for a, b > 0", "2x*y <= y^2+x^2 for y > 0, x > 0"),
    ("a^2+b^2 >= 2ab for a, b > 0", "3a^2/2+3b^2/2 >= 3ab for a, b, c > 0"),
    ("a^2+b^2 >= 2ab for a, b > 0", "a/b+b/a >= 2 for a, b > 0"),
    ("a^2+b^2 >= 2ab for real a, b", "a^2 >= 2ab-b^2 for real a, b"),
    ("a/(b+c)+b/(a+c) >= 1 for a, b, c > 0", "a(a+c)+b(b+c) >= (b+c)(a+c) for a, b, c > 0"),
    ("a/(b+c) >= 1/(c+b)+a for a, b, c > 0", "a >= 1+ab+ac for a, b, c > 0"),
    ("a+b >= 1 for a, b > 0", "a+b-1/(a+2b) >= 1-1/(a+2b) for a, b > 0"),
    ("a >= 1/(b-c) for real a, b, c", "z >= -1/(x-y) for real x, y, z"),
    ("a >= b for a, b > 0 with ab = 1, a > 2", "x >= y for y, x > 0 with 2x > 4, 3 = 3xy"),
    ("a >= b for a, b > 0 with ab >= 0", "a >= b for a, b > 0"),
    ("a+b >= 2sqrt(ab) for a, b > 0", "2*b^(1/2)a^(1/2) <= b+a for a, b > 0"),
    ("sqrt(a+1)+a/sqrt(b) >= 2 for a, b > 0", "2-y/sqrt(x) <= sqrt(1+y) for x, y > 0"),
    ("(a+sqrt(b))/2 >= 1 for a, b > 0", "a >= 2-sqrt(b) for a, b > 0"),
]


@pytest.mark.parametrize("one, other", SAME)
def test_the_same_in_other_words_has_the_same_key(one, other):
    assert key(one) == key(other)
    assert template(one) == template(other)


OTHERS = [
    ("a^2+b^2 >= 2ab for a, b > 0", "a^2+b^2 >= 2ab for real a, b"),
    ("a^2+b^2 >= 2ab for a, b > 0", "a^2+b^2 > 2ab for a, b > 0"),
    ("a^2+b^2 >= 2ab for a, b > 0", "2ab >= a^2+b^2 for a, b > 0"),
    ("a >= b for a > 0, b >= 0", "a >= b for a >= 0, b > 0"),
    ("a >= b for a, b > 0 with a = 1", "a >= b for a, b > 0 with b = 1"),
    ("a >= b for a, b > 0 with ab >= 1", "a >= b for a, b > 0 with ab <= 1"),
    ("a >= 1/b for real a, b", "ab >= 1 for real a, b"),
    ("a^3 >= a for real a", "a^2 >= 1 for real a"),
    ("a^2b+b^2c >= ca for a, b, c > 0", "a^2b+b^2a >= ca for a, b, c > 0"),
    ("sqrt(a+b) >= 1 for a, b > 0", "sqrt(a)+sqrt(b) >= 1 for a, b > 0"),
    ("sqrt(a^2) >= a for real a", "a >= a for real a"),
]


@pytest.mark.parametrize("one, other", OTHERS)
def test_what_says_something_else_has_another_key(one, other):
    assert key(one) != key(other)


def test_a_template_has_no_numbers():
    assert template("4a^2+9b^2 >= 12ab for a, b > 0") == template("a^2+b^2 >= 2ab for a, b > 0")
    assert template("a^2+b^2 >= 2ab for a, b > 0") != template("a^4+b^4 >= 2ab for a, b > 0")
    assert template("a >= 1 for a > 0 with a = 2") == template("a >= 5 for a > 0 with 3a = 4")


def mixed(expression, draw):
    """The same expression, terms and factors in another order."""
    kind, *parts = expression
    if kind in ("sum", "product"):
        return kind, tuple(mixed(one, draw) for one in draw(st.permutations(parts[0])))
    return kind, *(mixed(one, draw) if isinstance(one, tuple) else one for one in parts)


def renamed(expression, names):
    if expression[0] == "variable":
        return "variable", names[expression[1]]
    return tuple(renamed(one, names) if isinstance(one, tuple) else one for one in expression)


def moved(relation, draw):
    """A relation with a term of it, or any other, taken from both sides."""
    sides = [relation.left, relation.right]
    terms = [one for side in sides for one in (side[1] if side[0] == "sum" else [side])]
    term = draw(st.sampled_from([*terms, ("number", Fraction(7))]))
    minus = "product", (("number", Fraction(-1)), term)
    return replace(relation, left=("sum", (sides[0], minus)), right=("sum", (sides[1], minus)))


def scaled(relation, draw):
    factor = "number", Fraction(draw(st.integers(1, 30)), draw(st.integers(1, 9)))
    left, right = (("product", (factor, side)) for side in (relation.left, relation.right))
    return replace(relation, left=left, right=right)


def cleared(relation, _):
    """Both sides times all that the statement divides by."""
    found = {}

    def look(expression):
        if expression[0] == "quotient":
            found[expression_text(expression[2])] = expression[2]
        for one in expression:
            if isinstance(one, tuple):
                look(one)

    look((relation.left, relation.right))
    left, right = (("product", (side, *found.values())) for side in (relation.left, relation.right))
    return replace(relation, left=left, right=right)


@st.composite
def copies(draw, statement, *, clear=False):
    """A text that says the same as a statement."""
    letters = [*statement.variables]
    names = dict(zip(letters, draw(st.permutations(LETTERS)), strict=False))
    claim, *hypotheses = (
        Relation(*(renamed(side, names) if isinstance(side, tuple) else side
                   for side in (one.left, one.sign, one.right)))
        for one in (statement.claim, *statement.hypotheses)
    )  # fmt: skip
    changes = [cleared] if clear else []
    for change in changes + draw(st.lists(st.sampled_from([scaled, moved]), max_size=3)):
        claim = change(claim, draw)
    order = [*draw(st.permutations(hypotheses))]
    if order:
        order[0] = draw(st.sampled_from([scaled, moved]))(order[0], draw)
    claim, *order = (
        replace(one, left=mixed(one.left, draw), right=mixed(one.right, draw))
        for one in (claim, *order)
    )
    signs = {names[one]: statement.variables[one] for one in draw(st.permutations(letters))}
    text = statement_text(replace(statement, claim=claim, variables=signs, hypotheses=(*order,)))
    said, _, domain = text.partition(" for ")
    left, sign, right = said.partition(f" {claim.sign} ")
    turned = f"{right} {sign.strip().replace('>', '<')} {left} for {domain}"
    return draw(st.sampled_from([text, turned]))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_planted_copy_of_a_built_in_statement_is_found(data):
    statement = parse_statement(data.draw(st.sampled_from(BUILT_IN)))
    positive = set(statement.variables.values()) == {POSITIVE}
    copy = data.draw(copies(statement, clear=positive and data.draw(st.booleans())))
    assert key(copy) == statement_key(statement), (statement_text(statement), copy)
    assert template(copy) == template_key(statement)


@lru_cache
def published(path):
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(parse_lean_statement(json.loads(line)["lean"]))
        except ValueError:
            continue
    return found


def test_a_planted_copy_of_a_published_statement_is_found(published_inequalities):
    statements = published(published_inequalities)
    assert len(statements) == 152

    @settings(max_examples=400, deadline=None)
    @given(st.sampled_from(statements).flatmap(
        lambda one: st.tuples(st.just(one), copies(one))))  # fmt: skip
    def check(pair):
        statement, copy = pair
        assert key(copy) == statement_key(statement), (statement_text(statement), copy)

    check()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_another_coefficient_is_another_statement(data):
    statement = parse_statement(data.draw(st.sampled_from(BUILT_IN)))
    unit = "variable", data.draw(st.sampled_from([*statement.variables]))
    more = "product", (("number", Fraction(1, data.draw(st.integers(1, 50)))), unit)
    left = "sum", (statement.claim.left, more)
    changed = replace(statement, claim=replace(statement.claim, left=left))
    assert statement_key(changed) != statement_key(statement)


HOSTILE = [
    "((((9^24)^24)^24)^24)^24*a^(1/7) >= 1 for a > 0",
    "*".join(["9^24"] * 150) + "*sqrt(a) >= 1 for a > 0",
    "(a+b+c+d+e+f)^24 >= sqrt(a) for a, b, c, d, e, f > 0",
    "(((a+b)^24+c)^24+d)^24 >= 1/0 for a, b, c, d > 0",
    "0/a+0^0 >= sqrt(0)/sqrt(a-a) for real a",
    "a" + "/(a+sqrt(b))" * 55 + " >= 1 for a, b > 0",
    "sqrt(-4)+sqrt(a-b) >= sqrt(a^2)+(-8)^(1/3) for real a, b",
    "+".join(f"{x}/({y}+{z})" for x, y, z in zip("abcdef", "bcdefa", "cdefab", strict=True))
    + " >= 3 for a, b, c, d, e, f > 0 with "
    + ", ".join("+".join(f"{x}^{n}/({y}+1)" for x, y in zip("abcdef", "bcdefa", strict=True))
                + f" = {n}" for n in range(1, 9)),
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_every_statement_that_is_read_has_a_key(text):
    statement = parse_statement(text)
    assert statement_key(statement) and template_key(statement)


def test_letters_in_turn_are_told_from_letters_in_pairs():
    six = "for real a, b, c, d, e, f"
    ring, pairs = "ab+bc+cd+de+ef+fa", "ab+bc+ca+de+ef+fd"
    assert key(f"{ring} >= 1 {six}") == key(f"ac+ce+eb+bd+df+fa >= 1 {six}")
    assert key(f"{ring} >= 1 {six}") != key(f"{pairs} >= 1 {six}")
    assert REAL in key(f"{pairs} >= 1 {six}")


@settings(max_examples=50, deadline=None)
@given(st.permutations("abcdef"))
def test_letters_that_only_their_neighbours_tell_apart_are_named_in_one_way(names):
    text = "abc+abd+cef+def"  # each letter is in two terms, but c and d are in the middle
    other = text.translate(str.maketrans("abcdef", "".join(names)))
    domain = "for real a, b, c, d, e, f"
    assert key(f"{text} >= 1 {domain}") == key(f"{other} >= 1 {domain}")
