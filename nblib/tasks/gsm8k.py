"""GSM8K as a task, and every other source of rows that writes its answers in that form.

The form: steps with calculator annotations `<<48/2=24>>`, last line `#### 24`. Source: Cobbe et
al. 2021, https://arxiv.org/abs/2110.14168. Where the rows come from is for `sources`.
"""

import re
from collections.abc import Sequence
from functools import partial

from nblib.sources.rows import Row
from nblib.tasks.formats import LAST_NUMBER, XML
from nblib.tasks.numbers import number_text, parse_number
from nblib.tasks.scoring import score
from nblib.tasks.task import Example, Task

_ANNOTATION = re.compile(r"<<[^<>]*>>")


def extract_hash_answer(text: str) -> str | None:
    """The text after the last "####", without commas; None where there is no "####".

    The name is the public GRPO demo's. It finds the answer of a row and does not check that it is
    a number: `parse_solution` does.
    """
    _, found, answer = text.rpartition("####")
    return answer.strip().replace(",", "") if found else None


def parse_solution(answer: str) -> tuple[str, str]:
    r"""Split a row's answer into its reasoning and its number in canonical text.

    Example:
        >>> parse_solution("She sells 9 * 2 = $<<9*2=18>>18.\n#### 18")
        ('She sells 9 * 2 = $18.', '18')

    Raises:
        ValueError: No "####", nothing before it, or no readable number after it.
    """
    steps, found, final = answer.rpartition("####")
    if not found:
        raise ValueError(f"no '####' in the answer {_shown(answer)}: expected a last line '#### N'")
    number = parse_number(final)
    if number is None:
        raise ValueError(f"unreadable number {_shown(final)} after '####': expected one number")
    reasoning = _ANNOTATION.sub("", steps).strip()
    if not reasoning:
        raise ValueError(f"no steps before '####' in the answer {_shown(answer)}: expected some")
    return reasoning, number_text(number)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else "..." + text[-77:])


def _example(row: Row) -> Example:
    try:
        reasoning, answer = parse_solution(row.answer)
    except ValueError as error:
        raise ValueError(f"row {row.id}: {error}") from error
    return Example(
        id=row.id, question=row.question, reasoning=reasoning, answer=answer, level=row.level
    )


def _examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    return tuple(_example(row) for row in rows)


GSM8K = Task(
    name="gsm8k",
    answer_format=XML,
    examples=_examples,
    score=partial(score, answer_format=XML),
    lenient=partial(score, answer_format=LAST_NUMBER),
)
