"""One stage of an evaluation: the same items asked, answered, scored, and kept one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import sentencepiece as spm
from flax import nnx

from nblib.evaluation.generate import Decoding, generate
from nblib.evaluation.metrics import stage_metrics
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
    completions = generate(model, tokenizer, task_prompts(task, examples), decoding, mesh=mesh)
    scores = [
        task.score(completion.text, example.answer, truncated=completion.truncated)
        for completion, example in zip(completions, examples, strict=True)
    ]
    records = tuple(
        {
            "id": example.id,
            "stage": stage,
            "level": example.level,
            "question": example.question,
            "prompt": completion.prompt,
            "completion": completion.text,
            "reference": example.answer,
            **asdict(score),
        }
        for example, completion, score in zip(examples, completions, scores, strict=True)
    )
    return Stage(
        name=stage,
        metrics={**stage_metrics(scores), "decoding": asdict(decoding)},
        by_level=_by_level(examples, scores),
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


def _by_level(examples: Sequence[Example], scores: Sequence[Score]) -> dict[int, Mapping[str, Any]]:
    levels = sorted({example.level for example in examples if example.level is not None})
    return {
        level: stage_metrics(
            [s for example, s in zip(examples, scores, strict=True) if example.level == level]
        )
        for level in levels
    }
