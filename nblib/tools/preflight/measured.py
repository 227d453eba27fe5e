"""An SFT run measured on this machine, by the run's own trainer on a few batches of each shape."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import TrainingInput

from nblib.models.lora import LORA_PARAMETER, get_trainable_model
from nblib.models.names import get_gemma_ref_model
from nblib.runs import start_run
from nblib.tokens.training_data import TrainingData
from nblib.tools.preflight.report import Step
from nblib.tools.preflight.workload import Workload
from nblib.training.sft import train

_STEPS = 6  # of each shape; the first compiles it


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The steps of a run, one for each shape, and what training a few of them showed."""

    steps: tuple[Step, ...]
    compile_seconds: float  # of all shapes
    moved: float  # the largest change of a trained weight


def measure_steps(work: Workload, mesh: jax.sharding.Mesh) -> Measured:
    """Train a copy of the model on a few batches of each shape and time the steps.

    Nothing is kept. The seconds of a shape are the median of its steps that compiled nothing.
    """
    settings = work.settings
    base = get_gemma_ref_model(settings.model, mesh, dtype=settings.dtype)
    model = get_trainable_model(base.model, mesh, settings.lora)
    kind = LORA_PARAMETER if settings.lora_rank > 0 else nnx.Param
    before = jax.tree.map(np.array, nnx.state(model, kind))
    records = _train_a_few(model, work, mesh)
    after = jax.tree.map(np.asarray, nnx.state(model, kind))
    changes = jax.tree.map(lambda old, new: float(np.abs(new - old).max()), before, after)
    steps, compile_seconds = [], 0.0
    for index, ((rows, length), times) in enumerate(work.shapes.items()):
        alike = records[index * _STEPS :][:_STEPS]
        compiling = [one["seconds"] for one in alike if one["compilations"]]
        steady = [one["seconds"] for one in alike[1:] if not one["compilations"]]
        seconds = float(np.median(steady or [alike[-1]["seconds"]]))
        steps.append(Step(name="update", rows=rows, length=length, times=times, seconds=seconds))
        compile_seconds += sum(max(0.0, one - seconds) for one in compiling)
    return Measured(
        steps=tuple(steps), compile_seconds=compile_seconds, moved=max(jax.tree.leaves(changes))
    )


def _train_a_few(
    model: Gemma3, work: Workload, mesh: jax.sharding.Mesh
) -> Sequence[Mapping[str, Any]]:
    """Train on `_STEPS` batches of each shape, one shape after the other; return their records."""
    chosen: list[TrainingInput] = []
    for shape in work.shapes:
        some = [batch for batch in work.batches if batch.input_tokens.shape == shape][:_STEPS]
        chosen += (some * _STEPS)[:_STEPS]  # where there are few, they are repeated
    sizes = {"too_long": 0, "rows": 0, "max_length": work.settings.max_length}
    texts = TrainingData(examples=(), batches=chosen, val_batches=(), **sizes)
    # Standard output is for the preflight's answer.
    with tempfile.TemporaryDirectory(prefix="nblib-") as scratch, redirect_stdout(sys.stderr):
        run = start_run("preflight", {}, root=Path(scratch))
        config = replace(work.settings.training, accumulation=1, save_interval="60 min")
        return train(model, texts, config, run, hashes={}, mesh=mesh).history
