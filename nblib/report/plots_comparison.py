"""Figures of a comparison: what was gained and how sure that is, and what broke.

Nothing is computed here; how stages look is decided in `report.plots`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nblib.evaluation.comparison import Comparison
from nblib.report.drawing import INK, QUIET, calm, new_figure
from nblib.evaluation.paired import Paired, difference_text
from nblib.report.tables import in_words

_HATCHES = ("", "////", "....", "\\\\\\\\", "xx", "--", "++", "oo")
_FILLS = ("#6b7783", "#cfe3f1", "#f2d3b8", "#cfeadd", "#e8cfe0", "#efe6b0", "#dde2e7", "#ffffff")


def plot_gains(comparison: Comparison, *, seed: int) -> Figure:
    """Every paired difference of a comparison as a point with its interval, zero marked.

    Rows: over each earlier stage, in both rates; then by level and by length, over the first one.
    """
    rows = [
        (f"over {in_words(gain.over)}: {in_words(gain.paired.rate)}", gain.paired)
        for gain in comparison.gains
    ]
    rows += [(f"level {level}", one) for level, one in comparison.by_level.items()]
    rows += [(name, one) for name, one in comparison.by_length.items()]
    figure = new_figure(
        9.0,
        1.3 + 0.3 * len(rows),
        f"paired 95 % intervals, seed {seed}; levels and lengths over {in_words(comparison.base)}",
    )
    axes = figure.subplots()
    for place, (_, paired) in enumerate(rows):
        _draw_difference(axes, place, paired)
    axes.axvline(0, color=INK, linewidth=1.0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"gain of {in_words(comparison.tuned)} in points, same items")
    calm(axes, grid="x")
    return figure


def plot_failures(counts: Mapping[str, Mapping[str, int]], n: int, *, seed: int) -> Figure:
    """What became of the `n` items of each stage: right, or the first rule that was broken.

    Raises:
        ValueError: no stages.
    """
    if not counts:
        raise ValueError("expected counts of failures by stage, got none")
    kinds = list(next(iter(counts.values())))
    figure = new_figure(9.0, 1.4 + 0.42 * len(counts), f"n = {n} a stage, seed {seed}")
    axes = figure.subplots()
    left = np.zeros(len(counts))
    places = range(len(counts))
    right = [n - sum(count.values()) for count in counts.values()]
    series: Sequence[tuple[str, Sequence[int]]] = [
        ("right, in the form", right),
        *((kind, [count[kind] for count in counts.values()]) for kind in kinds),
    ]
    for index, (kind, values) in enumerate(series):
        look = index % len(_HATCHES)
        axes.barh(
            places, values, left=left, height=0.62, label=kind,
            color=_FILLS[look], hatch=_HATCHES[look], edgecolor=INK, linewidth=0.6,
        )  # fmt: skip
        left += np.array(values)
    axes.set_yticks(places, [in_words(name) for name in counts])
    axes.set(ylim=(len(counts) - 0.5, -0.5), xlim=(0, n), xlabel="items")
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    calm(axes, grid="x")
    return figure


def _draw_difference(axes, place: int, paired: Paired) -> None:  # type: ignore[no-untyped-def]
    value, (low, high) = 100 * paired.difference, (100 * bound for bound in paired.ci95)
    sure = low > 0 or high < 0  # a filled marker: the interval leaves zero out
    axes.errorbar(
        [value], [place], xerr=[[max(0, value - low)], [max(0, high - value)]],
        marker="o", markersize=6, capsize=3, linewidth=1.4,
        color="#0072b2" if sure else QUIET, markerfacecolor=None if sure else "white",
    )  # fmt: skip
    axes.annotate(
        difference_text(paired), (1.01, place), xycoords=("axes fraction", "data"),
        va="center", fontsize=8, color=INK,
    )  # fmt: skip
