r"""One \boxed{N}: what is strict, which rule breaks first, and two boxes that say the same."""

from dataclasses import replace

import pytest

from nblib.tasks.formats import BOXED, Parsed
from nblib.tasks.scoring import score

STRICT = Parsed(
    tags_in_order=True,
    answers=("18",),
    preamble=False,
    failure=None,
)


def broken(failure: str, **changes: object) -> Parsed:
    return replace(STRICT, failure=failure, **changes)


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
    "text",
    [r"2 * 9 = 18 $\boxed{18}", r"2 * 9 = 18 \[\boxed{18}\)", r"$\boxed{18}", r"\[\boxed{18}\)"],
)
def test_what_opens_no_formula_is_a_part_of_the_steps(text: str):
    assert BOXED.parse(text) == STRICT


@pytest.mark.parametrize(
    ("box", "answer"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{{18}}", "{18}"),
        (r"\boxed{\{18\}}", r"\{18\}"),
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{\\}", r"\\"),
        (r"\boxed{ 18 }", " 18 "),
    ],
)
def test_the_box_ends_with_its_own_brace(box: str, answer: str):
    assert BOXED.parse(f"2 * 9 = 18 {box}") == replace(STRICT, answers=(answer,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", broken("missing tag", answers=(), tags_in_order=False)),
        ("2 * 9 = 18", broken("missing tag", answers=(), tags_in_order=False)),
        (
            r"2 * 9 = 18 \boxed 18",
            broken("missing tag", answers=(), tags_in_order=False),
        ),
        (
            r"2 * 9 = 18 \boxed{18} \boxed{19}",
            broken("repeated tag", answers=("18", "19")),
        ),
        (
            r"2 * 9 = 18 \boxed{18} \boxed{18",
            broken("repeated tag", answers=()),
        ),
        (r"2 * 9 = 18 \boxed{\boxed{18}}", broken("repeated tag", answers=())),
        (r"\boxed 5 is wrong \boxed{18}", broken("repeated tag", answers=())),
        (
            r"2 * 9 = 18 \boxed{18",
            broken("unbalanced braces", answers=(), tags_in_order=False),
        ),
        (
            r"2 * 9 = 18 \boxed{18\}",
            broken("unbalanced braces", answers=(), tags_in_order=False),
        ),
        (r"2 * 9 = 18 \boxed{18}}", broken("text outside")),
        (r"2 * 9 = 18 \boxed{18} apples", broken("text outside")),
        (r"2 * 9 = 18 \boxed{18}%", broken("text outside")),
        (r"2 * 9 = 18 \boxed{18}\%", broken("text outside")),
        (r"\boxed{18}", broken("empty reasoning", tags_in_order=False)),
        ("\n$\\boxed{18}$", broken("empty reasoning", tags_in_order=False)),
        (r"\[ \boxed{18} \]", broken("empty reasoning", tags_in_order=False)),
        (r"2 * 9 = 18 \boxed{}", broken("empty answer", answers=("",))),
        (r"2 * 9 = 18 \boxed{ }", broken("empty answer", answers=(" ",))),
    ],
)
def test_broken_names_the_first_rule_broken(text: str, expected: Parsed):
    assert BOXED.parse(text) == expected


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
        (r"18^\circ", "18", True),
        (r"x = 18", "18", False),
    ],
)
def test_the_box_is_read_by_the_one_number_parser(box: str, reference: str, right: bool):
    one = score(BOXED.render("steps", box), reference, answer_format=BOXED)
    assert one.values["joint_accuracy"] == one.values["answer_extractable"] == right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{18} so \boxed{18}", "18"),
        (r"\boxed{18} so \boxed{\$18.00} and \boxed{18\text{ apples}}", "18"),
        (r"\boxed{18} so \boxed{19}", None),
        (r"\boxed{18} so \boxed{}", None),
        (r"\boxed{18} so \boxed{18 or 19}", None),
        (r"\boxed{18} so \boxed 18", None),
        (r"\boxed{\boxed{18}}", None),
    ],
)
def test_boxes_with_the_same_number_are_one_answer_and_no_strict_form(
    text: str, answer: str | None
):
    one = score(f"steps {text}", "18", answer_format=BOXED)
    assert (one.answer, one.values["answer_accuracy"]) == (answer, answer == "18")
    assert (one.values["format_accuracy"], one.failure) == (False, "repeated tag")
