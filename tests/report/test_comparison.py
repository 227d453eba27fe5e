import math
from dataclasses import replace

import pytest

from nblib.evaluation.comparison import compare_stages, failure_counts
from nblib.evaluation.forgetting import Forgetting, Forgotten
from nblib.evaluation.sampling import vote_metrics
from nblib.report.comparison import (
    base_gain,
    comparison_tables,
    enough_line,
    gain_table,
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


def tables_of(stages, task=GSM8K, *, forgotten=None, votes=None):
    compared, failures = compare_stages(stages, task), failure_counts(stages, task)
    found = {"forgotten": forgotten or Forgotten(), "votes": votes or {}}
    tables = comparison_tables(task, compared, stages, failures, **found)
    tables = (gain_table(compared), *tables)
    return {table.title: table for table in tables}


def test_every_table_has_as_many_cells_as_columns(stages, compared):
    checks = (Forgetting(check="plain_form", paired=compared.gains[0].paired, p_holm=0.5),)
    perplexity = {"before": {"perplexity": 1.5, "nats_per_token": 0.4, "tokens": 1200}}
    twice = [{**one, "id": "a"} for one in stages[1].records[:2]]
    votes = {"base": vote_metrics(twice, GSM8K)}
    tables = tables_of(
        stages, forgotten=Forgotten(checks=checks, perplexity=perplexity), votes=votes
    )
    assert {"Several answers to each question", "Perplexity on worked solutions"} <= {*tables}
    for heading, table in tables.items():
        assert {len(row) for row in table.rows} == {len(table.columns)}, heading
        assert all(isinstance(cell, str) for row in table.rows for cell in row), heading


def test_what_was_not_measured_has_no_table(stages):
    assert not {"Several answers to each question", "Outside the task, before and after"} & {
        *tables_of(stages)
    }


def test_the_gains_hold_the_four_counts_of_mcnemars_table(stages):
    table = tables_of(stages)["Gains"]
    assert table.columns[-4:] == ("both", "only before", "only after", "neither")
    assert [row[1:3] for row in table.rows] == [("answer accuracy", "3"), ("lenient accuracy", "3")]
    assert table.rows[1][-4:] == ("1", "1", "1", "0")
    assert table.note.startswith("sft one against each earlier stage on the same items; smallest")


def test_the_base_is_judged_in_the_metric_that_does_not_ask_for_the_form(compared):
    assert (base_gain(compared).metric, base_gain(compared).n) == ("lenient_accuracy", 3)


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


def test_a_mean_has_items_that_rose_and_fell(slots, slot_stages):
    tables = tables_of(slot_stages, slots)
    gains = tables["Gains"]
    assert gains.columns[-2:] == ("before higher", "after higher")
    assert gains.rows[0][:3] == ("base", "slot f1", "3") and gains.rows[0][-2:] == ("1", "2")
    assert "; p and interval: paired bootstrap; p, Holm: " in gains.note
    assert [row[0] for row in tables["Gain over base by group"].rows] == ["places", "times"]
    assert tables["Regressions"].rows == (("s/1", "base", '{"a": 1, "b": 2}', "{}"),)


def test_the_figures_hold_every_comparison_and_every_item(stages, compared):
    gains = plot_gains(GSM8K, compared, seed=0)
    (axes,) = gains.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:3] == [
        "over base: answer accuracy",
        "over base: lenient accuracy",
        "level 1",
    ]
    failures = plot_failures(stages, failure_counts(stages, GSM8K), seed=0)
    bars = [bar for bar in failures.axes[0].patches if bar.get_width()]
    assert sum(bar.get_width() for bar in bars) == 6  # three items of two stages
    for figure in (gains, failures):
        assert figure_png(figure).startswith(b"\x89PNG")
