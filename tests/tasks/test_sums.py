import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.sums import right_sums


@pytest.mark.parametrize(
    "text",
    [
        "2 + 3 = 5",
        "2+3=5",
        "5 - 8 = -3",
        "5 - -3 = 8",
        "-5 + 2 = -3",
        "16 \N{MINUS SIGN} 3 = 13",
        "16 – 3 = 13",
        "2 * 9 = 18",
        "2 x 9 = 18",
        "2x9=18",
        "2 × 9 = 18",
        "48 / 2 = 24",
        "48 ÷ 2 = 24",
        "$1,200.50 - $0.50 = $1,200",
        "1 / 4 = .25",
        "She sells 9 * 2 = $18.",
        "That leaves 13 - 9 = 4 chairs.",
        "Step 1: 3 + 4 = 7",
        "2 + 3 = 5, 5 + 1 = 6. Then 6 + 1 = 7.",
        "2 + 3 = 5\n5 * 2 = 10",
        "4 eggs (2 * 2 = 4)",
        "box 3 + 4 = 7",
        "2 + 3 + 4 = 9",
        "2 + 3 * 4 = 14",
        "16 - 3 - 4 = 9",
        "12 / 3 / 2 * 5 = 10",
        "47 + 38 = 47 + 30 + 8 = 77 + 8 = $85.",
        "2 + 3 = 5 = 5",
        "<reasoning>2 * 9 = 18</reasoning><answer>18</answer>",
    ],
)
def test_every_sum_is_right(text: str):
    assert right_sums(text) == 1.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("2 + 3 = 6", 0.0),
        ("5 - 8 = 3", 0.0),
        ("5 / 0 = 0", 0.0),
        ("1 + 5 / 0 = 1", 0.0),
        ("1,20 + 1 = 121", 0.0),
        ("10 / 3 = 3.33", 0.0),
        ("2 + 3 * 4 = 20", 0.0),
        ("2 + 2 = 4 and 2 + 2 = 5", 0.5),
        ("47 + 38 = 47 + 30 + 8 = 77 + 8 = 86", 2 / 3),
        ("2 + 3 = 5 + 1 = 6", 0.5),  # what is written first is not so
        ("1 + 1 = 2\n1 + 1 = 2\n1 + 1 = 3\n1 / 0 = 1", 0.5),
    ],
)
def test_wrong_sums(text: str, share: float):
    assert right_sums(text) == share


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 18",
        "18 = 18",
        "2 + 3 = 4 + 1",
        "(2 + 2) * 3 = 12",
        "2 * (3 + 4) = 14",
        "(1 + 1) + 2 + 2 = 6",
        "20% * 50 = 10",
        "2^3 + 1 = 9",
        "2**3 + 1 = 9",
        "y + 3 + 4 = 9",
        "y+3+4=9",
        "y = 3 + 4 = 7",
        "3x+7=22",
        "3x - 8 = 40",
        "2 apples + 3 apples = 5 apples",
        "2 + 3",
        "+ ".join(["1 "] * 40) + "= 40",
    ],
)
def test_what_cannot_be_read_surely_is_not_counted(text: str):
    assert right_sums(text) == 0.0
    assert right_sums(text + "\n1 + 1 = 2") == 1.0


@given(st.integers(-9999, 9999), st.sampled_from("+-*"), st.integers(-9999, 9999), st.booleans())
def test_any_sum_is_judged_as_python_judges_it(first: int, operator: str, second: int, right: bool):
    result = {"+": first + second, "-": first - second, "*": first * second}[operator]
    shown = result if right else result + 1
    assert right_sums(f"So {first:,} {operator} ${second:,} = {shown:,}.") == right


@given(st.text() | st.text("0123456789+-*/x=.,$()% "))
def test_any_text_has_a_share_of_right_sums(text: str):
    assert 0 <= right_sums(text) <= 1


@pytest.mark.parametrize("piece", ["9", "9,", "1+", "1 + ", "+", "=", "x", " ", "1=", "(", "9.9*"])
def test_time_is_linear(piece: str):
    started = time.perf_counter()
    right_sums(piece * (300_000 // len(piece)))
    right_sums(piece * (300_000 // len(piece)) + "= 1")
    assert time.perf_counter() - started < 3.0
