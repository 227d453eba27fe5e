"""An SFT run on this very machine, from a few of its real steps: no estimate of a compiler's.

Every shape of the run's batches is trained on a few times, by the trainer of the run.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.sft.peft_trainer import TrainingInput

from nblib.files import read_jsonl
from nblib.hosts.settings import SftSettings
from nblib.models.lora import LORA_PARAMETER, get_trainable_model
from nblib.models.names import get_gemma_ref_model
from nblib.tools.preflight.plan import Work
from nblib.training.sft import train

_STEPS = 6  # of each shape; the first compiles it


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of a step by shape of its batch, of all compilations, and what the steps changed."""

    seconds: Mapping[tuple[int, int], float]
    compile_seconds: float
    moved: float  # the largest change of a trained weight


def measure_steps(settings: SftSettings, work: Work, mesh: jax.sharding.Mesh) -> Measured:
    """Train a copy of the model on a few batches of each shape and see what a step takes.

    Nothing is kept. The seconds of a shape are the median of its steps that compiled nothing.
    """
    base = get_gemma_ref_model(settings.model, mesh, dtype=settings.dtype)
    model = get_trainable_model(base.model, mesh, settings.lora)
    kind = LORA_PARAMETER if settings.lora_rank > 0 else nnx.Param
    before = jax.tree.map(np.array, nnx.state(model, kind))
    chosen = _few_of_each(work)
    # What a training says is no part of a preflight's answer.
    with tempfile.TemporaryDirectory(prefix="nblib-") as scratch, redirect_stdout(sys.stderr):
        folder = Path(scratch)
        train(
            model,
            chosen,
            replace(settings.training, accumulation=1, save_interval="60 min"),
            folder=folder / "checkpoints",
            metrics_path=folder / "metrics.jsonl",
            identity={},
            mesh=mesh,
        )
        records = read_jsonl(folder / "metrics.jsonl")
    after = jax.tree.map(np.asarray, nnx.state(model, kind))
    changes = jax.tree.map(lambda old, new: float(np.abs(new - old).max()), before, after)
    seconds, compile_seconds = _seconds(chosen, records)
    return Measured(
        seconds=seconds, compile_seconds=compile_seconds, moved=max(jax.tree.leaves(changes))
    )


def _few_of_each(work: Work) -> list[TrainingInput]:
    """Return a few batches of each shape, one shape after the other; few ones are repeated."""
    chosen = []
    for shape in work.shapes:
        alike = (batch for batch in work.batches if batch.input_tokens.shape == shape)
        some = list(islice(alike, _STEPS))
        chosen += (some * _STEPS)[:_STEPS]
    return chosen


def _seconds(
    batches: Sequence[TrainingInput], records: Sequence[Mapping[str, Any]]
) -> tuple[dict[tuple[int, int], float], float]:
    """Return the seconds of a step by shape, and what the steps that compiled took beyond them."""
    by_shape: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for batch, record in zip(batches, records, strict=True):
        by_shape.setdefault(batch.input_tokens.shape, []).append(record)
    seconds, beyond = {}, 0.0
    for shape, alike in by_shape.items():
        steady = [one["seconds"] for one in alike[1:] if not one["compilations"]]
        seconds[shape] = float(np.median(steady or [alike[-1]["seconds"]]))
        beyond += sum(
            max(0.0, one["seconds"] - seconds[shape]) for one in alike if one["compilations"]
        )
    return seconds, beyond
