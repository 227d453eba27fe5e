"""The learning curve's table and figure, and the sentence about more data."""

import re
from types import SimpleNamespace

import pytest

from nblib.evaluation.statistics import paired_comparison, stage_metrics
from nblib.report.data_curve import curve_line, learning_curve_table, plot_learning_curve
from nblib.tasks.gsm8k import GSM8K


def records(right, n=100):
    values = dict.fromkeys(GSM8K.metric_names, False)
    return [
        {"id": one, "reference": 1, "truncated": False, **values, GSM8K.headline: one < right}
        for one in range(n)
    ]


def curve_of(*points, finished=True, smallest=0.125):
    """A curve from pairs of rows and right answers of a hundred."""
    made = tuple(
        SimpleNamespace(
            rows=rows,
            steps=rows // 2,
            stage=SimpleNamespace(metrics=stage_metrics(records(right), GSM8K)),
        )
        for rows, right in points
    )
    gain = None
    if finished and len(points) > 1:
        before, last = (records(right) for _, right in points[-2:])
        gain = paired_comparison(before, last, GSM8K.metric(GSM8K.headline))
    worth = gain is not None and gain.ci95[0] > 0
    return SimpleNamespace(points=made, gain=gain, is_worth_it=worth, smallest=smallest)


def test_a_row_a_training_with_its_interval_and_the_sentence_below():
    curve = curve_of((4000, 20), (8000, 50))
    table = learning_curve_table(GSM8K, curve)
    assert table.columns == ("rows", "steps", "answer accuracy")
    assert [row[:2] for row in table.rows] == [("4,000", "2,000"), ("8,000", "4,000")]
    assert table.rows[0][2].startswith("0.200\n[0.133, 0.289]") and "n=100" in table.rows[1][2]
    assert table.note == curve_line(curve)
    assert learning_curve_table(GSM8K, None).rows == ()


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (
            [(4000, 20), (8000, 50)],
            r"The last doubling \(4,000 to 8,000 rows\) brought \+30\.0 points \[\+\d+\.\d, "
            r"\+\d+\.\d\] of answer accuracy, p < 0\.001 on the same items: more data is worth it",
        ),
        ([(10, 20), (1000, 40), (2000, 41)], r"\+1\.0 points .* more data is not seen to be worth"),
        ([(100, 50), (200, 20)], r"brought -30\.0 points .* not seen to be worth it\."),
        ([(1000, 10), (4000, 50)], r"^4 times the rows \(1,000 to 4,000 rows\) brought \+40\.0"),
        ([(1000, 10)], r"is not known: there is nothing to compare with"),
    ],
)
def test_what_more_data_is_worth_in_words(points, said):
    assert re.search(said, curve_line(curve_of(*points)))


def test_a_gain_that_is_not_seen_is_said_with_what_the_items_could_show():
    few, many = (curve_of((10, 5), (20, 5), smallest=one) for one in (float("inf"), 0.125))
    assert curve_line(few).endswith("worth it. Too few items differ to show a gain.")
    assert curve_line(many).endswith("worth it. These items show gains from 12.5 points.")


def test_a_training_that_was_cut_is_no_verdict():
    assert "is not known" in curve_line(curve_of((10, 5), (20, 6), finished=False))


def test_the_figure_has_a_point_a_training_on_a_log_axis():
    figure = plot_learning_curve(GSM8K, curve_of((4000, 20), (8000, 50), (16000, 60)), seed=7)
    (axes,) = figure.axes
    line = axes.containers[0].lines[0]
    assert axes.get_xscale() == "log" and "seed 7" in figure.get_supxlabel()
    assert [*line.get_xdata()] == [4000, 8000, 16000]
    assert [*line.get_ydata()] == [0.2, 0.5, 0.6]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4,000", "8,000", "16,000"]


def test_one_training_is_no_curve():
    assert plot_learning_curve(GSM8K, curve_of((10, 5)), seed=0) is None
    assert plot_learning_curve(GSM8K, None, seed=0) is None
