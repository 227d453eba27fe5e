"""A comparison of stages for a reader: its tables and its figures."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from nblib.evaluation.statistics import Paired
from nblib.report.plots import BLUE, INK, LEGEND, QUIET, calm, draw_estimates, new_figure
from nblib.report.tables import (
    Estimate,
    Table,
    as_text,
    difference_text,
    group_word,
    in_words,
    paired_table,
    read_estimate,
)
from nblib.tasks.task import Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.evaluation.comparison import Comparison
    from nblib.evaluation.forgetting import Forgotten

_MOST_REGRESSIONS = 40
# Of the kinds of failure, in turn: hatch and fill.
_LOOKS = (
    *(("", "#6b7783"), ("////", "#cfe3f1"), ("....", "#f2d3b8"), ("\\\\\\\\", "#cfeadd")),
    *(("xx", "#e8cfe0"), ("--", "#efe6b0"), ("++", "#dde2e7"), ("oo", "#ffffff")),
)


def base_gain(comparison: "Comparison") -> Paired:
    """Return the gain over the first stage, in the metric that also judges a base."""
    (paired,) = [
        gain.paired
        for gain in comparison.gains
        if gain.over == comparison.base and gain.paired.metric == comparison.metric
    ]
    return paired


def enough_line(comparison: "Comparison") -> str:
    """Say which gain these items are enough to show."""
    if math.isinf(comparison.smallest):
        return "none (there are too few items)"
    return (
        f"{100 * comparison.smallest:.1f} points of {in_words(comparison.metric)} over "
        f"{in_words(comparison.base)} (power 0.8)"
    )


def gain_table(comparison: "Comparison") -> Table:
    """What the last stage gained over each earlier one, on the same items."""
    return paired_table(
        [(gain.over, gain.paired) for gain in comparison.gains],
        title="Gains",
        heading="over",
        corrected=[gain.p_holm for gain in comparison.gains],
        note=f"{in_words(comparison.tuned)} against each earlier stage on the same items; smallest "
        f"gain that shows: {enough_line(comparison)}",
    )


def comparison_tables(
    task: Task,
    comparison: "Comparison",
    stages: Sequence["Stage"],
    failures: Mapping[str, Mapping[str, int]],
    *,
    forgotten: "Forgotten",
    votes: Mapping[str, Mapping[str, Any]],
) -> tuple[Table, ...]:
    """Return all tables but that of the gains; those of what was not measured are left out."""
    word, over = group_word(task), f"Gain over {in_words(comparison.base)} by"
    note = "looked at, not tested: p uncorrected"
    tables = (
        paired_table(comparison.by_group.items(), title=f"{over} {word}", heading=word, note=note),
        paired_table(
            comparison.by_length.items(), title=f"{over} length", heading="question", note=note
        ),
        _given_form_table(task, comparison),
        _failure_table(failures),
        _vote_table(votes),
        paired_table(
            [(one.check, one.paired) for one in forgotten.checks],
            title="Outside the task, before and after",
            heading="questions",
            corrected=[one.p_holm for one in forgotten.checks],
            note="asked without the task's prompt",
        ),
        _perplexity_table(forgotten.perplexity),
    )
    return (*(table for table in tables if table.rows), _regression_table(comparison, stages))


def _given_form_table(task: Task, comparison: "Comparison") -> Table:
    """The headline among the completions in the form: is the gain more than the form?"""
    headline = in_words(task.headline)
    return Table(
        title=f"{headline.capitalize()} given the form",
        columns=("stage", "in the form", f"{headline} among them"),
        rows=tuple(
            (in_words(name), str(metrics["n"]), str(read_estimate(metrics, task.headline)))
            for name, metrics in comparison.given_form.items()
            if task.form != task.headline
        ),
        note="other items for each stage: what is easy to write in the form may be easy to solve",
    )


def _failure_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """How many items each stage failed, by the first rule that was broken."""
    kinds = list(next(iter(counts.values()), {}))
    return Table(
        title="Failures",
        columns=("first rule broken", *map(in_words, counts)),
        rows=tuple((kind, *(str(count[kind]) for count in counts.values())) for kind in kinds),
    )


def _vote_table(votes: Mapping[str, Mapping[str, Any]]) -> Table:
    """pass@k and maj@k of each stage."""
    names = [name for name in next(iter(votes.values()), {}) if "@" in name and "_ci95" not in name]
    return Table(
        title="Several answers to each question",
        columns=("stage", "answers each", *names),
        rows=tuple(
            (in_words(name), str(one["k"]), *(str(read_estimate(one, key)) for key in names))
            for name, one in votes.items()
        ),
        note="pass@k: one of k answers is right (unbiased estimate); maj@k: the k answers vote; "
        "answers as read in the strict form",
    )


def _perplexity_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Perplexity on worked solutions in plain words, a row a model."""
    keys = {"perplexity": ".3f", "nats_per_token": ".4f", "tokens": ",d"}
    return Table(
        title="Perplexity on worked solutions",
        columns=("model", "perplexity", "nats a token", "tokens"),
        rows=tuple(
            (in_words(name), *(format(one[key], style) for key, style in keys.items()))
            for name, one in found.items()
        ),
    )


