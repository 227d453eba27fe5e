"""A comparison of stages for a reader: its lead, its tables and its figures."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nblib.evaluation.statistics import Paired
from nblib.report.plots import BLUE, INK, QUIET, calm, new_figure
from nblib.report.tables import (
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
    from nblib.evaluation.forgetting import Forgetting

_MOST_REGRESSIONS = 40
_STAGES = ("before", "after")
_TESTS = {
    "rate": "exact McNemar test, and the 95 % interval that agrees with it (Fay and Lumbard 2021)",
    "mean": "paired bootstrap",
}
_HATCHES = ("", "////", "....", "\\\\\\\\", "xx", "--", "++", "oo")
_FILLS = ("#6b7783", "#cfe3f1", "#f2d3b8", "#cfeadd", "#e8cfe0", "#efe6b0", "#dde2e7", "#ffffff")
_NOTHING: Mapping[str, Any] = {}


def comparison_lead(task: Task, comparison: "Comparison", stages: Sequence["Stage"]) -> str:
    """Return the report's first paragraph: the figures of the first and the last, and the gain."""
    first, last = stages[0], stages[-1]
    gain = next(
        gain.paired
        for gain in comparison.gains
        if gain.over == comparison.base and gain.paired.metric == comparison.metric
    )
    form, metric = task.form, comparison.metric
    before, after = f"({in_words(first.name)})", f"({in_words(last.name)})"
    return (
        f"{in_words(form).capitalize()} went from {first.metrics[form]:.1%} {before} to "
        f"{last.metrics[form]:.1%} {after} on the same {gain.n:,} held-out questions. "
        f"{in_words(metric).capitalize()} changed by {difference_text(gain, unit=' points')}, "
        f"from {first.metrics[metric]:.1%} to {last.metrics[metric]:.1%}."
    )


def enough_line(comparison: "Comparison") -> str:
    """Say which gain these items are enough to show."""
    if math.isinf(comparison.smallest):
        return "none: there are too few items"
    return (
        f"{100 * comparison.smallest:.1f} points of {in_words(comparison.metric)} over "
        f"{in_words(comparison.base)} (power 0.8)"
    )


def comparison_tables(
    task: Task,
    comparison: "Comparison",
    stages: Sequence["Stage"],
    failures: Mapping[str, Mapping[str, int]],
    *,
    forgotten: Sequence["Forgetting"] = (),
    perplexity: Mapping[str, Mapping[str, Any]] = _NOTHING,
    votes: Mapping[str, Mapping[str, Any]] = _NOTHING,
) -> tuple[Table, ...]:
    """Return all tables of a comparison; those of what was not measured are left out."""
    shown = (comparison.base, comparison.gains[-1].over)  # the others' counts are in the first one
    over, word = f"over {in_words(comparison.base)}", group_word(task)
    tables = (
        gain_table(comparison),
        *(
            two_by_two(gain.paired, before=gain.over, after=comparison.tuned)
            for gain in comparison.gains
            if gain.over in shown and gain.paired.both_right is not None
        ),
        *(
            paired_table(
                groups,
                title=f"Gain {over} by {by}",
                heading=heading,
                stages=_STAGES,
                note="looked at, not tested: p uncorrected",
            )
            for by, heading, groups in (
                (word, word, comparison.by_group),
                ("length", "question", comparison.by_length),
            )
        ),
        given_form_table(task, comparison),
        failure_table(failures),
        vote_table(votes),
        paired_table(
            [(one.check, one.paired) for one in forgotten],
            title="Outside the task, before and after",
            heading="questions",
            stages=_STAGES,
            corrected=[one.p_holm for one in forgotten],
            note="asked without the task's prompt",
        ),
        perplexity_table(perplexity),
    )
    regressions = regression_table(comparison, stages, most=_MOST_REGRESSIONS)
    return (*(table for table in tables if table.rows), regressions)


def gain_table(comparison: "Comparison") -> Table:
    """What the last stage gained over each earlier one, with the p-value corrected (Holm)."""
    tests = ", ".join(dict.fromkeys(_TESTS[gain.paired.kind] for gain in comparison.gains))
    return paired_table(
        [(gain.over, gain.paired) for gain in comparison.gains],
        title="Gains",
        heading="over",
        stages=_STAGES,
        corrected=[gain.p_holm for gain in comparison.gains],
        note=f"{in_words(comparison.tuned)} against each earlier stage on the same items: {tests}",
    )


