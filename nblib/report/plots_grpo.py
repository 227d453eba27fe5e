"""The figure of a GRPO run: its signals over the step, and where an alarm began.

In the manner of `report.plots`, on the same `drawing`: a function returns a Figure of its own,
pyplot is not touched, nothing is saved, and a grey print says the same as the coloured one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from nblib.report.drawing import (
    INK,
    QUIET,
    Curve,
    by_step,
    calm,
    column,
    new_figure,
    smooth,
)
from nblib.report.tables import in_words

_BLUE, _RED = "#0072b2", "#d55e00"
_FIRST: Mapping[str, Any] = {"color": _BLUE, "linestyle": "-"}
_SECOND: Mapping[str, Any] = {"color": _RED, "linestyle": "--"}
_TERMS: Sequence[Mapping[str, Any]] = (
    {"color": "#b35a00", "linestyle": "--"},
    {"color": "#009e73", "linestyle": "-."},
    {"color": "#aa4488", "linestyle": ":"},
    {"color": "#6b7783", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#23303d", "linestyle": (0, (8, 3))},
)
_ROW_HEIGHT = 0.08  # of an alarm's name, as a share of the reward panel's height
# Panel -> heading and fields, each with its name in the legend.
_PANELS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "right": ("right answers (share)", {"answer_accuracy": "sampled in training"}),
    "flat": ("flat groups (share)", {"flat_groups": ""}),
    "cut": (
        "cut or with a preamble (share)",
        {"truncation_rate": "cut at the limit", "preamble_rate": "preamble"},
    ),
    "length": (
        "completion length (tokens)",
        {"completion_tokens": "mean", "longest": "longest"},
    ),
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


def plot_grpo(records: Sequence[Mapping[str, Any]], *, seed: int, title: str) -> Figure:
    """Small multiples over the step: reward, right answers, and the signals that warn.

    A dashed line through every panel marks a step at which an alarm began; its name stands in the
    panel of the reward.

    Args:
        records: Records of `metrics.jsonl`, the probe's among them. A step that a resumed run
            wrote twice counts once, as last written. A field that is missing or null leaves a gap;
            a panel without any value says "not measured".
        seed: The run's seed, for the caption.
        title: Heading of the figure.

    Raises:
        ValueError: there are no records.
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
    _draw_reward(panels["reward"], history, window)
    for name, (heading, fields) in _PANELS.items():
        _draw_panel(panels[name], heading, history, fields, window)
    _draw_probe(panels["right"], history)
    for name in ("right", "flat", "cut"):
        _as_share(panels[name], whole=name != "cut")
    _as_times(panels["seconds"])
    steps = column(history, "step")
    for axes in panels.values():
        axes.set_xlim(steps[0] - 0.5, steps[-1] + max(0.5, 0.02 * (steps[-1] - steps[0])))
        if not axes.lines:
            _say_not_measured(axes)
    _mark_alarms(panels, history)
    return figure


def _draw_reward(axes: Axes, history: Sequence[Mapping[str, Any]], window: int) -> None:
    heading = "reward, and its terms without their weights (means of the step)"
    _draw_panel(axes, heading, history, {"reward": "reward"}, window)
    terms = list(dict.fromkeys(name for one in history for name in one.get("terms") or {}))
    steps = column(history, "step")
    for index, name in enumerate(terms):
        values = column([one.get("terms") or {} for one in history], name)
        style = _TERMS[index % len(_TERMS)]
        axes.plot(
            steps, _smooth_known(values, window), label=in_words(name), linewidth=1.3, **style
        )
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
    for (field, label), style in zip(fields.items(), (_FIRST, _SECOND), strict=False):
        values = column(history, field)
        if not np.isfinite(values).any():
            continue
        axes.plot(steps, values, color=QUIET, linewidth=0.6, alpha=0.7, marker=marker)
        axes.plot(steps, _smooth_known(values, window), label=label or None, linewidth=1.8, **style)
    axes.set_title(heading, fontsize=9, loc="left", color=INK)
    axes.set_xlabel("training step", fontsize=8)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    calm(axes, grid="y")
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if axes.lines and len(fields) > 1:
        _legend(axes, columns=2)


def _draw_probe(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    steps, values = column(history, "step"), column(history, "probe_accuracy")
    known = np.isfinite(values)
    if known.any():
        style: dict[str, Any] = {**_SECOND, "marker": "D", "markersize": 5, "linewidth": 1.2}
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


def _as_share(axes: Axes, *, whole: bool) -> None:
    """Set the range of a share: all of 0 to 1, or as far as it goes and a tenth at least."""
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    highest = max((float(np.nanmax(values)) for values in drawn), default=1.0)
    axes.set_ylim(*((-0.03, 1.03) if whole else (-0.003, max(0.1, 1.1 * highest))))


def _as_times(axes: Axes) -> None:
    """Take a logarithmic scale: the first step compiles and takes many times as long."""
    if axes.lines:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _smooth_known(values: Curve, window: int) -> Curve:
    """Return the moving mean, with the gaps of `values` left open."""
    return np.where(np.isfinite(values), smooth(values, window), np.nan)


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


def _say_not_measured(axes: Axes) -> None:
    axes.text(
        0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=QUIET
    )
    axes.set_yticks([])
