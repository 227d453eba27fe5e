"""Tables of slots: what the examples hold, how each slot is read, and where a value stands."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nblib.report.tables import Table, as_text, in_words, read_estimate
from nblib.tasks.comparators import number_readings
from nblib.tasks.task import Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.tasks.extraction_rows import CheckedRows

_AROUND = 30  # characters of the page to each side of a value
# Digits, points and commas among them, and thousands parted by an apostrophe or a space.
_NUMBER = re.compile(r"\d(?:\d|[.,]\d|['’_ \u00a0\u2009\u202f]\d{3}(?!\d))*")
_KINDS = ("correct", "wrong", "omitted", "invented", "true_null")


def gold_table(checked: "CheckedRows") -> Table:
    """Return a row a slot of the examples: how often it is null, and what cleaning left of it."""
    rows = []
    for (task, slot), gold in checked.gold.items():
        texts = ("–", "–")
        if gold.verbatim:
            texts = (f"{gold.in_page / gold.verbatim:.1%}", f"{gold.kept / gold.verbatim:.1%}")
        rows.append((task, slot, f"{gold.rows:,}", f"{gold.null / gold.rows:.1%}", *texts))
    return Table(
        title="Slots of the examples",
        columns=(
            "task",
            "slot",
            "rows",
            "null",
            "verbatim texts in the page",
            "in the cleaned page",
        ),
        rows=tuple(rows),
    )


def slots_table(stages: Sequence["Stage"]) -> Table:
    """Return a row a slot: its F1 in each stage, and how its leaves came out in the last one.

    A stage may lack slots, or all of them; what the last one lacks has no row.
    """
    if not stages:
        return Table(title="Slots", columns=("slot",), rows=())
    found = [_slots(stage) for stage in stages]
    rows = []
    for (task, slot), figures in found[-1].items():
        scores = (_f1(one.get((task, slot))) for one in found)
        counts = (f"{figures[kind]:,}" for kind in _KINDS)
        rows.append((f"{slot}\n{task}".strip(), f"{figures['n']:,}", *scores, *counts))
    return Table(
        title="Slots",
        columns=("slot", "n", *map(in_words, (*(one.name for one in stages), *_KINDS))),
        rows=tuple(rows),
        note="F1 with its 95 % interval; n: values to find; the other columns count the values of "
        f"{in_words(stages[-1].name)}",
    )


def confusion_table(confused: Mapping[str, Mapping[str, int]], *, stage: str) -> Table:
    """Return a row a right word, a column a word that was answered."""
    answers = list(dict.fromkeys([*confused, *(word for row in confused.values() for word in row)]))
    return Table(
        title=f"Answers of one word, {in_words(stage)}",
        columns=("right", *(f"answered {word}" for word in answers)),
        rows=tuple(
            (right, *(str(row.get(word, 0)) for word in answers)) for right, row in confused.items()
        ),
    )


def needle_table(task: Task, stages: Sequence["Stage"], *, window: int) -> Table:
    """Return a row a length, a column a depth: the headline of the needles that were asked there.

    `stages` are of `evaluation.needle_grid`; `window` is that of the model's local layers.
    """
    depths = list(stages[0].by_group) if stages else []
    rows = []
    for stage in stages:
        cells = (str(read_estimate(stage.by_group[depth], task.headline)) for depth in depths)
        rows.append((in_words(stage.name), *cells))
    return Table(
        title="Needles in long pages",
        columns=("length", *depths),
        rows=tuple(rows),
        note=f"{in_words(task.headline)}, 95 % interval, needles; the columns say how much of the "
        f"filler stands before the needle; only the global layers see further than {window:,} "
        "tokens",
    )


def grounding_table(stage: "Stage", *, count: int) -> Table:
    """Return a row a slot of `count` items, each value marked where it stands in its page.

    Items with an error come first.
    """
    read = [one for one in stage.records if isinstance(one["reference"], Mapping)]
    read.sort(key=lambda one: one["perfect_record"])
    first = -(-count // 2)
    last = min(count // 2, max(0, len(read) - first))
    rows = []
    for one in (*read[:first], *read[len(read) - last :]):
        answer = one["answer"] or {}
        for slot, leaves in one.get("slots", {}).items():
            right, given = one["reference"].get(slot), answer.get(slot)
            if right is None and given is None:
                continue
            verdict = ", ".join(in_words(kind) for kind in leaves)
            place = marked_in(one["question"], given if given is not None else right)
            rows.append((one["id"], slot, as_text(right), as_text(given), verdict, place))
    columns = ("item", "slot", "right", "answer", "verdict", "in the page")
    return Table(
        title="Values in their pages",
        columns=columns,
        rows=tuple(rows),
        note="between ⟦ and ⟧: the answer's value, or the right one where nothing was answered; an "
        "empty place: it does not stand in the page as it is",
        verbatim=("right", "answer", "in the page"),
    )


def marked_in(page: str, value: Any) -> str:
    """Return the text around a value with the value marked; "" where it is not there as it is.

    Of several places the last is marked: what is asked for stands before the page.

    >>> marked_in("Mug, now 12,50 EUR", 12.5)
    'Mug, now ⟦12,50⟧ EUR'
    """
    values = value if isinstance(value, list) else [value]
    found = filter(None, (_span(page, one) for one in values))
    start, end = next(found, (0, 0))
    if start == end:
        return ""
    before, after = page[max(0, start - _AROUND) : start], page[end : end + _AROUND]
    return f"{before}⟦{page[start:end]}⟧{after}".replace("\n", " ")


def _span(page: str, value: Any) -> tuple[int, int] | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        wanted = number_readings(abs(value))
        spots = [one for one in _NUMBER.finditer(page) if number_readings(one[0]) & wanted]
    else:
        words = r"\s+".join(map(re.escape, str(value).split()))
        spots = [*re.finditer(words, page, re.IGNORECASE)] if words else []
    return spots[-1].span() if spots else None


def _slots(stage: "Stage") -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return (task, slot) -> its figures."""
    parts = stage.by_group or {"": stage.metrics}
    return {
        (task, slot): one for task, of in parts.items() for slot, one in of.get("slots", {}).items()
    }


def _f1(figures: Mapping[str, Any] | None) -> str:
    if figures is None or figures["f1"] is None:
        return "–"
    low, high = figures["f1_ci95"]
    return f"{figures['f1']:.3f}\n[{low:.3f}, {high:.3f}]"
