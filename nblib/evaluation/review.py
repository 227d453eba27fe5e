"""Which values a person should look at: what got worse, and what a judge was unsure of."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nblib.evaluation.answer_table import read_answers
from nblib.evaluation.answers import Stage
from nblib.evaluation.statistics import Record
from nblib.runs import Run
from nblib.tasks.extraction_rows import ANSWER
from nblib.tasks.review import REVIEW_FILE, ReviewRow, write_review

_ERRORS = ("wrong", "omitted", "invented")
Answers = Sequence[Mapping[str, Any]]


def keep_review(run: Run, stages: Sequence[Stage], *, unsure: Answers = ()) -> str:
    """Write what is to be looked at into the run's folder, and return a line on it.

    These are slots that the last stage has wrong and an earlier one right, and the records of a
    judge that was `unsure`, each with `id`, `slot`, `gold` and `answer`. Marks of an earlier start
    are kept; nothing is written where there is nothing to look at.
    """
    rows = [*regressions(stages), *_unsure(stages, unsure)]
    path = run.path / REVIEW_FILE
    if not rows and not path.exists():
        return "nothing got worse"
    written = write_review(path, rows)
    return (
        f"{len(written)} values to look at in {path}: mark them right, wrong or gold is wrong, and "
        "give the file as REVIEW"
    )


def review_changes(before: Answers, out: Path) -> str:
    """Write `<out>.review.csv` with the values that are others than in an earlier table."""
    path = out.with_name(f"{out.name}.{REVIEW_FILE}")
    written = write_review(path, changed_answers(before, read_answers(out)))
    return f"{len(written)} values differ: {path}"


def regressions(stages: Sequence[Stage]) -> Iterator[ReviewRow]:
    """Yield the slots that the last stage has wrong and an earlier one right.

    An answer that could not be read is none to look at.
    """
    if not stages:
        return
    *earlier, last = stages
    before = {stage.name: {one["id"]: one for one in stage.records} for stage in earlier}
    for record in last.records:
        for slot in record.get("slots", {}) if record["answer"] is not None else ():
            wrong = [kind for kind in _ERRORS if record["slots"][slot].get(kind)]
            right = [
                name for name, found in before.items() if _is_right(found.get(record["id"]), slot)
            ]
            if wrong and right:
                why = f"{', '.join(wrong)}; {', '.join(right)} had it right"
                gold, answer = (_value(record[name], slot) for name in ("reference", "answer"))
                known = {"id": record["id"], "task": record["group"], "slot": slot}
                yield ReviewRow(**known, gold=gold, answer=answer, why=why)


def changed_answers(before: Answers, after: Answers) -> Iterator[ReviewRow]:
    """Yield the slots in which two tables of answers differ; the earlier one stands as gold."""
    earlier = {one["id"]: one["answer"] for one in before}
    for one in after:
        gold, answer = earlier.get(one["id"]), one["answer"]
        if gold is None or answer is None:
            continue
        slots = dict.fromkeys((*gold, *answer)) if isinstance(gold, dict) else (ANSWER,)
        for slot in slots:
            values = {"gold": _value(gold, slot), "answer": _value(answer, slot)}
            if values["gold"] != values["answer"]:
                known = {"id": one["id"], "task": one["task"], "slot": slot}
                yield ReviewRow(**known, **values, why="another answer than before")


def _unsure(stages: Sequence[Stage], unsure: Answers) -> Iterator[ReviewRow]:
    groups = {one["id"]: one["group"] for stage in stages[-1:] for one in stage.records}
    for one in unsure:
        known = {name: one[name] for name in ("id", "slot", "gold", "answer")}
        yield ReviewRow(**known, task=groups.get(one["id"], ""), why="judge unsure")


def _is_right(record: Record | None, slot: str) -> bool:
    if record is None or record["answer"] is None or slot not in record.get("slots", {}):
        return False
    return not any(record["slots"][slot].get(kind) for kind in _ERRORS)


def _value(value: Any, slot: str) -> Any:
    return value.get(slot) if isinstance(value, Mapping) else value
