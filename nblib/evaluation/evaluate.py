"""One stage of an evaluation: the same items asked, answered, scored, and kept one by one."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import sentencepiece as spm
from flax import nnx

from nblib.evaluation.generate import Decoding, generate
from nblib.evaluation.metrics import LENIENT, rate_metrics, stage_metrics
from nblib.models.names import RefModel
from nblib.tasks.scoring import Score
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import task_prompts


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one model did on the items: rates, rates by level, and a record an item."""

    name: str
    metrics: Mapping[str, Any]  # as in result.json
    by_level: Mapping[int, Mapping[str, Any]]
    records: tuple[Mapping[str, Any], ...]  # as in predictions.jsonl
    seconds: float = 0.0  # to answer and score; 0 for answers that were there


def evaluate(
    model: nnx.Module,
    tokenizer: spm.SentencePieceProcessor,
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    stage: str,
    mesh: jax.sharding.Mesh,
) -> Stage:
    """Ask every example in the task's own format, zero-shot, and score the completions."""
    began = time.perf_counter()
    prompts = task_prompts(task, examples)
    answers = ask(model, tokenizer, examples, prompts, decoding, mesh=mesh)
    scored = score_stage(stage, answers, task)
    metrics = {**scored.metrics, "decoding": asdict(decoding)}
    return replace(scored, metrics=metrics, seconds=time.perf_counter() - began)


def ask(
    model: nnx.Module,
    tokenizer: spm.SentencePieceProcessor,
    examples: Sequence[Example],
    prompts: Sequence[str],
    decoding: Decoding,
    *,
    mesh: jax.sharding.Mesh,
) -> list[dict[str, Any]]:
    """Return what the model answered, a record an example, not yet scored."""
    completions = generate(model, tokenizer, prompts, decoding, mesh=mesh)
    return [
        {
            "id": example.id,
            "level": example.level,
            "question": example.question,
            "prompt": completion.prompt,
            "completion": completion.text,
            "reference": example.answer,
            "truncated": completion.truncated,
            "max_new_tokens": decoding.max_new_tokens,
        }
        for example, completion in zip(examples, completions, strict=True)
    ]


def score_stage(name: str, answers: Sequence[Mapping[str, Any]], task: Task) -> Stage:
    """Score completions, whoever wrote them: records with `id`, `completion` and `reference`.

    `truncated` and `level` count where a record has them. A record may come scored; what the
    scorer says now replaces what it said then.

    Raises:
        ValueError: no records, or a reference that is no number, by the item's name.
    """
    scores = [_score(one, task) for one in answers]
    lenient = [task.lenient(one["completion"], one["reference"]).correct for one in answers]
    records = tuple(
        {**one, "stage": name, **asdict(score), LENIENT: right}
        for one, score, right in zip(answers, scores, lenient, strict=True)
    )
    places: dict[int, list[int]] = {}
    for place, one in enumerate(answers):
        if one.get("level") is not None:
            places.setdefault(one["level"], []).append(place)

    def metrics(chosen: Sequence[int]) -> dict[str, Any]:
        right = [lenient[place] for place in chosen]
        rates = stage_metrics([scores[place] for place in chosen])
        return {**rates, **rate_metrics(f"{LENIENT}_accuracy", right)}

    return Stage(
        name=name,
        metrics=metrics(range(len(scores))),
        by_level={level: metrics(chosen) for level, chosen in sorted(places.items())},
        records=records,
    )


def evaluate_stages(
    ref: RefModel,
    stages: Mapping[str, tuple[Task, Decoding]],
    examples: Sequence[Example],
    *,
    mesh: jax.sharding.Mesh,
    enabled: bool = True,
) -> tuple[Stage, ...]:
    """Evaluate one model once a stage, on the same items; no stage at all when not `enabled`."""
    if not enabled:
        return ()
    return tuple(
        evaluate(ref.model, ref.tokenizer, task, examples, decoding, stage=name, mesh=mesh)
        for name, (task, decoding) in stages.items()
    )


def _score(answer: Mapping[str, Any], task: Task) -> Score:
    truncated = answer.get("truncated")  # a file need not say
    try:
        return task.score(answer["completion"], answer["reference"], truncated=truncated)
    except ValueError as error:
        raise ValueError(f"item {answer['id']!r}: {error}") from error
