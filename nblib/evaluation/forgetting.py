"""What a training made worse outside its task: other questions, and plain text.

The same checks are made of the model before and after. None of them is in the form that was
trained, so a loss here is a loss of what the base could do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nblib.evaluation.answers import Decoding
from nblib.evaluation.candidates import Asking, Candidate, answer_all
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


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """All checks, and the perplexity of the models, called "before" and "after"."""

    checks: tuple[Forgetting, ...] = ()
    perplexity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # checks that could not be made, and why


def measure_forgetting(
    candidates: Sequence[Candidate],
    task: Task,
    solutions: Sequence[Example],
    decoding: Decoding,
    asking: Asking,
    *,
    count: int,
    seed: int,
    folder: str = "",
) -> Forgotten:
    """Make the checks outside the task with the first and the last model among the candidates.

    The models answer `count` questions of each check of `task.outside`, without a system prompt;
    the lenient metric of the check's task counts. They read `count` of the worked `solutions`,
    below the question alone. Give solutions in a form that the base knows, as `task.in_base_form`
    makes them: the form that was trained says nothing of forgetting. Where the two are one model
    nothing is asked.

    Perplexity is exp of the mean negative log-likelihood of the solutions' tokens, in nats.
    """
    checks, left_out = task.outside(count, seed, folder) if task.outside else ((), ())
    models = [one.source for one in candidates if not one.is_file]
    if len(set(models)) < 2:
        return Forgotten(left_out=left_out)
    pair = {"before": models[0], "after": models[-1]}
    tests = [_outside(check, pair, decoding, asking) for check in checks]
    found = zip(checks, tests, holm([test.p_value for test in tests]), strict=True)
    read = partial(_perplexity, task=task, examples=solutions[:count], mesh=asking.mesh)
    return Forgotten(
        checks=tuple(Forgetting(check=one.name, paired=test, p_holm=p) for one, test, p in found),
        perplexity={name: read(model) for name, model in pair.items()},
        left_out=left_out,
    )


def _outside(
    check: OutsideCheck, pair: Mapping[str, str], decoding: Decoding, asking: Asking
) -> Paired:
    asked = [
        Candidate(name=f"{check.name}_{which}", source=source, style="question")
        for which, source in pair.items()
    ]
    before, after = answer_all(asked, check.task, check.examples, decoding, asking)
    return paired_comparison(before.records, after.records, check.task.metric(check.task.lenient))


def _perplexity(
    model: str, task: Task, examples: Sequence[Example], mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    ref = get_gemma_ref_model(model, mesh)
    prompts = task_prompts(task, examples, style="question")
    encoded = [
        encode_example(ref.tokenizer, id=one.id, prompt=prompt, completion=one.completion)
        for one, prompt in zip(examples, prompts, strict=True)
    ]
    rows = {"tokens_per_batch": _BATCH_TOKENS, "row_multiple": mesh.shape["fsdp"]}
    batches = batch_stream(encoded, epochs=1, seed=0, shuffle=False, **rows)
    loss = nnx.jit(
        lambda model, batch: next_token_loss(model, **model_inputs(batch)), graph_updates=False
    )
    counts, losses = [], []
    with mesh:
        for batch in batches:
            counts.append(float(np.sum(np.asarray(batch.input_mask)[:, 1:])))
            losses.append(float(jnp.asarray(loss(ref.model, batch))))
    tokens = sum(counts)
    mean = sum(n * value for n, value in zip(counts, losses, strict=True)) / tokens
    return {"perplexity": math.exp(mean), "nats_per_token": mean, "tokens": int(tokens)}
