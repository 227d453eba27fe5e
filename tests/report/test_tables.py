from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.evaluation.answers import Stage
from nblib.evaluation.sampling import Group
from nblib.evaluation.statistics import paired_comparison
from nblib.report.tables import (
    Table,
    as_text,
    examples_table,
    failures_table,
    group_table,
    group_word,
    p_text,
    paired_table,
    read_estimate,
    rows_table,
    settings_table,
    shorten,
    stage_table,
    versions_table,
    visible,
)
from nblib.sources.rows import Dataset, Row
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example

BASE = {"n": 200, "format_accuracy": 0.0, "format_accuracy_ci95": [0.0, 0.0188]}
TUNED = {"n": 200, "format_accuracy": 0.995, "format_accuracy_ci95": [0.9722, 0.9991]}
FORM = "format accuracy (the whole completion has the strict form)"


def stage(name, metrics):
    return Stage(name=name, metrics=metrics, by_group={}, records=())


def lines(table):
    return table.markdown().splitlines()


def test_an_estimate_reads_with_its_interval_and_count():
    assert str(read_estimate(TUNED, "format_accuracy")) == "0.995\n[0.972, 0.999] (n=200)"
    assert read_estimate(TUNED, "format_accuracy").figure == "0.995"


def test_a_metric_without_its_interval_is_refused():
    with pytest.raises(ValueError, match="format_accuracy_ci95"):
        read_estimate({"n": 3, "format_accuracy": 1.0}, "format_accuracy")


def test_an_unknown_rate_is_called_unknown():
    unknown = {"n": 3, "truncation_rate": None, "truncation_rate_ci95": None}
    assert str(read_estimate(unknown, "truncation_rate")) == "unknown"


def test_stages_in_markdown(word_stage):
    stages = [word_stage("base", ["4"]), word_stage("own|form", ["<reasoning>", "4"])]
    head, rule, form, *_ = lines(stage_table(GSM8K, stages))
    assert (head, rule) == ("| metric | base | own\\|form |", "| --- | --- | --- |")
    assert form == f"| {FORM} | 0.000 [0.000, 0.793] (n=1) | 0.000 [0.000, 0.658] (n=2) |"


def test_the_own_form_of_a_base_is_explained(word_stage):
    own = stage_table(GSM8K, [word_stage("base_own_form", ["4"])])
    assert own.note.endswith("; own form: asked and scored in the form that the base knows")
    assert "own form" not in stage_table(GSM8K, [word_stage("base", ["4"])]).note


def test_a_row_for_every_metric_of_the_task_and_what_was_cut(slots, slot_stage):
    table = stage_table(slots, [slot_stage("base", ['{"a": 1}', "a"])])
    assert [row[0] for row in table.rows] == [
        "slot f1\n(F1 of the slots)",
        "schema valid\n(one JSON object)",
        "prose\n(no object; lower is better)",
        "truncation rate\n(cut at the token limit; lower is better)",
    ]
    assert table.rows[0][1].startswith("0.333\n[")


def test_without_stages_the_table_says_so():
    table = stage_table(GSM8K, [])
    assert (table.rows, table.note) == ((), "nothing was evaluated")


def test_a_stage_that_lacks_a_metric_of_the_task_is_refused():
    with pytest.raises(ValueError, match="tag_order_accuracy"):
        stage_table(GSM8K, [stage("base", BASE)])


def test_a_cell_ends_neither_itself_nor_its_row():
    table = Table(columns=("a|b",), rows=(("a | b\nc",),))
    assert lines(table) == ["| a\\|b |", "| --- |", "| a \\| b c |"]


def test_a_verbatim_cell_is_code_and_no_tag_or_tick_ends_it():
    table = Table(columns=("text",), rows=(("<b>`x`\n\n$1|2$",), ("",)), verbatim=("text",))
    assert lines(table)[2:] == ["| `<b>'x'`<br>`$1\\|2$` |", "| (nothing) |"]


def test_a_notebook_shows_title_table_and_note():
    table = Table(title="Gains", columns=("over",), rows=(("base",),), note="same items")
    assert table._repr_markdown_() == ("**Gains**\n\n| over |\n| --- |\n| base |\n\nsame items")
    assert Table(columns=("over",), rows=())._repr_markdown_() == "None."


def test_paired_rates_have_the_four_counts(word_stage):
    base, tuned = word_stage("base", ["4", "4", "5", "5"]), word_stage("t", ["4", "5", "4", "4"])
    paired = paired_comparison(base.records, tuned.records, GSM8K.metric("lenient_accuracy"))
    named = [("base_to_t", paired)]
    table = paired_table(named, title="Gain", heading="compared", corrected=[0.0004])
    assert table.columns == (
        *("compared", "metric", "n", "difference, points", "p", "p, Holm"),
        *("both", "only before", "only after", "neither"),
    )
    ((name, metric, n, difference, p, holm, *counts),) = table.rows
    assert (name, metric, n) == ("base to t", "lenient accuracy", "4")
    assert difference.startswith("+25.0 [") and (p, holm) == ("1.000", "< 0.001")
    assert counts == ["1", "1", "2", "0"]
    assert table.note == (
        "p and interval: exact McNemar test: do more items become right than wrong? (Fay and "
        "Lumbard 2021); p, Holm: corrected for being one of several tests"
    )


