import pytest

from nblib.report.tables import escape_cell, rate_names, read_rate, stage_table

BASE = {"n": 200, "format_accuracy": 0.0, "format_accuracy_ci95": [0.0, 0.0188]}
TUNED = {
    "n": 200,
    "format_accuracy": 0.995,
    "format_accuracy_ci95": [0.9722, 0.9991],
    "answer_accuracy": 0.66,
    "answer_accuracy_ci95": [0.5918, 0.7221],
}


def test_a_rate_reads_with_its_interval_and_count():
    assert str(read_rate(TUNED, "format_accuracy")) == "0.995 [0.972, 0.999] (n=200)"


def test_a_rate_without_its_interval_is_refused():
    with pytest.raises(ValueError, match="format_accuracy_ci95"):
        read_rate({"n": 3, "format_accuracy": 1.0}, "format_accuracy")


def test_a_rate_that_is_unknown_is_told_so():
    unknown = {"n": 3, "truncation_rate": None, "truncation_rate_ci95": None}
    assert str(read_rate(unknown, "truncation_rate")) == "unknown"
    assert stage_table({"file": unknown}).splitlines()[-1] == "| truncation rate | unknown |"


def test_names_come_from_all_stages_in_order_and_skip_counts():
    assert rate_names({"base": BASE, "tuned": TUNED}) == ("format_accuracy", "answer_accuracy")


def test_markdown():
    assert stage_table({"base": BASE, "tuned|x": TUNED}).splitlines() == [
        "| rate | base | tuned\\|x |",
        "| --- | --- | --- |",
        "| format accuracy | 0.000 [0.000, 0.019] (n=200) | 0.995 [0.972, 0.999] (n=200) |",
        "| answer accuracy | not measured | 0.660 [0.592, 0.722] (n=200) |",
    ]


def test_markdown_of_chosen_rates():
    assert stage_table({}) == "nothing was evaluated"
    assert "answer" not in stage_table({"tuned": TUNED}, ["format_accuracy"])


def test_a_cell_ends_neither_itself_nor_its_row():
    assert escape_cell("a | b\nc") == "a \\| b c"
