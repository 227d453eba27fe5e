"""A learning curve over the data for a reader: its table, its figure, and what more rows bring."""

import math
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nblib.report.plots import BLUE, INK, calm, draw_estimates, new_figure
from nblib.report.tables import Table, difference_text, in_words, p_text, read_estimate
from nblib.tasks.task import Task

if TYPE_CHECKING:
    from nblib.evaluation.data_curve import LearningCurve


def learning_curve_table(task: Task, curve: "LearningCurve | None") -> Table:
    """Return a row a training of the curve, with what the last rows brought below it.

    ```
    | rows | steps | proof verified |
    | --- | --- | --- |
    | 8,000 | 840 | 0.520 [0.463, 0.576] (n=300) |
    | 16,000 | 1,680 | 0.580 [0.523, 0.635] (n=300) |
    ```
    """
    title, points = "More data", curve.points if curve else ()
    rows = tuple(
        (f"{one.rows:,}", f"{one.steps:,}", str(read_estimate(one.stage.metrics, task.headline)))
        for one in points
    )
    columns = ("rows", "steps", in_words(task.headline))
    return Table(title=title, columns=columns, rows=rows, note=curve_line(curve) if curve else "")


def curve_line(curve: "LearningCurve") -> str:
    """Say what the last step up in rows brought, and whether more data is worth it."""
    if curve.gain is None:
        return "Whether more data is worth it is not known: there is nothing to compare with."
    before, last = curve.points[-2:]
    times = last.rows / before.rows
    step = "The last doubling" if 1.9 < times < 2.1 else f"{times:.2g} times the rows"
    found = f"{step} ({before.rows:,} to {last.rows:,} rows) brought"
    found += f" {difference_text(curve.gain, unit=' points')} of {in_words(curve.gain.metric)}"
    found += f", p {p_text(curve.gain.p_value)} on the same items"
    if curve.is_worth_it:
        return f"{found}: more data is worth it."
    least = "Too few items differ to show a gain"
    if math.isfinite(curve.smallest):
        least = f"These items show gains from {100 * curve.smallest:.1f} points"
    return f"{found}: more data is not seen to be worth it. {least}."


def plot_learning_curve(task: Task, curve: "LearningCurve | None", *, seed: int) -> Figure | None:
    """The headline with its 95 % interval against the rows of each training, on a log axis."""
    if curve is None or len(curve.points) < 2:
        return None
    rows = [one.rows for one in curve.points]
    found = [read_estimate(one.stage.metrics, task.headline) for one in curve.points]
    figure = new_figure(9.0, 3.6, f"95 % intervals, n = {found[-1].n} a training, seed {seed}")
    axes = figure.subplots()
    draw_estimates(axes, rows, found, color=BLUE, marker="s")
    beside: dict[str, Any] = {"xytext": (8, 4), "textcoords": "offset points", "fontsize": 8}
    for place, one in zip(rows, found, strict=True):
        axes.annotate(one.figure, (place, one.value), color=INK, **beside)
    axes.set(xscale="log", xlabel="training rows (log scale)", ylim=(-0.03, 1.03))
    axes.set_ylabel(f"{in_words(task.headline)}\n(fraction of items)")
    axes.set_xticks(rows, [f"{one:,}" for one in rows])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
    calm(axes, grid="y")
    return figure
