import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nblib.evaluation.answers import Stage
from nblib.report.plots import (
    by_step,
    calm,
    column,
    figure_png,
    new_figure,
    plot_groups,
    plot_stages,
    plot_training,
    smooth,
)
from nblib.tasks.gsm8k import GSM8K

BASE = {"n": 200, "format_accuracy": 0.0, "format_accuracy_ci95": [1e-18, 0.019]}
TUNED = {"n": 200, "format_accuracy": 0.995, "format_accuracy_ci95": [0.972, 0.999]}
FORM = "format_accuracy"


def stage(name, metrics, by_group=()):
    return Stage(name=name, metrics=metrics, by_group=dict(by_group), records=())


STAGES = (stage("base", BASE), stage("tuned", TUNED), stage("tuned_sampled", TUNED))


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
    figure = plot_stages(GSM8K, STAGES, [FORM], seed=3)
    said = texts(figure)
    for words in (
        *("format accuracy", "tuned sampled", "0.995", "seed 3"),
        *("n = 200", "fraction of items", "Wilson 95 %"),
    ):
        assert words in said
    tuned = figure.axes[0].containers[1]
    (left, y), (right, _) = tuned[2][0].get_segments()[0]
    assert (left, right) == pytest.approx((0.972, 0.999))
    assert y == tuned[0].get_ydata()[0]


def test_stages_differ_without_colour():
    stages = [stage(one.name, {}, {"1": one.metrics, "2": one.metrics}) for one in STAGES]
    figure = plot_groups(GSM8K, stages, FORM, seed=0)
    drawn = [container[0] for container in figure.axes[0].containers]
    assert len({line.get_marker() for line in drawn}) == 3
    assert len({line.get_linestyle() for line in drawn}) == 3


def test_a_stage_looks_the_same_whichever_stand_beside_it():
    both = plot_stages(GSM8K, STAGES, [FORM], seed=0).axes[0].containers[1][0]
    alone = plot_stages(GSM8K, STAGES[1:2], [FORM], seed=0).axes[0].containers[0][0]
    assert (both.get_marker(), both.get_color()) == (alone.get_marker(), alone.get_color())


def test_stages_name_the_missing_metric():
    with pytest.raises(ValueError, match="answer_accuracy"):
        plot_stages(GSM8K, STAGES, ["answer_accuracy"], seed=0)
    with pytest.raises(ValueError, match="expected stages"):
        plot_stages(GSM8K, (), [FORM], seed=0)


def test_an_unknown_rate_is_named_and_not_drawn():
    unknown = stage("file", TUNED | {"truncation_rate": None, "truncation_rate_ci95": None})
    figure = plot_stages(GSM8K, [unknown], [FORM, "truncation_rate"], seed=0)
    assert "unknown" in texts(figure)
    drawn = figure.axes[0].containers[0][0].get_xdata()
    assert drawn[0] == 0.995 and np.isnan(drawn[1])


def test_a_task_says_which_metrics_are_drawn_and_what_they_count(slots, slot_stage):
    stages = slot_stage("base", ["a", '{"a": 1}']), slot_stage("tuned", ['{"a": 1, "b": 2}'] * 3)
    figure = plot_stages(slots, stages, seed=0)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["schema valid", "slot f1", "truncation rate"]
    said = texts(figure)
    assert "fraction of 1" in said and "n = 2 to 3 a stage" in said and "Wilson" not in said


def test_groups_keep_their_order_and_counts():
    groups = {"base": {"10": BASE | {"n": 5}, "2": BASE}, "tuned": {"2": TUNED | {"n": 190}}}
    stages = [stage(name, {}, by_group) for name, by_group in groups.items()]
    figure = plot_groups(GSM8K, stages, FORM, seed=4)
    (axes,) = figure.axes
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["2\nn = 190 to 200", "10\nn = 5"]
    assert "seed 4" in texts(figure) and axes.get_xlabel() == "level (steps in the solution)"
    assert axes.containers[1][0].get_ydata()[0] == 0.995


def test_groups_that_are_no_numbers_are_not_joined(slots, slot_stage):
    figure = plot_groups(slots, [slot_stage("base", ['{"a": 1}', "a"])], seed=0)
    (drawn,) = [container[0] for container in figure.axes[0].containers]
    assert drawn.get_linestyle() == "None"
    assert figure.axes[0].get_ylabel() == "slot f1\n(fraction of 1)"
    # Drawn where its name stands: "places" before "times".
    assert dict(zip(drawn.get_xdata(), drawn.get_ydata(), strict=True)) == {
        0: 0,
        1: pytest.approx(2 / 3),
    }


def test_stages_without_groups_say_so():
    with pytest.raises(ValueError, match="metrics by level"):
        plot_groups(GSM8K, [stage("base", BASE)], seed=0)


def test_records_of_a_step_are_one_sorted_and_as_last_written():
    written = [
        {"step": 3, "loss": 1.0},
        {"step": 1, "loss": 9.0, "tokens": 5},
        {"step": 3, "val_loss": 0.5},
        {"step": 1, "loss": 5.0},
    ]
    assert by_step(written) == [
        {"step": 1, "loss": 5.0, "tokens": 5},
        {"step": 3, "loss": 1.0, "val_loss": 0.5},
    ]
    assert written[1] == {"step": 1, "loss": 9.0, "tokens": 5}  # what was read stays as it was
    assert by_step([]) == []


def test_a_column_has_a_gap_where_nothing_was_measured():
    values = column([{"kl": 2}, {}, {"kl": None}, {"kl": float("nan")}, {"kl": 0}], "kl")
    np.testing.assert_array_equal(values, [2.0, np.nan, np.nan, np.nan, 0.0])
    assert values.dtype == np.float64
    assert column([], "kl").shape == (0,)


def test_smooth_by_hand():
    np.testing.assert_allclose(smooth(np.array([9.0, 3.0, 6.0, 6.0]), 3), [9, 6, 5, 6])


def test_smooth_takes_no_gap_into_a_mean_and_leaves_it_open():
    gaps = np.array([2.0, np.nan, 4.0, 6.0, np.nan, np.nan, 1.0])
    np.testing.assert_allclose(smooth(gaps, 3), [2, np.nan, 5, 5, np.nan, np.nan, 1])


@pytest.mark.parametrize("window", [2, 0, -1])
def test_smooth_needs_an_odd_window(window):
    with pytest.raises(ValueError, match=f"odd and at least 1, got {window}"):
        smooth(np.zeros(3), window)


def test_a_figure_has_its_size_caption_and_title():
    figure = new_figure(9.0, 3.0, "seed 7", title="A title")
    assert list(figure.get_size_inches()) == [9.0, 3.0]
    assert (figure.get_supxlabel(), figure.get_suptitle()) == ("seed 7", "A title")
    assert new_figure(9.0, 3.0, "seed 7").get_suptitle() == ""


@pytest.mark.parametrize("grid", ["x", "y"])
def test_calm_axes_have_two_spines_and_one_grid(grid):
    axes = Figure().subplots()
    calm(axes, grid=grid)
    shown = {name for name, spine in axes.spines.items() if spine.get_visible()}
    assert shown == {"left", "bottom"}
    lines = {"x": axes.get_xgridlines(), "y": axes.get_ygridlines()}
    for name, drawn in lines.items():
        assert any(line.get_visible() for line in drawn) == (name == grid)


def test_pyplot_and_jax_stay_out():
    code = (
        "import sys, nblib.report.plots, nblib.report.page; "
        "sys.exit(bool({'matplotlib.pyplot', 'jax'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
