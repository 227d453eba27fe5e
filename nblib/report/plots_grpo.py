"""Figures of a GRPO run: its signals over the step, its rewards, and one group of completions."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter, StrMethodFormatter

from nblib.report.plots import (
    BLUE,
    INK,
    QUIET,
    RED,
    Curve,
    by_step,
    calm,
    column,
    new_figure,
    smooth,
)
from nblib.report.tables import in_words
from nblib.tasks.task import TRUNCATION, Task

_LINES: Sequence[Mapping[str, Any]] = (
    {"color": BLUE, "linestyle": "-"},
    {"color": RED, "linestyle": "--"},
    {"color": "#b35a00", "linestyle": "--"},
    {"color": "#009e73", "linestyle": "-."},
    {"color": "#aa4488", "linestyle": ":"},
    {"color": "#6b7783", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": INK, "linestyle": (0, (8, 3))},
)
_BARS: Sequence[Mapping[str, Any]] = (
    {"facecolor": "white", "edgecolor": INK, "hatch": "////"},
    {"facecolor": BLUE, "edgecolor": INK},
)
_MOST_BARS = 12  # more distinct rewards than this are put into as many ranges
_ROW_HEIGHT = 0.08  # of an alarm's name, as a share of the reward panel's height
_REWARD = "reward, and its terms without their weights (means of the step)"
# Panel -> heading and fields, each with its name in the legend; the task's own are in `_panels`.
_PANELS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "reward": (_REWARD, {"reward": "reward"}),
    "flat": ("zero-variance groups (share)", {"zero_variance_groups": ""}),
    "length": ("completion length (tokens)", {"completion_tokens": "mean", "longest": "longest"}),
    "kl": ("KL to the reference (nats a token)", {"kl": ""}),
    "entropy": ("entropy (nats a token)", {"entropy": ""}),
    "norm": ("gradient norm", {"grad_norm": ""}),
    "seconds": (
        "time a step (seconds)",
        {"seconds": "whole step", "rollout_seconds": "of it rollouts"},
    ),
}
_LAYOUT = (
    ["reward"] * 8 + ["right"] * 4,
    ["flat"] * 4 + ["cut"] * 4 + ["length"] * 4,
    [name for name in ("kl", "entropy", "norm", "seconds") for _ in range(3)],
)


def plot_grpo(task: Task, records: Sequence[Mapping[str, Any]], *, seed: int, title: str) -> Figure:
    """Small multiples over the step: reward, the task's headline, and the signals that warn.

    A dashed line through every panel marks a step at which an alarm began; its name stands in the
    panel of the reward. `records` are those of `metrics.jsonl`, the probe's among them: a step that
    a resumed run wrote twice counts once, as last written, a field that is missing or null leaves a
    gap, and a panel without any value says "not measured". Raises ValueError without records.
    """
    if not records:
        raise ValueError("no GRPO records: metrics.jsonl is empty, expected one a step")
    history = by_step(records)
    window = len(history) // 20 * 2 + 1  # a tenth of the run: the reward is noisier than a loss
    means = f", thick: mean of {window} steps" if window > 1 else ""
    trained = sum(not one.keys() <= {"step", "probe_accuracy"} for one in history)
    caption = f"{trained} steps{means}, seed {seed}"
    figure = new_figure(12.0, 8.0, caption, title=title)
    panels: dict[str, Axes] = figure.subplot_mosaic(
        [list(row) for row in _LAYOUT], height_ratios=[1.5, 1, 1]
    )
    for name, (heading, fields) in _panels(task).items():
        _draw_panel(panels[name], heading, history, fields, window)
    _draw_terms(panels["reward"], history, window)
    _draw_probe(panels["right"], history)
    for name in ("right", "flat"):
        panels[name].set_ylim(-0.03, 1.03)
    panels["cut"].set_ylim(-0.003, max(0.1, panels["cut"].get_ylim()[1]))
    _as_times(panels["seconds"])
    steps = column(history, "step")
    for axes in panels.values():
        axes.set_xlim(steps[0] - 0.5, steps[-1] + max(0.5, 0.02 * (steps[-1] - steps[0])))
        if not axes.lines:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=QUIET)
            axes.set_yticks([])
    _mark_alarms(panels, history)
    return figure


def plot_reward_histogram(rollouts: Sequence[Mapping[str, Any]], *, seed: int) -> Figure:
    """Rewards in the first tenth of the steps beside those in the last tenth.

    A tenth has at least one step. Few distinct rewards get a pair of bars each, many are put into
    ranges of equal width. `rollouts` are records of `rollouts.jsonl`; null rewards are left out.
    Raises ValueError when there are no others.
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
            **_BARS[index],
        )
    axes.set_xticks(places, names)
    axes.set(xlabel="reward of a completion", ylabel="share of completions")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    calm(axes, grid="y")
    return figure


