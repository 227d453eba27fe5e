import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nblib.report.plots import figure_png, plot_levels, plot_stages, plot_training

BASE = {"n": 200, "format_accuracy": 0.0, "format_accuracy_ci95": [1e-18, 0.019]}
TUNED = {"n": 200, "format_accuracy": 0.995, "format_accuracy_ci95": [0.972, 0.999]}
STAGES = {"base": BASE, "tuned": TUNED, "tuned_sampled": TUNED}


def record(step: int, **fields) -> dict:
    return {
        "step": step,
        "loss": 3.0 / step,
        "learning_rate": 1e-3,
        "grad_norm": 2.0,
        "tokens": 800,
        "seconds": 2.0,
    } | fields


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return " | ".join(text.get_text() for text in figure.findobj(Text))


def lines(figure: Figure, label: str) -> list:
    return [line for axes in figure.axes for line in axes.lines if line.get_label() == label]


def test_training_shows_raw_smooth_and_validation_loss_with_seed_and_units():
    records = [record(step) for step in range(1, 101)]
    records[49]["val_loss"] = 0.5
    figure = plot_training(records, seed=7, title="A title")
    said = texts(figure)
    for words in (
        "A title",
        "seed 7",
        "nats per token",
        "training step",
        "learning rate",
        "gradient norm",
        "tokens per second",
        "100 logged steps",
    ):
        assert words in said
    (raw,) = lines(figure, "loss")
    np.testing.assert_allclose(raw.get_ydata()[:3], [3.0, 1.5, 1.0])
    (held_out,) = lines(figure, "validation loss")
    assert (list(held_out.get_xdata()), list(held_out.get_ydata())) == ([50], [0.5])
    assert len(lines(figure, "loss, mean of 5 records")) == 1


def test_training_counts_a_repeated_step_once_as_last_written_and_sorts():
    figure = plot_training(
        [record(1, loss=9.0), record(3, loss=2.0), record(2, loss=4.0), record(1, loss=5.0)],
        seed=0,
        title="resumed",
    )
    (raw,) = lines(figure, "loss")
    assert list(raw.get_xdata()) == [1, 2, 3]
    assert list(raw.get_ydata()) == [5.0, 4.0, 2.0]


def test_training_speed_is_tokens_over_seconds():
    figure = plot_training([record(1), record(2, tokens=300, seconds=1.5)], seed=0, title="t")
    speed = next(axes for axes in figure.axes if axes.get_title(loc="left") == "tokens per second")
    assert list(speed.lines[0].get_ydata()) == [400.0, 200.0]


def test_training_leaves_gaps_for_missing_null_and_diverged_values():
    odd = [record(1, loss=float("nan"), grad_norm=None), {"step": 2}, record(3, seconds=0)]
    assert figure_png(plot_training(odd, seed=0, title="odd"), dpi=40).startswith(b"\x89PNG")


def test_training_without_records_says_so():
    with pytest.raises(ValueError, match=r"metrics\.jsonl is empty"):
        plot_training([], seed=0, title="empty")


def test_stages_draw_each_value_with_its_interval():
    figure = plot_stages(STAGES, ["format_accuracy"], seed=3)
    said = texts(figure)
    for words in (
        "format accuracy",
        "tuned sampled",
        "0.995",
        "seed 3",
        "n = 200",
        "fraction of items",
        "Wilson 95 %",
    ):
        assert words in said
    tuned = figure.axes[0].containers[1]
    (left, y), (right, _) = tuned[2][0].get_segments()[0]
    assert (left, right) == pytest.approx((0.972, 0.999))
    assert y == tuned[0].get_ydata()[0]


def test_stages_differ_without_colour():
    figure = plot_levels(
        {name: {1: metrics, 2: metrics} for name, metrics in STAGES.items()},
        seed=0,
        rate="format_accuracy",
    )
    drawn = [container[0] for container in figure.axes[0].containers]
    assert len({line.get_marker() for line in drawn}) == 3
    assert len({line.get_linestyle() for line in drawn}) == 3


def test_a_stage_looks_the_same_whatever_stands_beside_it():
    both = plot_stages(STAGES, ["format_accuracy"], seed=0).axes[0].containers[1][0]
    alone = plot_stages({"tuned": TUNED}, ["format_accuracy"], seed=0).axes[0].containers[0][0]
    assert (both.get_marker(), both.get_color()) == (alone.get_marker(), alone.get_color())


def test_stages_name_the_missing_rate():
    with pytest.raises(ValueError, match="answer_accuracy"):
        plot_stages(STAGES, ["answer_accuracy"], seed=0)
    with pytest.raises(ValueError, match="expected stages and rates"):
        plot_stages({}, ["format_accuracy"], seed=0)


def test_a_rate_that_is_unknown_is_told_so_and_not_drawn():
    unknown = TUNED | {"truncation_rate": None, "truncation_rate_ci95": None}
    figure = plot_stages({"file": unknown}, ["format_accuracy", "truncation_rate"], seed=0)
    assert "unknown" in texts(figure)
    drawn = figure.axes[0].containers[0][0].get_xdata()
    assert drawn[0] == 0.995 and np.isnan(drawn[1])


def test_levels_keep_their_order_and_counts_also_from_json():
    by_level = {"base": {"10": BASE | {"n": 5}, "2": BASE}, "tuned": {2: TUNED | {"n": 190}}}
    figure = plot_levels(by_level, seed=4, rate="format_accuracy")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "2\nn = 190 to 200",
        "10\nn = 5",
    ]
    assert "seed 4" in texts(figure)
    assert axes.containers[1][0].get_ydata()[0] == 0.995


def test_levels_without_metrics_say_so():
    with pytest.raises(ValueError, match="metrics by level"):
        plot_levels({"base": {}}, seed=0)


def test_pyplot_and_jax_stay_out():
    code = (
        "import sys, nblib.report.plots, nblib.report.page; "
        "sys.exit(bool({'matplotlib.pyplot', 'jax'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
