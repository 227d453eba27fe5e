"""One number or none: what public graders misread, and round trips."""

import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.numbers import MAX_DIGITS, number_text, parse_number

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18", Fraction(18)),
        ("  18\n", Fraction(18)),
        ("18.", Fraction(18)),
        ("18.0", Fraction(18)),
        ("18.00", Fraction(18)),
        ("018", Fraction(18)),
        (".5", Fraction(1, 2)),
        ("0.125", Fraction(1, 8)),
        ("0", Fraction(0)),
        ("-0", Fraction(0)),
        ("-5", Fraction(-5)),
        ("+5", Fraction(5)),
        (f"{MINUS}5", Fraction(-5)),
        ("$18", Fraction(18)),
        ("-$5", Fraction(-5)),
        ("$-5", Fraction(-5)),
        ("€1.50", Fraction(3, 2)),
        ("£.5", Fraction(1, 2)),
        ("$ 18", Fraction(18)),
        ("-$ 18", Fraction(-18)),
        ("$ -18", Fraction(-18)),
        ("€\N{NO-BREAK SPACE}18", Fraction(18)),
        ("18€", Fraction(18)),
        ("18 $", Fraction(18)),
        ("50¢", Fraction(50)),
        ("1,200", Fraction(1200)),
        ("109,200,000", Fraction(109_200_000)),
        ("$1,200.50", Fraction(2401, 2)),
        ("9 500", Fraction(9500)),
        ("118 000.", Fraction(118_000)),
        ("-$ 1 200.50", Fraction(-2401, 2)),
        ("5 600 700", Fraction(5_600_700)),
        ("9\N{NO-BREAK SPACE}500", Fraction(9500)),
        ("9\N{FIGURE SPACE}500", Fraction(9500)),
        ("9\N{THIN SPACE}500", Fraction(9500)),
        ("9\N{NARROW NO-BREAK SPACE}500 km", Fraction(9500)),
        ("1/2", Fraction(1, 2)),
        ("-6 / 4", Fraction(-3, 2)),
        ("4/2", Fraction(2)),
        ("3/4 cup", Fraction(3, 4)),
        ("18 apples", Fraction(18)),
        ("18 apples.", Fraction(18)),
        ("5 m", Fraction(5)),
        ("5 g.", Fraction(5)),
        ("5 m/s", Fraction(5)),
        ("5\N{NO-BREAK SPACE}km", Fraction(5)),
        ("$18 a day", Fraction(18)),
        ("18 I think", Fraction(18)),
        ("18个", Fraction(18)),
        ("18 м", Fraction(18)),
        ("5 km", Fraction(5)),
        ("5km", Fraction(5)),
        ("5 km/h", Fraction(5)),
        ("18 m²", Fraction(18)),
        ("18 °C", Fraction(18)),
        ("$18 per day", Fraction(18)),
        ("18 girls' hats", Fraction(18)),
        # TeX
        (r"\$18", Fraction(18)),
        (r"\$ 15.48", Fraction(387, 25)),
        (r"40,\!000", Fraction(40_000)),
        (r"1{,}200", Fraction(1200)),
        (r"118\,000", Fraction(118_000)),
        (r"1\ 118\;000\:000", Fraction(1_118_000_000)),
        (r"46^\circ", Fraction(46)),
        (r"46^{\circ}", Fraction(46)),
        (r"46^\circ\text{C}", Fraction(46)),
        (r"18\text{ units}", Fraction(18)),
        (r"18\text{m}", Fraction(18)),
        (r"18\,\mathrm{km}", Fraction(18)),
        (r"\textbf{18}", Fraction(18)),
        (r"-\mathbf{18}", Fraction(-18)),
    ],
)
def test_value_is_read(text: str, expected: Fraction):
    assert parse_number(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "-",
        "$",
        "five",
        "x = 18",
        "about 18",
        "3 + 4 = 7",
        "12:30",
        "18 or 19",
        "18 or nineteen",
        "18 (18)",
        "18 apples and 3 pears",
        "18\napples",
        "1 1/2",
        "1/2/3",
        "1/0",
        "1.5.2",
        "1..5",
        "--5",
        "-$-5",
        "- 5",
        "5-",
        "5 -",
        "12-5",
        "5%",
        "5 %",
        "5 percent",
        "5 per cent",
        "5 thousand",
        "18 hundred-year-old trees",
        "5k",
        "2 Million dollars",
        "2 dozens",
        "2 thirds",
        "5 and a half",
        "5$ 6",
        "18$ or 20",
        "18$ $",
        "18..",
        "2019 300",
        "9 50",
        "9 5000",
        "0 500",
        "9  500",
        "1,200 300",
        "1 200,300",
        "1 100/200",
        "6x",
        "-668i",
        "5m",
        "$5m",
        "6x apples",
        "6 x",
        "6 n",
        "6i",
        "5π",
        "5 π",
        "5 pi",
        "6xy",
        "6x-y",
        "6\N{MATHEMATICAL ITALIC SMALL X}",
        r"\frac{1}{2}",
        r"3\frac{1}{2}",
        r"5\%",
        r"5\,\%",
        r"\\$18",
        r"18\{,}000",
        r"\{18\}",
        r"5\text{ thousand}",
        r"18^2",
        "1,20",
        "1,2000",
        "12,34,567",
        "0,123",
        "1,200,",
        ",200",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e5",
        "1e400",
        "0x12",
        "1_000",
        "٣",
        "\N{FULLWIDTH DIGIT FIVE}",
        "5²",
        "½",
        "5½",
        "5 三",
        "5\0",
        "**18**",
    ],
)
def test_what_is_not_one_number_is_none(text: str):
    assert parse_number(text) is None


