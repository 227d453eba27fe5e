"""What a training made worse outside its task: other questions, and plain text.

The same checks are made of the model before and after. None of them is in the form that was
trained, so a loss here is a loss of what the base could do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nblib.evaluation.candidates import Candidate, answer_all
from nblib.evaluation.generate import Decoding
from nblib.evaluation.statistics import Paired, holm, paired_comparison
from nblib.models.names import get_gemma_ref_model
from nblib.tasks.task import Example, OutsideCheck, Task
from nblib.tokens.batches import batch_stream, encode_example
from nblib.tokens.chat import task_prompts
from nblib.training.loss import model_inputs, next_token_loss

_BATCH_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """One check of the model before and after, paired, and the p corrected for all checks."""

    check: str
    paired: Paired
    p_holm: float


def forgetting(
    models: Sequence[str],
    checks: Sequence[OutsideCheck],
    decoding: Decoding,
    *,
    mesh: jax.sharding.Mesh,
    folder: Path,
) -> tuple[Forgetting, ...]:
    """Ask the first and the last of `models` the questions of every check, without a system prompt.

    The lenient metric of each check's task counts. What was answered is kept in `folder`, as in
    `candidates.answer_all`. Where the two are one model nothing is asked.
    """
    if len(set(models)) < 2:
        return ()
    tests = []
    for check in checks:
        pair = [
            Candidate(name=f"{check.name}_{which}", source=source, style="question")
            for which, source in (("before", models[0]), ("after", models[-1]))
        ]
        given: dict[str, Any] = {"shots": (), "mesh": mesh, "folder": folder}
        first, second = answer_all(pair, check.task, check.examples, decoding, **given)
        metric = check.task.metric(check.task.lenient)
        tests.append(paired_comparison(first.records, second.records, metric))
    corrected = holm([test.p_value for test in tests])
    return tuple(
        Forgetting(check=check.name, paired=test, p_holm=p)
        for check, test, p in zip(checks, tests, corrected, strict=True)
    )


def perplexities(
    models: Sequence[str], task: Task, examples: Sequence[Example], *, mesh: jax.sharding.Mesh
) -> dict[str, Mapping[str, Any]]:
    """Return how surprised the first and the last of `models` are, as "before" and "after".

    They read the examples' completions, below the question alone. Give examples in a form that the
    base knows, such as a variant of the task: the form that was trained says nothing of forgetting.
    Perplexity is exp of the mean negative log-likelihood of the completions' tokens, in nats. Where
    the two are one model nothing is read.
    """
    pair = {"before": models[0], "after": models[-1]} if len(set(models)) > 1 else {}
    return {name: _perplexity(model, task, examples, mesh) for name, model in pair.items()}


def _perplexity(
    model: str, task: Task, examples: Sequence[Example], mesh: jax.sharding.Mesh
) -> Mapping[str, Any]:
    ref = get_gemma_ref_model(model, mesh)
    prompts = task_prompts(task, examples, style="question")
    encoded = [
        encode_example(ref.tokenizer, id=one.id, prompt=prompt, completion=one.completion)
        for one, prompt in zip(examples, prompts, strict=True)
    ]
    batches = batch_stream(
        encoded,
        epochs=1,
        seed=0,
        shuffle=False,
        tokens_per_batch=_BATCH_TOKENS,
        row_multiple=mesh.shape["fsdp"],
    )
    loss = nnx.jit(lambda model, batch: next_token_loss(model, **model_inputs(batch)))
    counts, losses = [], []
    with mesh:
        for batch in batches:
            counts.append(float(np.sum(np.asarray(batch.input_mask)[:, 1:])))
            losses.append(float(jnp.asarray(loss(ref.model, batch))))
    tokens = sum(counts)
    mean = sum(n * value for n, value in zip(counts, losses, strict=True)) / tokens
    return {"perplexity": math.exp(mean), "nats_per_token": mean, "tokens": int(tokens)}
