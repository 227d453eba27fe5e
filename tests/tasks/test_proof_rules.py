"""Each rule: lines that follow, lines that do not, lines whose identity holds but not a sign."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.tasks.proof_check import check_proof
from tests.tasks.right_proofs import gap, points

POSITIVE, WEAK, REAL = "a, b, c > 0", "a, b, c >= 0", "real a, b, c"
MIXED = "a > 0, real b"
BASE = "Square a-b: a^2+b^2 >= 2ab\nSquare b-c: b^2+c^2 >= 2bc\n"  # steps (1) and (2)
CYCLE = "Square a-b cyclic: a^2+b^2 >= 2ab\n"
MINUS = "Square a: a^2-b >= -b\nSquare b: b^2-a >= -a\n"  # their right sides are below 0


def last_failure(domain, lines):
    """Return what is wrong with the last line; of the statement its domain alone matters."""
    return check_proof(f"1 >= 0 for {domain}", lines).steps[-1].failure


@pytest.mark.parametrize(
    ("domain", "lines"),
    [
        (POSITIVE, "AM-GM 3 of a^4, b^4: 3a^4+b^4 >= 4a^3b"),
        (POSITIVE, "AM-GM a^2+b^2, a^2+b^2: 2(a^2+b^2) >= 2a^2+2b^2"),
        (POSITIVE, "AM-GM 2 of a/b, b^2/a^2: 2a/b+b^2/a^2 >= 3"),
        (REAL, "AM-GM a^4, 1: a^4+1 >= 2a^2"),
        (WEAK, "AM-GM a^2, 0: a^2 >= 0"),
        ("x, y > 0", "AM-GM x, 1/x: x+1/x >= 2"),
        (POSITIVE, "Titu 1/a, 4a^2/b: 1/a+4a^2/b >= (1+2a)^2/(a+b)"),
        (POSITIVE, "Titu a^2/b, 4(b-c)^2/a: a^2/b+4(b-c)^2/a >= (a+2b-2c)^2/(a+b)"),
        (REAL, "Titu a^2/(b^2+1), b^2/1: a^2/(b^2+1)+b^2 >= (a+b)^2/(b^2+2)"),
        (POSITIVE, "Titu (1/a)^2/b, a^(-2)/c: 1/(a^2b)+1/(a^2c) >= (2/a)^2/(b+c)"),
        (REAL, "Cauchy a, -b; c, 1: (a^2+b^2)(c^2+1) >= (ac-b)^2"),
        (REAL, "Square a-b: a^2 >= 2ab-b^2"),
        (REAL, "Square (a-b)/(a^2+1): (a-b)^2/(a^2+1)^2 >= 0"),
        (REAL, BASE + "Sum 1/2(1)+3 (2) + (1): 3/2a^2+9/2b^2+3c^2 >= 3ab+6bc"),
        (REAL, CYCLE + "Sum 2(1): 4(a^2+b^2+c^2) >= 4(ab+bc+ca)"),
        (MIXED, CYCLE + "Sum (1): 2a^2+2b^2 >= 4ab"),
        (REAL, BASE + "Times 2/3+c^2 (1): (2/3+c^2)(a-b)^2 >= 0"),
        (POSITIVE, BASE + "Product (1)(2)(1): (a^2+b^2)^2(b^2+c^2) >= 8a^2b^3c"),
        (POSITIVE, CYCLE + "Product (1): (a^2+b^2)(b^2+c^2)(c^2+a^2) >= 8a^2b^2c^2"),
        (REAL, BASE + "So (2): (b-c)^2 >= 0"),
        (REAL, BASE + "Square a+b: 2ab >= -a^2-b^2\nChain (1)(3): a^2+b^2 >= -a^2-b^2"),
        ("a, b > 0 with a > 2b, a = 3b", "Given: a-b >= b"),
        ("a, b > 0 with a > 2b, a = 3b", "Given: 3b >= 2b"),
        ("a, b > 0 with 2b <= a", "Given: a >= 2b"),
        ("a, b > 0 with a+b = 1", "Given: a+b >= 1"),
        ("real a, b with ab = 1", "Square a-b: a^2+b^2 ≥ 2ab\nSo (1): a^2+b^2 >= 2"),
        ("a, b >= 0 with ab = 1", "AM-GM a, b: a+b >= 2"),
        ("real a, b with ab = -1", "Square a+b: a^2+b^2 >= -2ab\nSo (1): a^2+b^2 >= 2"),
        ("a > 0, real b", "Given: a+b^2 >= 0"),
    ],
)
def test_what_follows(domain, lines):
    assert last_failure(domain, lines) is None


@pytest.mark.parametrize(
    ("domain", "lines", "failure"),
    [
        # The identity holds, and a sign does not, or is not seen.
        (POSITIVE, "AM-GM a^2, b^2: a^2+b^2 >= -2ab", "not by sight"),
        (REAL, "AM-GM a^2, b^2: a^2+b^2 >= 2ab", "not by sight"),
        (REAL, "AM-GM a, a: 2a >= 2a", "not by sight"),
        (POSITIVE, "AM-GM a-b, a-b: 2a-2b >= 2a-2b", "not by sight"),
        (MIXED, "AM-GM a^2, b^2: a^2+b^2 >= 2ab", "not by sight"),
        (POSITIVE, "Titu a^2/(b-c), c^2/c: a^2/(b-c)+c >= (a+c)^2/b", "denominator"),
        (POSITIVE, "Titu a^2/(-b), c^2/b: 0 >= 0", "not by sight"),
        (WEAK, "Titu a^2/b, c^2/b: 0 >= 0", "not by sight"),
        (REAL, "Titu a^2/b^2, c^2/b^2: 0 >= 0", "not by sight"),
        (POSITIVE, "Titu a/b, b/a: a/b+b/a >= 2", "not by sight"),
        (POSITIVE, "Titu 2a^2/b, b^2/a: 2a^2/b+b^2/a >= 2", "not by sight"),
        (REAL, BASE + "Times a (1): a(a-b)^2 >= 0", "not by sight"),
        (POSITIVE, BASE + "Times a-b (1): (a-b)^3 >= 0", "not by sight"),
        (POSITIVE, BASE + "Times -1 (1): 2ab >= a^2+b^2", "not by sight"),
        (POSITIVE, MINUS + "Product (1)(2): (a^2-b)(b^2-a) >= ab", "not by sight"),
        (REAL, BASE + "Product (1)(2): (a^2+b^2)(b^2+c^2) >= 4ab^2c", "not by sight"),
        # Only one rotation, or not all of them, would be right.
        (MIXED, "AM-GM a, a cyclic: 2a >= 2a", "not by sight"),
        (MIXED, "AM-GM a, 1/a cyclic: a+1/a >= 2", "denominator"),
        ("a, b, c > 0 with a = 2b", "Square b cyclic: a^2-3b^2 >= 0", "Square fails"),
        (POSITIVE, CYCLE + "Sum (1): a^2+b^2 >= 2ab", "Sum fails"),
        (POSITIVE, CYCLE + "Product (1): a^2+b^2 >= 2ab", "Product fails"),
        *[(POSITIVE, f"{CYCLE}{rule}: a^2+b^2 >= 2ab", "cyclic")
          for rule in ("Chain (1)(1)", "Times 1 (1)", "So (1)", "Sum (1) cyclic", "So cyclic")],
        # The identity does not hold.
        (POSITIVE, "AM-GM a^2, b^2: a^2+b^2 >= 3ab", "AM-GM fails"),
        (POSITIVE, "AM-GM a^2, b^2: a^2+2b^2 >= 2ab", "AM-GM fails"),
        (POSITIVE, "AM-GM 2 of a^3, b^3: a^3+2b^3 >= 3a^2b", "AM-GM fails"),
        (POSITIVE, "Titu a^2/b, b^2/a: a^2/b+b^2/a >= a-b", "Titu fails"),
        (POSITIVE, "Titu a^2/b, b^2/a: a^2/b+b/a >= a+b", "Titu fails"),
        (REAL, "Cauchy a, b; c, 1: (a^2+b^2)(c^2+1) >= (ac-b)^2", "Cauchy fails"),
        (REAL, "Cauchy a, b; c, 1: (a^2+b^2)(c+1) >= (ac+b)^2", "Cauchy fails"),
        (REAL, "Square a-b: 2ab >= a^2+b^2", "Square fails"),
        (REAL, BASE + "Sum (1)+(2): a^2+b^2+c^2 >= 2ab+2bc", "Sum fails"),
        (REAL, BASE + "Times 2 (1): a^2+b^2 >= 2ab", "Times fails"),
        (POSITIVE, BASE + "Product (1)(2): (a^2+b^2)(b^2+c^2) >= 4abc", "Product fails"),
        (REAL, BASE + "Chain (1)(2): a^2+b^2 >= 2bc", "Chain fails"),
        (REAL, BASE + "Square b: 2ab >= 2ab-b^2\nChain (1)(3): a^2+b^2 >= 2ab", "Chain fails"),
        (REAL, BASE + "Square b: 2ab >= 2ab-b^2\nChain (1)(3): a^2 >= 2ab-b^2", "Chain fails"),
        (REAL, BASE + "So (1): b^2+c^2 >= 2bc", "So fails"),
        (POSITIVE, "Given: a >= b", "Given fails"),
        ("a, b > 0 with a >= b", "Given: b >= a", "Given fails"),
        ("a, b > 0 with a != b", "Given: a >= b", "Given fails"),
        # A hypothesis whose factor may be 0 eliminates nothing.
        ("real a, b, c with abc = ab", "Square 0: c >= 1", "Square fails"),
        ("a, b, c >= 0 with ac = a", "Square 0: c >= 1", "Square fails"),
        ("a, b, c > 0 with ac = a", "Square 0: c >= 2", "Square fails"),
    ],
)  # fmt: skip
def test_what_does_not_follow(domain, lines, failure):
    assert last_failure(domain, lines) == failure


@pytest.mark.parametrize(
    ("line", "failure"),
    [
        *[(f"Sum {head}: 2a^2+2b^2 >= 4ab", "wrong arguments")
          for head in ("2(1)-(2)", "-2(1)", "2(1)+", "2(1) (2)", "x(1)", "0(1)", "1/0(1)", "2*(1)",
                       "", "(1)(2)", "2(1)+(2)!", "1.5(1)", "(-1)(1)", "2(1)--(1)", "\u0662(1)")],
        *[(f"{rule} (9): a >= b", "unknown step")
          for rule in ("Sum", "Times a", "Product", "Chain (1)", "So")],
        ("So (2): a^2+b^2 >= 2ab", "unknown step"),  # itself
        ("So (0): a^2+b^2 >= 2ab", "unknown step"),
        ("AM-GM a: a >= a", "wrong arguments"),
        ("AM-GM 0 of a, 2 of b: 2b >= 2b", "wrong arguments"),
        ("AM-GM 13 of a: 13a >= 13a", "wrong arguments"),
        ("AM-GM 1/2 of a, b: a+b >= 2ab", "unreadable line"),
        ("AM-GM: a+b >= 2ab", "unreadable line"),
        ("AM-GM " + "a, " * 12 + "a: 13a >= 13a", "wrong arguments"),
        ("Titu a^2, b^2: a^2+b^2 >= (a+b)^2/2", "wrong arguments"),
        ("Cauchy a, b; c: a >= b", "wrong arguments"),
        ("Cauchy a, b: a >= b", "wrong arguments"),
        ("Times (1): a >= b", "wrong arguments"),
        ("Times a: a >= b", "wrong arguments"),
        ("Chain (1): a >= b", "wrong arguments"),
        ("So (1)(1): a >= b", "wrong arguments"),
        ("Given a: a >= b", "wrong arguments"),
        *[(line, "unreadable line")
          for line in ("", "Square a-b", "Square a-b: a^2+b^2", "Square: 0 >= 0", "a >= b",
                       "Square a: a^2 >= 0 >= -1", "Square a: a^2 > 0", "Square a: a^2 = a^2",
                       "Square a: a^2 <= a^2", "Square a: : a^2 >= 0", "Square z: z^2 >= 0",
                       "Square sqrt(a): a >= 0", "Square a^(1/2): a >= 0", ": a >= b",
                       "Square cyclic: a >= b")],
        *[(f"{rule} a-b: a^2+b^2 >= 2ab", "unknown rule")
          for rule in ("square", "Squares", "AM\u2010GM", "Schur", "by", "(1)", "S\u0443m")],
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_or_names_what_is_not_before_it(line, failure):
    lines = f"Square a-b: a^2+b^2 >= 2ab\n{line}\nSo (1): a^2+b^2 >= 2ab"
    steps = check_proof(f"1 >= 0 for {POSITIVE}", lines).steps
    assert [step.failure for step in steps] == [None, failure, None]


SIDES = ["a", "b", "-a", "-b", "a-b", "a+b", "ab", "1", "2", "-1", "0", "a^2", "a-1", "b^2"]
SIDE = st.sampled_from([*SIDES, "1/a", "b/a", "a/(b^2+1)", "(a-b)^2"])
DOMAIN = st.sampled_from(["a, b > 0", "a, b >= 0", "real a, b", "a > 0, real b", "a >= 0, b > 0"])
TURN = st.sampled_from(["", " cyclic"])


@cache
def domain_points(statement):
    return points(statement, {}, 50)


@st.composite
def identities(draw):
    """Draw lines whose identities hold; the signs of what they are made of may be any."""
    p, q, r, s = (f"({draw(SIDE)})" for _ in range(4))
    sign, turn = draw(st.sampled_from(["", "-"])), draw(TURN)
    last = draw(st.sampled_from("ATCSTUP"))
    if last == "A":
        return f"AM-GM {p}^2{r}, {q}^2{r}{turn}: {p}^2{r}+{q}^2{r} >= {sign}2{p}*{q}*{r}"
    if last == "T":
        return (f"Titu {p}^2/{r}, {q}^2/{s}{turn}: {p}^2/{r}+{q}^2/{s} >= "
                f"({p}+{q})^2/({r}+{s})")  # fmt: skip
    if last == "C":
        return (f"Cauchy {p}, {q}; {r}, {s}{turn}: ({p}^2+{q}^2)({r}^2+{s}^2) >= "
                f"({p}*{r}+{q}*{s})^2")  # fmt: skip
    before = f"Square {p}{turn}: {p}^2+{r} >= {r}\nSquare {q}: {q}^2-{s} >= -{s}\n"
    if last == "S":
        return before + f"Sum 2(1)+1/3(2): 2{p}^2+1/3{q}^2 >= 0"
    if last == "U":
        return before + f"Times {s} (1): {s}*{p}^2 >= 0"
    return before + f"Product (1)(2): ({p}^2+{r})({q}^2-{s}) >= {sign}{r}*{s}"


@settings(deadline=None, max_examples=400)
@given(DOMAIN, identities())
def test_every_accepted_line_holds_in_the_whole_domain(domain, lines):
    statement = f"1 >= 0 for {domain}"
    for step in check_proof(statement, lines).steps:
        if step.failure is None:
            claim = step.text.partition(":")[2]
            turned = claim.translate(str.maketrans("ab", "ba")) if "cyclic" in step.text else claim
            for point in domain_points(statement):
                assert gap(claim, point) >= 0 and gap(turned, point) >= 0
