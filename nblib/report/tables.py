"""Tables of texts, for a notebook, the page and the model card alike, and how values are written.

Reads what a run's contract holds (`{"n", metric, metric + "_ci95"}`) and what was compared, paired.
"""

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nblib.evaluation.statistics import Paired
from nblib.tasks.task import TRUNCATION, Example, Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.evaluation.sampling import Group
    from nblib.sources.foundation import FoundationRows
    from nblib.sources.rows import Dataset
    from nblib.tokens.batching import TrainingData

_MOST_CHARACTERS, _MOST_LINES = 1500, 40  # of one completion: about a screenful
TESTS = {"rate": "exact McNemar", "mean": "paired bootstrap"}
_TEST_NOTES = {  # how p and the interval are found
    "rate": "exact McNemar test: do more items become right than wrong? (Fay and Lumbard 2021)",
    "mean": "paired bootstrap",
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric over `n` items with its 95 % interval, all fractions of 1; NaN where unknown."""

    value: float
    low: float
    high: float
    n: int

    @property
    def figure(self) -> str:
        """The value alone: `0.995`."""
        return "unknown" if math.isnan(self.value) else f"{self.value:.3f}"

    def __str__(self) -> str:
        """The value, its interval and the number of items: `0.995 [0.981, 0.999] (n=200)`."""
        known = not math.isnan(self.value)
        return self.figure + f"\n[{self.low:.3f}, {self.high:.3f}] (n={self.n})" * known


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts; a notebook shows it in Markdown, the page in HTML.

    The first line of a cell is what matters: the page writes what follows it small. Columns that
    are `verbatim` are in code type, so that a completion's tags are no HTML.
    """

    title: str = ""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    verbatim: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table in Markdown, without title and note."""
        writers = [_code_cell if name in self.verbatim else _cell for name in self.columns]
        rows = [
            [write(cell) for write, cell in zip(writers, row, strict=True)] for row in self.rows
        ]
        lines = [[*map(_cell, self.columns)], ["---"] * len(self.columns), *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def section(self) -> str:
        """The title, the table and its note in Markdown."""
        body = self.markdown() if self.rows else "None."
        title = f"**{_cell(self.title)}**" if self.title else ""
        return "\n\n".join(filter(None, (title, body, _cell(self.note))))

    _repr_markdown_ = section  # IPython asks for this


def rows_table(data: "Dataset | FoundationRows") -> Table:
    """Return the first training row as its source gave it, with where the rows come from."""
    fields = data.train[0].fields
    return Table(
        title="A row",
        columns=tuple(fields),
        rows=(tuple(map(as_text, fields.values())),),
        note=". ".join((data.origin, *(note for note in data.notes if note not in data.origin))),
        verbatim=tuple(fields),
    )


def examples_table(examples: Sequence[Example]) -> Table:
    """Return a row an example: prompt, the completion that is learnt, and the reference."""
    columns = ("prompt", "completion", "reference")
    rows = tuple((one.prompt, one.completion, as_text(one.reference)) for one in examples)
    return Table(title="An example", columns=columns, rows=rows, verbatim=columns)


def group_table(group: "Group") -> Table:
    """Return the best and the worst completion of a group, with reward and advantage."""
    drawn = zip(group.rewards, group.advantages, group.completions, strict=True)
    rows = [(f"{reward:.2f}", f"{advantage:+.2f}", text) for reward, advantage, text in drawn]
    return Table(
        title="Best and worst of a group",
        columns=("reward", "advantage", "completion"),
        rows=(rows[0], rows[-1]),
        note=f"{group.example.prompt} Wanted: {as_text(group.example.reference)}",
        verbatim=("completion",),
    )


def stage_table(task: Task, stages: Sequence["Stage"], *, title: str = "Stages") -> Table:
    """Return a row a metric, a column a stage, with what each metric means.

    ```
    | metric | base | tuned |
    | --- | --- | --- |
    | answer accuracy (the number is right) | 0.000 [0.000, 0.019] (n=200) | 0.660 [0.592, ... |
    ```
    """
    if not stages:
        return Table(title=title, columns=("metric",), rows=(), note="nothing was evaluated")
    rows = []
    for metric in map(task.metric, (*task.metric_names, TRUNCATION)):
        lower = "; lower is better" if metric.better == "lower" else ""
        meant = f"{in_words(metric.name)}\n({metric.meaning}{lower})"
        rows.append((meant, *(str(read_estimate(one.metrics, metric.name)) for one in stages)))
    note = "fraction of 1, 95 % interval, number of items"
    if any(stage.name.endswith("own_form") for stage in stages):
        note += "; own form: asked and scored in the form that the base knows"
    return Table(
        title=title,
        columns=("metric", *(in_words(stage.name) for stage in stages)),
        rows=tuple(rows),
        note=note,
    )


def versions_table(recipes: Mapping[str, Any], plans: Mapping[str, "TrainingData"]) -> Table:
    """Return a row a version of a training: its settings, its steps, and what is in its loss."""
    rows = []
    for name, plan in plans.items():
        one = recipes[name]
        values = (one.num_epochs, one.accumulation, one.max_length, plan.steps(one.accumulation))
        rows.append((name, f"{one.learning_rate:g}", *map(str, values), f"{plan.whole_share:.0%}"))
    columns = ("version", "learning rate", "epochs", "batches a step", "max length", "steps")
    return Table(title="Versions", columns=(*columns, "examples with their end"), rows=tuple(rows))


def failures_table(task: Task, failed: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row a kind of failure, with one sample and what to do about it; commonest first.

    `failed` are the records of `schema_failures_debug.jsonl`.
    """
    kinds = Counter(record["broke"] for record in failed).most_common()
    rows = []
    for kind, count in kinds:
        sample = next(record for record in failed if record["broke"] == kind)
        place = ": ".join(filter(None, map(sample["details"].get, ("path", "message"))))
        cells = (kind, str(count), place, sample["completion"], task.advice.get(kind, ""))
        rows.append(cells)
    return Table(
        title="Failures of the form",
        columns=("first rule broken", "items", "where", "a sample", "what to do"),
        rows=tuple(rows),
        verbatim=("a sample",),
    )


def read_estimate(metrics: Mapping[str, Any], name: str) -> Estimate:
    """Read one metric of a stage; ValueError where the stage lacks it, its interval or `n`."""
    missing = [key for key in (name, f"{name}_ci95", "n") if key not in metrics]
    if missing:
        raise ValueError(f"stage lacks {missing}; it has {sorted(metrics)}. Use stage_metrics()")
    low, high = metrics[f"{name}_ci95"] or (math.nan, math.nan)
    value = math.nan if metrics[name] is None else metrics[name]
    return Estimate(value=value, low=low, high=high, n=metrics["n"])


def paired_table(
    paired: Iterable[tuple[str, Paired]],
    *,
    title: str,
    heading: str,
    corrected: Sequence[float] = (),
    note: str = "",
) -> Table:
    """Return a row a comparison; differences in percentage points with their interval.

    ```
    | over | metric | n | difference, points | p | both | only before | only after | neither |
    | --- | --- | --- | --- | --- | --- | --- | --- | --- |
    | base | answer accuracy | 200 | +6.0 [+1.0, +11.3] | 0.017 | 90 | 5 | 17 | 88 |
    ```

    The four counts are items that have the metric. Where one comparison is of a mean, there are two
    instead: items that are higher before, and after. `corrected` are the p-values by Holm.
    """
    named = [*paired]
    rates = all(one.both_right is not None for _, one in named)
    counted = ("both", "only before", "only after", "neither")
    rows = []
    for index, (name, one) in enumerate(named):
        counts = (one.both_right, one.only_first, one.only_second, one.neither)
        p_values = (one.p_value, *corrected[index : index + 1])
        cells = (in_words(name), in_words(one.metric), str(one.n), difference_text(one))
        shown = counts if rates else counts[1:3]
        rows.append((*cells, *map(p_text, p_values), *map(str, shown)))
    tests = ", ".join(dict.fromkeys(_TEST_NOTES[one.kind] for _, one in named))
    holm = "p, Holm: corrected for being one of several tests" if corrected else ""
    return Table(
        title=title,
        columns=(
            *(heading, "metric", "n", "difference, points", "p", *["p, Holm"] * bool(corrected)),
            *(counted if rates else ("before higher", "after higher")),
        ),
        rows=tuple(rows),
        note="; ".join(filter(None, (note, tests and f"p and interval: {tests}", holm))),
    )


def difference_text(one: Paired, *, unit: str = "") -> str:
    """Return the difference in points with its interval: `+6.0 [+1.0, +11.3]`."""
    low, high = (f"{100 * bound:+.1f}" for bound in one.ci95)
    return f"{100 * one.difference:+.1f}{unit} [{low}, {high}]"


def p_text(p_value: float) -> str:
    """Return a p-value to three places."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def settings_table(values: Mapping[str, Any], *, title: str = "") -> Table:
    """Return nested settings, a row a value: `training.steps | 40`; lists are written as JSON."""
    return Table(
        title=title, columns=("name", "value"), rows=tuple(_leaves(values)), verbatim=("value",)
    )


def in_words(name: str) -> str:
    """Name of a metric or a stage as a reader sees it: `joint_accuracy` -> joint accuracy."""
    return name.replace("_", " ")


def group_word(task: Task) -> str:
    """Return what one group is called: of "level (steps in the solution)" it is "level"."""
    return task.grouped_by.partition(" (")[0]


def as_text(value: Any) -> str:
    """Return a reference or an answer as text: JSON where it is none itself, "none" for None."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def shorten(text: str, *, characters: int = _MOST_CHARACTERS, lines: int = _MOST_LINES) -> str:
    """Text of at most about `characters` and `lines`: its beginning and end, with what is left out.

    The end is kept because that is where an answer stands.
    """
    if len(text) > characters:
        head, tail = text[: characters * 2 // 3], text[-(characters // 3) :]
        text = f"{head}\n… {len(text) - len(head) - len(tail):,} characters left out …\n{tail}"
    rows = text.split("\n")
    if len(rows) > lines:
        first, last = rows[: lines * 2 // 3], rows[-(lines // 3) :]
        left_out = f"… {len(rows) - len(first) - len(last):,} lines left out …"
        text = "\n".join([*first, left_out, *last])
    return text


def visible(text: str) -> str:
    r"""Text with every character that hides or reorders text spelled out.

    >>> visible("18\u202e81\x00")
    '18⟨U+202E⟩81⟨U+0000⟩'
    """
    # Zs: the spaces of other widths; they are harmless and common in prose.
    return "".join(
        one
        if one.isprintable() or one in "\n\t" or unicodedata.category(one) == "Zs"
        else f"⟨U+{ord(one):04X}⟩"
        for one in text
    )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            is_text = isinstance(value, str)
            yield f"{prefix}{key}", value if is_text else json.dumps(value, default=str)


def _cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table: no bar ends it, no line break the row."""
    return text.replace("|", "\\|").replace("\n", " ")


def _code_cell(text: str) -> str:
    """Lines in code type, where tags are no HTML and $ is no formula."""
    lines = visible(shorten(text)).replace("`", "'").replace("|", "\\|").split("\n")
    return "<br>".join(f"`{line}`" for line in lines if line.strip()) or "(nothing)"
