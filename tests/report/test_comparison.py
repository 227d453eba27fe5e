import math
from dataclasses import replace

import pytest

from nblib.evaluation.comparison import compare_stages, failure_counts
from nblib.evaluation.forgetting import Forgetting
from nblib.evaluation.sampling import vote_metrics
from nblib.report.comparison import (
    comparison_lead,
    comparison_tables,
    enough_line,
    plot_failures,
    plot_gains,
)
from nblib.report.plots import figure_png
from nblib.tasks.gsm8k import GSM8K

RIGHT, WRONG, PLAIN = (
    "<reasoning>so</reasoning><answer>4</answer>",
    "<reasoning>so</reasoning><answer>5</answer>",
    "It is 4",
)
WHOLE, HALF, EMPTY = '{"a": 1, "b": 2}', '{"a": 1, "b": 3}', "{}"


@pytest.fixture(scope="module")
def stages(word_stage):
    return (
        word_stage("base", [PLAIN, PLAIN, WRONG]),
        word_stage("sft_one", [RIGHT, WRONG, RIGHT]),
    )


@pytest.fixture(scope="module")
def compared(stages):
    return compare_stages(stages, GSM8K)


@pytest.fixture(scope="module")
def slot_stages(slot_stage):
    return slot_stage("base", [HALF, WHOLE, "a"]), slot_stage("tuned", [WHOLE, EMPTY, HALF])


def tables_of(stages, task=GSM8K, **more):
    compared, failures = compare_stages(stages, task), failure_counts(stages, task)
    tables = comparison_tables(task, compared, stages, failures, **more)
    return {table.title: table for table in tables}


def test_every_table_has_as_many_cells_as_columns(stages, compared):
    forgotten = [Forgetting(check="plain_form", paired=compared.gains[0].paired, p_holm=0.5)]
    perplexity = {"before": {"perplexity": 1.5, "nats_per_token": 0.4, "tokens": 1200}}
    twice = [{**one, "id": "a"} for one in stages[1].records[:2]]
    votes = {"base": vote_metrics(twice, GSM8K)}
    tables = tables_of(stages, forgotten=forgotten, perplexity=perplexity, votes=votes)
    assert {"Several answers to each question", "Perplexity on worked solutions"} <= {*tables}
    for heading, table in tables.items():
        assert {len(row) for row in table.rows} == {len(table.columns)}, heading
        assert all(isinstance(cell, str) for row in table.rows for cell in row), heading


def test_what_was_not_measured_has_no_table(stages):
    assert not {"Several answers to each question", "Outside the task, before and after"} & {
        *tables_of(stages)
    }


def test_the_two_by_two_table_stands_as_mcnemar_reads_it(stages):
    table = tables_of(stages)["base and sft one: lenient accuracy"]
    assert table.columns == ("items", "sft one right", "sft one wrong")
    assert table.rows == (("base right", "1", "1"), ("base wrong", "1", "0"))


def test_regressions_show_what_was_read_before_and_now(stages):
    table = tables_of(stages)["Regressions"]
    assert table.rows == (("t/1", "base", "4", "5"),)
    assert table.note.startswith("1 in all")


def test_groups_are_called_what_the_task_calls_them(stages):
    assert tables_of(stages)["Gain over base by level"].rows[0][0] == "1"


def test_too_few_items_are_said_so(compared):
    ten = replace(compared, smallest=0.1)
    assert enough_line(ten) == "10.0 points of lenient accuracy over base (power 0.8)"
    assert "too few items" in enough_line(replace(compared, smallest=math.inf))


def test_the_lead_names_form_gain_and_both_stages(stages, compared):
    lead = comparison_lead(GSM8K, compared, stages)
    assert lead.startswith(
        "Format accuracy went from 33.3% (base) to 100.0% (sft one) on the same 3 held-out "
        "questions. Lenient accuracy changed by +0.0 points ["
    )
    assert lead.endswith("from 66.7% to 66.7%.")


def test_a_mean_has_no_two_by_two_table_but_items_that_rose_and_fell(slots, slot_stages):
    tables = tables_of(slot_stages, slots)
    assert not [title for title in tables if title.startswith("base and tuned")]
    gains = tables["Gains"]
    assert gains.columns[-2:] == ("before higher", "after higher")
    assert gains.rows[0][:3] == ("base", "slot f1", "3") and gains.rows[0][-2:] == ("1", "2")
    assert gains.note.endswith("on the same items: paired bootstrap")
    assert [row[0] for row in tables["Gain over base by group"].rows] == ["places", "times"]
    assert tables["Regressions"].rows == (("s/1", "base", '{"a": 1, "b": 2}', "{}"),)


def test_the_lead_of_a_mean(slots, slot_stages):
    lead = comparison_lead(slots, compare_stages(slot_stages, slots), slot_stages)
    assert lead.startswith("Schema valid went from 66.7% (base) to 100.0% (tuned)")
    assert "Slot f1 changed by +0.0 points" in lead and "from 50.0% to 50.0%" in lead


def test_the_figures_hold_every_comparison_and_every_item(stages, compared):
    gains = plot_gains(GSM8K, compared, seed=0)
    (axes,) = gains.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:3] == [
        "over base: answer accuracy",
        "over base: lenient accuracy",
        "level 1",
    ]
    failures = plot_failures(failure_counts(stages, GSM8K), 3, seed=0)
    bars = [bar for bar in failures.axes[0].patches if bar.get_width()]
    assert sum(bar.get_width() for bar in bars) == 6  # three items of two stages
    for figure in (gains, failures):
        assert figure_png(figure).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="got none"):
        plot_failures({}, 3, seed=0)
