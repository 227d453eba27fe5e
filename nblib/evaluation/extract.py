"""Extraction of whole tables: a package reads pages into a table of answers, however many.

Every answer is bound by its schema, greedy, and in the journal when its batch is done. A run that
was killed goes on when it is started again, and ends in the same table.
"""

import fcntl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from nblib.evaluation.answer_table import check_replaceable_answers, write_answers
from nblib.evaluation.answers import Decoding, generate
from nblib.evaluation.kept import Journal, OtherRequest, open_journal
from nblib.evaluation.package import package_sha256, read_package
from nblib.evaluation.page_batches import (
    CUT_BY,
    WINDOW,
    Batch,
    Question,
    Reader,
    Unusable,
    batches,
    read_answer,
    unusable,
)
from nblib.models.mesh import device_mesh
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.sources.pages_table import PageRow, Pages, open_pages
from nblib.training.session import duration

_SAY_EVERY_S = 15.0
Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What became of the pages of a table.

    Attributes:
        cut: Answers that reached the token limit.
        problems: Reason -> pages that could not be asked.
        asked: Pages that this start asked; those before it were there already.
        seconds: Of this start, the model's loading apart.
    """

    pages: int
    cut: int
    prompt_tokens: int
    completion_tokens: int
    problems: Mapping[str, int]
    asked: int
    asked_tokens: int
    seconds: float

    @property
    def answered(self) -> int:
        """Pages that have an answer, also one that was cut."""
        return self.pages - sum(self.problems.values())

    def __str__(self) -> str:
        """A line on pages, one on tokens, one on speed, and one a reason of what is bad."""
        lines = [
            f"{self.answered:,} of {self.pages:,} pages answered, {self.cut:,} of them cut at the "
            "token limit",
            f"{self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out",
        ]
        if self.asked:
            speed = f"{self.asked / self.seconds:.3g} pages/s"
            speed += f", {self.asked_tokens / self.seconds:,.0f} tokens/s in and out"
            lines.append(f"{self.asked:,} asked now in {duration(self.seconds)}: {speed}")
        bad = Counter(self.problems).most_common()
        return "\n".join([*lines, *(f"{count:,} bad pages: {reason}" for reason, count in bad)])


def extract(
    folder: Path, pages: Path, out: Path, *, say: Callable[[str], None] = print
) -> Extracted:
    """Read a file of pages by the package in a folder, and write the table of their answers.

    `<out>.part.jsonl` is the journal until the table is written. Pages that cannot be asked are in
    the table with their `problem`. Of an id that repeats the first page is asked alone.

    Raises ValueError, SourceError and OSError saying what is wrong with package, pages or `out`.
    """
    package = read_package(folder)
    check_replaceable_answers(out)
    decoding = Decoding(max_new_tokens=package.max_new_tokens, constrained=True)
    with open_pages(pages) as source:
        if not source.count:
            raise ValueError(f"{pages} has no pages: expected at least one")
        identity = {
            "package": package_sha256(folder),
            "pages": source.sha256,
            "decoding": {**asdict(decoding), "cut_by": list(CUT_BY)},
        }
        with _journal(out, identity) as journal:
            ref = get_gemma_ref_model(str(folder), device_mesh())
            reader = Reader(package=package, tokenizer=ref.tokenizer, context=ref.context)
            work = _Work(ref=ref, reader=reader, decoding=decoding, journal=journal)
            work.answer_all(source, say)
            answers = sorted(work.answers(), key=lambda one: one["row"])
            write_answers(out, answers)
            journal.path.unlink()
    return _counted(answers, work)


@dataclass(kw_only=True)
class _Work:
    """The windows and parts of a table, of which those in the journal are done."""

    ref: RefModel
    reader: Reader
    decoding: Decoding
    journal: Journal
    began: float = field(default_factory=time.perf_counter)
    asked: int = 0
    asked_tokens: int = 0

    def answers(self) -> list[Answer]:
        """Return all answers that there are, in the order in which they came."""
        return [one for part in self.journal.records for one in part["answers"]]

    def answer_all(self, source: Pages, say: Callable[[str], None]) -> None:
        """Answer what is not in the journal, a part at a time: bad pages first, then batches."""
        done = {(one["window"], one["part"]) for one in self.journal.records}
        newest = max((window for window, _ in done), default=0)
        finished, said = len(self.answers()), self.began
        if finished:
            say(f"{finished:,} of {source.count:,} pages were there already")
        seen = set[str]()
        for window, rows in enumerate(_windows(source)):
            if window < newest:
                seen.update(row.id for row in rows)
                continue
            for part, content in enumerate(self._parts(rows, seen)):
                if (window, part) in done:
                    continue
                came = self._asked(content) if isinstance(content, Batch) else content
                self.journal.append({"window": window, "part": part, "answers": came})
                finished += len(came)
                if time.perf_counter() - said > _SAY_EVERY_S:
                    said = time.perf_counter()
                    say(self._progress(finished, source.count))

    def _parts(
        self, rows: Sequence[PageRow], seen: set[str]
    ) -> Iterator[list[dict[str, Any]] | Batch]:
        """Yield the parts of a window: the records of its bad pages, then what is to be asked."""
        questions, bad = list[Question](), list[dict[str, Any]]()
        for row in rows:
            try:
                _check_id(row, seen)
                questions.append(self.reader.question(row))
            except Unusable as error:
                bad.append(unusable(row, str(error)))
        yield bad
        yield from batches(questions, self.decoding.max_new_tokens)

    def _asked(self, batch: Batch) -> list[dict[str, Any]]:
        written = generate(
            self.ref,
            [one.prompt for one in batch.questions],
            self.decoding,
            [one.grammar for one in batch.questions],
            max_prompt_length=batch.length,
        )
        answers = [
            read_answer(one, text) for one, text in zip(batch.questions, written, strict=True)
        ]
        self.asked += len(answers)
        self.asked_tokens += sum(map(_tokens, answers))
        return answers

    def _progress(self, finished: int, count: int) -> str:
        seconds, left = time.perf_counter() - self.began, count - finished
        line = f"{finished:,} of {count:,} pages"
        if not self.asked:
            return line
        rate = self.asked / seconds
        speed = f"{rate:.3g} pages/s, {self.asked_tokens / seconds:,.0f} tokens/s"
        return f"{line}, {speed}, about {duration(left / rate)} left"


def _counted(answers: Sequence[Answer], work: _Work) -> Extracted:
    reasons = (one["problem"].partition(":")[0] for one in answers if one["problem"])
    return Extracted(
        pages=len(answers),
        cut=sum(one["truncated"] for one in answers),
        prompt_tokens=sum(one["prompt_tokens"] for one in answers),
        completion_tokens=sum(one["completion_tokens"] for one in answers),
        problems=Counter(reasons),
        asked=work.asked,
        asked_tokens=work.asked_tokens,
        seconds=time.perf_counter() - work.began,
    )


def _tokens(answer: Answer) -> int:
    return int(answer["prompt_tokens"] + answer["completion_tokens"])


def _check_id(row: PageRow, seen: set[str]) -> None:
    if not row.id:
        raise Unusable("no id")
    if row.id in seen:
        raise Unusable("duplicate id")
    seen.add(row.id)


def _windows(source: Pages) -> Iterator[list[PageRow]]:
    rows = iter(source)
    for first in rows:
        yield list(chain([first], islice(rows, WINDOW - 1)))


@contextmanager
def _journal(out: Path, identity: Mapping[str, Any]) -> Iterator[Journal]:
    """Open the journal beside a table for this process alone."""
    path = out.with_name(f"{out.name}.part.jsonl")
    try:
        journal = open_journal(path, identity)
    except OtherRequest as error:
        raise ValueError(
            f"{path} was begun with another {error}: go on with what it was begun with, or remove "
            "it to start again from the first page"
        ) from error
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{path} is being written by another process: wait for it") from error
        yield journal
