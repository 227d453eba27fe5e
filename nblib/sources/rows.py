"""What every source returns: neutral rows, or one line that says why there are none.

Built-in problems, files and hubs all end in a `Dataset` of `Row`s. What a row's fields mean, and
whether they can be used, is for a task to say (`nblib.tasks`).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

# What a Gemma 3 tokenizer, SentencePiece's or transformers', reads as one id that is no text: chat
# turns, ends, padding, images. In a row they would forge a turn of the chat.
_CONTROL_PIECE = re.compile(
    r"<(?:(?:start|end)_of_(?:turn|image)|bos|eos|pad|unk|mask|image_soft_token|unused\d+)>"
    r"|\[multimodal\]"
)

Item = TypeVar("Item")  # a row, or the example of one


class SourceError(RuntimeError):
    """A source that cannot be reached or is not there; the message is one line that says why."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One raw row, as its source gave it.

    Attributes:
        id: "<source>/<split>/<index>", for example "gsm8k/test/17" (the index counts from 0).
        fields: name -> JSON value.
        place: where it stands, for messages: "train.jsonl line 3".
        group: what the source sorts it under, such as a level; it is no part of the content.
    """

    id: str
    fields: Mapping[str, Any]
    place: str = ""
    group: str = ""

    @property
    def named(self) -> str:
        """The row as a message names it: `train.jsonl line 3 (gsm8k/train/2)`."""
        return f"{self.place} ({self.id})" if self.place else f"row {self.id}"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The rows of both splits, with where they came from.

    Attributes:
        name: the name that was asked for: "builtin", "gsm8k", a file.
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

    @classmethod
    def of(
        cls,
        name: str,
        origin: str,
        train: tuple[Row, ...],
        test: tuple[Row, ...],
        *,
        asked: str = "question",
    ) -> Self:
        """Hash the rows; notes are how many questions are repeated or shared by the splits.

        `asked` is the field of a row that holds its question.
        """
        sha256 = {"train": content_sha256(train), "test": content_sha256(test)}
        notes = _duplicate_notes(train, test, asked)
        return cls(name=name, origin=origin, train=train, test=test, sha256=sha256, notes=notes)


def control_piece(text: str) -> str | None:
    """Return the first piece of the text that controls a chat, such as `<end_of_turn>`."""
    found = _CONTROL_PIECE.search(text)
    return found[0] if found else None


def one_line(error: BaseException) -> str:
    """Return an error as its type and the first line of its message, cut to 200 characters."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def content_sha256(rows: Sequence[Row]) -> str:
    """Hash the sorted JSON lines of the rows' values: file format and order do not count.

    So every source of the same data has the same hash, TFDS too, which stores its rows shuffled.
    """
    return hashlib.sha256(b"".join(sorted(map(_content_line, rows)))).hexdigest()


def _content_line(row: Row) -> bytes:
    return json.dumps(list(row.fields.values()), sort_keys=True).encode() + b"\n"


def sample_rows(rows: Sequence[Row], count: int | None, *, seed: int) -> tuple[Row, ...]:
    """Draw `count` rows by `seed`; -1, 0, None or more than there are keeps all, in their order.

    Rows are drawn by the hash of their content: a source with another order gives the same draw.
    A smaller draw is the beginning of a larger one.

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
    rows: Sequence[Item], *, share: float = 0.05, most: int = 100
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Return what to train on, and the last `share` to validate on: 1 to `most` of them.

    Raises:
        ValueError: fewer than two, so that one part would be empty.
    """
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} training rows: expected at least 2, one to validate on")
    held = min(most, max(1, round(share * len(rows))))
    return tuple(rows[:-held]), tuple(rows[-held:])


def _duplicate_notes(train: Sequence[Row], test: Sequence[Row], asked: str) -> tuple[str, ...]:
    """Compare questions without case and with runs of white space as one blank."""
    questions = {
        name: [" ".join(row.fields[asked].casefold().split()) for row in rows]
        for name, rows in (("train", train), ("test", test))
    }
    notes = [
        f"{name}: {len(texts) - len(set(texts))} of {len(texts)} questions are repeated"
        for name, texts in questions.items()
        if len(set(texts)) < len(texts)
    ]
    shared = set(questions["train"]) & set(questions["test"])
    if shared:
        notes.append(f"overlap: {len(shared)} questions are in both train and test")
    return tuple(notes)
