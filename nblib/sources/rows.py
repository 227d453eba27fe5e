"""What a source hands on: rows with a question and a worked answer, checked and hashed.

Every source (built-in problems, files, hubs) ends in the same two records, `Row` and `Dataset`, so
that nothing after this room knows where the data came from. How an answer is read into reasoning
and number is the business of `nblib.tasks`; here a row is only checked for being readable at all.
The row's form is GSM8K's: https://github.com/openai/grade-school-math
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

# The task's number parser lives in a later room, which this one may not import. References need
# less than completions: in GSM8K they are plain ("18", "-5", "1,250", "$70", "0.5"), so one fixed
# form is enough here, and whatever it accepts the task's parser accepts too.
_REFERENCE_NUMBER = re.compile(r"[-+]?\$?(?=[\d.])(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d+)?", re.ASCII)


# What a Gemma 3 tokenizer, SentencePiece's or transformers', reads as one id that is no text: chat
# turns, ends, padding, images. In a row they would forge a turn of the chat.
_CONTROL_PIECE = re.compile(
    r"<(?:(?:start|end)_of_(?:turn|image)|bos|eos|pad|unk|mask|image_soft_token|unused\d+)>"
    r"|\[multimodal\]"
)
_ANNOTATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One raw row, as its source gave it.

    Attributes:
        id: "<source>/<split>/<index>", for example "gsm8k/test/17" (the index counts from 0).
        question: the problem's text.
        answer: steps with `<<a+b=c>>` annotations, and a last line `#### N`.
        level: number of steps where the source knows it, else None (see `level_of`).
    """

    id: str
    question: str
    answer: str
    level: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The rows of both splits, with where they came from.

    Attributes:
        name: the name that was asked for, "builtin" or "gsm8k".
        origin: one line, where the rows came from.
        train: rows to learn from (and to select and tune on).
        test: rows that evaluation alone reads.
        sha256: split -> `content_sha256` of its rows.
        notes: one line each: sources tried and why they failed, other content than the published
            one, duplicates, overlap. Empty when there is nothing to say.
    """

    name: str
    origin: str
    train: tuple[Row, ...]
    test: tuple[Row, ...]
    sha256: Mapping[str, str]
    notes: tuple[str, ...] = ()


def check_rows(rows: Sequence[Row], *, where: Callable[[int], str]) -> None:
    """Raise a ValueError at the first row that no task could use.

    Args:
        rows: the rows of one split.
        where: index -> the row's place for the message, for example "train.jsonl line 3".

    Raises:
        ValueError: an empty question, no final `#### N` line, an unreadable number after it, or a
            piece that controls a chat, such as `<end_of_turn>`.
    """
    for index, row in enumerate(rows):
        problem = _problem_of(row)
        if problem:
            raise ValueError(f"{where(index)} ({row.id}): {problem}; correct or remove this row")


def _problem_of(row: Row) -> str | None:
    if not row.question.strip():
        return "the question is empty, expected a problem's text"
    _, mark, number = row.answer.rpartition("####")
    if not mark:
        return f"the answer has no '####', expected a last line '#### N', got {row.answer[-60:]!r}"
    if not _REFERENCE_NUMBER.fullmatch(number.strip()):
        return f"unreadable number {number.strip()!r} after '####', expected one like -1,250.5"
    # Annotations are taken out later, and what they part would then be one piece.
    for text in (row.question, row.answer, _ANNOTATION.sub("", row.answer)):
        control = _CONTROL_PIECE.search(text)
        if control:
            return f"{control[0]!r} is no text but controls the chat: it would forge a turn"
    return None


def content_sha256(rows: Sequence[Row]) -> str:
    """Hash what the rows say: the sorted JSON lines `[question, answer]`.

    Neither the file format nor the order counts (TFDS stores its rows shuffled), so that every
    source of the same data gives the same hash; one changed character gives another.
    """
    lines = sorted(_content_line(row) for row in rows)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _content_line(row: Row) -> bytes:
    return json.dumps([row.question, row.answer]).encode() + b"\n"


def level_of(row: Row) -> int:
    """Return the row's level: what its source says, else its number of `<<` steps, at least 1."""
    return row.level if row.level is not None else max(1, row.answer.count("<<"))


def sample_rows(rows: Sequence[Row], count: int | None, *, seed: int) -> tuple[Row, ...]:
    """Draw `count` rows by `seed`; -1, 0, None or more than there are keeps all, in their order.

    The draw goes by what the rows say, not by where they stand: the same data from a source with
    another order gives the same draw. A smaller draw is the beginning of a larger one.

    Raises:
        ValueError: `count` is below -1.
    """
    if count is not None and count < -1:
        raise ValueError(f"count is {count}, expected -1 (all rows) or more")
    if not count or not 0 < count < len(rows):
        return tuple(rows)
    salt = f"{seed}\n".encode()
    drawn = sorted(rows, key=lambda row: hashlib.sha256(salt + _content_line(row)).digest())
    return tuple(drawn[:count])


def split_validation(
    rows: Sequence[Row], *, share: float = 0.05, most: int = 100
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Return the rows to train on and a slice to validate on: the last `share`, 1 to `most` rows.

    Raises:
        ValueError: fewer than two rows, so that one part would be empty.
    """
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} training rows: expected at least 2, one to validate on")
    held = min(most, max(1, round(share * len(rows))))
    return tuple(rows[:-held]), tuple(rows[-held:])


def filter_levels(rows: Sequence[Row], levels: Collection[int]) -> tuple[tuple[Row, ...], int]:
    """Return the rows whose `level_of` is in `levels` (empty: all), and how many were dropped."""
    kept = tuple(row for row in rows if not levels or level_of(row) in levels)
    return kept, len(rows) - len(kept)


def duplicate_notes(train: Sequence[Row], test: Sequence[Row]) -> tuple[str, ...]:
    """Count repeated questions within each split and shared between them; one line for each count.

    Questions are compared without case and with runs of white space as one blank.
    """
    questions = {
        name: [_normal(row.question) for row in rows]
        for name, rows in (("train", train), ("test", test))
    }
    notes = [
        f"{name}: {len(asked) - len(set(asked))} of {len(asked)} questions are repeated"
        for name, asked in questions.items()
        if len(set(asked)) < len(asked)
    ]
    shared = set(questions["train"]) & set(questions["test"])
    if shared:
        notes.append(f"overlap: {len(shared)} questions are in both train and test")
    return tuple(notes)


def _normal(question: str) -> str:
    return " ".join(question.casefold().split())
