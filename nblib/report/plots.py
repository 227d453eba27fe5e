"""How figures are drawn; metrics by stage and by group; the rewards of GRPO.

Every function returns a matplotlib Figure of its own, None where there is nothing to draw; pyplot
and its global state are not touched. Markers, line styles and fills differ as well as colours, so a
grey print says the same. Colours: Okabe and Ito, https://jfly.uni-koeln.de/color/
"""

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from nblib.evaluation.statistics import in_order
from nblib.report.tables import Estimate, in_words, read_estimate
from nblib.tasks.task import TRUNCATION, Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.evaluation.sampling import Group

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
_BARS: Sequence[Mapping[str, Any]] = (
    {"facecolor": "white", "edgecolor": INK, "hatch": "////"},
    {"facecolor": BLUE, "edgecolor": INK},
)
LEGEND: Mapping[str, Any] = {"loc": "outside upper left", "ncols": 4, "frameon": False}
_MOST_BARS = 12  # more distinct rewards than this are put into as many ranges


def plot_stages(
    task: Task, stages: Sequence["Stage"], metrics: Sequence[str] = (), *, seed: int
) -> Figure | None:
    """One row a metric, one marker a stage with its 95 % interval, the value beside it.

    `metrics` are names, top to bottom: form, headline, fallback and truncation where none are
    given. Raises ValueError when a stage lacks a metric.
    """
    if not stages:
        return None
    names = tuple(metrics) or (*task.main, TRUNCATION)
    interval, unit = _interval_and_unit(task, names)
    n = _span(stage.metrics["n"] for stage in stages)
    height = 1.4 + len(names) * (0.22 + 0.15 * len(stages))
    figure = new_figure(9.0, height, f"{interval}, n = {n} a stage, seed {seed}")
    axes, rows = figure.subplots(), np.arange(len(names))
    for stage, style, shift in _side_by_side(stages, spread=0.55):
        values = [read_estimate(stage.metrics, name) for name in names]
        look = {**style, "linestyle": "none", "label": in_words(stage.name)}
        draw_estimates(axes, rows + shift, values, sideways=True, **look)
        for place, value in zip(rows + shift, values, strict=True):
            axes.text(1.035, place, value.figure, va="center", fontsize=8, color=INK)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel=unit)
    axes.set_yticks(rows, [in_words(name) for name in names])
    for boundary in rows[1:] - 0.5:
        axes.axhline(boundary, color=QUIET, linewidth=0.4, alpha=0.5)
    figure.legend(fontsize=9, **LEGEND)
    calm(axes, grid="x")
    return figure


def plot_groups(
    task: Task, stages: Sequence["Stage"], metric: str = "", *, seed: int
) -> Figure | None:
    """One metric, the headline or another, of each group, with 95 % intervals.

    Groups that are numbers have an order: a line a stage joins them. Others have a row each.
    """
    groups = in_order({group for stage in stages for group in stage.by_group})
    if not groups:
        return None
    metric = metric or task.headline
    interval, unit = _interval_and_unit(task, (metric,))
    ordered = all(group.removeprefix("-").replace(".", "", 1).isdigit() for group in groups)
    height = 3.8 if ordered else 1.4 + len(groups) * (0.14 + 0.12 * len(stages))
    figure = new_figure(9.0, height, f"{interval}, seed {seed}")
    axes = figure.subplots()
    for stage, style, shift in _side_by_side(stages, spread=0.16 if ordered else 0.4):
        places = np.array([groups.index(group) + shift for group in stage.by_group])
        values = [read_estimate(metrics, metric) for metrics in stage.by_group.values()]
        look = {**style, "label": in_words(stage.name), **({} if ordered else {"linestyle": ""})}
        draw_estimates(axes, places, values, sideways=not ordered, **look)
    counts = [_span([one.by_group[g]["n"] for one in stages if g in one.by_group]) for g in groups]
    share, places = (-0.03, 1.03), range(len(groups))
    if ordered:
        axes.set(ylim=share, xlim=(-0.5, len(groups) - 0.5), xlabel=task.grouped_by)
        axes.set_ylabel(f"{in_words(metric)}\n({unit})")
        axes.set_xticks(places, map("{}\nn = {}".format, groups, counts))
    else:
        axes.set(xlim=share, ylim=(len(groups) - 0.5, -0.5), ylabel=task.grouped_by)
        axes.set_xlabel(f"{in_words(metric)} ({unit})")
        axes.set_yticks(places, map("{}, n = {}".format, groups, counts))
    figure.legend(fontsize=9, **LEGEND)
    calm(axes, grid="y" if ordered else "x")
    return figure


