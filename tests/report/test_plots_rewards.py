import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from nblib.report.plots_rewards import plot_group, plot_reward_histogram


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return " | ".join(text.get_text() for text in figure.findobj(Text))


def line(axes, label: str):
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return found


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