def test_a_mean_among_the_paired_leaves_the_counts_that_both_have(slots, slot_stage):
    base, tuned = slot_stage("base", ['{"a": 1}', "a"]), slot_stage("t", ['{"a": 2}', '{"b": 2}'])
    paired = paired_comparison(base.records, tuned.records, slots.metric("slot_f1"))
    table = paired_table([("one", paired)], title="Gain", heading="stage", note="as it is")
    assert table.note == "as it is; p and interval: paired bootstrap"
    assert table.columns[0] == "stage"
    assert table.columns[-2:] == ("before higher", "after higher")
    assert table.rows[0][-2:] == ("1", "1")
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_p_values():
    assert [p_text(p) for p in (0.0009, 0.001, 0.25, 1.0)] == [
        *("< 0.001", "0.001", "0.250", "1.000")
    ]


def test_nested_settings_are_a_row_a_value():
    table = settings_table({"a": {"b": {"c": 1}}, "d": [1, None], "e": "x"})
    assert table.rows == (("a.b.c", "1"), ("d", "[1, null]"), ("e", "x"))


def test_any_reference_is_text():
    assert [as_text(value) for value in (None, "18", 18, {"é": [1]})] == [
        *("none", "18", "18", '{"é": [1]}')
    ]


def test_one_group_is_called_without_what_explains_it(slots):
    assert (group_word(GSM8K), group_word(slots)) == ("level", "group")


def test_shorten_by_hand():
    assert shorten("abcdefghi", characters=6) == "abcd\n… 3 characters left out …\nhi"
    assert shorten("1\n2\n3\n4\n5", lines=3) == "1\n2\n… 2 lines left out …\n5"
    assert shorten("as it is") == "as it is"


def test_prose_stays_as_it_is():
    assert visible("é 数 👍 a\tb\n5\u00a0%") == "é 数 👍 a\tb\n5\u00a0%"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_every_text_can_be_seen_and_stored(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert all(c.isprintable() or c in "\n\t" or c.isspace() for c in shown)
    assert "\u2028" not in shown and "\r" not in shown


def test_a_row_is_shown_as_its_source_gave_it_and_where_it_comes_from():
    rows = (Row(id="a/1", fields={"question": "1+1?", "answer": "1+1=2\n#### 2"}, place="a:1"),)
    data = Dataset.of("toy", "made here", rows, rows)
    table = rows_table(replace(data, notes=("made here", "a hub was not there")))
    assert table.rows == (("1+1?", "1+1=2\n#### 2"),)
    assert table.columns == ("question", "answer")
    assert table.note == "made here. a hub was not there"


def test_an_example_is_shown_with_what_is_learnt_and_what_it_is_scored_against():
    one = Example(id="a/1", prompt="1+1?", completion="<answer>2</answer>", reference={"n": 2})
    assert examples_table([one]).rows == (("1+1?", "<answer>2</answer>", '{"n": 2}'),)


def test_of_a_group_the_first_and_the_last_completion_are_shown():
    example = Example(id="a/1", prompt="1+1?", completion="", reference="2")
    group = Group(
        example=example,
        completions=("two", "2?", "3"),
        rewards=(1.0, 0.5, 0.0),
        advantages=(1.2, 0.0, -1.2),
    )
    table = group_table(group)
    assert table.rows == (("1.00", "+1.20", "two"), ("0.00", "-1.20", "3"))
    assert table.note == "1+1? Wanted: 2"


def test_versions_stand_beside_each_other_with_what_is_in_their_loss():
    plan = SimpleNamespace(steps=lambda accumulation: 80 // accumulation, whole_share=0.25)
    recipe = SimpleNamespace(learning_rate=2e-3, num_epochs=1, accumulation=8, max_length=512)
    table = versions_table({"v1": recipe}, {"v1": plan})
    assert table.rows == (("v1", "0.002", "1", "8", "512", "10", "25%"),)


def test_failures_are_grouped_with_a_sample_and_what_to_do(slots):
    task = replace(slots, advice={"payload": "look at it"})
    details = {"path": "payload.title", "message": "1 is not of type 'string'"}
    failed = [
        {"broke": "no JSON", "completion": "Sure!", "details": {}},
        {"broke": "payload", "completion": "{1}", "details": details},
        {"broke": "payload", "completion": "{2}", "details": details},
    ]
    assert failures_table(task, failed).rows == (
        ("payload", "2", "payload.title: 1 is not of type 'string'", "{1}", "look at it"),
        ("no JSON", "1", "", "Sure!", ""),
    )
    assert failures_table(task, []).rows == ()
