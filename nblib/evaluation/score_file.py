"""Score a file of completions that any program may have written: one JSON object a line.

Two kinds of object are read:
- `{"id"?, "reference", "completion", "truncated"?}`, the reference being one number as text;
- those of lm-evaluation-harness' sample logs (`--log_samples`, samples_*.jsonl): the completion is
  the one text of `resps`, the reference is `target`, or what stands in it after GSM8K's "####".
  https://github.com/EleutherAI/lm-evaluation-harness

`tasks.scoring` judges a completion, here as everywhere; a bad one scores 0. A line that cannot be
scored is an error: rates over the other lines would be rates of something else. Only lines whose
reference is no number, as in MATH, may be left out, and are counted.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from nblib.evaluation.metrics import ScoreCounter
from nblib.files import parse_json, read_lines
from nblib.tasks.answer_format import AnswerFormat
from nblib.tasks.formats import FORMATS, XML
from nblib.tasks.scoring import Score, UnreadableReference, score

_EXPECTED = (
    'expected an object with "reference" and "completion", or one of a sample log of '
    'lm-evaluation-harness with "doc_id", "target" and "resps"'
)
_SHOWN = 60  # characters of a value in an error
_PERCENT = re.compile(r"\\?%|\b(?:per ?cent|percentage)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Item:
    id: str | int | None
    reference: str
    completion: str
    truncated: bool | None  # None: the line does not say
    logged: bool  # by the harness, which writes a document once for each of its filters


def score_file(
    path: str | Path,
    *,
    answer_format: AnswerFormat = XML,
    skip_unreadable_references: bool = False,
) -> dict[str, Any]:
    """Score the lines of a file, packed where its name ends in `.gz`, as `score_lines` does.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has no line to score, or a broken one.
    """
    return score_lines(
        read_lines(Path(path)),
        name=str(path),
        answer_format=answer_format,
        skip_unreadable_references=skip_unreadable_references,
    )


def score_lines(
    lines: Iterable[bytes],
    *,
    name: str,
    answer_format: AnswerFormat = XML,
    skip_unreadable_references: bool = False,
) -> dict[str, Any]:
    """Score lines as they come; of a line no more is kept than hashes, and none without an id.

    Args:
        lines: UTF-8; blank ones are passed over.
        name: What an error calls the file.
        answer_format: How an answer should be written.
        skip_unreadable_references: Leave out, and count, the lines whose reference is no number.

    Returns:
        What `stage_metrics` gives (the truncation is None where a line does not say it), and:
        "format", its name; "failures", rule -> how many completions broke it first;
        "right_without_percent_sign", how many are wrong only because "5%" is not read as 5;
        "skipped_references", how many lines were left out; and, where no answer could be read,
        "hint", in how many completions each format reads one.

    Raises:
        ValueError: No line to score; or, beginning with "NAME:line", one that is no JSON object,
            lacks a key, has one of a wrong type, an unreadable reference or an id seen before.
    """
    counter, seen, others = ScoreCounter(), dict[bytes, bytes](), Counter[str]()
    skipped = percent = readable = 0
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            item = _item(line)
            # Scored even when it was seen: that a line is broken does not hang on the others.
            one = _score(item, answer_format, skip=skip_unreadable_references)
            if not _is_new(item, seen):
                continue
        except ValueError as error:
            raise ValueError(f"{name}:{number}: {error}") from error
        if one is None:
            skipped += 1
            continue
        counter.add(one)
        percent += _is_right_without_percent_sign(item, one, answer_format)
        readable += one.extractable
        if not readable:  # a file in the right format is read in that one alone
            others.update(_readable_in(item))
    if not counter.n:
        left_out = f"{skipped} have a reference that is no number; " if skipped else ""
        raise ValueError(f"{name}: no line to score: {left_out}{_EXPECTED}, one a line")
    return {
        **counter.metrics(),
        "format": answer_format.name,
        "failures": counter.failures(),
        "right_without_percent_sign": percent,
        "skipped_references": skipped,
        **({} if readable else {"hint": _hint(answer_format, others, counter.n)}),
    }


def _score(item: _Item, answer_format: AnswerFormat, *, skip: bool) -> Score | None:
    """The score of an item; None where its reference is unreadable and such items are skipped."""
    try:
        return score(
            item.completion,
            item.reference,
            answer_format=answer_format,
            truncated=item.truncated,
        )
    except UnreadableReference as error:
        if skip:
            return None
        raise ValueError(
            f"{error}; --skip-unreadable-references counts such lines and scores the others"
        ) from error


def _is_right_without_percent_sign(item: _Item, one: Score, answer_format: AnswerFormat) -> bool:
    bare = _PERCENT.sub("", item.completion)
    if one.correct or bare == item.completion:
        return False
    return score(bare, item.reference, answer_format=answer_format).correct


def _readable_in(item: _Item) -> list[str]:
    return [
        name
        for name, one in FORMATS.items()
        if score(item.completion, item.reference, answer_format=one).extractable
    ]


def _hint(answer_format: AnswerFormat, others: Counter[str], n: int) -> str:
    counts = ", ".join(f"{name} in {others[name]}" for name in FORMATS)
    return (
        f"no answer can be read in the format {answer_format.name}; of {n} completions, answers "
        f"can be read as {counts}: choose one with --format"
    )


def _item(line: bytes) -> _Item:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise ValueError(f"no JSON ({error}): {_EXPECTED}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{_shown(record)}: {_EXPECTED}")
    logged = "resps" in record and "completion" not in record
    return _Item(
        id=_id(record, "doc_id" if logged else "id", optional=not logged),
        reference=_target(record) if logged else _text(record, "reference"),
        completion=_only_response(record) if logged else _text(record, "completion"),
        truncated=_truncated(record),
        logged=logged,
    )


def _text(record: dict[str, Any], key: str) -> str:
    value = _value(record, key)
    if not isinstance(value, str):
        raise ValueError(f'"{key}" is {_shown(value)}: expected text')
    return value


def _target(record: dict[str, Any]) -> str:
    return _text(record, "target").rpartition("####")[2]


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
        f'"resps" is {_shown(responses)}: expected a list of a list of one text, '
        "as a task of the harness that generates text logs it"
    )


def _id(record: dict[str, Any], key: str, *, optional: bool) -> str | int | None:
    if optional and key not in record:
        return None
    value = _value(record, key)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f'"{key}" is {_shown(value)}: expected text or a whole number')
    return value


def _truncated(record: dict[str, Any]) -> bool | None:
    value = record.get("truncated")
    if not isinstance(value, bool | None):
        raise ValueError(f'"truncated" is {_shown(value)}: expected true or false')
    return value


def _value(record: dict[str, Any], key: str) -> Any:
    if key not in record:
        raise ValueError(f'no "{key}" among {_shown(sorted(record))}: {_EXPECTED}')
    return record[key]


def _is_new(item: _Item, seen: dict[bytes, bytes]) -> bool:
    """Whether the item is to be counted; False where the harness logged it for another filter."""
    if item.id is None:
        return True
    key = _digest(f"{item.logged} {item.id!r}")
    content = _digest(repr((item.reference, item.completion))) if item.logged else b""
    if key not in seen:
        seen[key] = content
        return True
    if not item.logged:
        raise ValueError(
            f"id {_shown(item.id)} repeats: expected one line for each id "
            "(of predictions.jsonl, the lines of one stage)"
        )
    if seen[key] != content:
        raise ValueError(
            f"doc_id {_shown(item.id)} repeats with another completion or target: "
            "expected the log of one task and one model"
        )
    return False


def _digest(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