def plot_group(rewards: Sequence[float], advantages: Sequence[float], *, seed: int) -> Figure:
    """One group: the reward of each completion [G], their mean, and the advantages [G] beside it.

    Raises ValueError for no rewards, or another number of advantages.
    """
    if not rewards or len(rewards) != len(advantages):
        raise ValueError(
            f"got {len(rewards)} rewards and {len(advantages)} advantages, "
            "expected one of each a completion"
        )
    figure = new_figure(9.0, 3.4, f"one prompt, {len(rewards)} completions, seed {seed}")
    left, right = figure.subplots(1, 2)
    mean = float(np.mean(rewards))
    _draw_bars(left, "reward", rewards)
    left.axhline(mean, color=RED, linestyle="--", linewidth=1.6, label=f"mean {mean:.3g}")
    left.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    _draw_bars(right, "advantage", advantages)
    return figure


def _panels(task: Task) -> dict[str, tuple[str, Mapping[str, str]]]:
    """Return all panels: those of every task, its headline, and what should be rare."""
    lower = {one.name: in_words(one.name) for one in task.metrics if one.better == "lower"}
    return {
        **_PANELS,
        "right": (f"{in_words(task.headline)} (share)", {task.headline: "sampled in training"}),
        "cut": ("lower is better (share)", {TRUNCATION: "cut at the limit", **lower}),
    }


def _draw_terms(axes: Axes, history: Sequence[Mapping[str, Any]], window: int) -> None:
    terms = list(dict.fromkeys(name for one in history for name in one.get("terms") or {}))
    steps = column(history, "step")
    for name, style in zip(terms, itertools.cycle(_LINES[2:]), strict=False):
        values = column([one.get("terms") or {} for one in history], name)
        axes.plot(steps, smooth(values, window), label=in_words(name), linewidth=1.3, **style)
    if terms:
        _legend(axes, columns=6)


def _draw_panel(
    axes: Axes,
    heading: str,
    history: Sequence[Mapping[str, Any]],
    fields: Mapping[str, str],
    window: int,
) -> None:
    """Draw each field raw and thin with its moving mean over it."""
    steps = column(history, "step")
    marker = "." if len(steps) < 30 else ""
    for (field, label), style in zip(fields.items(), itertools.cycle(_LINES), strict=False):
        values = column(history, field)
        if not np.isfinite(values).any():
            continue
        axes.plot(steps, values, color=QUIET, linewidth=0.6, alpha=0.7, marker=marker)
        axes.plot(steps, smooth(values, window), label=label or None, linewidth=1.8, **style)
    axes.set_title(heading, fontsize=9, loc="left", color=INK)
    axes.set_xlabel("training step", fontsize=8)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    calm(axes, grid="y")
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if axes.lines and any(fields.values()):
        _legend(axes, columns=2)


def _draw_probe(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    steps, values = column(history, "step"), column(history, "probe_accuracy")
    known = np.isfinite(values)
    if known.any():
        style: dict[str, Any] = {**_LINES[1], "marker": "D", "markersize": 5, "linewidth": 1.2}
        axes.plot(steps[known], values[known], label="probe, greedy", **style)
        _legend(axes, columns=2)


def _mark_alarms(panels: Mapping[str, Axes], history: Sequence[Mapping[str, Any]]) -> None:
    """Mark the steps at which alarms began; name them in rows above the reward's curves."""
    named = {one["step"]: ", ".join(map(in_words, one.get("alarms") or ())) for one in history}
    began = {step: names for step, names in named.items() if names}
    top = panels["reward"]
    (left, right), (low, high) = top.get_xlim(), top.get_ylim()
    rows: list[float] = []  # where each row is taken up to, as a share of the panel's width
    for step, names in began.items():
        for axes in panels.values():
            axes.axvline(step, color=INK, linestyle=(0, (2, 2)), linewidth=0.9)
        place, width = (step - left) / (right - left), 0.01 + 0.0085 * len(names)
        before = place + width > 1  # the name would leave the panel
        start = place - width if before else place
        row = next((index for index, taken in enumerate(rows) if taken < start), len(rows))
        rows[row : row + 1] = [start + width]
        top.annotate(
            names,
            (step, 0.99 - _ROW_HEIGHT * row),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if before else 3, 0),
            textcoords="offset points",
            ha="right" if before else "left",
            va="top",
            fontsize=8,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
    top.set_ylim(low, low + (high - low) / max(0.3, 1 - _ROW_HEIGHT * len(rows)))


def _as_times(axes: Axes) -> None:
    """Take a logarithmic scale: the first step compiles and takes many times as long."""
    if axes.lines:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.minorticks_off()
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _legend(axes: Axes, *, columns: int) -> None:
    """Put the legend between heading and panel, where it hides no curve."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.97),
        ncols=columns,
        frameon=False,
        fontsize=8,
        handlelength=2.6,
        columnspacing=1.2,
    )
    axes.set_title(axes.get_title(loc="left"), fontsize=9, loc="left", color=INK, pad=18)


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
    bars = axes.bar(range(1, len(values) + 1), values, 0.7)
    for bar, value in zip(bars, values, strict=True):
        bar.set(**_BARS[int(value >= 0)])
    if len(values) <= 16:
        axes.bar_label(bars, fmt="%.2g", padding=3, fontsize=8, color=INK)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.margins(y=0.14)
    if not any(values):
        axes.set_ylim(-1, 1)
    axes.set_title(heading, fontsize=10, loc="left", color=INK)
    axes.set(xlabel="completion of the group", ylabel=heading)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    calm(axes, grid="y")
