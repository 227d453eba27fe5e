import math
from dataclasses import replace

import pytest
from nblib.evaluation.evaluate import score_stage
from nblib.report.plots_comparison import plot_failures, plot_gains
from nblib.report.tables_comparison import comparison_tables, enough_line

from nblib.evaluation.comparison import compare_stages, failure_counts
from nblib.evaluation.forgetting import Forgetting
from nblib.evaluation.votes import vote_metrics
from nblib.report.plots import figure_png
from nblib.tasks.gsm8k import GSM8K

RIGHT, WRONG, PLAIN = (
    "<reasoning>so</reasoning><answer>4</answer>",
    "<reasoning>so</reasoning><answer>5</answer>",
    "It is 4",
)


def stage(name, completions):
    answers = [
        {"id": f"item/{i}", "question": f"How? {i}", "completion": text, "reference": "4"}
        | {"level": 1}
        for i, text in enumerate(completions)
    ]
    return score_stage(name, answers, GSM8K)


@pytest.fixture(scope="module")
def stages():
    return (stage("base", [PLAIN, PLAIN, WRONG]), stage("sft_one", [RIGHT, WRONG, RIGHT]))


@pytest.fixture(scope="module")
def compared(stages):
    return compare_stages(stages)


def tables_of(stages, compared, **changes):
    given = {"forgot": (), "surprise": {}, "votes": {}} | changes
    records = [record for one in stages for record in one.records]
    return comparison_tables(compared, failure_counts(stages), records=records, **given)


def test_every_table_has_as_many_cells_as_columns(stages, compared):
    forgot = [Forgetting(check="plain_form", paired=compared.gains[0].paired, p_holm=0.5)]
    surprise = {"before": {"perplexity": 1.5, "nats_per_token": 0.4, "tokens": 1200}}
    votes = {"base": vote_metrics([{"id": "a", "answer": "4", "correct": True}] * 2)}
    tables = tables_of(stages, compared, forgot=forgot, surprise=surprise, votes=votes)
    assert {"Several answers to each question", "Perplexity on worked solutions"} <= {*tables}
    for heading, table in tables.items():
        assert {len(row) for row in table.rows} == {len(table.columns)}, heading
        assert all(isinstance(cell, str) for row in table.rows for cell in row), heading


def test_what_was_not_measured_has_no_table(stages, compared):
    assert not {"Several answers to each question", "Outside the task, before and after"} & {
        *tables_of(stages, compared)
    }


def test_the_two_by_two_table_stands_as_mcnemar_reads_it(stages, compared):
    table = tables_of(stages, compared)["base and sft one: lenient accuracy"]
    assert table.columns == ("items", "sft one right", "sft one wrong")
    assert table.rows == (("base right", "1", "1"), ("base wrong", "1", "0"))


def test_regressions_show_what_was_read_before_and_now(stages, compared):
    table = tables_of(stages, compared)["Regressions"]
    assert table.rows == (("item/1", "base", "4", "5"),)
    assert table.note.startswith("1 in all")


def test_too_few_items_are_said_so(compared):
    assert "10.0 points over base" in enough_line(replace(compared, smallest=0.1))
    assert "too few items" in enough_line(replace(compared, smallest=math.inf))


def test_the_figures_hold_every_comparison_and_every_item(stages, compared):
    gains = plot_gains(compared, seed=0)
    (axes,) = gains.axes
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == [
        "over base: answer accuracy",
        "over base: lenient accuracy",
    ]
    failures = plot_failures(failure_counts(stages), 3, seed=0)
    bars = [bar for bar in failures.axes[0].patches if bar.get_width()]
    assert sum(bar.get_width() for bar in bars) == 6  # three items of two stages
    for figure in (gains, failures):
        assert figure_png(figure).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="got none"):
        plot_failures({}, 3, seed=0)
