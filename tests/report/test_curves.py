import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nblib.report.curves import by_step, column, plot_grpo, plot_training, smooth
from nblib.tasks.gsm8k import GSM8K

HEADINGS = {
    *("reward, and its terms without their weights (means of the step)", "gradient norm"),
    *(
        "answer accuracy (share)",
        "zero-variance groups: all of one earn the same (share)",
        "lower is better (share)",
    ),
    *("completion length (tokens)", "KL to the reference (nats a token)"),
    *("entropy (nats a token)", "time a step (seconds)"),
}


def record(step: int, **fields) -> dict:
    return {
        "step": step,
        "loss": 3.0 / step,
        "learning_rate": 1e-3,
        "grad_norm": 2.0,
        "tokens": 800,
        "seconds": 2.0,
    } | fields


def grpo_record(step: int, **fields) -> dict:
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


def test_training_shows_raw_smooth_and_validation_loss_with_seed_and_units():
    records = [record(step) for step in range(1, 101)]
    records[49]["val_loss"] = 0.5
    figure = plot_training(records, seed=7, title="A title")
    said = texts(figure)
    for words in (
        "A title",
        "seed 7",
        "loss (nats a token)",
        "training step",
        "learning rate",
        "gradient norm",
        "tokens per second",
        "100 steps, thick: mean of 5 steps",
    ):
        assert words in said
    loss = panel(figure, "loss")
    np.testing.assert_allclose(loss.lines[0].get_ydata()[:3], [3.0, 1.5, 1.0])
    held_out = line(loss, "validation")
    assert (list(held_out.get_xdata()), list(held_out.get_ydata())) == ([50], [0.5])
    # Five values around step 3: 3 + 1.5 + 1 + 0.75 + 0.6.
    assert line(loss, "training").get_ydata()[2] == pytest.approx(6.85 / 5)


def test_training_counts_a_repeated_step_once_as_last_written_and_sorts():
    figure = plot_training(
        [record(1, loss=9.0), record(3, loss=2.0), record(2, loss=4.0), record(1, loss=5.0)],
        seed=0,
        title="resumed",
    )
    raw = panel(figure, "loss").lines[0]
    assert list(raw.get_xdata()) == [1, 2, 3]
    assert list(raw.get_ydata()) == [5.0, 4.0, 2.0]


def test_training_speed_is_tokens_over_seconds():
    figure = plot_training([record(1), record(2, tokens=300, seconds=1.5)], seed=0, title="t")
    assert list(panel(figure, "tokens per second").lines[0].get_ydata()) == [400.0, 200.0]


def test_training_leaves_gaps_for_missing_null_and_diverged_values():
    odd = [record(1, loss=float("nan"), grad_norm=None), {"step": 2}, record(3, seconds=0)]
    assert "2 steps" in texts(plot_training(odd, seed=0, title="odd"))


def test_training_without_records_says_so():
    with pytest.raises(ValueError, match=r"metrics\.jsonl is empty"):
        plot_training([], seed=0, title="empty")


def test_grpo_has_every_panel_with_units_title_and_seed():
    figure = plot_grpo(GSM8K, [grpo_record(step) for step in range(1, 41)], seed=7, title="A title")
    assert {axes.get_title(loc="left") for axes in figure.axes} == HEADINGS
    said = texts(figure)
    for words in ("A title", "seed 7", "40 steps", "mean of 5 steps", "training step"):
        assert words in said
    for words in ("steps shown", "cut at the limit", "preamble rate", "longest", "of it rollouts"):
        assert words in said
    assert "not measured" not in said


def test_grpo_shows_the_reward_raw_and_smoothed_with_its_terms():
    records = [grpo_record(step, reward=float(step % 2)) for step in range(1, 41)]
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
    records = [grpo_record(step) for step in (1, 2, 3)]
    records.insert(0, {"step": 0, "probe_accuracy": 0.2})
    records.append({"step": 3, "probe_accuracy": 0.3})
    figure = plot_grpo(GSM8K, records, seed=0, title="t")
    probe = line(panel(figure, "answer accuracy"), "probe, greedy")
    assert (list(probe.get_xdata()), list(probe.get_ydata())) == ([0, 3], [0.2, 0.3])
    assert probe.get_marker() == "D"
    assert "3 steps, seed 0" in texts(figure)


def test_grpo_counts_a_repeated_step_once_as_last_written():
    records = [grpo_record(1), grpo_record(2, reward=9.0), grpo_record(2, reward=0.5)]
    raw = panel(plot_grpo(GSM8K, records, seed=0, title="t"), "reward").lines[0]
    assert list(raw.get_ydata()) == [0.1, 0.5]


def test_grpo_marks_alarms_in_every_panel_and_names_them_once():
    records = [grpo_record(step) for step in range(1, 101)]
    records[49]["alarms"] = ["entropy_collapsed"]
    records[50]["alarms"] = ["zero_variance_groups", "truncation"]
    records[99]["alarms"] = ["kl_too_large"]
    figure = plot_grpo(GSM8K, records, seed=0, title="t")
    figure.canvas.draw()
    for axes in figure.axes:
        assert marked(axes) == [50, 51, 100]
    reward = panel(figure, "reward")
    names = [text for text in reward.texts if text.get_text()]
    assert [text.get_text().strip() for text in names] == [
        *("entropy collapsed", "zero variance groups, truncation", "kl too large")
    ]
    boxes = [text.get_window_extent() for text in names]
    for index, box in enumerate(boxes):
        assert box.x1 <= reward.get_window_extent().x1 + 1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        # Curves end below the names: the highest reward is 10.
        assert box.y0 > reward.transData.transform((0, 10.0))[1]


def test_grpo_leaves_gaps_and_says_what_was_not_measured():
    records = [grpo_record(step, kl=None) for step in range(1, 41)]
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
    assert texts(figure)


@pytest.mark.parametrize(
    ("record", "said"),
    [(grpo_record(1), "1 steps"), ({"step": 0, "probe_accuracy": 0}, "0 steps")],
)
def test_grpo_of_a_run_that_has_just_begun(record, said):
    assert said in texts(plot_grpo(GSM8K, [record], seed=0, title="t"))


def test_grpo_without_records_says_so():
    with pytest.raises(ValueError, match=r"metrics\.jsonl is empty"):
        plot_grpo(GSM8K, [], seed=0, title="t")


def test_the_headline_and_what_should_be_rare_are_the_tasks(slots):
    records = [{"step": step, "slot_f1": 0.4, "prose": 0.1} for step in (1, 2)]
    figure = plot_grpo(slots, records, seed=0, title="t")
    assert list(line(panel(figure, "slot f1"), "sampled in training").get_ydata()) == [0.4, 0.4]
    assert list(line(panel(figure, "lower is better"), "prose").get_ydata()) == [0.1, 0.1]


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


def test_many_terms_have_lines_of_their_own_and_fit_above_their_panel():
    terms = {f"envelope_valid_{n}": 0.1 * n for n in range(7)}
    records = [grpo_record(step, terms=terms) for step in range(1, 4)]
    figure = plot_grpo(GSM8K, records, seed=0, title="t")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a legend that is too wide takes the panels' space
        figure.draw_without_rendering()
    drawn = [one for one in panel(figure, "reward").lines if not one.get_label().startswith("_")]
    looks = {(one.get_color(), str(one.get_linestyle()), str(one._dash_pattern)) for one in drawn}
    assert len(drawn) == 8 == len(looks)
