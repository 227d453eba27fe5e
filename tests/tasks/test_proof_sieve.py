"""Generated proofs are sorted: exact verdicts, copies of held-out statements, one proof of each."""

import pytest

from nblib.sources.inequalities import inequalities
from nblib.tasks.contamination import HeldOut
from nblib.tasks.proof_sieve import Sieve, technique_of, template_of

HELD_OUT = {"test/0": "a^2+b^2 >= 2ab for a, b > 0", "test/1": "Let n jugs hold twice n litres."}
LINE = "Square x-2y: x^2+4y^2 >= 4xy"


def sieve(*, free_text=False, held_out=HELD_OUT):
    return Sieve(held_out=HeldOut(held_out), free_text=free_text)


@pytest.mark.parametrize(
    "copy",
    [
        "x^2+y^2 >= 2xy for x, y > 0",  # renamed
        "b^2+a^2 >= 2ba for b, a > 0",  # swapped terms
        "2ab <= a^2+b^2 for a, b > 0",  # turned round
        "3a^2/7+3b^2/7 >= 6ab/7 for a, b > 0",  # scaled
        "a^2-2ab >= -b^2 for a, b > 0",  # moved
        "p/q+q/p-2 >= 0 for p, q > 0",  # divided by what is positive
        "(u-v)^2 >= 0 for u, v > 0",
        "u^2+v^2 >= 2uv for real u, v",  # another domain
        "u^2+v^2 >= 2uv for u, v >= 0",
        "u^2+v^2 >= 2uv for u, v > 0 with u >= v, u != 7",  # hypotheses that it does not need
        r"Show that $u^{2}+v^{2} \ge 2uv$ for all positive reals u, v.",
        r"\frac{u^2+v^2}{2} \geq u \cdot v for all real numbers u, v",
    ],
)
@pytest.mark.parametrize("free_text", [False, True])
def test_a_planted_copy_of_a_held_out_statement_is_found(copy, free_text):
    found = sieve(free_text=free_text).sort(copy, "So (1)")
    assert (found.verdict, found.reason) == ("lost", "held out")
    assert found.detail == "the same statement as test/0"


def test_every_built_in_proof_of_another_split_passes_and_every_held_out_one_is_found():
    test = inequalities(60, seed=0, split="test")
    whole = sieve(held_out={row.id: row.fields["statement"] for row in test})
    train = [row.fields for row in inequalities(120, seed=0, split="train")]
    found = [whole.sort(one["statement"], one["proof"]) for one in train]
    assert {one.reason for one in found if one.verdict == "lost"} <= {"trivial"}  # as 5n^2 >= 4n^2
    assert [one.verdict for one in found].count("verified") >= 118 and len(whole.keys) == 120
    copies = [whole.sort(row.fields["statement"], row.fields["proof"]) for row in test]
    assert {one.reason for one in copies} == {"held out"}


def test_words_that_are_no_statement_go_on_only_as_free_texts_and_are_compared_by_words():
    problem = "Show that three jugs never hold more than a barrel of oil."
    assert sieve().sort(problem, "Clear.").reason == "statement not read"
    loose = sieve(free_text=True)
    assert loose.sort(problem, "Clear.").verdict == "unjudged"
    assert loose.sort(problem.upper(), "clear").reason == "duplicate"
    assert loose.sort("let n jugs hold twice n litres", "Clear.").reason == "held out"


@pytest.mark.parametrize(
    ("statement", "proof", "reason", "detail"),
    [
        ("x^2+y^2 >= 3xy for x, y > 0", LINE, "false statement", "at x = "),
        (
            "x^2+4y^2 >= 4xy for real x, y",
            "Square x-2y: x^2+4y^2 >= xy",
            "not proved",
            "Square fails",
        ),
        ("x^2+4y^2 >= 4xy for real x, y", "By a square.", "not in the language", "line 1"),
        ("x^2+4y^2 >= 4xy for real x, y", "  ", "empty proof", ""),
        ("x^2+4y^2 >= 4xy for real x, y", f"{LINE}<eos>", "control piece", "<eos>"),
        ("sqrt(x)+1/x >= 1 for x > 0", "Given: 1 >= 0", "not in the language", ""),
        ("x^2+4y^2 >= 4xy for real x, y", f"{LINE[:-1]}\nHence: done", "not proved", "line 1"),
        ("x^2 >= 0 for real x", "Square x: x^2 >= 0", "trivial", ""),
        ("x >= 5 for x > 0 with x >= 5", "Given: x >= 5", "trivial", ""),
        ("x^2 >= x+3 for x > 0 with x >= x+1", "Given: x >= x+1", "trivial", "no point"),
        (r"Prove that $x^2+y^2 \ge 3xy$ for all real x, y", LINE, "false statement", "at x"),
    ],
)
def test_what_is_lost_says_why(statement, proof, reason, detail):
    found = sieve().sort(statement, proof)
    assert (found.verdict, found.reason) == ("lost", reason) and detail in found.detail


def test_the_first_proof_of_a_statement_is_kept_and_a_wrong_one_before_it_takes_nothing():
    one, statement = sieve(free_text=True), "x^2+4y^2 >= 4xy for real x, y"
    words = [
        one.sort(statement, proof).verdict
        for proof in ("Square x: x^2 >= 4xy", "By a square.", LINE, LINE, "By squares.")
    ]
    assert words == ["lost", "unjudged", "verified", "lost", "lost"]
    assert one.keys.total() == 5 and len(one.keys) == 1


def test_a_technique_names_the_rules_and_a_template_leaves_numbers_out():
    proof = "AM-GM a, b: a+b >= 2\nTitu a^2/b: a^2/b >= a^2/b\nSum (1)+(2): a+b >= 2"
    assert technique_of(proof) == "AM-GM + Titu" and technique_of("So (1): a >= b") == "So"
    one, other = (f"{n * n}a^2+b^2 >= {2 * n}ab for a, b > 0" for n in (2, 3))
    assert template_of(one) == template_of(other) != template_of("a^2 >= b for a, b > 0")
    assert template_of("In  Words!") == "in words"