def two_by_two(paired: Paired, *, before: str, after: str) -> Table:
    """The 2x2 table of McNemar's test: items by what each of two stages made of them."""
    before, after, metric = in_words(before), in_words(after), in_words(paired.metric)
    return Table(
        title=f"{before} and {after}: {metric}",
        columns=("items", f"{after} right", f"{after} wrong"),
        rows=(
            (f"{before} right", str(paired.both_right), str(paired.only_first)),
            (f"{before} wrong", str(paired.only_second), str(paired.neither)),
        ),
    )


def given_form_table(task: Task, comparison: "Comparison") -> Table:
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


def failure_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """How many items each stage failed, by the first rule that was broken."""
    kinds = list(next(iter(counts.values()), {}))
    return Table(
        title="Failures",
        columns=("first rule broken", *map(in_words, counts)),
        rows=tuple((kind, *(str(count[kind]) for count in counts.values())) for kind in kinds),
    )


def vote_table(votes: Mapping[str, Mapping[str, Any]]) -> Table:
    """pass@k and maj@k of each stage."""
    names = [name for name in next(iter(votes.values()), {}) if name.startswith(("pass@", "maj@"))]
    names = [name for name in names if not name.endswith("_ci95")]
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


def perplexity_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Perplexity on worked solutions in plain words, a row a model."""
    return Table(
        title="Perplexity on worked solutions",
        columns=("model", "perplexity", "nats a token", "tokens"),
        rows=tuple(
            (
                in_words(name),
                f"{one['perplexity']:.3f}",
                f"{one['nats_per_token']:.4f}",
                f"{one['tokens']:,}",
            )
            for name, one in found.items()
        ),
    )


def regression_table(comparison: "Comparison", stages: Sequence["Stage"], *, most: int) -> Table:
    """Items that an earlier stage had right and the last one lost, `most` of them."""
    now = {record["id"]: record for record in stages[-1].records}
    return Table(
        title="Regressions",
        columns=("item", "was right in", "right answer", "answer now"),
        rows=tuple(
            (id_, in_words(stage), as_text(now[id_]["reference"]), as_text(now[id_]["answer"]))
            for id_, stage in comparison.regressions[:most]
        ),
        note=f"{len(comparison.regressions)} in all; the answer as read in the strict form",
        verbatim=("right answer", "answer now"),
    )


def plot_gains(task: Task, comparison: "Comparison", *, seed: int) -> Figure:
    """Every paired difference of a comparison as a point with its interval, zero marked.

    Rows: over each earlier stage; then by group and by length, over the first one.
    """
    word, base = group_word(task), in_words(comparison.base)
    rows = [
        (f"over {in_words(gain.over)}: {in_words(gain.paired.metric)}", gain.paired)
        for gain in comparison.gains
    ]
    rows += [(f"{word} {name}", one) for name, one in comparison.by_group.items()]
    rows += comparison.by_length.items()
    caption = f"paired 95 % intervals, seed {seed}; {word}s and lengths over {base}"
    figure = new_figure(9.0, 1.3 + 0.3 * len(rows), caption)
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
    """The first rule that each stage broke on its `n` items, or none.

    Raises ValueError when there are no stages.
    """
    if not counts:
        raise ValueError("expected counts of failures by stage, got none")
    kinds = list(next(iter(counts.values())))
    figure = new_figure(9.0, 1.4 + 0.42 * len(counts), f"n = {n} a stage, seed {seed}")
    axes = figure.subplots()
    left = np.zeros(len(counts))
    places = range(len(counts))
    series = {
        "no failure": [n - sum(count.values()) for count in counts.values()],
        **{kind: [count[kind] for count in counts.values()] for kind in kinds},
    }
    for index, (kind, values) in enumerate(series.items()):
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


def _draw_difference(axes: Axes, place: int, paired: Paired) -> None:
    value, (low, high) = 100 * paired.difference, (100 * bound for bound in paired.ci95)
    sure = low > 0 or high < 0  # a filled marker: the interval leaves zero out
    axes.errorbar(
        [value], [place], xerr=[[max(0, value - low)], [max(0, high - value)]],
        marker="o", markersize=6, capsize=3, linewidth=1.4,
        color=BLUE if sure else QUIET, markerfacecolor=None if sure else "white",
    )  # fmt: skip
    axes.annotate(
        difference_text(paired), (1.01, place), xycoords=("axes fraction", "data"),
        va="center", fontsize=8, color=INK,
    )  # fmt: skip
