"""Whole proofs: right ones, changed ones, hostile ones, each against an evaluation at points."""

import threading
from collections import Counter

import pytest

from nblib.tasks.proof_check import MAX_CHARACTERS, MAX_LINES, check_proof, check_statement
from nblib.tasks.proof_text import RULES
from nblib.tasks.proofs import FAILURES
from nblib.tasks.statements import parse_statement
from tests.tasks.right_proofs import RIGHT, gap, points

SQUARES = "a^2+b^2 >= 2ab for real a, b"


@pytest.mark.parametrize("one", RIGHT, ids=lambda one: one.statement)
def test_a_right_proof_is_verified_and_all_its_lines_hold(one):
    verdict = check_proof(one.statement, one.proof)
    assert verdict.verified, verdict.reason
    assert (verdict.failure, verdict.line, verdict.claims_statement) == (None, 0, True)
    assert all(step.used for step in verdict.steps)
    for point in points(one.statement, one.follow, 50):
        assert all(gap(step.text.partition(":")[2], point) >= 0 for step in verdict.steps)


def test_the_right_proofs_use_every_rule():
    assert {step.rule for one in RIGHT for step in check_proof(*one[:2]).steps} == set(RULES)


def changes(one):
    """Yield a proof with one digit, variable or sign changed; all ways to change it in turn."""
    letters = [*parse_statement(one.statement).variables]
    for place, mark in enumerate(one.proof):
        if mark.isdigit():
            others = [str((int(mark) + more) % 10) for more in (1, 9)]
        elif mark in letters:
            others = [letter for letter in letters if letter != mark]
        else:
            others = {"+": "-", "-": "+", ">": "<"}.get(mark, "")
        for other in others:
            yield one.proof[:place] + other + one.proof[place + 1 :]


def is_true(one, proof):
    """Whether all lines of a proof hold at points, and its last one is the statement there."""
    claims = [line.partition(":")[2] for line in proof.split("\n")]
    statement = one.statement.partition(" for ")[0]
    return all(
        all(gap(claim, point) >= 0 for claim in claims)
        and gap(claims[-1], point) == gap(statement, point)
        for point in points(one.statement, one.follow, 30)
    )


def test_no_changed_digit_letter_or_sign_is_verified_unless_it_is_still_a_proof():
    found = Counter()
    for one in RIGHT:
        for proof in changes(one):
            verdict = check_proof(one.statement, proof)
            assert not verdict.verified or is_true(one, proof), proof
            found[verdict.failure] += 1
    assert found.total() - found[None] > 1500
    assert found[None] < 20  # so few are proofs by chance
    failing = {f"{rule} fails" for rule in RULES} - {"Given fails"}  # in `test_proof_rules`
    assert failing <= found.keys() <= {None, *FAILURES}


@pytest.mark.parametrize("one", [one for one in RIGHT if "\n" in one.proof], ids=lambda one: one[0])
def test_a_proof_needs_each_of_its_lines(one):
    lines = one.proof.split("\n")
    for place, line in enumerate(lines):
        left = "\n".join(lines[:place] + lines[place + 1 :])
        # So ends with the inequality that it begins with, written in another way.
        assert check_proof(one.statement, left).verified is line.startswith("So ")
    backwards = check_proof(one.statement, "\n".join(reversed(lines)))
    assert not backwards.verified and backwards.failure == "unknown step"


def test_every_line_is_judged_given_what_those_before_it_claim():
    proof = """Square a+b: a^2+b^2 >= 2ab
Square a: a^2 >= 0
Sum 1/2(1)+1/2(1): a^2+b^2 >= 2ab
Nonsense
So (4): a >= b
So (3): a^2+b^2 >= 2ab"""
    verdict = check_proof(SQUARES, proof)
    assert [step.failure for step in verdict.steps] == [
        *["Square fails", None, None, "unreadable line", "unknown step", None]
    ]
    assert [step.number for step in verdict.steps if step.used] == [1, 3, 6]
    assert (verdict.verified, verdict.failure, verdict.line) == (False, "Square fails", 1)
    assert verdict.claims_statement and "not the square" in verdict.reason


