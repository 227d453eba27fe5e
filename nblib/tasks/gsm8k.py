"""GSM8K as a task, and every other source of rows that writes its answers in that form.

    prompt      Ann has 3 boxes of 6 pens. She loses 4. How many pens has she?
    completion  <reasoning>
                3 * 6 = 18 pens.
                18 - 4 = 14 pens.
                </reasoning>
                <answer>14</answer>
    reference   14
    group       2

A row's own form: steps with calculator annotations `<<48/2=24>>`, last line `#### 24`. Source:
Cobbe et al. 2021, https://arxiv.org/abs/2110.14168. Where the rows come from is for `sources`.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from nblib.sources.rows import Row, SourceError, sample_rows
from nblib.sources.svamp import svamp_rows
from nblib.sources.wordproblems import word_problems
from nblib.tasks.formats import BOXED, HASH, LAST_NUMBER, XML, AnswerFormat
from nblib.tasks.numbers import number_text, parse_number
from nblib.tasks.scoring import METRICS, score
from nblib.tasks.sums import right_sums
from nblib.tasks.task import Example, OutsideCheck, Target, Task, example_of

_ANNOTATION = re.compile(r"<<[^<>]*>>")


def extract_hash_answer(text: str) -> str | None:
    """The text after the last "####", without commas; None where there is none.

    The name is the public GRPO demo's. For most uses prefer `parse_solution`, which checks that
    the text is a number.
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


def _examples(form: AnswerFormat, rows: Sequence[Row]) -> tuple[Example, ...]:
    return tuple(_example(form, row) for row in rows)


def _example(form: AnswerFormat, row: Row) -> Example:
    """Return a row's example; its group is its source's level, else its annotated steps."""
    question, solution = row.fields["question"], row.fields["answer"]
    try:
        reasoning, answer = parse_solution(solution)
    except ValueError as error:
        raise ValueError(f"{row.named}: {error}; correct or remove this row") from error
    group = row.group or str(max(1, solution.count("<<")))
    completion = form.render(reasoning, answer)
    return example_of(row, prompt=question, completion=completion, reference=answer, group=group)


def _outside(
    count: int, seed: int, folder: str
) -> tuple[tuple[OutsideCheck, ...], tuple[str, ...]]:
    """Return questions in the plain form, and SVAMP's where a folder or the hub has it.

    Raises SourceError for a folder that was named and does not have it, ValueError for a broken
    file.
    """
    own, notes = GSM8K.in_base_form, tuple[str, ...]()
    rows = {"plain_form": word_problems(count, seed=seed + 3000, split="test")}
    try:
        rows["svamp"] = sample_rows(svamp_rows(folder), count, seed=seed)
    except SourceError as error:
        if folder:
            raise
        notes = (f"{error}: left out",)
    checks = (OutsideCheck(name=n, task=own, examples=own.examples(r)) for n, r in rows.items())
    return tuple(checks), notes


def _in_form(form: AnswerFormat, **more: Any) -> Task:
    return Task(
        name="gsm8k" if form is XML else f"gsm8k/{form.name}",
        system_prompt=form.system_prompt,
        metrics=METRICS,
        headline="answer_accuracy",
        form="format_accuracy",
        fallback="lenient_accuracy",
        grouped_by="level (steps in the solution)",
        examples=partial(_examples, form),
        score=lambda completion, example: score(completion, example.reference, answer_format=form),
        # The format's weight is enough to order the wrong ones; a model that has had v1 writes it
        # anyway. At a price for steps a model can write sums that no answer needs.
        reward_weights={"answer_accuracy": 1.0, "format_accuracy": 0.2, "steps": 0.0},
        reward_terms=lambda completion, example: {"steps": right_sums(completion)},
        limits=(
            "The reasoning is text like any other: it may be wrong where the answer is right.",
        ),
        **more,
    )


_SURE = tuple(
    Target(
        metric=name,
        limit=0.99,
        advice="look at the samples for what breaks the form: GRPO (v2) cures text without an end, "
        "more samples or epochs cure the rest",
    )
    for name in ("format_accuracy", "tag_order_accuracy", "answer_extractable")
)
_EIGHTEEN = Example(
    id="hand-written",
    prompt="A hen lays 2 eggs a day. How many in 9 days?",
    completion="<reasoning>2 * 9 = 18</reasoning><answer>18</answer>",
    reference="18",
)
# Each shows one rule.
_HAND_WRITTEN = (
    "<reasoning>2 * 9 = 18</reasoning><answer>18</answer>",
    "<reasoning>2 * 9 = 18</reasoning><answer>$18.00</answer>",  # the same number
    "2 * 9 = 18 <answer>18</answer>",  # right, not in the form
    "Okay. <reasoning>2 * 9 = 18</reasoning><answer>18</answer>",  # a preamble
    "<reasoning>2 * 9 = 18</reasoning><answer>18</answer> Done!",  # text after the end
    "<reasoning>2 * 9 = 16</reasoning><answer>16</answer>",  # in the form, wrong
    "<reasoning>2 * 9 = 18</reasoning><answer>-18</answer>",  # the sign counts
    "<reasoning>2 * 9 = 18</reasoning><answer>18</answer><answer>16</answer>",  # says two things
    "",
)

# The form that v0's model is trained in, from nothing.
_FOUNDATION = _in_form(
    HASH,
    targets=(
        Target(
            metric="answer_accuracy",
            limit=0.20,
            advice="raise NUM_SAMPLES, or lower DIFFICULTY_FILTER to [1]",
        ),
        Target(
            metric="answer_extractable",
            limit=0.70,
            advice="train for more steps; look at the samples for endless text",
        ),
    ),
)
GSM8K = _in_form(
    XML,
    variants={
        HASH.name: _FOUNDATION,
        **{form.name: _in_form(form) for form in (BOXED, LAST_NUMBER)},
    },
    base_variant=HASH.name,
    targets=_SURE,
    reward_examples=tuple((text, _EIGHTEEN) for text in _HAND_WRITTEN),
    outside=_outside,
)
