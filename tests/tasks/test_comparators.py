"""Each comparator's rule by hand: what is the same value, and what is not."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tasks.comparators import normalized, number_readings, same
from nblib.tasks.slots import COMPARATORS, SlotSpec

ANY_TEXT = st.text(st.characters(exclude_categories=()))
SCALAR = st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT
LIKELY = st.sampled_from(
    [
        "1.234",
        "1,234.5",
        "1 234",
        "2024-05-01",
        "2024-05-01T10:00Z",
        "a",
        "A",
        "",
        " ",
        1,
        1.0,
        True,
    ]
)


def is_same(compare: str | None, gold: Any, answer: Any, **more: Any) -> bool:
    return same(gold, answer, SlotSpec(compare=compare, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("Bonn", "Bonn", True),
        ("Bonn", "bonn", False),
        ("Bonn", "Bonn ", False),
        ("5–6", "5-6", False),
        ("é", "e\u0301", False),
        (12, 12, True),
        (12, 12.0, True),  # JSON knows one number 12
        (12, "12", False),
        ("12", 12, False),
        (0.1 + 0.2, 0.3, False),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        (True, "true", False),
        (2**53 + 1, float(2**53), False),
    ],
)
def test_exact(gold, answer, expected):
    assert is_same("exact", gold, answer) is is_same("exact", answer, gold) is expected


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("Café Noir", "CAFÉ  NOIR", True),
        ("Café", "Cafe\u0301", True),
        ("Café", "Cafe", False),
        ("Straße", "STRASSE", True),
        ("ﬁne ①", "fine 1", True),
        ("\uff37\uff49\uff44\uff45", "wide", True),
        ("a b", " a\u00a0\u2009\n\tb\u3000", True),
        ("a b", "ab", False),
        *(
            ("5-6", f"5{dash}6", True)
            for dash in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d"
        ),
        ("5-6", "5 - 6", False),
        ("5-6", "56", False),
        ("Bonn", "Bonn.", False),
        (12, "12", True),
        (12, 12.0, True),  # JSON knows one number 12
        (12.0, "12", True),
        (12.5, "12.5", True),
        (1, True, False),
        (True, "true", True),
    ],
)
def test_normalized(gold, answer, expected):
    assert is_same("normalized", gold, answer) is expected
    assert is_same("normalized", answer, gold) is expected
    assert is_same("judge", gold, answer) is expected  # the judge is asked about the others
    assert is_same("fuzzy", gold, answer, threshold=1) is expected


def test_without_a_comparator_texts_are_normalized_and_all_else_is_exact():
    assert is_same(None, "Bonn", "BONN")
    assert is_same(None, 12, 12.0)
    assert not is_same(None, 12, "12")
    assert not is_same(None, 1, True)
    assert not is_same(None, 12, 12.001)


# What is written, and the numbers that it can be.
NUMBERS: list[tuple[Any, set]] = [
    (12, {12}),
    (12.5, {"12.5"}),
    (0.1, {"0.1"}),
    (1e21, {10**21}),
    (-3, {-3}),
    (True, set()),
    (None, set()),
    (float("inf"), set()),
    (float("nan"), set()),
    ("12", {12}),
    ("+12", {12}),
    ("-12.50", {"-12.5"}),
    ("\u221212", {-12}),
    ("007", {7}),
    (".5", {"0.5"}),
    (",5", {"0.5"}),
    ("5.", {5}),
    ("1.5e3", {1500}),
    ("2E-2", {"0.02"}),
    # Two marks: the last one parts decimals.
    ("1,234.50", {"1234.5"}),  # en-US, en-GB, ja-JP, zh-CN
    ("1.234,50", {"1234.5"}),  # de-DE, es-ES, it-IT, pt-BR, nl-NL, tr-TR
    ("1 234,50", {"1234.5"}),
    ("1\u00a0234,50", {"1234.5"}),  # ru-RU, sv-SE, cs-CZ, pl-PL
    ("1\u202f234,50", {"1234.5"}),  # fr-FR
    ("1\u2009234.50", {"1234.5"}),
    ("1'234.50", {"1234.5"}),  # de-CH
    ("1’234.50", {"1234.5"}),
    ("1_234.5", {"1234.5"}),
    ("1,234,567.8", {"1234567.8"}),
    ("1.234.567,8", {"1234567.8"}),
    ("12,34,567.80", {"1234567.8"}),  # en-IN
    ("\u0661\u066c\u0662\u0663\u0664\u066b\u0665", {"1234.5"}),  # ar-EG
    ("\u06f1\u066c\u06f2\u06f3\u06f4\u066b\u06f5", {"1234.5"}),  # fa-IR
    ("\uff11\uff0c\uff12\uff13\uff14\uff0e\uff15", {"1234.5"}),
    # One mark, which parts thousands or decimals: both are possible.
    ("1,234", {1234, "1.234"}),
    ("1.234", {1234, "1.234"}),
    ("12.345", {12345, "12.345"}),
    # One mark, which can part one of them alone.
    ("0.123", {"0.123"}),
    ("0,123", {"0.123"}),
    ("1234.567", {"1234.567"}),
    ("1,23", {"1.23"}),
    ("1.2345", {"1.2345"}),
    ("1,234,567", {1234567}),
    ("1.234.567", {1234567}),
    ("1,23,456", {123456}),
    ("1 234", {1234}),
    ("1'234'567", {1234567}),
    ("\u0661\u066c\u0662\u0663\u0664", {1234}),  # ar-EG: its mark for thousands is no other
    ("\u06f1\u06f2\u066c\u06f3\u06f4\u06f5\u066c\u06f6\u06f7\u06f8", {12345678}),  # fa-IR
    ("\u0967,\u0968\u0969\u096a", {1234, "1.234"}),  # hi-IN: other digits, no other marks
    ("\u0967,\u0968\u0969,\u096a\u096b\u096c", {123456}),
    # Around it stand a currency and a unit.
    ("$1,234.50", {"1234.5"}),
    ("1.234,50 €", {"1234.5"}),
    ("R$ 12,90", {"12.9"}),
    ("CHF 12.-", {12}),
    ("12,- kr", {12}),
    ("₹99/-", {99}),
    ("-5 %", {-5}),
    ("12 pieces", {12}),
    ("USD12", {12}),
    # Not exactly one number.
    ("", set()),
    ("twelve", set()),
    ("12 or 13", set()),
    ("10-20", set()),
    ("1.2.3", set()),
    ("1,2.3,4", set()),
    ("2024-05-01", set()),
    ("1 23", set()),
]


@pytest.mark.parametrize(("value", "expected"), NUMBERS, ids=[repr(one) for one, _ in NUMBERS])
def test_the_numbers_that_a_value_can_be(value, expected):
    assert number_readings(value) == {Decimal(one) for one in expected}


@pytest.mark.parametrize(
    ("gold", "answer", "tolerance", "expected"),
    [
        (1234.5, "1.234,50 €", 0, True),
        (1234, "1.234", 0, True),
        (1.234, "1.234", 0, True),
        (1235, "1.234", 0, False),
        ("1.234,5", 1234.5, 0, True),
        ("1.234,5", "1,234.5", 0, True),
        (12, 12.0, 0, True),
        (12, "12.0", 0, True),
        (12, 12.01, 0, False),
        (12, 12.01, 0.01, True),  # by binary fractions it were off by more
        (0.3, 0.2, 0.1, True),
        (0.5, 0.2, 0.3, True),
        (9.99, 10.01, 0.01, False),
        (12, -12, 0, False),
        (100, 101, 1, True),
        (100, 99, 1, True),
        (100, 101.5, 1, False),
        (10**40, 10**40 + 1, 0, False),
        (10**40, 10**40 + 1, 1, True),
        (1, True, 0, False),
        (0, False, 5, False),
        (True, True, 0, True),
        # Of what holds no number, the text counts.
        ("n/a", "N/A", 0, True),
        ("n/a", "none", 0, False),
        (5, "five", 0, False),
        (5, "5 or 6", 0, False),
    ],
)
def test_number(gold, answer, tolerance, expected):
    assert is_same("number", gold, answer, tolerance=tolerance) is expected
    assert is_same("number", answer, gold, tolerance=tolerance) is expected


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("2024-05-01", "2024-05-01", True),
        ("2024-05-01", "20240501", True),
        ("2024-05-01", "2024-W18-3", True),
        ("2024-05-01", " 2024-05-01 ", True),
        ("2024-05-01", "2024-05-02", False),
        ("2024-05-01", "2024-01-05", False),
        ("2024-05-01", "2024-05-01T18:30", True),  # gold says no time
        ("2024-05-01T18:30", "2024-05-01", True),
        ("2024-05-01T18:30", "2024-05-01T18:30:00", True),
        ("2024-05-01T18:30", "2024-05-01 18:30", True),
        ("2024-05-01T18:30", "2024-05-01T18:31", False),
        ("2024-05-01T18:30Z", "2024-05-01T20:30+02:00", True),
        ("2024-05-01T18:30Z", "2024-05-01T18:30+02:00", False),
        # What is no ISO date counts as text.
        ("2024-05-01", "1 May 2024", False),
        ("2024-05-01", "01.05.2024", False),
        ("2024-05-01", "2024-02-30", False),
        ("2024-05-01", "2024\u201105\u201101", True),
        ("May 2024", "MAY 2024", True),
        ("tomorrow", "today", False),
        ("2024", 2024, True),
        ("2024-05-01", True, False),
    ],
)
def test_date(gold, answer, expected):
    assert is_same("date", gold, answer) is is_same("date", answer, gold) is expected


@pytest.mark.parametrize(
    ("gold", "answer", "ratio"),
    [
        ("kitten", "kitten", 1),
        ("kitten", "KITTEN ", 1),
        ("abcd", "abc", 6 / 7),  # 1 deleted of 4 + 3
        ("abcd", "abxd", 6 / 8),  # another letter: 1 deleted, 1 inserted
        ("kitten", "sitting", 8 / 13),  # i t t n are common
        ("Grand Hotel", "Grand Hotl", 20 / 21),
        ("abc", "xyz", 0),
    ],
)
def test_fuzzy_is_the_indel_ratio(gold, answer, ratio):
    assert is_same("fuzzy", gold, answer, threshold=ratio - 0.0001 if ratio else 0)
    assert is_same("fuzzy", answer, gold, threshold=ratio - 0.0001 if ratio else 0)
    if ratio < 1:
        assert not is_same("fuzzy", gold, answer, threshold=ratio + 0.0001)
        assert not is_same("fuzzy", gold, answer, threshold=1)


@pytest.mark.parametrize("numerator", range(1, 21))
def test_a_ratio_equal_to_the_threshold_is_enough(numerator):
    # 2 n of 20 characters are common.
    gold, answer = "a" * 10, "a" * (numerator // 2) + "b" * (10 - numerator // 2)
    threshold = (numerator // 2) / 10
    assert is_same("fuzzy", gold, answer, threshold=threshold)


@given(st.sampled_from((*COMPARATORS, None)), SCALAR | LIKELY, SCALAR | LIKELY)
def test_no_two_values_raise_and_each_is_itself(compare, one, other):
    spec = {"tolerance": 0.5, "threshold": 0.5}
    assert is_same(compare, one, one)
    found = is_same(compare, one, other, **spec)
    assert found in (True, False)
    if compare is not None:  # else the right value's type chooses the comparator
        assert is_same(compare, other, one, **spec) == found
    if is_same("exact", one, other):
        assert is_same(compare, one, other)


@given(ANY_TEXT)
def test_normalized_twice_is_normalized_once(text):
    assert normalized(normalized(text)) == normalized(text)
    assert normalized(f" {text}\n") == normalized(text)


@given(st.integers(-(10**12), 10**12), st.integers(0, 99), st.booleans())
def test_a_written_number_is_read_back(whole, cents, is_german):
    text = f"{whole:,}.{cents:02}"
    if is_german:
        text = text.translate(str.maketrans(",.", ".,"))
    exact = Decimal(f"{whole}.{cents:02}")
    assert exact in number_readings(text)
    assert is_same("number", json.loads(f"{whole}.{cents:02}"), text)
