"""The last number of any text, whole and with its sign: what flexible-extract gets wrong."""

import pytest

from nblib.tasks.formats import LAST_NUMBER, Parsed
from nblib.tasks.numbers import number_text, parse_number
from nblib.tasks.scoring import score

MINUS = "\N{MINUS SIGN}"


def read(text: str) -> str | None:
    """What the scorer makes of the last number, in canonical text."""
    return score(text, "0", answer_format=LAST_NUMBER).answer


def test_it_says_where_the_number_stands():
    assert LAST_NUMBER.parse("2 * 9 = 18.\nSo it is $1,200.50, no more.") == Parsed(
        tags_in_order=True,
        answers=("$1,200.50",),
        preamble=False,
        failure=None,
    )


@pytest.mark.parametrize(
    "text", ["", "none", "NaN", "-inf", "$ - . ,", "five", "\N{VULGAR FRACTION ONE HALF}"]
)
def test_no_number_is_the_only_failure(text: str):
    assert LAST_NUMBER.parse(text) == Parsed(
        tags_in_order=False,
        answers=(),
        preamble=False,
        failure="no number",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # sign
        ("it is -5", "-5"),
        ("x=-5", "-5"),
        ("(-5)", "-5"),
        ("**-5**", "-5"),
        (f"it is {MINUS}5", "-5"),
        ("it is +5", "5"),
        ("10-5", "5"),
        ("from 3-5", "5"),
        ("covid-19", "19"),
        ("f(2)-5", "5"),
        ("5%-3", "3"),
        ("- 5 apples", "5"),
        # thousands, decimals, currency
        ("it is 1,200.", "1200"),
        ("it is 18.50!", "18.5"),
        ("it is 18..", "18"),
        ("it is .5", "0.5"),
        ("it is -.5", "-0.5"),
        ("it is...5", "5"),
        ("$18", "18"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("US$18", "18"),
        ("18€", "18"),
        ("$ 18", "18"),
        ("-$ 18", "-18"),
        (r"\$ 18", "18"),
        ("18$", "18"),
        ("It costs 9 500.", "9500"),
        ("He keeps 118 000.", "118000"),
        ("He keeps $1 118 000.50.", "1118000.5"),
        ("-9 500", "-9500"),
        ("9 500kg", "9500"),
        ("9\N{NO-BREAK SPACE}500", "9500"),
        ("9\N{THIN SPACE}500", "9500"),
        ("9\N{NARROW NO-BREAK SPACE}500", "9500"),
        (r"118\,000", "118000"),
        (r"1\;118\;000", "1118000"),
        ("in 2019 300 people", "300"),
        ("on A4 500 sheets", "500"),
        ("1,200 300", "300"),
        ("9 50", "50"),
        ("9 5000", "5000"),
        ("9\n500", "500"),
        ("5, 600", "600"),
        (r"\$1{,}200", "1200"),
        (r"-\$1,\!200", "-1200"),
        # what stands beside it
        ("48/2=24", "24"),
        ("it is 3/4 of them", "0.75"),
        ("18 apples, I think?", "18"),
        ("18km", "18"),
        ("a 20-foot pole", "20"),
        ("_18_", "18"),
        ("18 m^2", "18"),
        ("18 m^{25}", "18"),
        ("9, 10", "10"),
        ("答案是18个。", "18"),
    ],
)
def test_the_last_number_is_read(text: str, expected: str):
    assert read(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "12:30",
        "5%",
        "5 %",
        r"5\%",
        "5k",
        "1e5",
        "1e-5",
        "10^400",
        "10^{400}",
        "1_000",
        "1'000",
        "5\N{NO-BREAK SPACE}%",
        r"5\,\%",
        "0 500",
        "9 500,50",
        "1 100/200",
        r"5\,18",
        "9\N{NO-BREAK SPACE}50",
        "6x",
        "-668i",
        "1 1/2",
        "5\N{VULGAR FRACTION ONE HALF}",
        "5\N{SUPERSCRIPT TWO}",
        "\N{EN DASH}5",
        "1.5.2",
        "2020/01/05",
        "9,10",
        "5\N{ARABIC-INDIC DIGIT THREE}",
        "\N{FULLWIDTH DIGIT FIVE}",
        "\N{RIGHT-TO-LEFT MARK}5",
        "5\N{RIGHT-TO-LEFT MARK}",
        "1\N{ZERO WIDTH SPACE}8",
        "5\0",
    ],
)
def test_of_what_is_not_one_number_no_part_is_read(text: str):
    for completion in (text, f"2 * 9 = 18, so it is {text}"):
        assert LAST_NUMBER.parse(completion).strict
        assert read(completion) is None


def test_the_number_parser_reads_what_was_found():
    for text in ("-$1,200.50", "3/4", "18 apples"):
        found = LAST_NUMBER.parse(f"2 + 2 = 4, and so {text}").answers[0]
        assert parse_number(found) == parse_number(text)
        assert read(text) == number_text(parse_number(text))
