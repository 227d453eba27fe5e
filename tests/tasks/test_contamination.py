"""What repeats a held-out text is found, and what only looks like it is not."""

import pytest

from nblib.sources.inequalities import inequalities
from nblib.tasks.contamination import HeldOut

GARDEN = (
    "A farmer fences a rectangular garden along a straight river with forty metres of wire. "
    "Show that the area is at most 200 square metres."
)
LATEX = (
    r"Let $a, b, c$ be positive real numbers such that $abc = 1$. Prove that "
    r"$\frac{1}{a^3(b+c)} + \frac{1}{b^3(c+a)} + \frac{1}{c^3(a+b)} \ge \frac{3}{2}$."
)
HELD_OUT = HeldOut(
    {"test/0": "a^2+b^2 >= 2ab for a, b > 0", "words 1": GARDEN, "words 2": LATEX, 3: "ab ab."}
)
FOUND = [
    ("x/y+y/x >= 2 for x, y > 0", "the same statement as test/0"),
    ("Prove that 2xy <= x^2+y^2 for all x, y > 0.", "the same statement as test/0"),
    ("a^2+b^2 >= 2ab for real a, b", "the same statement as test/0"),
    (r"$p^{2}+q^{2} \ge 2 p \cdot q$ for positive reals p, q", "the same statement as test/0"),
    (GARDEN.upper().replace(".", " ."), "the same text as words 1"),
    ("AB, ab", "the same text as 3"),
    (LATEX.replace("Let $a, b, c$ be positive real numbers", "Given positive reals $a, b, c$"),
     "the same formulas as words 2"),
]  # fmt: skip


@pytest.mark.parametrize("text, said", FOUND)
def test_what_repeats_a_held_out_text_is_found_and_named(text, said):
    assert HELD_OUT.find(text) == said


def test_renamed_letters_of_a_formula_in_words_are_found():
    names = str.maketrans("abc", "xyz")
    head, *formulas = LATEX.split("$")
    parts = [one.translate(names) if n % 2 == 0 else one for n, one in enumerate(formulas)]
    renamed = "$".join([head, *parts]).replace(r"\frxz", r"\frac")
    assert "xyz = 1" in renamed and r"\frac{1}{x^3(y+z)}" in renamed
    assert HELD_OUT.find(renamed) == "the same formulas as words 2"


def test_eight_words_in_a_row_are_found_and_seven_are_not():
    part = "Somebody fences a rectangular garden along a straight river with"
    assert HELD_OUT.find(f"{part} forty boats.").startswith('the 8 words "')
    assert HELD_OUT.find(f"{part} boats.") == ""


@pytest.mark.parametrize(
    "text",
    [
        "a^2+b^2 >= 3ab for a, b > 0",
        LATEX.replace("abc = 1", "a+b+c = 1"),
        LATEX.replace("3}{2", "5}{2"),
        "Let $a, b, c$ be positive real numbers such that $abc = 1$. Prove that $a+b+c \\ge 3$.",
        "",
    ],
)
def test_what_says_something_else_is_not_found(text):
    assert HELD_OUT.find(text) == ""


def test_words_that_several_held_out_texts_share_do_not_count():
    story = "The old miller grinds seven heavy sacks every windy morning and weighs"
    texts = {"one": f"{story} barley before noon on Sundays.", "two": f"{story} rye after lunch."}
    assert HeldOut(texts).find(f"{story} corn.") == ""
    assert HeldOut({"one": texts["one"]}).find(f"{story} corn.").endswith("of one")


def test_training_rows_are_not_flagged_by_held_out_ones_of_the_same_form():
    """480 statements, as they are and in words, against 1,000 training rows in the same form."""
    rows = {split: [row.fields["statement"] for row in inequalities(count, seed=0, split=split)]
            for split, count in (("train", 1000), ("test", 480))}  # fmt: skip

    def in_words(statement):
        claim, _, domain = statement.partition(" for ")
        return f"Let the variables be such that {domain}. Prove the following inequality: {claim}"

    for form in (str, in_words):
        held_out = HeldOut({n: form(one) for n, one in enumerate(rows["test"])})
        assert [one for one in rows["train"] if held_out.find(form(one))] == []
        assert all(held_out.find(form(one)) for one in rows["test"])
