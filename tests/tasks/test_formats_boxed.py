r"""One \boxed{N}: what is strict, which rule breaks first, and what TeX writes around a number."""

from dataclasses import replace

import pytest

from nblib.tasks.formats import BOXED, Parsed
from nblib.tasks.formats_boxed import without_tex
from nblib.tasks.scoring import score

STRICT = Parsed(
    strict=True,
    tags_in_order=True,
    reasoning="2 * 9 = 18",
    answer="18",
    preamble=False,
    failure=None,
)


def broken(failure: str, **changes: object) -> Parsed:
    return replace(STRICT, strict=False, failure=failure, **changes)


def test_it_renders_the_form_it_asks_for():
    assert BOXED.render("2 * 9 = 18", "18") == "2 * 9 = 18\n\\boxed{18}"
    assert r"\boxed{}" in BOXED.system_prompt


@pytest.mark.parametrize(
    "text",
    [
        r"2 * 9 = 18 \boxed{18}",
        "2 * 9 = 18\n\\boxed{18}\n\n",
        r"2 * 9 = 18 $\boxed{18}$.",
        r"2 * 9 = 18 $$ \boxed{18} $$",
        "2 * 9 = 18\n\\[\n\\boxed{18}.\n\\]\n",
        r"2 * 9 = 18 \(\boxed{18}\)!",
        r"2 * 9 = 18 \boxed{18}**",
        r"2 * 9 = 18 \boxed{18}。",
    ],
)
def test_strict(text: str):
    assert BOXED.parse(text) == STRICT


@pytest.mark.parametrize(
    ("box", "answer"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{{18}}", "{18}"),
        (r"\boxed{\{18\}}", r"\{18\}"),
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{\\}", r"\\"),
        (r"\boxed{}", ""),
        (r"\boxed{ 18 }", " 18 "),
    ],
)
def test_the_box_ends_with_its_own_brace(box: str, answer: str):
    assert BOXED.parse(f"2 * 9 = 18 {box}") == replace(STRICT, answer=answer)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", broken("missing tag", reasoning=None, answer=None, tags_in_order=False)),
        ("2 * 9 = 18", broken("missing tag", reasoning=None, answer=None, tags_in_order=False)),
        (
            r"2 * 9 = 18 \boxed 18",
            broken("missing tag", reasoning=None, answer=None, tags_in_order=False),
        ),
        (r"2 * 9 = 18 \boxed{18} \boxed{19}", broken("repeated tag", reasoning=None, answer=None)),
        (r"2 * 9 = 18 \boxed{\boxed{18}}", broken("repeated tag", reasoning=None, answer=None)),
        (r"\boxed 5 is wrong \boxed{18}", broken("repeated tag", reasoning=None, answer=None)),
        (
            r"2 * 9 = 18 \boxed{18",
            broken("unbalanced braces", answer=None, tags_in_order=False),
        ),
        (
            r"2 * 9 = 18 \boxed{18\}",
            broken("unbalanced braces", answer=None, tags_in_order=False),
        ),
        (r"2 * 9 = 18 \boxed{18}}", broken("text outside")),
        (r"2 * 9 = 18 \boxed{18} apples", broken("text outside")),
        (r"2 * 9 = 18 \boxed{18}%", broken("text outside")),
        (r"2 * 9 = 18 \boxed{18}\%", broken("text outside")),
        (r"\boxed{18}", broken("empty reasoning", reasoning="", tags_in_order=False)),
        ("\n$\\boxed{18}$", broken("empty reasoning", reasoning="", tags_in_order=False)),
        (r"\[ \boxed{18} \]", broken("empty reasoning", reasoning="", tags_in_order=False)),
    ],
)
def test_broken_names_the_first_rule_broken(text: str, expected: Parsed):
    assert BOXED.parse(text) == expected


@pytest.mark.parametrize(
    ("tex", "plain"),
    [
        (r"\$18", "$18"),
        (r"5\%", "5%"),
        (r"1{,}200", "1,200"),
        (r"1,\!200", "1,200"),
        (r"18\text{ apples}", "18 apples"),
        (r"18 \mathrm{km}", "18 km"),
        (r"\\$18", r"\\$18"),
        (r"\{,}", r"\{,}"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("18", "18"),
    ],
)
def test_tex_around_a_number_is_taken_off_and_nothing_else(tex: str, plain: str):
    assert without_tex(tex) == plain


@pytest.mark.parametrize(
    ("box", "reference", "right"),
    [
        (r"\$1{,}200.00", "1200", True),
        (r"18 \text{ apples}", "18", True),
        (r"-5", "-5", True),
        (r"1/2", "0.5", True),
        (r"5\%", "5", False),
        (r"5\text{ thousand}", "5", False),
        (r"3\frac{1}{2}", "3", False),
        (r"18^\circ", "18", False),
        (r"x = 18", "18", False),
    ],
)
def test_the_box_is_read_by_the_one_number_parser(box: str, reference: str, right: bool):
    one = score(BOXED.render("steps", box), reference, answer_format=BOXED)
    assert (one.joint, one.extractable) == (right, right)
