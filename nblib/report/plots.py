"""Figures of a run: training curves, metrics by stage and by group; and how figures are drawn.

Every function returns a matplotlib Figure of its own; pyplot and its global state are not touched.
Markers, line styles and fills differ as well as colours, so a grey print says the same.
Nothing is saved here. Colours: Okabe and Ito, https://jfly.uni-koeln.de/color/
"""

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from nblib.evaluation.statistics import in_order
from nblib.report.tables import Estimate, group_word, in_words, read_estimate
from nblib.tasks.task import TRUNCATION, Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage

Curve: TypeAlias = NDArray[np.float64]  # one axis: a value a step, a group or a metric

INK, QUIET = "#23303d", "#8a96a3"  # of texts and lines that speak, and of what stands behind them
BLUE, RED = "#0072b2", "#d55e00"
# A stage looks the same in every figure of a run, whichever stages stand beside it.
_KNOWN_STAGES: Mapping[str, Mapping[str, Any]] = {
    "base": {"color": "#6b7783", "marker": "o", "linestyle": ":", "markerfacecolor": "white"},
    "tuned": {"color": BLUE, "marker": "s", "linestyle": "-"},
}
_OTHER_STAGES: Sequence[Mapping[str, Any]] = (
    {"color": "#b35a00", "marker": "^", "linestyle": "--", "markerfacecolor": "white"},
    {"color": "#009e73", "marker": "D", "linestyle": "-."},
    {"color": "#aa4488", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#7a6a00", "marker": "P", "linestyle": "-", "markerfacecolor": "white"},
)
_WIDE_LABELS = 90  # characters of all groups' names; above, they are written aslant


def plot_training(records: Sequence[Mapping[str, Any]], *, seed: int, title: str) -> Figure:
    """Loss over step, raw and smoothed, above learning rate, gradient norm and speed.

    Args:
        records: Records of `metrics.jsonl`. `tokens` and `seconds` count since the record before.
            A step that a resumed run wrote twice counts once, as last written. A field that is
            missing or null leaves a gap.
        seed: The run's seed, for the caption.
        title: Heading of the figure.

    Raises ValueError when there are no records.
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
    task: Task, stages: Sequence["Stage"], metrics: Sequence[str] = (), *, seed: int
) -> Figure:
    """One row a metric, one marker a stage with its 95 % interval, the value beside it.

    `metrics` are names, top to bottom: form, headline, fallback and truncation where none are
    given. Raises ValueError when there are no stages, or a stage lacks a metric.
    """
    if not stages:
        raise ValueError("expected stages to draw, got none")
    names = tuple(metrics) or (*task.main, TRUNCATION)
    height = 1.4 + len(names) * (0.22 + 0.15 * len(stages))
    interval, unit = _interval_and_unit(task, names)
    n = _span(stage.metrics["n"] for stage in stages)
    figure = new_figure(9.0, height, f"{interval}, n = {n} a stage, seed {seed}")
    axes = figure.subplots()
    rows = np.arange(len(names))
    for index, (stage, style) in enumerate(_styled(stages)):
        values = [read_estimate(stage.metrics, name) for name in names]
        places = rows + _offset(index, len(stages), spread=0.55)
        look = {**style, "linestyle": "none"}
        _draw_estimates(axes, places, values, label=in_words(stage.name), style=look, sideways=True)
        for place, value in zip(places, values, strict=True):
            axes.text(1.035, place, value.figure, va="center", fontsize=8, color=INK)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel=unit)
    axes.set_yticks(rows, [in_words(name) for name in names])
    for boundary in rows[1:] - 0.5:
        axes.axhline(boundary, color=QUIET, linewidth=0.4, alpha=0.5)
    _finish(axes, figure, grid="x", stages=len(stages))
    return figure


def plot_groups(task: Task, stages: Sequence["Stage"], metric: str = "", *, seed: int) -> Figure:
    """One metric, the headline or another, of each group, a line a stage, with 95 % intervals.

    Groups that are no numbers have no order, so no line joins them. Raises ValueError when no stage
    has groups.
    """
    groups = in_order({group for stage in stages for group in stage.by_group})
    if not groups:
        raise ValueError(f"expected metrics by {group_word(task)}, got none")
    name = metric or task.headline
    interval, unit = _interval_and_unit(task, (name,))
    figure = new_figure(9.0, 3.8, f"{interval}, seed {seed}")
    axes = figure.subplots()
    joined = {} if all(map(_is_number, groups)) else {"linestyle": "none"}
    for index, (stage, style) in enumerate(_styled(stages)):
        shift = _offset(index, len(stages), spread=0.16)
        places = np.array([groups.index(group) + shift for group in stage.by_group])
        values = [read_estimate(metrics, name) for metrics in stage.by_group.values()]
        look = {**style, **joined}
        _draw_estimates(axes, places, values, label=in_words(stage.name), style=look)
    axes.set(ylim=(-0.03, 1.03), xlim=(-0.5, len(groups) - 0.5), xlabel=task.grouped_by)
    axes.set_ylabel(f"{in_words(name)}\n({unit})")
    axes.set_xticks(range(len(groups)), [_counted(group, stages) for group in groups])
    if sum(map(len, groups)) > _WIDE_LABELS:
        axes.tick_params(axis="x", labelrotation=30)
    _finish(axes, figure, grid="y", stages=len(stages))
    return figure


def show(figure: Figure) -> Figure:
    """Display a figure in a notebook, and return it to be kept for the report.

    >>> figures["Loss"] = show(plot_training(history, seed=SEED, title="SFT"))  # doctest: +SKIP
    """
    from IPython.display import Image, display  # a notebook has it

    display(Image(figure_png(figure)))
    return figure


def figure_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def by_step(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one record a step, in the order of the steps, from those of `metrics.jsonl`.

    Records of the same step are merged; a field that is written twice counts as last written.
    """
    merged: dict[int, dict[str, Any]] = {}
    for record in records:
        merged.setdefault(record["step"], {}).update(record)
    return [merged[step] for step in sorted(merged)]


def column(history: Sequence[Mapping[str, Any]], key: str) -> Curve:
    """Return one field of all records [N]; NaN, a gap, where it is missing or null."""
    values = (record.get(key) for record in history)
    return np.array([np.nan if value is None else float(value) for value in values])


def smooth(values: Curve, window: int) -> Curve:
    """Centred moving average that leaves gaps (NaN) open and narrows towards both ends.

    >>> smooth(np.array([9.0, 3.0, 6.0, 6.0]), 3)
    array([9., 6., 5., 6.])
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and at least 1, got {window}")
    places = np.arange(len(values))
    reach = np.minimum(window // 2, np.minimum(places, places[::-1]))
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(known, values, 0.0)]))
    counts = np.cumsum(np.concatenate([[0], known]))
    low, high = places - reach, places + reach + 1
    total, count = sums[high] - sums[low], counts[high] - counts[low]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=known)


def new_figure(width: float, height: float, caption: str, *, title: str = "") -> Figure:
    """Return an empty figure, sizes in inches, with a caption at its foot and a title or none."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    # A caption as supxlabel: the layout engine keeps room for it, which it does not for fig.text.
    figure.supxlabel(caption, x=0.99, ha="right", fontsize=8, color=INK)
    return figure


def calm(axes: Axes, *, grid: Literal["x", "y"]) -> None:
    """Draw the axes quietly: two spines, and thin grid lines across `grid` alone."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis=grid, color=QUIET, linewidth=0.5, alpha=0.35)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def _draw_loss(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    steps, loss = column(history, "step"), column(history, "loss")
    window = len(steps) // 40 * 2 + 1  # a twentieth of the run: light
    marker = "." if len(steps) < 30 else ""
    axes.plot(steps, loss, color=QUIET, linewidth=0.8, label="loss", marker=marker)
    if window > 1:
        label = f"loss, mean of {window} records"
        axes.plot(steps, smooth(loss, window), color=BLUE, linewidth=2.0, label=label)
    held_out = column(history, "val_loss")
    known = np.isfinite(held_out)
    if known.any():
        style: dict[str, Any] = {"color": RED, "linewidth": 1, "markersize": 5}
        axes.plot(steps[known], held_out[known], "D--", label="validation loss", **style)
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


def _draw_estimates(
    axes: Axes,
    places: Curve,
    estimates: Sequence[Estimate],
    *,
    label: str,
    style: Mapping[str, Any],
    sideways: bool = False,
) -> None:
    """Draw one stage's markers and intervals; `sideways` puts the values on the x axis."""
    values = np.array([one.value for one in estimates])
    # An interval's end at 0 or 1 can miss the value by a rounding error; no arm is negative.
    below = np.maximum(values - [one.low for one in estimates], 0)
    above = np.maximum([one.high for one in estimates] - values, 0)
    arms = {"xerr" if sideways else "yerr": np.array([below, above])}
    look = {"markersize": 6, "capsize": 3, "linewidth": 1.4, "clip_on": False, "zorder": 3, **style}
    x, y = (values, places) if sideways else (places, values)
    axes.errorbar(x, y, label=label, **arms, **look)


def _styled(stages: Iterable["Stage"]) -> list[tuple["Stage", Mapping[str, Any]]]:
    others = itertools.cycle(_OTHER_STAGES)
    return [(stage, _KNOWN_STAGES.get(stage.name) or next(others)) for stage in stages]


def _offset(index: int, count: int, *, spread: float) -> float:
    """Shift of one of `count` neighbours, all of them centred on 0 and `spread` wide in all."""
    return 0.0 if count == 1 else spread * (index / (count - 1) - 0.5)


def _interval_and_unit(task: Task, names: Iterable[str]) -> tuple[str, str]:
    """Return how the intervals are called, and what an axis of these metrics counts."""
    if all(task.metric(name).kind == "rate" for name in names):
        return "Wilson 95 % intervals", "fraction of items"
    return "95 % intervals", "fraction of 1"


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def _counted(group: str, stages: Iterable["Stage"]) -> str:
    counts = (stage.by_group[group]["n"] for stage in stages if group in stage.by_group)
    return f"{group}\nn = {_span(counts)}"


def _span(counts: Iterable[int]) -> str:
    low, *_, high = [*(ordered := sorted(counts)), ordered[-1]]
    return f"{low}" if low == high else f"{low} to {high}"


def _finish(axes: Axes, figure: Figure, *, grid: Literal["x", "y"], stages: int) -> None:
    figure.legend(loc="outside upper left", ncols=min(stages, 4), frameon=False, fontsize=9)
    calm(axes, grid=grid)
