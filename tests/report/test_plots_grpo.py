import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nblib.report.plots import figure_png
from nblib.report.plots_grpo import plot_group, plot_grpo, plot_reward_histogram
from nblib.tasks.gsm8k import GSM8K

HEADINGS = {
    *("reward, and its terms without their weights (means of the step)", "gradient norm"),
    *("answer accuracy (share)", "zero-variance groups (share)", "lower is better (share)"),
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
        "terms": {"answer_accuracy": 0.2, "steps_shown": 0.3},
        "zero_variance_groups": 0.25,
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
    figure = plot_grpo(GSM8K, [record(step) for step in range(1, 41)], seed=7, title="A title")
    assert {axes.get_title(loc="left") for axes in figure.axes} == HEADINGS
    said = texts(figure)
    for words in ("A title", "seed 7", "40 steps", "mean of 5 steps", "training step"):
        assert words in said
    for words in ("steps shown", "cut at the limit", "preamble rate", "longest", "of it rollouts"):
        assert words in said
    assert "not measured" not in said


def test_grpo_shows_the_reward_raw_and_smoothed_with_its_terms():
    records = [record(step, reward=float(step % 2)) for step in range(1, 41)]
    axes = panel(plot_grpo(GSM8K, records, seed=0, title="t"), "reward")
    raw = axes.lines[0]
    assert list(raw.get_ydata()) == [float(step % 2) for step in range(1, 41)]
    smoothed = line(axes, "reward").get_ydata()
    # Five values around step 3: 1 0 1 0 1.
    assert smoothed[2] == pytest.approx(0.6)
    assert raw.get_linewidth() < line(axes, "reward").get_linewidth()
    np.testing.assert_allclose(line(axes, "steps shown").get_ydata(), 0.3)
    styles = [
        line(axes, name).get_linestyle() for name in ("reward", "answer accuracy", "steps shown")
    ]
    assert len(set(styles)) == 3


def test_grpo_draws_the_probe_where_it_was_measured():
    """The probe has records of its own, one of them before the first step."""
    records = [record(step) for step in (1, 2, 3)]
    records.insert(0, {"step": 0, "probe_accuracy": 0.2})
    records.append({"step": 3, "probe_accuracy": 0.3})
    figure = plot_grpo(GSM8K, records, seed=0, title="t")
    probe = line(panel(figure, "answer accuracy"), "probe, greedy")
    assert (list(probe.get_xdata()), list(probe.get_ydata())) == ([0, 3], [0.2, 0.3])
    assert probe.get_marker() == "D"
    assert "3 steps, seed 0" in texts(figure)


def test_grpo_counts_a_repeated_step_once_as_last_written():
    records = [record(1), record(2, reward=9.0), record(2, reward=0.5)]
    raw = panel(plot_grpo(GSM8K, records, seed=0, title="t"), "reward").lines[0]
    assert list(raw.get_ydata()) == [0.1, 0.5]


def test_grpo_marks_alarms_in_every_panel_and_names_them_once():
    records = [record(step) for step in range(1, 101)]
    records[49]["alarms"] = ["entropy_collapsed"]
    records[50]["alarms"] = ["zero_variance_groups", "truncation"]
    records[99]["alarms"] = ["kl_too_large"]
    figure = plot_grpo(GSM8K, records, seed=0, title="t")
    figure.canvas.draw()
    for axes in figure.axes:
        assert marked(axes) == [50, 51, 100]
    reward = panel(figure, "reward")
    names = [text for text in reward.texts if text.get_text()]
    assert [text.get_text() for text in names] == [
        *("entropy collapsed", "zero variance groups, truncation", "kl too large")
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
    figure = plot_grpo(GSM8K, records, seed=0, title="t")
    for heading in ("KL", "time a step"):
        assert [text.get_text() for text in panel(figure, heading).texts] == ["not measured"]
    assert not panel(figure, "entropy").texts
    axes = panel(figure, "reward")
    for drawn in (axes.lines[0], line(axes, "reward"), line(axes, "answer accuracy")):
        assert list(np.flatnonzero(np.isnan(drawn.get_ydata()))) == [2]
    assert figure_png(figure, dpi=40).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "records", [[record(1)], [{"step": 4}], [{"step": 0, "probe_accuracy": 0}]]
)
def test_grpo_of_a_run_that_has_just_begun(records):
    figure = plot_grpo(GSM8K, records, seed=0, title="t")
    assert figure_png(figure, dpi=40).startswith(b"\x89PNG")


def test_grpo_without_records_says_so():
    with pytest.raises(ValueError, match=r"metrics\.jsonl is empty"):
        plot_grpo(GSM8K, [], seed=0, title="t")


def test_the_headline_and_what_should_be_rare_are_the_tasks(slots):
    records = [{"step": step, "slot_f1": 0.4, "prose": 0.1} for step in (1, 2)]
    figure = plot_grpo(slots, records, seed=0, title="t")
    assert list(line(panel(figure, "slot f1"), "sampled in training").get_ydata()) == [0.4, 0.4]
    assert list(line(panel(figure, "lower is better"), "prose").get_ydata()) == [0.1, 0.1]


def rollouts(rewards_by_step) -> list[dict]:
    return [
        {"step": step, "reward": reward}
        for step, rewards in rewards_by_step.items()
        for reward in rewards
    ]


def heights(figure: Figure) -> list[list[float]]:
    return [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]


def test_histogram_of_the_first_against_the_last_tenth():
    steps = {step: [0.0] * 4 for step in range(1, 21)}
    steps |= {1: [0, 0, 0.5, 1.2], 2: [0, 0, 0, 0.5], 19: [1.2] * 4, 20: [0, 1.2, 1.2, 1.2]}
    figure = plot_reward_histogram(rollouts(steps), seed=3)
    assert heights(figure) == [[5 / 8, 2 / 8, 1 / 8], [1 / 8, 0, 7 / 8]]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "0.5", "1.2"]
    said = texts(figure)
    for words in (
        "first tenth (steps 1 to 2): n = 8, mean 0.275",
        "last tenth (steps 19 to 20): n = 8, mean 1.05",
        "seed 3",
        "share of completions",
    ):
        assert words in said
    first, last = (bars[0] for bars in figure.axes[0].containers)
    assert first.get_hatch() and not last.get_hatch()
    assert first.get_x() + first.get_width() == pytest.approx(last.get_x())


