"""What a training made worse outside its task: other questions, the plain form, plain text.

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
from nblib.evaluation.comparison import holm
from nblib.evaluation.generate import Decoding
from nblib.evaluation.metrics import LENIENT
from nblib.evaluation.paired import Paired, paired_comparison
from nblib.models.names import get_gemma_ref_model
from nblib.sources.gsm8k import SourceError
from nblib.sources.rows import sample_rows
from nblib.sources.svamp import svamp_rows
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example, Task
from nblib.tokens.batches import batch_stream, encode_example
from nblib.tokens.chat import render_prompt
from nblib.tokens.tokenizer import END_OF_TURN
from nblib.training.loss import model_inputs, next_token_loss


@dataclass(frozen=True, kw_only=True)
class Check:
    """Questions outside the task, put alone, with answers read wherever they stand."""

    name: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """One check of the model before and after: right answers, paired, and the corrected p."""

    check: str
    paired: Paired
    p_holm: float


def forgetting_checks(
    svamp_folder: str, *, count: int, seed: int
) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """Return the checks there are, of `count` questions each, and lines on what is left out.

    Built-in problems are always there; SVAMP where `sources.svamp` finds it. Raises SourceError
    for a folder that was named and does not have it, ValueError for a broken file.
    """
    plain = word_problems(count, seed=seed + 3000, split="test")
    checks = [Check(name="plain_form", examples=GSM8K.examples(plain))]
    try:
        svamp = sample_rows(svamp_rows(svamp_folder), count, seed=seed)
    except SourceError as error:
        if svamp_folder:
            raise
        return tuple(checks), (f"{error}: left out",)
    return (*checks, Check(name="svamp", examples=GSM8K.examples(svamp))), ()


def forgetting(
    models: Sequence[str],
    checks: Sequence[Check],
    task: Task,
    decoding: Decoding,
    *,
    mesh: jax.sharding.Mesh,
    folder: Path,
) -> tuple[Forgetting, ...]:
    """Ask the first and the last of `models` the questions of every check, without any format.

    Answers count wherever they stand in the text (`Task.lenient`). What was answered is kept in
    `folder`, as in `candidates.answer_all`. Where the two are one model nothing is asked.
    """
    if len(set(models)) < 2:
        return ()
    tests = []
    for check in checks:
        pair = [
            Candidate(name=f"{check.name}_{which}", source=source, style="question")
            for which, source in (("before", models[0]), ("after", models[-1]))
        ]
        first, second = answer_all(
            pair, task, check.examples, decoding, shots=(), mesh=mesh, folder=folder
        )
        tests.append(paired_comparison(first.records, second.records, field=LENIENT))
    corrected = holm([test.p_value for test in tests])
    return tuple(
        Forgetting(check=check.name, paired=test, p_holm=p)
        for check, test, p in zip(checks, tests, corrected, strict=True)
    )


def perplexities(
    models: Sequence[str], examples: Sequence[Example], *, mesh: jax.sharding.Mesh
) -> dict[str, Mapping[str, Any]]:
    """Return the perplexity of the first and the last of `models`, as "before" and "after"."""
    pair = {"before": models[0], "after": models[-1]} if len(set(models)) > 1 else {}
    return {name: perplexity(model, examples, mesh=mesh) for name, model in pair.items()}


def perplexity(
    model: str, examples: Sequence[Example], *, mesh: jax.sharding.Mesh, batch_tokens: int = 4096
) -> Mapping[str, Any]:
    """Return how surprised a model is by worked solutions in plain words, `#### N` at the end.

    Perplexity is exp of the mean negative log-likelihood of the solutions' tokens, in nats.
    """
    ref = get_gemma_ref_model(model, mesh)
    encoded = [
        encode_example(
            ref.tokenizer,
            id=one.id,
            prompt=render_prompt(one.question),
            completion=f"{one.reasoning}\n#### {one.answer}",
            end=END_OF_TURN,
        )
        for one in examples
    ]
    batches = batch_stream(
        encoded,
        epochs=1,
        seed=0,
        shuffle=False,
        tokens_per_batch=batch_tokens,
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
