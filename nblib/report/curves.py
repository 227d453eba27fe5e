"""Curves over the training step, from the records of metrics.jsonl: of a loss, and of GRPO.

What a figure shows is a table of panels. A field that a record lacks, or null, leaves a gap; a step
that a resumed run wrote twice counts once, as last written.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter

from nblib.report.plots import BLUE, INK, QUIET, RED, Curve, calm, new_figure
from nblib.report.tables import in_words
from nblib.tasks.task import TRUNCATION, Task

Records = Sequence[Mapping[str, Any]]
Fields = Mapping[str, str]  # field of metrics.jsonl -> its name in the legend, "" for none
LINES: Sequence[Mapping[str, Any]] = (
    {"color": BLUE, "linestyle": "-"},
    {"color": RED, "linestyle": "--"},
    {"color": "#009e73", "linestyle": "-."},
    {"color": "#aa4488", "linestyle": ":"},
    {"color": "#6b7783", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": INK, "linestyle": (0, (8, 3))},
    {"color": "#b07d00", "linestyle": (0, (1, 1))},
    {"color": "#2a93c9", "linestyle": (0, (3, 1, 1, 1))},
)
_SHARE = (-0.03, 1.03)
_LEGEND_COLUMNS = 4
_ALARM_ROWS, _ROW_HEIGHT = 5, 0.08  # rows of alarms' names, each a share of the panel's height


class Panel(NamedTuple):
    """One panel of a figure."""

    width: int  # of the figure's 12 columns
    heading: str
    fields: Fields  # raw and thin, with the moving mean over it
    means: Fields = MappingProxyType({})  # the moving mean alone
    points: Fields = MappingProxyType({})  # what is measured now and then
    axis: tuple[float, float] | None = None  # where the y axis begins, and what it reaches at least
    scale: str = "linear"


_TRAINING = (
    [Panel(12, "loss (nats a token)", {"loss": "training"}, points={"val_loss": "validation"})],
    [
        Panel(4, "learning rate", {"learning_rate": ""}, axis=(0, 0)),
        Panel(4, "gradient norm", {"grad_norm": ""}, axis=(0, 0)),
        Panel(4, "tokens per second", {"tokens_per_s": ""}, axis=(0, 0)),
    ],
)


def plot_training(records: Records, *, seed: int, title: str) -> Figure:
    """Loss above learning rate, gradient norm and speed; ValueError where there are no records.

    `tokens` and `seconds` count since the record before.
    """
    history = by_step(records)
    for one in history:
        if one.get("tokens") and one.get("seconds"):
            one["tokens_per_s"] = one["tokens"] / one["seconds"]
    return _plot(history, _TRAINING, (9.0, 5.2), mean_of=20, seed=seed, title=title)


def plot_grpo(task: Task, records: Records, *, seed: int, title: str) -> Figure:
    """Reward, the task's headline, and the signals that warn; ValueError without records.

    A dashed line through every panel marks a step at which an alarm began; its name stands in the
    panel of the reward.
    """
    history = by_step(records)
    for one in history:
        one |= {f"term {name}": value for name, value in (one.get("terms") or {}).items()}
    terms = (key for one in history for key in one if key.startswith("term "))
    panels = _grpo_panels(task, {key: in_words(key.removeprefix("term ")) for key in terms})
    return _plot(history, panels, (12.0, 8.0), mean_of=10, seed=seed, title=title)


def by_step(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one record a step, in the order of the steps, each field as it was last written."""
    merged: dict[int, dict[str, Any]] = {}
    for record in records:
        merged.setdefault(record["step"], {}).update(record)
    return [merged[step] for step in sorted(merged)]


def column(history: Records, key: str) -> Curve:
    """Return one field of all records [N]; NaN where it is missing or null."""
    values = (record.get(key) for record in history)
    return np.array([np.nan if value is None else float(value) for value in values])


def smooth(values: Curve, window: int) -> Curve:
    """Centred moving average, `window` odd, that leaves gaps (NaN) open and narrows to both ends.

    >>> smooth(np.array([9.0, 3.0, 6.0, 6.0]), 3)
    array([9., 6., 5., 6.])
    """
    places = np.arange(len(values))
    reach = np.minimum(window // 2, np.minimum(places, places[::-1]))
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(known, values, 0.0)]))
    counts = np.cumsum(np.concatenate([[0], known]))
    low, high = places - reach, places + reach + 1
    total, count = sums[high] - sums[low], counts[high] - counts[low]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=known)