@pytest.mark.parametrize(
    ("statement", "proof", "failure"),
    [
        (SQUARES, "Square a: a^2 >= 0", "another conclusion"),
        (SQUARES, "Square a-b: a^2+b^2 >= 2ab\nSquare a: a^2 >= 0", "another conclusion"),
        (SQUARES, "Square 1: a^2+b^2 >= a^2+b^2-1", "another conclusion"),
        (SQUARES, "Square a-b cyclic: a^2+b^2 >= 2ab", "cyclic"),
        (SQUARES, "Square a: a^2+x >= x", "unreadable line"),
        (SQUARES, "AM-GM a^2, b^2: a^2+b^2 >= 2ab", "not by sight"),
        ("1/a >= 0 for a > 0", "Square 0: 1/a >= 1/a", "another conclusion"),
        ("1 >= a for a > 0 with a = 2", "Square 0: 1 >= a", "Square fails"),
        (SQUARES, "", "unreadable line"),
        (SQUARES, "\n" * 50, "unreadable line"),
        (SQUARES, "Square a-b: a^2+b^2 >= 2ab\n\nSo (1): a^2+b^2 >= 2ab", "unreadable line"),
        (SQUARES, "Square a-b: a^2+b^2 >= 2ab\n" * (MAX_LINES + 1), "too long"),
        (SQUARES, "Square a-b: a^2+b^2 >= 2ab" + " " * MAX_CHARACTERS, "too long"),
    ],
)
def test_a_proof_of_something_else_is_none(statement, proof, failure):
    verdict = check_proof(statement, proof)
    assert (verdict.verified, verdict.failure) == (False, failure)


@pytest.mark.parametrize(
    "claim",
    ["(a-b)^2 >= 0", "2ab <= a^2+b^2", "(a^2+b^2)/2 >= ab+a-a", "a^2 >= 2ab-b^2", "a >= a-(a-b)^2"],
)
def test_the_last_line_may_write_the_statement_in_another_way(claim):
    proof = "Square a-b: a^2+b^2 >= 2ab"
    halves = "\nSum 1/2(1): 1/2a^2+1/2b^2 >= ab" if "/2" in claim else ""
    assert check_proof(f"{claim} for real a, b", proof + halves).verified


@pytest.mark.parametrize(
    "statement",
    [
        *["a^2+b^2 > 2ab for a, b > 0", "a+b >= 2sqrt(ab) for a, b > 0", "a = a for a > 0", ""],
        *["a/(a-b) >= 1 for a, b > 0", "1/a >= 0 for a >= 0", "a/0 >= 1 for a > 0", "a >= b"],
        *["a^24a^24a^24a^24a^24 >= 1 for a > 0", f"a{'/a' * 900} >= 1 for a > 0"],
        "a >= 1 for a > 0 with a^(1/2) = 1",
    ],
)
def test_a_statement_that_the_language_cannot_prove_names_itself(statement):
    with pytest.raises(ValueError, match="cannot be proved in this language: ") as error:
        check_proof(statement, "Square a-b: a^2+b^2 >= 2ab")
    assert repr(statement[:30])[:-1] in str(error.value)
    with pytest.raises(ValueError, match="cannot be proved"):
        check_statement(statement)


MANY = "+".join(f"1/(a+{n}b)" for n in range(2, 60))
HOSTILE = {
    "unreadable line": [
        *["__import__('os')", "9^9^9", "(" * 200 + "a" + ")" * 200, "a" * 700 + "z", "\0a", "a=b"],
        *["\u0430-b", "\u0663a", "a\u00b2", "\uff41-b", "\ud800", "9" * 2900, "a" + "/b" * 900],
    ],
    "too large": [
        *["(a+b+ab+1)^24", "ab" * 350, "((((9^24)^24)^24)^24)^24", MANY, "99999999999*" * 30 + "1"],
        *["0*((((1/(a+1))^24)^24)^24)^24", "(a+b+1)^(-24)*(a+2b+1)^24*(a+3b+1)^24"],
    ],
    "denominator": ["a/0", "a/(a-a)", "a/(a-b)", "1/(1/a-1/b)", "(a-b)^(-2)"],
}


@pytest.mark.parametrize(("failure", "text"), [(k, one) for k, v in HOSTILE.items() for one in v])
def test_a_hostile_text_is_refused_wherever_it_stands(failure, text):
    for line in (f"Square {text}: a >= b", f"Square a: {text} >= b", f"AM-GM a, {text}: a >= b"):
        steps = check_proof("a^2+b^2 >= 2ab for a, b > 0", f"{line}\nSquare a: a^2 >= 0").steps
        assert [step.failure for step in steps] in ([failure, None], [failure] * 2)


def test_products_of_terms_are_counted_over_the_whole_proof_in_any_thread():
    line = "Square (a+b+c+1)^5: (a+b+c+1)^10 >= 0"
    found = []
    worker = threading.Thread(
        target=lambda: found.extend(
            check_proof("a >= a for a, b, c > 0", "\n".join([line] * MAX_LINES)).steps
        )
    )
    worker.start()
    worker.join()
    codes = [step.failure for step in found]
    assert codes[0] is None and codes[-1] == "too large" and codes == sorted(codes, key=bool)
