"""Prose of every right proof, read back; two texts written out by hand."""

import re

import pytest

from nblib.tasks.expressions import parse_expression
from nblib.tasks.proof_prose import STYLE_NAMES, STYLES, in_prose, prose_of
from nblib.tasks.proof_text import RULES, read_line
from tests.tasks.right_proofs import RIGHT, points, value

SQUARES = "a^2+b^2+c^2 >= ab+bc+ca for real a, b, c"
SQUARES_PROOF = "Square a-b cyclic: a^2+b^2 >= 2ab\nSum 1/2(1): a^2+b^2+c^2 >= ab+bc+ca"
GIVEN = "a^2 >= ab for a, b > 0 with a >= b"
GIVEN_PROOF = "Given: a >= b\nTimes a (1): a^2 >= ab"


def written(style, statement=SQUARES, proof=SQUARES_PROOF):
    return in_prose(statement, proof, STYLE_NAMES.index(style))


def test_a_plain_text_is_as_a_person_writes_it():
    assert written("plain") == (
        "For real a, b, c we prove that a^2+b^2+c^2 >= ab+bc+ca.\n\n"
        "Since (a-b)^2 >= 0, we have (and likewise for the cyclic permutations of a, b, c) "
        "a^2+b^2 >= 2ab. (1)\n\n"
        "Adding half of each inequality in (1), we have a^2+b^2+c^2 >= ab+bc+ca. (2)\n\n"
        "This is what was to be proved."
    )


def test_latex_has_its_formulas_marked():
    assert written("latex", GIVEN, GIVEN_PROOF) == (
        "Let $a, b > 0$ with $a \\ge b$. We show $a^{2} \\ge ab$.\n\n"
        "By what is given, we get\n\\[a \\ge b \\tag{1}\\]\n\n"
        "Multiplying (1) by the non-negative factor $a$, we get\n\\[a^{2} \\ge ab \\tag{2}\\]\n\n"
        "Hence $a^{2} \\ge ab$, as claimed. $\\blacksquare$"
    )


def test_a_terse_text_numbers_its_lines_and_headings_box_the_claim():
    assert written("terse").splitlines()[2].startswith("(1) Since (a-b)^2 >= 0 (and")
    lines = written("headings").splitlines()
    assert [one for one in lines if one.startswith("#")] == [
        *("## Claim", "## Proof", "### Step 1", "### Step 2", "## Conclusion")
    ]
    assert "$\\boxed{a^{2}+b^{2}+c^{2} \\ge ab+bc+ca}$ Q.E.D." in lines


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("AM-GM a, b: a+b >= 2ab", "By the AM-GM inequality for a and b, we have"),
        ("AM-GM 2 of a, b, 1: 2a+b+1 >= 4a", "for a, b and 1 with the weights 2, 1 and 1, we"),
        ("Titu a^2/b, b^2/a: a >= b", "Engel form of the Cauchy-Schwarz inequality for a^2/b and"),
        ("Cauchy a, b; 1, 1: a >= b", "Cauchy-Schwarz inequality for (a, b) and (1, 1), we"),
        ("Sum 2(1)+(2)+3/4(3): a >= b", "Adding twice (1), (2) and 3/4 times (3), we have"),
        ("Product (1)(2): a >= b", "Multiplying (1) and (2), whose sides are not negative, we"),
        ("Chain (1)(2): a >= b", "Combining (1) and (2), we have a >= b."),
        ("So (1): a >= b", "Rewriting (1), we have a >= b."),
    ],
)
def test_a_rule_has_its_sentence(line, words):
    assert words in written("plain", "a >= b for a, b > 0", line)


def claims_of(text, style):
    """The two sides of each step's claim, as expressions: the last relation of a step."""
    sides = [part.strip() for part in text.rpartition(": " if style == "terse" else "\n")[2:]]
    if style == "plain":
        sides = [re.search(r"(?:we have|\)) ([^,]*?)\. \(\d+\)$", text)[1]]
    (claim,) = sides
    claim = re.sub(r"\\tag\{\d+\}|\\\[|\\\]|\$|\*\*", "", re.sub(r"\*\* \(\d+\)$", "", claim))
    return [parse_expression(from_latex(side)) for side in re.split(r">=|\\ge", claim)]


def from_latex(text):
    """LaTeX as our own syntax, innermost fractions first."""
    text = re.sub(r"\^\{(\d+)\}", r"^\1", text).replace(r"\cdot", "*")
    inner = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)\}")
    while inner.search(text):
        text = inner.sub(r"((\1)/(\2))", text)
    return text


@pytest.mark.parametrize("style", range(STYLES), ids=STYLE_NAMES)
def test_every_step_ends_with_what_its_line_claims(style):
    rules = set()
    for right in RIGHT:
        prose = prose_of(right.statement, right.proof, style)
        lines = [read_line(line) for line in right.proof.split("\n")]
        assert len(prose.steps) == len(lines)
        (*_, point) = points(right.statement, right.follow, 3)
        for line, step in zip(lines, prose.steps, strict=True):
            rules.add(line.rule)
            left, right_side = claims_of(step, STYLE_NAMES[style])
            assert value(left, point) == value(line.left, point)
            assert value(right_side, point) == value(line.right, point)
            assert ("likewise" in step) == line.arguments.cyclic
        assert prose.text == f"{prose.opening}\n\n{prose.body}\n\n{prose.closing}"
        assert prose.text == in_prose(right.statement, right.proof, style)
    assert rules == {*RULES}


def test_styles_differ_and_what_cannot_be_read_is_refused():
    assert len({in_prose(SQUARES, SQUARES_PROOF, style) for style in range(STYLES)}) == STYLES
    for style in (-1, STYLES):
        with pytest.raises(
            ValueError, match=f"style is {style}, expected 0 to {STYLES - 1}: plain"
        ):
            in_prose(SQUARES, SQUARES_PROOF, style)
    with pytest.raises(ValueError, match="expected `<rule> <arguments>"):
        in_prose(SQUARES, "It is clear.", 0)
    with pytest.raises(ValueError, match="no domain"):
        in_prose("a >= b", SQUARES_PROOF, 0)


def test_a_wrong_proof_becomes_a_wrong_text():
    assert "a^2+b^2 >= 3ab" in written("plain", proof=SQUARES_PROOF.replace(">= 2ab", ">= 3ab"))