def test_digits_are_limited_part_by_part():
    most, too_many = "9" * MAX_DIGITS, "9" * (MAX_DIGITS + 1)
    assert parse_number(most) == int(most)
    assert parse_number(f"1/{most}") == Fraction(1, int(most))
    for text in (too_many, f"0.{too_many}", f"1/{too_many}", "1" + ",000" * MAX_DIGITS):
        assert parse_number(text) is None


@pytest.mark.parametrize(
    "piece",
    [
        "9",
        "9,",
        "999,",
        "999 ",
        " ",
        "-",
        "a",
        "5 /",
        "1/",
        ".",
        "$",
        "s ",
        r"\,",
        r"\text{",
        "{,}",
    ],
)
def test_time_is_linear(piece: str):
    started = time.perf_counter()
    parse_number("1 " + piece * (1_000_000 // len(piece)) + "!")
    parse_number(piece * (1_000_000 // len(piece)) + "!")
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(18), "18"),
        (Fraction(-1200), "-1200"),
        (Fraction(0), "0"),
        (Fraction(5, 2), "2.5"),
        (Fraction(-1, 8), "-0.125"),
        (Fraction(1, 100), "0.01"),
        (Fraction(1, 3), "1/3"),
        (Fraction(-7, 6), "-7/6"),
        (Fraction(1, 10**MAX_DIGITS), "0." + "0" * (MAX_DIGITS - 1) + "1"),
        (Fraction(1, 2 ** (MAX_DIGITS + 1)), f"1/{2 ** (MAX_DIGITS + 1)}"),
    ],
)
def test_canonical_text(value: Fraction, text: str):
    assert number_text(value) == text
    assert parse_number(text) == value


@given(st.integers(-(10**18), 10**18))
def test_every_usual_way_to_write_an_integer_reads_back(number: int):
    for text in (f"{number}", f"{number:,}", f"${number:,}", f"{number}.", f"{number:,}.00"):
        assert parse_number(text) == number
    assert parse_number(f"{number}".replace("-", MINUS)) == number


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9
    )
)
def test_decimals_read_back_exactly(number: Decimal):
    assert parse_number(f"{number:,f}") == Fraction(number)


@given(st.fractions())
def test_fractions_read_back_exactly(value: Fraction):
    assert parse_number(f"{value.numerator}/{value.denominator}") == value
    assert parse_number(number_text(value)) == value


DIGIT_RUNS = st.text("0123456789", max_size=MAX_DIGITS + 2)
NUMBER_LIKE = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["", "-", "$", f"{MINUS}$"]),
    DIGIT_RUNS,
    st.sampled_from(["", ".", "/", " / "]),
    DIGIT_RUNS,
    st.sampled_from(["", ".", " km"]),
)


@given(st.one_of(st.text(), st.text("0123456789+-,./$% eE\n²½"), NUMBER_LIKE))
def test_any_text_is_a_number_that_its_canonical_text_keeps_or_none(text: str):
    value = parse_number(text)
    if value is not None:
        canonical = number_text(value)
        assert parse_number(canonical) == value
        assert number_text(parse_number(canonical)) == canonical


@given(st.text())
def test_what_float_calls_a_number_never_gets_another_value(text: str):
    value = parse_number(text)
    try:
        expected = float(text)
    except ValueError:
        return
    assert value is None or float(value) == expected


UNSEEN = [
    "\0",
    "\x07",
    "\x7f",
    "\u200b",
    "\u200f",
    "\u202e",
    "\ufeff",
    "\u0663",
    "\uff15",
    "½",
    "²",
]


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["{}", "{:,}", "${:,}", "{:,}.50", "{:,} apples"]),
    st.sampled_from(UNSEEN),
    st.data(),
)
def test_a_character_that_is_not_seen_or_is_no_ascii_digit_spoils_the_number(
    number: int, form: str, character: str, data: st.DataObject
):
    text = form.format(number)
    digits = [place for place, one in enumerate(text) if one.isdigit()]
    place = data.draw(st.sampled_from([0, *digits, digits[-1] + 1]))
    assert parse_number(text) is not None
    assert parse_number(text[:place] + character + text[place:]) is None


@given(
    st.integers(0, 10**12),
    st.sampled_from(["", "-", "+", MINUS]),
    st.sampled_from(["", "$", "€", "£ ", r"\$"]),
    st.sampled_from([",", " ", "\N{NO-BREAK SPACE}", r"\,", "{,}", r",\!", ""]),
    st.sampled_from([("", 0), (".", 0), (".0", 0), (".50", Fraction(1, 2))]),
    st.sampled_from(["", " apples", " km/h.", "\n"]),
)
def test_every_way_to_write_a_number_reads_back(whole, sign, currency, grouping, decimals, unit):
    written, part = decimals
    if written == "." and unit.strip():
        written = ""  # "5. km" is not written
    value = (whole + part) * (-1 if sign in ("-", MINUS) else 1)
    grouped = f"{whole:,}".replace(",", grouping)
    assert parse_number(f"{sign}{currency}{grouped}{written}{unit}") == value
