"""Runs side by side in one figure: their loss or reward over the steps, and their headlines."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nblib.report.curves import LINES, by_step, column, smooth
from nblib.report.plots import LEGEND, QUIET, calm, draw_estimates, new_figure
from nblib.report.tables import in_words
from nblib.runs import runs_root
from nblib.tools.run_log import scalars
from nblib.tools.run_table import RunRow, differing_parameters, read_metrics

_ROW_IN, _LEGEND_IN = 3.6, 0.2  # heights in inches: of a notebook's runs, of a line of the legend
_PARTS = 20  # the moving mean is over a part in this many of the steps


def plot_runs(groups: Mapping[str, Sequence[RunRow]]) -> Figure:
    """Draw a row of two panels a notebook; the legend says which parameters differ.

    What is drawn is the reward where a run's `metrics.jsonl` has one, else the loss, as a moving
    mean. A run without readable metrics, or without a headline, leaves its place empty.
    """
    count = sum(len(rows) for rows in groups.values())
    height = _ROW_IN * len(groups) + _LEGEND_IN * count
    figure = new_figure(10.0, height, "moving means; 95 % intervals")
    parts = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    for part, (notebook, rows) in zip(parts, groups.items(), strict=True):
        left, right = part.subplots(1, 2, width_ratios=(3, 2))
        for number, (row, name) in enumerate(zip(rows, _names(rows), strict=True), start=1):
            look = LINES[(number - 1) % len(LINES)]
            _draw_curve(left, row, f"{number}: {name}", **look)
            if row.estimate:
                marker = {"marker": "o", "color": look["color"]}
                draw_estimates(right, [number], [row.estimate], sideways=True, **marker)
        _set_out(left, right, rows)
        part.legend(title=notebook, alignment="left", fontsize=8, **{**LEGEND, "ncols": 1})
    return figure


def _draw_curve(axes: Axes, row: RunRow, label: str, **look: Any) -> None:
    """Draw one run, its number at the curve's end; a run without records has its label alone."""
    key, history = _curve_of(row)
    steps, values = (column(history, name) for name in ("step", key))
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    means = smooth(values, len(values) // (2 * _PARTS) * 2 + 1)
    axes.plot(steps, means, linewidth=1.6, label=label, **look)
    if len(steps):
        number = label.partition(":")[0]
        axes.annotate(number, (steps[-1], means[-1]), (4, 0), textcoords="offset points", size=8)
        unit = " (nats a token)" if key == "loss" else ""
        axes.set_ylabel(f"{key}{unit}", fontsize=9)


def _curve_of(row: RunRow) -> tuple[str, list[dict[str, Any]]]:
    try:
        records = read_metrics(runs_root() / row.notebook / row.run / "metrics.jsonl")
    except (OSError, ValueError):  # the table says what is wrong
        return "loss", []
    history = by_step({"step": one["step"], **scalars(one)} for one in records)
    return "reward" if any("reward" in one for one in history) else "loss", history


def _set_out(left: Axes, right: Axes, rows: Sequence[RunRow]) -> None:
    left.set_xlabel("training step", fontsize=9)
    left.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    headlines = dict.fromkeys(in_words(row.headline) for row in rows if row.headline)
    right.set_xlabel(f"{' or '.join(headlines) or 'headline'} (fraction of 1)", fontsize=9)
    right.set(xlim=(-0.03, 1.03), ylim=(len(rows) + 0.5, 0.5))
    right.set_yticks(range(1, len(rows) + 1))
    calm(left, grid="y")
    calm(right, grid="x")
    drawn = {left: left.texts, right: [row for row in rows if row.estimate]}
    for axes, what in drawn.items():
        if not what:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=QUIET)


def _names(rows: Sequence[RunRow]) -> list[str]:
    """Return what tells each run from the others: its parameters, or its folder's name."""
    named = [", ".join(f"{k} {v}" for k, v in one.items()) for one in differing_parameters(rows)]
    return [name or row.run for name, row in zip(named, rows, strict=True)]
