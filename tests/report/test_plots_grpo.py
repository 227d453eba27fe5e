import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nblib.report.plots import figure_png
from nblib.report.plots_grpo import plot_grpo

HEADINGS = {
    *("reward, and its terms without their weights (means of the step)", "gradient norm"),
    *("right answers (share)", "flat groups (share)", "cut or with a preamble (share)"),
    *("completion length (tokens)", "KL to the reference (nats a token)"),
    *("entropy (nats a token)", "time a step (seconds)"),
}


def record(step: int, **fields) -> dict:
    return {
        "step": step,
        "grad_norm": 1.0,
        "kl": 0.01 * step,
        "entropy": 0.4,
        "reward": 0.1 * step,
        "terms": {"correct": 0.2, "close_number": 0.3},
        "flat_groups": 0.25,
        "truncation_rate": 0.04,
        "preamble_rate": 0.0,
        "answer_accuracy": 0.5,
        "completion_tokens": 60.0,
        "longest": 99,
        "seconds": 3.0,
        "rollout_seconds": 2.0,
        "alarms": [],
    } | fields


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return " | ".join(text.get_text() for text in figure.findobj(Text))


def panel(figure: Figure, heading: str):
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(heading)]
    return found


def line(axes, label: str):
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return found


def marked(axes) -> list[float]:
    """Steps of the vertical lines."""
    return [one.get_xdata()[0] for one in axes.lines if list(one.get_ydata()) == [0, 1]]


def test_grpo_has_every_panel_with_units_title_and_seed():
    figure = plot_grpo([record(step) for step in range(1, 41)], seed=7, title="A title")
    assert {axes.get_title(loc="left") for axes in figure.axes} == HEADINGS
    said = texts(figure)
    for words in ("A title", "seed 7", "40 steps", "mean of 5 steps", "training step"):
        assert words in said
    for words in ("close number", "cut at the limit", "preamble", "longest", "of it rollouts"):
        assert words in said
    assert "not measured" not in said


def test_grpo_shows_the_reward_raw_and_smoothed_with_its_terms():
    records = [record(step, reward=float(step % 2)) for step in range(1, 41)]
    axes = panel(plot_grpo(records, seed=0, title="t"), "reward")
    raw = axes.lines[0]
    assert list(raw.get_ydata()) == [float(step % 2) for step in range(1, 41)]
    smoothed = line(axes, "reward").get_ydata()
    # Five values around step 3: 1 0 1 0 1.
    assert smoothed[2] == pytest.approx(0.6)
    assert raw.get_linewidth() < line(axes, "reward").get_linewidth()
    np.testing.assert_allclose(line(axes, "close number").get_ydata(), 0.3)
    styles = [line(axes, name).get_linestyle() for name in ("reward", "correct", "close number")]
    assert len(set(styles)) == 3


def test_grpo_draws_the_probe_where_it_was_measured():
    """The probe has records of its own, one of them before the first step."""
    records = [record(step) for step in (1, 2, 3)]
    records.insert(0, {"step": 0, "probe_accuracy": 0.2})
    records.append({"step": 3, "probe_accuracy": 0.3})
    figure = plot_grpo(records, seed=0, title="t")
    probe = line(panel(figure, "right answers"), "probe, greedy")
    assert (list(probe.get_xdata()), list(probe.get_ydata())) == ([0, 3], [0.2, 0.3])
    assert probe.get_marker() == "D"
    assert "3 steps, seed 0" in texts(figure)


def test_grpo_counts_a_repeated_step_once_as_last_written():
    records = [record(1), record(2, reward=9.0), record(2, reward=0.5)]
    raw = panel(plot_grpo(records, seed=0, title="t"), "reward").lines[0]
    assert list(raw.get_ydata()) == [0.1, 0.5]


def test_grpo_marks_alarms_in_every_panel_and_names_them_once():
    records = [record(step) for step in range(1, 101)]
    records[49]["alarms"] = ["entropy_collapsed"]
    records[50]["alarms"] = ["flat_groups", "truncation"]
    records[99]["alarms"] = ["kl_too_large"]
    figure = plot_grpo(records, seed=0, title="t")
    figure.canvas.draw()
    for axes in figure.axes:
        assert marked(axes) == [50, 51, 100]
    reward = panel(figure, "reward")
    names = [text for text in reward.texts if text.get_text()]
    assert [text.get_text() for text in names] == [
        *("entropy collapsed", "flat groups, truncation", "kl too large")
    ]
    boxes = [text.get_window_extent() for text in names]
    for index, box in enumerate(boxes):
        assert box.x1 <= reward.get_window_extent().x1 + 1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        # Curves end below the names: the highest reward is 10.
        assert box.y0 > reward.transData.transform((0, 10.0))[1]


def test_grpo_leaves_gaps_and_says_what_was_not_measured():
    records = [record(step, kl=None) for step in range(1, 41)]
    for one in records:
        del one["seconds"], one["rollout_seconds"]
    records[2] |= {"reward": None, "entropy": float("nan"), "terms": None}
    figure = plot_grpo(records, seed=0, title="t")
    for heading in ("KL", "time a step"):
        assert [text.get_text() for text in panel(figure, heading).texts] == ["not measured"]
    assert not panel(figure, "entropy").texts
    axes = panel(figure, "reward")
    for drawn in (axes.lines[0], line(axes, "reward"), line(axes, "correct")):
        assert list(np.flatnonzero(np.isnan(drawn.get_ydata()))) == [2]
    assert figure_png(figure, dpi=40).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "records", [[record(1)], [{"step": 4}], [{"step": 0, "probe_accuracy": 0}]]
)
def test_grpo_of_a_run_that_has_just_begun(records):
    figure = plot_grpo(records, seed=0, title="t")
    assert figure_png(figure, dpi=40).startswith(b"\x89PNG")


def test_grpo_without_records_says_so():
    with pytest.raises(ValueError, match=r"metrics\.jsonl is empty"):
        plot_grpo([], seed=0, title="t")


def test_pyplot_and_jax_stay_out():
    code = (
        "import sys, nblib.report.plots_grpo; "
        "sys.exit(bool({'matplotlib.pyplot', 'jax'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