def _regression_table(comparison: "Comparison", stages: Sequence["Stage"]) -> Table:
    """Items that an earlier stage had right and the last one lost, the first of them."""
    now = {record["id"]: record for record in stages[-1].records}
    return Table(
        title="Regressions",
        columns=("item", "was right in", "right answer", "answer now"),
        rows=tuple(
            (id_, in_words(stage), as_text(now[id_]["reference"]), as_text(now[id_]["answer"]))
            for id_, stage in comparison.regressions[:_MOST_REGRESSIONS]
        ),
        note=f"{len(comparison.regressions)} in all; the answer as read in the strict form",
        verbatim=("right answer", "answer now"),
    )


def plot_gains(task: Task, comparison: "Comparison", *, seed: int) -> Figure:
    """Every paired difference of a comparison as a point with its interval, zero marked.

    Rows: over each earlier stage; then by group and by length, over the first one.
    """
    word, base = group_word(task), in_words(comparison.base)
    gains = [(gain.over, gain.paired) for gain in comparison.gains]
    rows = [(f"over {in_words(over)}: {in_words(one.metric)}", one) for over, one in gains]
    rows += [(f"{word} {name}", one) for name, one in comparison.by_group.items()]
    rows += comparison.by_length.items()
    caption = f"paired 95 % intervals, seed {seed}; {word}s and lengths over {base}"
    figure = new_figure(9.0, 1.3 + 0.3 * len(rows), caption)
    axes = figure.subplots()
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8}
    for place, (_, paired) in enumerate(rows):
        low, high = (100 * bound for bound in paired.ci95)
        sure = low > 0 or high < 0  # a filled marker: the interval leaves zero out
        look = {"color": BLUE} if sure else {"color": QUIET, "markerfacecolor": "white"}
        estimate = Estimate(value=100 * paired.difference, low=low, high=high, n=paired.n)
        draw_estimates(axes, [place], [estimate], sideways=True, marker="o", **look)
        axes.annotate(difference_text(paired), (1.01, place), color=INK, **beside)
    axes.axvline(0, color=INK, linewidth=1.0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"gain of {in_words(comparison.tuned)} in points, same items")
    calm(axes, grid="x")
    return figure


def plot_failures(
    stages: Sequence["Stage"], counts: Mapping[str, Mapping[str, int]], *, seed: int
) -> Figure:
    """The first rule that each stage broke on its items, or none."""
    n = len(stages[0].records)
    figure = new_figure(9.0, 1.4 + 0.42 * len(counts), f"n = {n} a stage, seed {seed}")
    axes, rows, left = figure.subplots(), range(len(counts)), np.zeros(len(counts))
    kinds = ("no failure", *next(iter(counts.values())))
    for kind, (hatch, fill) in zip(kinds, itertools.cycle(_LOOKS), strict=False):
        values = [count.get(kind, n - sum(count.values())) for count in counts.values()]
        bars = axes.barh(rows, values, left=left, height=0.62, label=kind, color=fill, hatch=hatch)
        for bar in bars:
            bar.set(edgecolor=INK, linewidth=0.6)
        left += values
    axes.set_yticks(rows, [in_words(name) for name in counts])
    axes.set(ylim=(len(counts) - 0.5, -0.5), xlim=(0, n), xlabel="items")
    figure.legend(fontsize=9, **LEGEND)
    calm(axes, grid="x")
    return figure
