"""A comparison as tables of texts, for the notebook and the report; nothing is computed here."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nblib.evaluation.comparison import Comparison
from nblib.evaluation.forgetting import Forgetting
from nblib.evaluation.paired import Paired, difference_text, p_text, paired_cells
from nblib.report.tables import Table, in_words, rate_names, read_rate

_MOST_REGRESSIONS = 40
_COUNTS = ("both right", "only before", "only after", "neither")


def comparison_tables(
    comparison: Comparison,
    failures: Mapping[str, Mapping[str, int]],
    forgot: Sequence[Forgetting],
    surprise: Mapping[str, Mapping[str, Any]],
    votes: Mapping[str, Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
) -> dict[str, Table]:
    """All tables of a comparison by their headings; those of what was not measured are left out."""
    last = comparison.tuned
    tables = {"Gains": gain_table(comparison)}
    nearest = comparison.gains[-1].over
    for gain in comparison.gains:
        if gain.over not in (comparison.base, nearest):
            continue  # its four counts stand in the table of gains
        heading = f"{in_words(gain.over)} and {in_words(last)}: {in_words(gain.paired.rate)}"
        tables[heading] = two_by_two(gain.paired, before=gain.over, after=last)
    over = f"over {in_words(comparison.base)}"
    if comparison.by_level:
        tables[f"Gain {over} by level"] = group_table(comparison.by_level, heading="level")
    tables[f"Gain {over} by length"] = group_table(comparison.by_length, heading="question")
    tables["Right answers given the form"] = given_format_table(comparison)
    tables["Failures"] = failure_table(failures)
    if votes:
        tables["Several answers to each question"] = vote_table(votes)
    if forgot:
        tables["Outside the task, before and after"] = forgetting_table(forgot)
    if surprise:
        tables["Perplexity on worked solutions"] = perplexity_table(surprise)
    tables["Regressions"] = regression_table(comparison, records, most=_MOST_REGRESSIONS)
    return tables


def enough_line(comparison: Comparison) -> str:
    """Say which gain these items are enough to show."""
    if math.isinf(comparison.smallest):
        return "none: there are too few items"
    return (
        f"{100 * comparison.smallest:.1f} points over {in_words(comparison.base)}, "
        "whatever the form (power 0.8)"
    )


def gain_table(comparison: Comparison) -> Table:
    """What the last stage gained over each earlier one, with the p-value corrected (Holm)."""
    rows = []
    for gain in comparison.gains:
        rate, n, difference, p_value, *counts = paired_cells(gain.paired)
        over = in_words(gain.over)
        rows.append((over, rate, n, difference, p_value, p_text(gain.p_holm), *counts))
    return Table(
        columns=("over", "rate", "n", "gain, points", "p", "p, Holm", *_COUNTS),
        rows=tuple(rows),
        note=f"{in_words(comparison.tuned)} against each earlier stage on the same items: exact "
        "McNemar test, and the 95 % interval that agrees with it (Fay and Lumbard 2021)",
    )


def group_table(groups: Mapping[Any, Paired], *, heading: str) -> Table:
    """The gain on the items of each group."""
    return Table(
        columns=(heading, "n", "gain, points", "p", *_COUNTS),
        rows=tuple(
            (str(name), *paired_cells(one)[1:4], *paired_cells(one)[4:])
            for name, one in groups.items()
        ),
        note="right answers whatever the form; groups are looked at, not tested: p uncorrected",
    )


def two_by_two(paired: Paired, *, before: str, after: str) -> Table:
    """The 2x2 table of McNemar's test: items by what each of two stages made of them."""
    before, after = in_words(before), in_words(after)
    return Table(
        columns=("items", f"{after} right", f"{after} wrong"),
        rows=(
            (f"{before} right", str(paired.both_right), str(paired.only_first)),
            (f"{before} wrong", str(paired.only_second), str(paired.neither)),
        ),
        note=in_words(paired.rate),
    )


def given_format_table(comparison: Comparison) -> Table:
    """Right answers among those in the form: is the gain more than the form?"""
    return Table(
        columns=("stage", "in the form", "right among them"),
        rows=tuple(
            (in_words(name), str(rates["n"]), str(read_rate(rates, "answer_accuracy")))
            for name, rates in comparison.given_format.items()
        ),
        note="other items for each stage: what is easy to write in the form may be easy to solve",
    )


def failure_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """How many items each stage failed, by the first rule that was broken."""
    kinds = list(next(iter(counts.values()), {}))
    return Table(
        columns=("first rule broken", *map(in_words, counts)),
        rows=tuple((kind, *(str(count[kind]) for count in counts.values())) for kind in kinds),
    )


def vote_table(votes: Mapping[str, Mapping[str, Any]]) -> Table:
    """pass@k and maj@k of each stage."""
    rates = rate_names(votes)
    return Table(
        columns=("stage", "answers each", *rates),
        rows=tuple(
            (in_words(name), str(one["k"]), *(str(read_rate(one, rate)) for rate in rates))
            for name, one in votes.items()
        ),
        note="pass@k: one of k answers is right (unbiased estimate); maj@k: the k answers vote; "
        "answers as read in the strict form",
    )


def forgetting_table(found: Sequence[Forgetting]) -> Table:
    """Right answers outside the task, before and after, on the same items."""
    return Table(
        columns=("questions", "n", "change, points", "p", "p, Holm", *_COUNTS),
        rows=tuple(
            (
                in_words(one.check),
                str(one.paired.n),
                difference_text(one.paired),
                p_text(one.paired.p_value),
                p_text(one.p_holm),
                *paired_cells(one.paired)[4:],
            )
            for one in found
        ),
        note="asked without any format, the last number of the text counts",
    )


def perplexity_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Perplexity on worked solutions in plain words, a row a model."""
    return Table(
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


def regression_table(
    comparison: Comparison, records: Sequence[Mapping[str, Any]], *, most: int
) -> Table:
    """Items that an earlier stage had right and the last one lost, `most` of them.

    `records` are those of all stages, as in `predictions.jsonl`.
    """
    found = {(record["id"], record["stage"]): record for record in records}
    rows = []
    for id_, stage in comparison.regressions[:most]:
        after = found[id_, comparison.tuned]
        rows.append((id_, in_words(stage), after["reference"], after["answer"] or "none"))
    return Table(
        columns=("item", "was right in", "right answer", "answer now"),
        rows=tuple(rows),
        note=f"{len(comparison.regressions)} in all; the answer as read in the strict form",
    )
