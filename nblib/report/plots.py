"""Figures of a run: training curves, rates by stage, accuracy by level.

Every function returns a matplotlib Figure of its own; pyplot and its global state are not touched.
Markers, line styles and fills differ as well as colours, so a grey print says the same.
Nothing is saved here. Colours: Okabe and Ito, https://jfly.uni-koeln.de/color/
"""

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

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
from nblib.report.tables import Rate, in_words, read_rate

# A stage looks the same in every figure of a run, whichever stages stand beside it.
_KNOWN_STAGES: Mapping[str, Mapping[str, Any]] = {
    "base": {"color": "#6b7783", "marker": "o", "linestyle": ":", "markerfacecolor": "white"},
    "tuned": {"color": "#0072b2", "marker": "s", "linestyle": "-"},
}
_OTHER_STAGES: Sequence[Mapping[str, Any]] = (
    {"color": "#b35a00", "marker": "^", "linestyle": "--", "markerfacecolor": "white"},
    {"color": "#009e73", "marker": "D", "linestyle": "-."},
    {"color": "#aa4488", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#7a6a00", "marker": "P", "linestyle": "-", "markerfacecolor": "white"},
)


def plot_training(records: Sequence[Mapping[str, Any]], *, seed: int, title: str) -> Figure:
    """Loss over step, raw and smoothed, above learning rate, gradient norm and speed.

    Args:
        records: Records of `metrics.jsonl`. `tokens` and `seconds` count since the record before.
            A step that a resumed run wrote twice counts once, as last written. A field that is
            missing or null leaves a gap.
        seed: The run's seed, for the caption.
        title: Heading of the figure.

    Raises:
        ValueError: there are no records.
    """
    if not records:
        raise ValueError("no training records: metrics.jsonl is empty, expected one a logged step")
    history = by_step(records)
    steps = column(history, "step")
    with np.errstate(divide="ignore", invalid="ignore"):
        tokens_per_s = column(history, "tokens") / column(history, "seconds")
    figure = new_figure(9.0, 5.2, f"{len(steps)} logged steps, seed {seed}", title=title)
    axes: dict[str, Axes] = figure.subplot_mosaic(
        [["loss"] * 3, ["rate", "norm", "speed"]], height_ratios=[2.1, 1]
    )
    _draw_loss(axes["loss"], history)
    for name, heading, values in (
        ("rate", "learning rate", column(history, "learning_rate")),
        ("norm", "gradient norm", column(history, "grad_norm")),
        ("speed", "tokens per second", tokens_per_s),
    ):
        _draw_small(axes[name], heading, steps, values)
    return figure


def plot_stages(
    stages: Mapping[str, Mapping[str, Any]], rates: Sequence[str], *, seed: int
) -> Figure:
    """One row a rate, one marker a stage with its 95 % interval, the value in figures beside it.

    Args:
        stages: Stages of `result.json`, in the order to draw.
        rates: Names of the rates, top to bottom.
        seed: The run's seed, for the caption.

    Raises:
        ValueError: nothing to draw, or a stage lacks a rate.
    """
    if not stages or not rates:
        raise ValueError(f"expected stages and rates, got {list(stages)} and {list(rates)}")
    height = 1.4 + len(rates) * (0.22 + 0.15 * len(stages))
    figure = new_figure(9.0, height, f"{_interval_note(stages.values())}, seed {seed}")
    axes = figure.subplots()
    rows = np.arange(len(rates))
    styles = _styles(stages)
    for index, (name, metrics) in enumerate(stages.items()):
        values = [read_rate(metrics, rate) for rate in rates]
        places = rows + _offset(index, len(stages), spread=0.55)
        style = {**styles[name], "linestyle": "none"}
        _draw_rates(axes, places, values, label=in_words(name), style=style, sideways=True)
        for place, rate in zip(places, values, strict=True):
            axes.text(1.035, place, rate.figure, va="center", fontsize=8, color=INK)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rates) - 0.5, -0.5), xlabel="fraction of items")
    axes.set_yticks(rows, [in_words(rate) for rate in rates])
    for boundary in rows[1:] - 0.5:
        axes.axhline(boundary, color=QUIET, linewidth=0.4, alpha=0.5)
    _finish(axes, figure, grid="x", stages=len(stages))
    return figure


