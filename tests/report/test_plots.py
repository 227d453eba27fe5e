import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from nblib.evaluation.answers import Stage
from nblib.evaluation.sampling import Group
from nblib.report.plots import (
    calm,
    new_figure,
    plot_group,
    plot_groups,
    plot_reward_histogram,
    plot_stages,
)
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example

BASE = {"n": 200, "format_accuracy": 0.0, "format_accuracy_ci95": [1e-18, 0.019]}
TUNED = {"n": 200, "format_accuracy": 0.995, "format_accuracy_ci95": [0.972, 0.999]}
FORM = "format_accuracy"


def stage(name, metrics, by_group=()):
    return Stage(name=name, metrics=metrics, by_group=dict(by_group), records=())


STAGES = (stage("base", BASE), stage("tuned", TUNED), stage("tuned_sampled", TUNED))


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return " | ".join(text.get_text() for text in figure.findobj(Text))


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
    assert figure.axes[0].get_xlabel() == "slot f1 (fraction of 1)"
    # A row each, drawn where its name stands: "places" before "times".
    names = [label.get_text().partition(",")[0] for label in figure.axes[0].get_yticklabels()]
    assert names == ["places", "times"]
    assert dict(zip(drawn.get_ydata(), drawn.get_xdata(), strict=True)) == {
        0: 0,
        1: pytest.approx(2 / 3),
    }


def test_nothing_to_draw_is_no_figure():
    assert plot_stages(GSM8K, (), seed=0) is None
    assert plot_groups(GSM8K, [stage("base", BASE)], seed=0) is None


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


def group(rewards, advantages):
    example = Example(id="a", prompt="a", completion="a", reference="a")
    texts = ("a",) * len(rewards)
    return Group(example=example, completions=texts, rewards=rewards, advantages=advantages)


def test_group_shows_rewards_with_their_mean_and_the_advantages():
    figure = plot_group(group([1.0, 0.0, 0.5, 0.5], [1.2, -1.2, 0.0, 0.0]), seed=2)
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == [1.0, 0.0, 0.5, 0.5]
    assert [bar.get_height() for bar in right.patches] == [1.2, -1.2, 0.0, 0.0]
    (mean,) = [one for one in left.lines if one.get_label() == "mean 0.5"]
    assert set(mean.get_ydata()) == {0.5}
    assert [bool(bar.get_hatch()) for bar in right.patches] == [False, True, False, False]
    said = texts(figure)
    for words in ("reward", "advantage", "4 completions", "seed 2", "-1.2", "completion of the"):
        assert words in said


def test_flat_group_has_no_advantages():
    right = plot_group(group([1.0, 1.0], [0.0, 0.0]), seed=0).axes[1]
    assert right.get_ylim() == (-1, 1)


def test_pyplot_and_jax_stay_out():
    code = (
        "import sys, nblib.report.curves, nblib.report.page; "
        "sys.exit(bool({'matplotlib.pyplot', 'jax'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
