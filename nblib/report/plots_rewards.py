"""Figures of rewards: what a group is, and how the rewards moved through a GRPO run.

In the manner of `report.plots`, on the same `drawing`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nblib.report.drawing import INK, Curve, calm, new_figure

_BLUE, _RED = "#0072b2", "#d55e00"
_LOOKS: Sequence[Mapping[str, Any]] = (
    {"facecolor": "white", "edgecolor": INK, "hatch": "////"},
    {"facecolor": _BLUE, "edgecolor": INK},
)
_MOST_BARS = 12  # more distinct rewards than this are put into as many ranges


def plot_reward_histogram(rollouts: Sequence[Mapping[str, Any]], *, seed: int) -> Figure:
    """Rewards in the first tenth of the steps beside those in the last tenth.

    A tenth has at least one step. Few distinct rewards get a pair of bars each, many are put into
    ranges of equal width.

    Args:
        rollouts: Records of `rollouts.jsonl`, with `step` and `reward`; null rewards are left out.
        seed: The run's seed, for the caption.

    Raises:
        ValueError: there are no rewards.
    """
    known = [one for one in rollouts if one.get("reward") is not None]
    if not known:
        raise ValueError("no rewards: rollouts.jsonl is empty, expected one record a completion")
    periods = _periods(known)
    names, shares = _binned(list(periods.values()))
    figure = new_figure(9.0, 3.8, f"share of each period's completions, seed {seed}")
    axes = figure.subplots()
    places, width = np.arange(len(names)), 0.8 / len(periods)
    for index, (label, values) in enumerate(periods.items()):
        axes.bar(
            places + (index - (len(periods) - 1) / 2) * width,
            shares[index],
            width,
            label=f"{label}: n = {len(values)}, mean {values.mean():.3g}",
            **_LOOKS[index],
        )
    axes.set_xticks(places, names)
    axes.set(xlabel="reward of a completion", ylabel="share of completions")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    calm(axes, grid="y")
    return figure


def plot_group(rewards: Sequence[float], advantages: Sequence[float], *, seed: int) -> Figure:
    """One group: the reward of each completion with the mean, and the advantages beside it.

    Args:
        rewards: One for each completion of the group [G].
        advantages: What the update weighs each completion with [G].
        seed: The run's seed, for the caption.

    Raises:
        ValueError: no rewards, or another number of advantages.
    """
    if not rewards or len(rewards) != len(advantages):
        raise ValueError(
            f"got {len(rewards)} rewards and {len(advantages)} advantages, "
            "expected one of each a completion"
        )
    caption = f"one prompt, {len(rewards)} completions, seed {seed}"
    figure = new_figure(9.0, 3.4, caption)
    left, right = figure.subplots(1, 2)
    mean = float(np.mean(rewards))
    _draw_bars(left, "reward", rewards)
    left.axhline(mean, color=_RED, linestyle="--", linewidth=1.6, label=f"mean {mean:.3g}")
    left.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    _draw_bars(right, "advantage", advantages)
    return figure


def _periods(rollouts: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Return name -> rewards of the first and the last tenth; one period when there is one step."""
    steps = sorted({one["step"] for one in rollouts})
    tenth = max(1, len(steps) // 10)
    chosen = [("first", steps[:tenth])] + [("last", steps[-tenth:])] * (len(steps) > 1)
    periods = {}
    for name, period in chosen:
        span = f"step {period[0]}" if tenth == 1 else f"steps {period[0]} to {period[-1]}"
        wanted = set(period)
        rewards = [float(one["reward"]) for one in rollouts if one["step"] in wanted]
        periods[f"{name} tenth ({span})"] = np.array(rewards)
    return periods


def _binned(groups: Sequence[Curve]) -> tuple[list[str], list[Curve]]:
    """Return the names of the bars and, for each group, its share in each of them."""
    distinct = np.unique(np.concatenate(groups).round(6))
    if len(distinct) <= _MOST_BARS:
        counts = [np.array([(group.round(6) == v).sum() for v in distinct]) for group in groups]
        names = [f"{value:.3g}" for value in distinct]
    else:
        edges = np.linspace(distinct[0], distinct[-1], _MOST_BARS + 1)
        counts = [np.histogram(group.round(6), edges)[0] for group in groups]
        names = [f"{low:.2g} to\n{high:.2g}" for low, high in itertools.pairwise(edges)]
    return names, [count / len(group) for count, group in zip(counts, groups, strict=True)]


def _draw_bars(axes: Axes, heading: str, values: Sequence[float]) -> None:
    """Draw a bar a completion, its value at its end; what is below 0 is hatched."""
    for place, value in enumerate(values, start=1):
        axes.bar(place, value, 0.7, **_LOOKS[int(value >= 0)])
        if len(values) <= 16:
            axes.annotate(
                f"{value:.2g}",
                (place, value),
                xytext=(0, 3 if value >= 0 else -3),
                textcoords="offset points",
                ha="center",
                va="bottom" if value >= 0 else "top",
                fontsize=8,
                color=INK,
            )
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.margins(y=0.14)
    if not any(values):
        axes.set_ylim(-1, 1)
    axes.set_title(heading, fontsize=10, loc="left", color=INK)
    axes.set(xlabel="completion of the group", ylabel=heading)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    calm(axes, grid="y")
