"""The figure of a bench: how many times as fast, as large or as small as the stock way."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from nblib.evaluation.drawing import INK, QUIET, calm, new_figure

_RATIO = "_ratio"


def plot_ratios(figures: Mapping[str, float], *, caption: str) -> Figure:
    """Bars of every ratio of a bench, with its value; at 1 both ways are alike.

    Args:
        figures: a bench's figures; those whose name ends in "_ratio" are drawn.
        caption: what was measured, where.

    Raises:
        ValueError: there is no ratio.
    """
    ratios = {name: value for name, value in figures.items() if name.endswith(_RATIO)}
    if not ratios:
        raise ValueError(f"no figure ends in {_RATIO!r}: got {', '.join(figures) or 'none'}")
    figure = new_figure(8.0, 1.8 + 0.4 * len(ratios), caption, title="Against stock Tunix")
    axes = figure.subplots()
    names = [name.removesuffix(_RATIO).replace("_", " ") for name in ratios]
    bars = axes.barh(names, list(ratios.values()), color="#0072b2", edgecolor=INK)
    axes.bar_label(bars, fmt="%.2f", padding=3, color=INK, fontsize=9)
    axes.axvline(1.0, color=QUIET, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("ratio of ours to stock (logarithmic)")
    axes.invert_yaxis()
    calm(axes, grid="x")
    return figure