def plot_reward_histogram(rollouts: Sequence[Mapping[str, Any]], *, seed: int) -> Figure:
    """Rewards in the first tenth of the steps beside those in the last tenth.

    A tenth has at least one step. `rollouts` are records of `rollouts.jsonl`; null rewards are left
    out. Raises ValueError when there are no others.
    """
    known = [one for one in rollouts if one.get("reward") is not None]
    if not known:
        raise ValueError("no rewards: rollouts.jsonl is empty, expected one record a completion")
    steps = sorted({one["step"] for one in known})
    tenth = max(1, len(steps) // 10)
    periods = [("first", steps[:tenth]), ("last", steps[-tenth:])][: len(steps)]
    groups = [
        np.array([float(one["reward"]) for one in known if one["step"] in period])
        for _, period in periods
    ]
    figure = new_figure(9.0, 3.8, f"share of each period's completions, seed {seed}")
    axes, width, (names, shares) = figure.subplots(), 0.8 / len(groups), _binned(groups)
    for index, ((name, period), rewards) in enumerate(zip(periods, groups, strict=True)):
        span = f"step {period[0]}" if tenth == 1 else f"steps {period[0]} to {period[-1]}"
        label = f"{name} tenth ({span}): n = {len(rewards)}, mean {rewards.mean():.3g}"
        places = np.arange(len(names)) + (index - (len(groups) - 1) / 2) * width
        axes.bar(places, shares[index], width, label=label, **_BARS[index])
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="reward of a completion", ylabel="share of completions")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(fontsize=9, **LEGEND)
    calm(axes, grid="y")
    return figure


def plot_group(group: "Group", *, seed: int) -> Figure:
    """One group: the reward of each completion, their mean, and the advantages beside it."""
    figure = new_figure(9.0, 3.4, f"one prompt, {len(group.rewards)} completions, seed {seed}")
    left, right = figure.subplots(1, 2)
    mean = float(np.mean(group.rewards))
    _draw_bars(left, "reward", group.rewards)
    left.axhline(mean, color=RED, linestyle="--", linewidth=1.6, label=f"mean {mean:.3g}")
    left.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    _draw_bars(right, "advantage", group.advantages)
    return figure


def figure_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def new_figure(width: float, height: float, caption: str, *, title: str = "") -> Figure:
    """Return an empty figure, sizes in inches, with a caption at its foot and a title or none."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    # A caption as supxlabel: the layout engine leaves space for it, which it does not for fig.text.
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


def draw_estimates(
    axes: Axes,
    places: Curve | Sequence[int],
    estimates: Sequence[Estimate],
    *,
    sideways: bool = False,
    **look: Any,
) -> None:
    """Draw markers and intervals; `sideways` puts the values on the x axis."""
    values = np.array([one.value for one in estimates])
    # An interval's end at 0 or 1 can miss the value by a rounding error; no arm is negative.
    below = np.maximum(values - [one.low for one in estimates], 0)
    above = np.maximum([one.high for one in estimates] - values, 0)
    arms = {"xerr" if sideways else "yerr": np.array([below, above])}
    x, y = (values, places) if sideways else (places, values)
    look = {"markersize": 6, "capsize": 3, "linewidth": 1.4, "clip_on": False, "zorder": 3} | look
    axes.errorbar(x, y, **arms, **look)


def _side_by_side(
    stages: Sequence["Stage"], *, spread: float
) -> Iterable[tuple["Stage", Mapping[str, Any], float]]:
    """Yield each stage, its style, and its shift, so that all of them are `spread` wide."""
    others = itertools.cycle(_OTHER_STAGES)
    for index, stage in enumerate(stages):
        style = _KNOWN_STAGES.get(stage.name) or next(others)
        yield stage, style, spread * (index / max(1, len(stages) - 1) - 0.5) * (len(stages) > 1)


def _interval_and_unit(task: Task, names: Iterable[str]) -> tuple[str, str]:
    """Return how the intervals are called, and what an axis of these metrics counts."""
    if all(task.metric(name).kind == "rate" for name in names):
        return "Wilson 95 % intervals", "fraction of items"
    return "95 % intervals", "fraction of 1"


def _span(counts: Iterable[int]) -> str:
    low, *_, high = [*(ordered := sorted(counts)), ordered[-1]]
    return f"{low}" if low == high else f"{low} to {high}"


def _binned(groups: Sequence[Curve]) -> tuple[list[str], list[Curve]]:
    """Return the names of the bars and, for each group, its share in each of them.

    Few distinct rewards get a bar each, many are put into ranges of equal width.
    """
    groups = [group.round(6) for group in groups]
    distinct = np.unique(np.concatenate(groups))
    if len(distinct) <= _MOST_BARS:
        shares = [(group[:, None] == distinct).mean(axis=0) for group in groups]
        return [f"{value:.3g}" for value in distinct], shares
    edges = np.linspace(distinct[0], distinct[-1], _MOST_BARS + 1)
    names = [f"{low:.2g} to\n{high:.2g}" for low, high in itertools.pairwise(edges)]
    return names, [np.histogram(group, edges)[0] / len(group) for group in groups]


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
