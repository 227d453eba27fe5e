"""A task as one frozen value: how rows become examples, how answers are written and scored.

A new track is a new value of `Task` in a file of its own, not a subclass and not a copy of the
pipeline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nblib.sources.rows import Row
from nblib.tasks.formats import AnswerFormat
from nblib.tasks.scoring import Score


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question with its worked solution, in no particular format.

    Attributes:
        id: The row's id, such as "gsm8k/test/17".
        question: What is asked.
        reasoning: The steps, without annotations and without the final line.
        answer: The number in canonical text: no commas, no unit.
        level: Number of steps where known.
    """

    id: str
    question: str
    reasoning: str
    answer: str
    level: int | None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked, how the answer is written and how it is scored.

    Attributes:
        name: What it is called in records.
        answer_format: How a completion is written and parsed.
        examples: Rows -> examples; ValueError names the row that cannot become one.
        score: (completion, reference, truncated=False) -> Score, in `answer_format`.
        lenient: (completion, reference) -> Score whatever the format: can it do it at all?
    """

    name: str
    answer_format: AnswerFormat
    examples: Callable[[Sequence[Row]], tuple[Example, ...]]
    score: Callable[..., Score]
    lenient: Callable[[str, str], Score]


def for_format(task: Task, answer_format: AnswerFormat) -> Task:
    """The same task with answers written, and therefore scored, in another format."""
    scored = partial(task.score, answer_format=answer_format)
    return replace(task, answer_format=answer_format, score=scored)
