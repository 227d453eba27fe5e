"""Built-in inequalities: true, proven, and apart between the splits."""

import math
import random
import re
from collections import Counter
from fractions import Fraction
from itertools import permutations

import pytest

from nblib.sources.inequalities import _made as made
from nblib.sources.inequalities import _written as written
from nblib.sources.inequalities import inequalities
from nblib.sources.inequality_families import FAMILIES
from nblib.sources.inequality_parts import drawn_numbers
from nblib.sources.inequality_parts import normal as own_key
from nblib.tasks.normal_form import statement_key, template_key
from nblib.tasks.proof_check import check_proof
from nblib.tasks.statements import REAL, parse_statement
from tests.tasks.right_proofs import value

MANY = inequalities(4000, seed=0, split="train")
TRAIN = MANY[:1500]
TEST = inequalities(400, seed=0, split="test")
COMPOSED = inequalities(200, seed=0, split="composed")
ALL = (*TRAIN, *TEST, *COMPOSED)


def drawn_point(statement, rng):
    point = {letter: Fraction(rng.randint(1, 60), rng.randint(1, 20))
             for letter in statement.variables}  # fmt: skip
    for letter, sign in statement.variables.items():
        point[letter] *= rng.choice([1, -1]) if sign == REAL else 1
    for given in statement.hypotheses:  # of one degree: all letters are scaled
        twice = {letter: 2 * one for letter, one in point.items()}
        degree = round(math.log2(value(given.left, twice) / value(given.left, point)))
        scale = float(value(given.right, {}) / value(given.left, point)) ** (1 / degree)
        point = {letter: scale * float(one) for letter, one in point.items()}
    return point


def test_every_statement_is_true_at_points_drawn_by_chance():
    rng = random.Random(0)
    for row in ALL:
        statement = parse_statement(row.fields["statement"])
        for _ in range(6):
            point = drawn_point(statement, rng)
            claim = statement.claim
            worth = value(claim.left, point), value(claim.right, point)
            slack = 1e-9 * abs(worth[1]) if statement.hypotheses else 0  # else all is exact
            assert worth[0] >= worth[1] - slack, (row.fields["statement"], point)


def normal(statement):
    """A statement without its numbers, in the letters a, b, c."""
    claim, _, domain = statement.partition(" for ")
    text = re.sub(r"(?<![\^\d])\d+", "", f"{claim} >= {domain.partition(' with ')[2]}")
    letters = sorted({*re.findall(r"[a-z]", text)})
    renamed = [text.translate(str.maketrans("".join(letters), "".join(order)))
               for order in permutations("abcd"[: len(letters)])]  # fmt: skip
    return min(" >= ".join("+".join(sorted(map(in_order, side.split("+"))))
                           for side in one.split(" >= ")) for one in renamed)  # fmt: skip


def in_order(term):
    """A monomial with its letters in order; what is no monomial stays."""
    powers = re.findall(r"[a-z](?:\^\d+)?", term)
    return "".join(sorted(powers)) if "".join(powers) == term else term


def test_no_template_is_in_train_and_test():
    learnt = {normal(row.fields["statement"]) for row in inequalities(3000, seed=3, split="train")}
    shared = [row for row in TEST if normal(row.fields["statement"]) in learnt]
    assert not shared, [(row.fields["statement"], row.group) for row in shared[:5]]


def test_every_technique_is_in_train_and_test_and_held_out_compositions_in_neither():
    every = (TRAIN, TEST, COMPOSED)
    learnt, asked, composed = (Counter(row.group for row in rows) for rows in every)
    assert learnt.keys() == asked.keys() >= FAMILIES.keys()
    assert min(learnt.values()) > 20 and min(asked.values()) > 10
    assert len(composed) == 6 and not composed.keys() & learnt.keys()


def test_no_training_row_puts_two_techniques_together_as_a_held_out_composition_does():
    def parts(group):
        step, _, names = group.partition(": ")
        named = names.split(" + ")
        return frozenset(named if len(named) > 1 else (step, *named))

    learnt = {parts(row.group) for row in MANY if ": " in row.group}
    assert len(learnt) > 8 and not learnt & {parts(row.group) for row in COMPOSED}


def test_no_two_rows_of_any_split_say_the_same():
    rows = (*MANY, *TEST, *COMPOSED)
    statements = [parse_statement(row.fields["statement"]) for row in rows]
    keys = {statement_key(one): row for one, row in zip(statements, rows, strict=True)}
    assert len(keys) == len(rows) and len({row.fields["statement"] for row in MANY}) == len(MANY)
    assert not any(key.startswith("0 ") for key in keys)  # an identity


def test_the_generators_own_key_tells_apart_what_the_normal_form_does():
    rng, seen = random.Random(5), {}
    for technique in (*FAMILIES, "Sum: AM-GM + Titu", "Times: fractions"):
        for _ in range(60):
            draw, known = made(technique, rng, drawn_numbers(rng))
            key = statement_key(parse_statement(written(draw, known)))
            assert seen.setdefault(own_key(known, numbers=True), key) == key, known
    assert len({*seen.values()}) == len(seen) < 800  # of 900 that were drawn


def test_no_template_of_the_normal_form_is_in_two_splits():
    splits = [TRAIN, TEST, COMPOSED]
    templates = [{template_key(parse_statement(row.fields["statement"])) for row in rows}
                 for rows in splits]  # fmt: skip
    assert sum(map(len, templates)) == len(set().union(*templates))


def test_rows_are_different_repeatable_and_of_their_seed():
    assert len({row.fields["statement"] for row in ALL}) == len(ALL)
    assert inequalities(40, seed=0, split="train") == TRAIN[:40]
    assert inequalities(40, seed=1, split="train") != TRAIN[:40]
    assert inequalities(40, seed=1, split="test") == TEST[:40]
    row = TEST[0]
    assert row.id == "inequalities/test/0" and row.group == row.fields["technique"]
    assert row.fields["steps"] == len(row.fields["proof"].splitlines())


def test_the_last_step_says_the_statement():
    for row in ALL:
        last = row.fields["proof"].splitlines()[-1]
        assert last.partition(": ")[2] == row.fields["statement"].partition(" for ")[0]


def test_the_checker_verifies_every_proof():
    for row in (*MANY, *TEST, *COMPOSED):
        verdict = check_proof(row.fields["statement"], row.fields["proof"])
        assert verdict.verified, (row.fields, verdict.reason)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split is 'dev', expected one of train, test, composed"):
        inequalities(1, seed=0, split="dev")