def plot_levels(
    by_level: Mapping[str, Mapping[int, Mapping[str, Any]]],
    *,
    seed: int,
    rate: str = "answer_accuracy",
) -> Figure:
    """One rate over the difficulty level, a line a stage, with 95 % intervals.

    Args:
        by_level: stage -> level (number of steps) -> metrics of that stage's items of the level.
        seed: The run's seed, for the caption.
        rate: Name of the rate.

    Raises:
        ValueError: nothing to draw, or a level's metrics lack the rate.
    """
    levels = sorted({int(level) for group in by_level.values() for level in group})
    if not levels:
        raise ValueError(f"expected metrics by level, got none for stages {list(by_level)}")
    figure = new_figure(9.0, 3.8, f"Wilson 95 % intervals, seed {seed}")
    axes = figure.subplots()
    styles = _styles(by_level)
    for index, (name, group) in enumerate(by_level.items()):
        ordered = sorted((int(level), metrics) for level, metrics in group.items())
        values = [read_rate(metrics, rate) for _, metrics in ordered]
        shift = _offset(index, len(by_level), spread=0.16)
        places = np.array([level + shift for level, _ in ordered])
        _draw_rates(axes, places, values, label=in_words(name), style=styles[name])
    axes.set(ylim=(-0.03, 1.03), xlabel="difficulty level (steps in the solution)")
    axes.set_xlim(levels[0] - 0.5, levels[-1] + 0.5)
    axes.set_ylabel(f"{in_words(rate)}\n(fraction of items)")
    axes.set_xticks(levels, [f"{level}\n{_items(by_level, level)}" for level in levels])
    _finish(axes, figure, grid="y", stages=len(by_level))
    return figure


def figure_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as a PNG file's bytes, for a page or for `IPython.display.Image`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _draw_loss(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    steps, loss = column(history, "step"), column(history, "loss")
    window = len(steps) // 40 * 2 + 1  # a twentieth of the run: light
    marker = "." if len(steps) < 30 else ""
    axes.plot(steps, loss, color=QUIET, linewidth=0.8, label="loss", marker=marker)
    if window > 1:
        label = f"loss, mean of {window} records"
        axes.plot(steps, smooth(loss, window), color="#0072b2", linewidth=2.0, label=label)
    held_out = column(history, "val_loss")
    known = np.isfinite(held_out)
    if known.any():
        axes.plot(
            steps[known],
            held_out[known],
            "D--",
            color="#d55e00",
            linewidth=1,
            markersize=5,
            label="validation loss",
        )
    axes.set(xlabel="training step", ylabel="loss (nats per token)")
    axes.legend(frameon=False, fontsize=9)
    calm(axes, grid="y")


def _draw_small(axes: Axes, heading: str, steps: Curve, values: Curve) -> None:
    marker = "." if len(steps) < 30 else ""
    axes.plot(steps, values, color=INK, linewidth=1.0, marker=marker)
    axes.set_title(heading, fontsize=9, loc="left", color=INK)
    axes.set_xlabel("training step", fontsize=8)
    highest: float = np.max(values, initial=0, where=np.isfinite(values))
    axes.set_ylim(0, 1.1 * highest or 1)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    calm(axes, grid="y")
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _draw_rates(
    axes: Axes,
    places: Curve,
    rates: Sequence[Rate],
    *,
    label: str,
    style: Mapping[str, Any],
    sideways: bool = False,
) -> None:
    """Draw one stage's markers and intervals; `sideways` puts the rate on the x axis."""
    values = np.array([rate.value for rate in rates])
    # Wilson's bounds at 0 and 1 can miss the rate by a rounding error; a bar has no negative arm.
    below = np.maximum(values - [rate.low for rate in rates], 0)
    above = np.maximum([rate.high for rate in rates] - values, 0)
    arms = np.array([below, above])
    look: dict[str, Any] = {
        "markersize": 6,
        "capsize": 3,
        "linewidth": 1.4,
        "clip_on": False,
        "zorder": 3,
        **style,
    }
    if sideways:
        axes.errorbar(values, places, xerr=arms, label=label, **look)
    else:
        axes.errorbar(places, values, yerr=arms, label=label, **look)


def _styles(stages: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    others = itertools.cycle(_OTHER_STAGES)
    return {name: _KNOWN_STAGES.get(name) or next(others) for name in stages}


def _offset(index: int, count: int, *, spread: float) -> float:
    """Shift of one of `count` neighbours, all of them centred on 0 and `spread` wide in all."""
    return 0.0 if count == 1 else spread * (index / (count - 1) - 0.5)


def _interval_note(stages: Iterable[Mapping[str, Any]]) -> str:
    return f"Wilson 95 % intervals, n = {_span(metrics['n'] for metrics in stages)} a stage"


def _items(by_level: Mapping[str, Mapping[int, Mapping[str, Any]]], level: int) -> str:
    counts = (
        metrics["n"]
        for group in by_level.values()
        for key, metrics in group.items()
        if int(key) == level
    )
    return f"n = {_span(counts)}"


def _span(counts: Iterable[int]) -> str:
    low, *_, high = [*(ordered := sorted(counts)), ordered[-1]]
    return f"{low}" if low == high else f"{low} to {high}"


def _finish(axes: Axes, figure: Figure, *, grid: Literal["x", "y"], stages: int) -> None:
    figure.legend(loc="outside upper left", ncols=min(stages, 4), frameon=False, fontsize=9)
    calm(axes, grid=grid)