def test_histogram_of_many_values_has_ranges_and_loses_none():
    rng = np.random.default_rng(0)
    steps = {step: list(rng.normal(step, 1, 50)) for step in (1, 2, 3)}
    figure = plot_reward_histogram(rollouts(steps), seed=0)
    first, last = heights(figure)
    assert len(first) == len(last) == 12
    assert (sum(first), sum(last)) == (pytest.approx(1), pytest.approx(1))
    assert " to\n" in figure.axes[0].get_xticklabels()[0].get_text()


def test_histogram_of_one_step_and_with_null_rewards():
    figure = plot_reward_histogram(rollouts({5: [1.0, None, 0.0, 1.0]}), seed=0)
    assert heights(figure) == [[1 / 3, 2 / 3]]
    assert "(step 5): n = 3" in texts(figure)
    with pytest.raises(ValueError, match=r"rollouts\.jsonl is empty"):
        plot_reward_histogram(rollouts({5: [None]}), seed=0)


def test_group_shows_rewards_with_their_mean_and_the_advantages():
    figure = plot_group([1.0, 0.0, 0.5, 0.5], [1.2, -1.2, 0.0, 0.0], seed=2)
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == [1.0, 0.0, 0.5, 0.5]
    assert [bar.get_height() for bar in right.patches] == [1.2, -1.2, 0.0, 0.0]
    assert set(line(left, "mean 0.5").get_ydata()) == {0.5}
    assert [bool(bar.get_hatch()) for bar in right.patches] == [False, True, False, False]
    said = texts(figure)
    for words in ("reward", "advantage", "4 completions", "seed 2", "-1.2", "completion of the"):
        assert words in said


def test_flat_group_has_no_advantages():
    right = plot_group([1.0, 1.0], [0.0, 0.0], seed=0).axes[1]
    assert right.get_ylim() == (-1, 1)


@pytest.mark.parametrize("rewards", [[], [1.0, 2.0]])
def test_group_needs_an_advantage_for_each_reward(rewards):
    with pytest.raises(ValueError, match=f"got {len(rewards)} rewards and 1 advantages"):
        plot_group(rewards, [0.0], seed=0)


def test_pyplot_and_jax_stay_out():
    code = (
        "import sys, nblib.report.plots_grpo; "
        "sys.exit(bool({'matplotlib.pyplot', 'jax'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
