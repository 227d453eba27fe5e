"""Score a file of completions that any program may have written: one JSON object a line.

Two kinds of object are read:
- `{"id"?, "reference", "completion", "truncated"?, "question"?, "group"?, "slot_specs"?}`, the
  reference being what the task scores against; so are records of one stage of `predictions.jsonl`;
- those of lm-evaluation-harness' sample logs (`--log_samples`, samples_*.jsonl): the completion is
  the one text of `resps`, the reference is `target`.
  https://github.com/EleutherAI/lm-evaluation-harness

The task's `score` judges a completion, its slow `verify` is not asked. A bad completion scores 0; a
line that cannot be scored is an error, since the metrics of the others would be those of another
file. Only lines whose reference the task refuses may be left out, and are counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nblib.evaluation.statistics import stage_metrics
from nblib.files import parse_json, read_lines, shown
from nblib.tasks.registry import TASKS
from nblib.tasks.task import Example, Score, Task

_EXPECTED = (
    'expected an object with "reference" and "completion", or one of a sample log of '
    'lm-evaluation-harness with "doc_id", "target" and "resps"'
)


def score_file(
    path: str | Path, *, task: Task, skip_unreadable_references: bool = False
) -> dict[str, Any]:
    """Score the lines of a file, unpacked where its name ends in `.gz`, as `score_lines` does."""
    skip, lines = skip_unreadable_references, read_lines(Path(path))
    return score_lines(lines, name=str(path), task=task, skip_unreadable_references=skip)


def score_lines(
    lines: Iterable[bytes], *, name: str, task: Task, skip_unreadable_references: bool = False
) -> dict[str, Any]:
    """Score lines of UTF-8 as they come; only figures and hashes of them are kept in memory.

    Returns what `stage_metrics` does (the truncation is None where a line does not say it) and
    "task", its name; "failures", rule -> how many completions broke it first; for each yes or no in
    the scores' details, how many say yes; "skipped_references", how many lines were left out; and,
    where no answer could be read, "hint": how many the task's variants can read.

    Raises ValueError where no line is left to score, or, beginning with "NAME:line", for a line
    that is no JSON object, lacks a key, has a value of a wrong type, an unreadable reference (with
    `skip_unreadable_references` such lines are left out), or an id seen before.
    """
    scores = _Scores(task=task, skip=skip_unreadable_references)
    metrics = stage_metrics(scores.records(lines, name), task)
    failures = sorted(scores.failures.items(), key=lambda pair: (-pair[1], pair[0]))
    found = {
        **metrics,
        **{name: count for name, count in scores.details.items() if name not in metrics},
        "task": task.name,
        "failures": dict(failures),
        "skipped_references": scores.skipped,
    }
    if not scores.read:
        counts = ", ".join(f"{name} in {count}" for name, count in scores.read_by.items())
        found["hint"] = (
            f"no answer can be read as {task.name}; of {metrics['n']} completions, answers can be "
            f"read as {counts}: choose one with --task"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Item:
    id: str | int | None
    example: Example
    completion: str
    truncated: bool | None  # None: the line does not say
    logged: bool  # by the harness, which writes a document once for each of its filters


@dataclass(kw_only=True)
class _Scores:
    """The scores of a file's lines, with what is counted besides the metrics."""

    task: Task
    skip: bool
    skipped: int = 0
    read: int = 0  # completions of which an answer could be read
    failures: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    read_by: Counter[str] = field(default_factory=Counter)  # task -> completions
    seen: dict[int, int] = field(default_factory=dict)  # hash of an id -> hash of its content

    def records(self, lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
        """Yield what `stage_metrics` needs of each line that counts."""
        items = 0
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            try:
                item = _item(line)
                score = self._score(item)  # of a repeated line too: it may be broken
                if not self._is_new(item):
                    continue
            except ValueError as error:
                raise ValueError(f"{name}:{number}: {error}") from error
            if score is None:
                self.skipped += 1
                continue
            items += 1
            self._count(item, score)
            facts = {"id": item.id, "truncated": item.truncated}
            yield facts | {"weights": score.weights, "slots": score.slots, **score.values}
        if not items:
            left_out = f"{self.skipped} have an unreadable reference; " if self.skipped else ""
            raise ValueError(f"{name}: no line to score: {left_out}{_EXPECTED}, one a line")

    def _score(self, item: _Item) -> Score | None:
        """Return the score; None where the reference is unreadable and such items are skipped."""
        try:
            return self.task.score(item.completion, item.example)
        except ValueError as error:
            if self.skip:
                return None
            raise ValueError(
                f"{error}; --skip-unreadable-references counts such lines and scores the others"
            ) from error

    def _count(self, item: _Item, score: Score) -> None:
        self.failures.update([score.failure] if score.failure is not None else [])
        self.details.update({k: int(v) for k, v in score.details.items() if isinstance(v, bool)})
        self.read += score.answer is not None
        if not self.read:  # else the task is the right one, and the others need not be tried
            whole = TASKS.get(self.task.name.partition("/")[0], self.task)
            for one in (whole, *whole.variants.values()):
                answer = one.score(item.completion, item.example).answer
                self.read_by[one.name] += answer is not None

    def _is_new(self, item: _Item) -> bool:
        """Whether the item is to be counted; False where it was logged for another filter."""
        if item.id is None:
            return True
        key = hash(repr((item.logged, item.id)))
        content = hash(repr((item.example.reference, item.completion)))
        if key not in self.seen:
            self.seen[key] = content
            return True
        if not item.logged:
            raise ValueError(
                f"id {shown(item.id)} repeats: expected one line for each id "
                "(of predictions.jsonl, the lines of one stage)"
            )
        if self.seen[key] != content:
            raise ValueError(
                f"doc_id {shown(item.id)} repeats with another completion or target: "
                "expected the log of one task and one model"
            )
        return False


def _item(line: bytes) -> _Item:
    """Return what a line holds; ValueError with what came and what was expected."""
    try:
        record = parse_json(line)
    except ValueError as error:
        raise ValueError(f"no JSON ({error}): {_EXPECTED}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{shown(record)}: {_EXPECTED}")
    logged = "resps" in record and "completion" not in record
    keys = ("doc_id", "target", "resps") if logged else ("reference", "completion")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ValueError(f'no "{missing[0]}" among {shown(sorted(record))}: {_EXPECTED}')
    name = "doc_id" if logged else "id"
    id_ = record.get(name)
    if name in record and type(id_) not in (str, int):
        raise ValueError(f'"{name}" is {shown(id_)}: expected text or a whole number')
    completion = _only_response(record["resps"]) if logged else record["completion"]
    if not isinstance(completion, str):
        raise ValueError(f'"completion" is {shown(completion)}: expected text')
    truncated = record.get("truncated")
    if not isinstance(truncated, bool | None):
        raise ValueError(f'"truncated" is {shown(truncated)}: expected true or false')
    question, specs = record.get("question"), record.get("slot_specs")
    example = Example(
        id=str(id_),
        prompt="" if question is None else str(question),
        completion="",  # no score may depend on it
        reference=record["target" if logged else "reference"],
        group=str(record.get("group", "")),
        slot_specs={} if specs is None else specs,
    )
    return _Item(id=id_, example=example, completion=completion, truncated=truncated, logged=logged)


def _only_response(responses: Any) -> str:
    match responses:
        case [[str(completion)]]:
            return completion
        case [[str(), *_], *_]:
            count = sum(len(each) if isinstance(each, list) else 1 for each in responses)
            raise ValueError(
                f'"resps" holds {count} responses to one document: expected one, since rates and '
                "intervals are over documents; log one repeat, or write a line with "
                '"reference" and "completion" for the response that counts'
            )
    raise ValueError(
        f'"resps" is {shown(responses)}: expected a list of a list of one text, '
        "as a task of the harness that generates text logs it"
    )
