"""Pages become questions, and questions batches; what cannot be asked is said by its reason.

Batches follow from the pages alone, window by window, so that a run that goes on makes the same
ones: which rows share a batch can change an answer by rounding. A window is sorted by length, the
longest first, and cut into batches of as many rows as their tokens allow. Lengths are rounded up to
few different ones, as each is compiled once:

    lengths  70 64 50 | 33 31 20 | 9      compiled for  96 | 64 | 32
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sentencepiece as spm

from nblib.evaluation.package import Package
from nblib.models.decode_batch import BLOCK
from nblib.sources.html_text import before_tags, visible_text
from nblib.sources.pages_table import PageRow
from nblib.sources.rows import control_piece
from nblib.tasks.extraction import EXTRACTION, answer_schema
from nblib.tasks.extraction_kinds import PageKind, question
from nblib.tasks.json_text import read_json_text
from nblib.tasks.slots import read_slots
from nblib.tasks.task import Example
from nblib.tokens.chat import task_prompts
from nblib.tokens.grammar import Grammar, compile_grammar

WINDOW = 1024  # pages that are sorted together
_MOST_ROWS = 64  # of a batch
_MOST_TOKENS = 65_536  # of a batch, with its answers: 3.5 GB of cache in Gemma 3 1B, fp32
CUT_BY = (WINDOW, _MOST_ROWS, _MOST_TOKENS)  # what the batches follow from besides the pages


class Unusable(ValueError):
    """A page that cannot be asked; the message is its reason, and after a colon what came."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A page that can be asked."""

    row: PageRow
    example: Example
    prompt: str
    length: int  # tokens, BOS included
    grammar: Grammar


class Batch(NamedTuple):
    """Questions that are asked together, and the length that they are compiled for."""

    questions: tuple[Question, ...]
    length: int


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How the pages of a package are asked; `context` is in tokens, with the answer."""

    package: Package
    tokenizer: spm.SentencePieceProcessor
    context: int

    def question(self, row: PageRow) -> Question:
        """Return a page as its kind, or its own prompt, asks it; Unusable says why it cannot be."""
        example = self._example(row)
        for text in (example.prompt, example.system_prompt or ""):
            _check_text(text)
        (prompt,) = task_prompts(EXTRACTION, [example])
        length = 1 + len(self.tokenizer.encode(prompt))
        room = self.context - self.package.max_new_tokens
        if length > room:
            raise Unusable(f"too long: {length:,} tokens, and there is room for {room:,}")
        try:
            grammar = compile_grammar(answer_schema(example), self.tokenizer)
        except ValueError as error:
            raise Unusable(f"no grammar: {error}") from error
        return Question(row=row, example=example, prompt=prompt, length=length, grammar=grammar)

    def _example(self, row: PageRow) -> Example:
        kind = self._kind(row)
        own: dict[str, Any] = {}
        if row.slot_specs is not None:
            own["slot_specs"] = _checked_slots(row.slot_specs)
        if row.system_prompt:
            own["system_prompt"] = row.system_prompt
        if kind is None:
            return question(row.id, _own_prompt(row), group=row.task, **own)
        prompt = _own_prompt(row) if row.prompt_text.strip() else _behind(kind, row)
        return kind.question(row.id, prompt, **own)

    def _kind(self, row: PageRow) -> PageKind | None:
        """Return the kind of a row: that with its slots, else the only one of its task."""
        alike = [kind for kind in self.package.kinds if kind.task == row.task]
        same = [kind for kind in alike if kind.slot_specs == row.slot_specs]
        if same or len(alike) == 1:
            return (*same, *alike)[0]
        if row.slot_specs is not None and row.prompt_text.strip():
            return None
        if not alike:
            raise Unusable(f"unknown kind: {row.task!r} is none of {', '.join(self._tasks)}")
        if row.slot_specs is None:
            raise Unusable(
                f"unknown kind: one of {len(alike)} of {row.task!r}; give its slot_specs"
            )
        raise Unusable(f"unknown kind: none of {len(alike)} of {row.task!r} has these slot_specs")

    @property
    def _tasks(self) -> list[str]:
        return sorted({kind.task for kind in self.package.kinds})


def batches(questions: Sequence[Question], max_new_tokens: int) -> Iterator[Batch]:
    """Yield the questions of a window in batches of like length, the longest first."""
    left = sorted(questions, key=lambda one: (-one.length, one.row.number))
    while left:
        length = compiled_length(left[0].length)
        fitting = _MOST_TOKENS // (length + max_new_tokens)
        rows = min(_MOST_ROWS, 1 << max(0, fitting.bit_length() - 1))
        yield Batch(questions=tuple(left[:rows]), length=length)
        left = left[rows:]


def compiled_length(length: int) -> int:
    """Return a length rounded up to a block times 1, 2, 3, 4, 6, 8, 12, ...

    >>> [compiled_length(one) for one in (1, 33, 65, 97, 129, 193, 300)]
    [32, 64, 96, 128, 192, 256, 384]
    """
    blocks = -(-length // BLOCK)
    power = 1 << (blocks - 1).bit_length()
    return BLOCK * (power * 3 // 4 if blocks <= power * 3 // 4 else power)


def read_answer(question: Question, text: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `generate` wrote as a page's answer; one that is cut has no value.

    Nothing is repaired.
    """
    completion, value, valid = text["completion"], None, False
    if isinstance(question.example.reference, str):
        value = completion.strip()
        valid = value in answer_schema(question.example)
    elif (found := read_json_text(completion)).failure is None:
        value = found.value
        valid = read_slots(question.example.slot_specs).validator.problem(value) is None
    is_whole = valid and not text["truncated"]
    return _record(question.row) | {
        "answer": value if is_whole else None,
        "valid": is_whole,
        "truncated": text["truncated"],
        "prompt_tokens": question.length,
        "completion_tokens": text["tokens"],
    }


def unusable(row: PageRow, problem: str) -> dict[str, Any]:
    """Return the record of a page that could not be asked."""
    nothing = {"truncated": False, "prompt_tokens": 0, "completion_tokens": 0}
    return _record(row) | {"answer": None, "valid": False, **nothing, "problem": problem}


def _record(row: PageRow) -> dict[str, Any]:
    return {"row": row.number, "id": row.id, "task": row.task, "problem": None}


def _checked_slots(specs: Any) -> Any:
    try:
        read_slots(specs)
    except (ValueError, TypeError) as error:
        raise Unusable(f"slot_specs cannot be read: {error}") from error
    return specs


def _own_prompt(row: PageRow) -> str:
    prompt = visible_text(row.prompt_text)
    if prompt != row.prompt_text and prompt == before_tags(row.prompt_text):
        raise Unusable("no text after cleaning")
    return prompt


def _behind(kind: PageKind, row: PageRow) -> str:
    """Return a page behind the instruction of its kind."""
    if not row.html.strip():
        raise Unusable("empty page")
    page = visible_text(row.html).strip()
    if not page:
        raise Unusable("no text after cleaning")
    if kind.instruction is None:
        raise Unusable(f"no instruction: each page of {row.task!r} had its own; give prompt_text")
    return kind.instruction + page


def _check_text(text: str) -> None:
    piece = control_piece(text)
    if piece is not None:
        raise Unusable(f"control piece: {piece!r} is no text but controls the chat")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable("half a character: its text is no Unicode") from error
