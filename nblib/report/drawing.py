"""Drawing basics that all figures of a run share: colours, curves from records, quiet axes.

Used by `report.plots` and `report.plots_grpo`; what a figure shows is decided there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Curve: TypeAlias = NDArray[np.float64]  # one axis: a value a step, a level or a rate

INK, QUIET = "#23303d", "#8a96a3"  # of texts and lines that speak, and of what stands behind them


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
    """Centred moving average that ignores gaps (NaN) and narrows towards both ends.

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
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def new_figure(width: float, height: float, caption: str, *, title: str = "") -> Figure:
    """Return an empty figure, sizes in inches, with a caption at its foot and a title or none."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    # A caption as supxlabel: the layout engine keeps room for it, which it does not for fig.text.
    figure.supxlabel(caption, x=0.99, ha="right", fontsize=8, color=INK)
    return figure


def calm(axes: Axes, *, grid: Literal["x", "y"]) -> None:
    """Take from the axes what speaks louder than the data; thin lines across `grid` remain."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis=grid, color=QUIET, linewidth=0.5, alpha=0.35)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
