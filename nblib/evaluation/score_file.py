"""Score a file of completions that any program may have written: one JSON object a line.

Two kinds of object are read:
- `{"id"?, "reference", "completion", "truncated"?, "question"?, "group"?}`, the reference being
  what the task scores against; so are records of one stage of `predictions.jsonl`;
- those of lm-evaluation-harness' sample logs (`--log_samples`, samples_*.jsonl): the completion is
  the one text of `resps`, the reference is `target`.
  https://github.com/EleutherAI/lm-evaluation-harness

The task's `score` judges a completion, here as everywhere; its slow `verify` is not asked. A bad
completion scores 0. A line that cannot be scored is an error: metrics of the other lines would be
those of something else. Only lines whose reference the task refuses, as a task of numbers
does formulas that are no number, may be left out, and are counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
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


@dataclass(frozen=True, kw_only=True)
class _Item:
    id: str | int | None
    example: Example
    completion: str
    truncated: bool | None  # None: the line does not say
    logged: bool  # by the harness, which writes a document once for each of its filters


@dataclass(kw_only=True)
class _Counts:
    """What is counted of a file besides its metrics."""

    skipped: int = 0
    read: int = 0  # completions of which an answer could be read
    failures: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    read_by: Counter[str] = field(default_factory=Counter)  # task -> completions

    def add(self, item: _Item, score: Score, task: Task) -> None:
        if score.failure is not None:
            self.failures[score.failure] += 1
        self.details.update({k: int(v) for k, v in score.details.items() if isinstance(v, bool)})
        self.read += score.answer is not None
        if not self.read:  # a file in the right form is read in that one alone
            for one in _family(task):
                read = one.score(item.completion, item.example).answer is not None
                self.read_by[one.name] += read


def score_file(
    path: str | Path, *, task: Task, skip_unreadable_references: bool = False
) -> dict[str, Any]:
    """Score the lines of a file, packed where its name ends in `.gz`, as `score_lines` does."""
    skip = skip_unreadable_references
    lines = read_lines(Path(path))
    return score_lines(lines, name=str(path), task=task, skip_unreadable_references=skip)


def score_lines(
    lines: Iterable[bytes], *, name: str, task: Task, skip_unreadable_references: bool = False
) -> dict[str, Any]:
    """Score lines of UTF-8 as they come; of a line no more is kept than figures and hashes.

    Args:
        lines: Blank ones are passed over.
        name: What an error calls the file.
        task: How an answer should be written, and how it is scored.
        skip_unreadable_references: Leave out, and count, the lines whose reference it refuses.

    Returns:
        What `stage_metrics` gives (the truncation is None where a line does not say it), and:
        "task", its name; "failures", rule -> how many completions broke it first; of each yes or
        no in the scores' details, how many say yes; "skipped_references", how many lines were left
        out; and, where no answer could be read, "hint": how many the task's variants can read.

    Raises:
        ValueError: No line to score; or, beginning with "NAME:line", one that is no JSON object,
            lacks a key, has one of a wrong type, an unreadable reference or an id seen before.
    """
    counts = _Counts()
    records = _records(lines, name, task, counts, skip=skip_unreadable_references)
    metrics = stage_metrics(records, task)
    failures = sorted(counts.failures.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        **metrics,
        **{name: count for name, count in counts.details.items() if name not in metrics},
        "task": task.name,
        "failures": dict(failures),
        "skipped_references": counts.skipped,
        **({} if counts.read else {"hint": _hint(task, counts.read_by, metrics["n"])}),
    }


def _records(
    lines: Iterable[bytes], name: str, task: Task, counts: _Counts, *, skip: bool
) -> Iterator[Mapping[str, Any]]:
    """Yield the values of each item that counts, and count the rest."""
    seen, items = dict[bytes, bytes](), 0
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            item = _item(line)
            # Scored even when it was seen: that a line is broken does not hang on the others.
            score = _score(item, task, skip=skip)
            if not _is_new(item, seen):
                continue
        except ValueError as error:
            raise ValueError(f"{name}:{number}: {error}") from error
        if score is None:
            counts.skipped += 1
            continue
        items += 1
        counts.add(item, score, task)
        yield {"id": item.id, "truncated": item.truncated, **score.values}
    if not items:
        left_out = f"{counts.skipped} have an unreadable reference; " if counts.skipped else ""
        raise ValueError(f"{name}: no line to score: {left_out}{_EXPECTED}, one a line")


def _score(item: _Item, task: Task, *, skip: bool) -> Score | None:
    """The score of an item; None where its reference is unreadable and such items are skipped."""
    try:
        return task.score(item.completion, item.example)
    except ValueError as error:
        if skip:
            return None
        raise ValueError(
            f"{error}; --skip-unreadable-references counts such lines and scores the others"
        ) from error


def _family(task: Task) -> tuple[Task, ...]:
    """Return the whole task and its variants, of which `task` is one."""
    whole = TASKS.get(task.name.partition("/")[0], task)
    return (whole, *whole.variants.values())


def _hint(task: Task, read_by: Mapping[str, int], n: int) -> str:
    counts = ", ".join(f"{name} in {count}" for name, count in read_by.items())
    return (
        f"no answer can be read as {task.name}; of {n} completions, answers can be read as "
        f"{counts}: choose one with --task"
    )


def _item(line: bytes) -> _Item:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise ValueError(f"no JSON ({error}): {_EXPECTED}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{shown(record)}: {_EXPECTED}")
    logged = "resps" in record and "completion" not in record
    id_ = _id(record, "doc_id" if logged else "id", optional=not logged)
    example = Example(
        id=str(id_),
        prompt=str(record.get("question", "")),
        completion="",  # no score may depend on it
        reference=_value(record, "target" if logged else "reference"),
        group=str(record.get("group", "")),
    )
    return _Item(
        id=id_,
        example=example,
        completion=_only_response(record) if logged else _text(_value(record, "completion")),
        truncated=_truncated(record),
        logged=logged,
    )


def _text(completion: Any) -> str:
    if not isinstance(completion, str):
        raise ValueError(f'"completion" is {shown(completion)}: expected text')
    return completion


def _only_response(record: dict[str, Any]) -> str:
    responses = record["resps"]
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


def _id(record: dict[str, Any], key: str, *, optional: bool) -> str | int | None:
    if optional and key not in record:
        return None
    value = _value(record, key)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f'"{key}" is {shown(value)}: expected text or a whole number')
    return value


def _truncated(record: dict[str, Any]) -> bool | None:
    value = record.get("truncated")
    if not isinstance(value, bool | None):
        raise ValueError(f'"truncated" is {shown(value)}: expected true or false')
    return value


def _value(record: dict[str, Any], key: str) -> Any:
    if key not in record:
        raise ValueError(f'no "{key}" among {shown(sorted(record))}: {_EXPECTED}')
    return record[key]


def _is_new(item: _Item, seen: dict[bytes, bytes]) -> bool:
    """Whether the item is to be counted; False where the harness logged it for another filter."""
    if item.id is None:
        return True
    key = _digest(f"{item.logged} {item.id!r}")
    content = _digest(repr((item.example.reference, item.completion))) if item.logged else b""
    if key not in seen:
        seen[key] = content
        return True
    if not item.logged:
        raise ValueError(
            f"id {shown(item.id)} repeats: expected one line for each id "
            "(of predictions.jsonl, the lines of one stage)"
        )
    if seen[key] != content:
        raise ValueError(
            f"doc_id {shown(item.id)} repeats with another completion or target: "
            "expected the log of one task and one model"
        )
    return False


def _digest(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