def _grpo_panels(task: Task, terms: Fields) -> Sequence[Sequence[Panel]]:
    """Return the panels of every task, of its headline, and of what should be rare in it."""
    reward = "reward, and its terms without their weights (means of the step)"
    right, sampled = f"{in_words(task.headline)} (share)", {task.headline: "sampled in training"}
    flat = "zero-variance groups: all of one earn the same (share)"
    rare = {one.name: in_words(one.name) for one in task.metrics if one.better == "lower"}
    probe = {"probe_accuracy": "probe, greedy"}
    cut = {TRUNCATION: "cut at the limit", **rare}
    length = {"completion_tokens": "mean", "longest": "longest"}
    times = {"seconds": "whole step", "rollout_seconds": "of it rollouts"}
    return (
        [
            Panel(8, reward, {"reward": "reward"}, means=terms),
            Panel(4, right, sampled, points=probe, axis=_SHARE),
        ],
        [
            Panel(4, flat, {"zero_variance_groups": ""}, axis=_SHARE),
            Panel(4, "lower is better (share)", cut, axis=(-0.003, 0.1)),
            Panel(4, "completion length (tokens)", length),
        ],
        [
            Panel(3, "KL to the reference (nats a token)", {"kl": ""}),
            Panel(3, "entropy (nats a token)", {"entropy": ""}),
            Panel(3, "gradient norm", {"grad_norm": ""}),
            # The first step compiles and takes many times as long.
            Panel(3, "time a step (seconds)", times, scale="log"),
        ],
    )


def _plot(
    history: Records,
    rows: Sequence[Sequence[Panel]],
    size: tuple[float, float],
    *,
    mean_of: int,
    seed: int,
    title: str,
) -> Figure:
    """Draw rows of panels; the moving mean is over a part in `mean_of` of the steps."""
    if not history:
        raise ValueError("no training records: metrics.jsonl is empty, expected one a step")
    window = len(history) // (2 * mean_of) * 2 + 1
    panels = {panel.heading: panel for row in rows for panel in row}
    now_and_then = {"step"}.union(*(panel.points for panel in panels.values()))
    steps = sum(not one.keys() <= now_and_then for one in history)
    means = f", thick: mean of {window} steps" if window > 1 else ""
    figure = new_figure(*size, f"{steps} steps{means}, seed {seed}", title=title)
    mosaic = [[panel.heading for panel in row for _ in range(panel.width)] for row in rows]
    axes: dict[str, Axes] = figure.subplot_mosaic(
        mosaic, height_ratios=[1.6] + [1.0] * (len(rows) - 1)
    )
    for heading, panel in panels.items():
        _draw(axes[heading], panel, history, window)
    _mark_alarms([*axes.values()], history)
    return figure


def _draw(axes: Axes, panel: Panel, history: Records, window: int) -> None:
    steps = column(history, "step")
    marker = "." if len(steps) < 30 else ""
    fields = {**panel.fields, **panel.means, **panel.points}
    for (key, label), style in zip(fields.items(), itertools.cycle(LINES), strict=False):
        values, look = column(history, key), {**style, "label": label or None}
        known = np.isfinite(values)
        if not known.any():
            continue
        if key in panel.points:
            axes.plot(steps[known], values[known], marker="D", markersize=5, linewidth=1.2, **look)
        if key in panel.fields:
            axes.plot(steps, values, color=QUIET, linewidth=0.6, alpha=0.7, marker=marker)
            axes.plot(steps, smooth(values, window), linewidth=1.8, **look)
        if key in panel.means:
            axes.plot(steps, smooth(values, window), linewidth=1.3, **look)
    _set_out(axes, panel)
    axes.set_xlim(steps[0] - 0.5, steps[-1] + max(0.5, 0.02 * (steps[-1] - steps[0])))


def _set_out(axes: Axes, panel: Panel) -> None:
    """Set heading, scales and legend; the legend stands above the panel, where it hides nothing."""
    named = len(axes.get_legend_handles_labels()[1])
    rows = math.ceil(named / _LEGEND_COLUMNS)
    pad = 6 + 12 * rows if named else None
    axes.set_title(panel.heading, fontsize=9, loc="left", color=INK, pad=pad)
    axes.set_xlabel("training step", fontsize=8)
    calm(axes, grid="y")
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if named:
        place = {"loc": "lower left", "bbox_to_anchor": (-0.01, 0.97), "frameon": False}
        axes.legend(ncols=_LEGEND_COLUMNS, fontsize=8, handlelength=2.6, columnspacing=1.2, **place)
    if not axes.lines:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=QUIET)
        axes.set_yticks([])
        return
    if panel.axis:
        axes.set_ylim(panel.axis[0], max(panel.axis[1], axes.get_ylim()[1]))
    if panel.scale == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.minorticks_off()
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _mark_alarms(panels: Sequence[Axes], history: Records) -> None:
    """Mark the steps at which alarms began; name them in rows above the first panel's curves."""
    began = [one for one in history if one.get("alarms")]
    first, rows = panels[0], min(len(began), _ALARM_ROWS)
    (left, right), (low, high) = first.get_xlim(), first.get_ylim()
    for index, one in enumerate(began):
        for axes in panels:
            axes.axvline(one["step"], color=INK, linestyle=(0, (2, 2)), linewidth=0.9)
        late = 2 * one["step"] > left + right  # its name stands left of it, so it stays inside
        first.text(
            one["step"],
            0.99 - _ROW_HEIGHT * (index % rows),
            f" {', '.join(map(in_words, one['alarms']))} ",
            transform=first.get_xaxis_transform(),  # x: a step, y: a share of the panel
            ha="right" if late else "left",
            va="top",
            fontsize=8,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
    first.set_ylim(low, low + (high - low) / (1 - _ROW_HEIGHT * rows))
