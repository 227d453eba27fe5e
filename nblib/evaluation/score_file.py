"""Score a file of completions that any program may have written: one JSON object a line.

Two kinds of object are read:
- `{"id"?, "reference", "completion", "truncated"?}`, the reference being one number as text;
- those of lm-evaluation-harness' sample logs (`--log_samples`, samples_*.jsonl): the completion is
  the first text of `resps`, the reference is `target`, or what stands in it after GSM8K's "####".
  https://github.com/EleutherAI/lm-evaluation-harness

`tasks.scoring` judges a completion, here as everywhere; a bad one scores 0. A line that cannot be
scored is an error: rates over the other lines would be rates of something else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from nblib.evaluation.metrics import ScoreCounter
from nblib.files import parse_json, read_lines
from nblib.tasks.answer_format import AnswerFormat
from nblib.tasks.formats import XML
from nblib.tasks.gsm8k import extract_hash_answer
from nblib.tasks.scoring import score

_EXPECTED = (
    'expected an object with "reference" and "completion", or one of a sample log of '
    'lm-evaluation-harness with "doc_id", "target" and "resps"'
)
_SHOWN = 60  # characters of a value in an error


@dataclass(frozen=True, kw_only=True)
class _Item:
    id: str | int | None
    reference: str
    completion: str
    truncated: bool
    logged: bool  # by the harness, which writes a document once for each of its filters


def score_file(path: str | Path, *, answer_format: AnswerFormat = XML) -> dict[str, Any]:
    """Score the lines of a file, packed where its name ends in `.gz`, as `score_lines` does.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has no line to score, or a broken one.
    """
    return score_lines(read_lines(Path(path)), name=str(path), answer_format=answer_format)


def score_lines(
    lines: Iterable[bytes], *, name: str, answer_format: AnswerFormat = XML
) -> dict[str, Any]:
    """Score lines as they come; of a line no more is kept than hashes, and none without an id.

    Args:
        lines: UTF-8; blank ones are passed over.
        name: What an error calls the file.
        answer_format: How an answer should be written.

    Returns:
        What `stage_metrics` gives, "format" (its name) and "failures" (rule -> how many completions
        broke it first). What does not say that it is truncated counts as not truncated.

    Raises:
        ValueError: No line to score; or, beginning with "NAME:line", one that is no JSON object,
            lacks a key, has one of a wrong type, an unreadable reference or an id seen before.
    """
    counter, seen = ScoreCounter(), dict[bytes, bytes]()
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            item = _item(line)
            # Scored even when it was seen: that a line is broken does not hang on the others.
            one = score(
                item.completion,
                item.reference,
                answer_format=answer_format,
                truncated=item.truncated,
            )
            if _is_new(item, seen):
                counter.add(one)
        except ValueError as error:
            raise ValueError(f"{name}:{number}: {error}") from error
    if not counter.n:
        raise ValueError(f"{name}: no line to score: {_EXPECTED}, one a line")
    return {**counter.metrics(), "format": answer_format.name, "failures": counter.failures()}


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
        completion=_first_response(record) if logged else _text(record, "completion"),
        truncated=_truncated(record),
        logged=logged,
    )


def _text(record: dict[str, Any], key: str) -> str:
    value = _value(record, key)
    if not isinstance(value, str):
        raise ValueError(f'"{key}" is {_shown(value)}: expected text')
    return value


def _target(record: dict[str, Any]) -> str:
    target = _text(record, "target")
    answer = extract_hash_answer(target)
    return target if answer is None else answer


def _first_response(record: dict[str, Any]) -> str:
    match record["resps"]:
        case [[str(completion), *_], *_]:
            return completion
    raise ValueError(
        f'"resps" is {_shown(record["resps"])}: expected a list of lists of text, '
        "as a task of the harness that generates text logs it"
    )


def _id(record: dict[str, Any], key: str, *, optional: bool) -> str | int | None:
    if optional and key not in record:
        return None
    value = _value(record, key)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f'"{key}" is {_shown(value)}: expected text or a whole number')
    return value


def _truncated(record: dict[str, Any]) -> bool:
    value = record.get("truncated", False)
    if not isinstance(value, bool):
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
