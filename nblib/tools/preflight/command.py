"""`python -m nblib preflight`: from a notebook's name and a target to a report.

Where the TPU's compiler is missing, the report says so and holds the rest.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import TrainingInput

from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.hosts.settings_base import parameter_name
from nblib.models.abstract import named_config
from nblib.models.lora import LORA_PARAMETER, get_trainable_model
from nblib.models.mesh import check_model_divides
from nblib.models.names import get_gemma_ref_model
from nblib.runs import start_run
from nblib.tasks.registry import get_task
from nblib.tokens.batching import TrainingData
from nblib.tools.notebooks import NotebookInfo
from nblib.tools.preflight import checks
from nblib.tools.preflight.compiled import Compiled, least_seconds
from nblib.tools.preflight.programs import Program, programs, weight_counts
from nblib.tools.preflight.report import PreflightReport, Step, hours_of
from nblib.tools.preflight.search import Batch, fastest_first, nearest
from nblib.tools.preflight.targets import (
    INSTALL,
    PreflightError,
    Target,
    compiler_of,
    find_target,
    target_mesh,
)
from nblib.tools.preflight.workload import (
    Workload,
    notebook_settings,
    preflight_info,
    sft_workload,
)
from nblib.training.sft import train

_MEASURED = 6  # steps of each shape; the first compiles it
_Settings = SftSettings | GrpoSettings


def run_preflight(
    notebook: str,
    target: Target,
    parameters: Mapping[str, str],
    *,
    fsdp: int = 0,
    tp: int = 1,
    search: bool = True,
    fastest: bool = False,
    say: Callable[[str], None],
) -> PreflightReport:
    """Do one preflight; SFT on a CPU is measured, all else is compiled.

    Comes after `prepare_environment(target)`; no device of this process may have been used before.
    `fsdp` 0 takes all devices that `tp` leaves; with `search`, settings that fit are sought where
    these do not; with `fastest`, larger batches are compiled where these fit. Raises
    PreflightError, and ValueError for parameters that no run would take.
    """
    if fastest and not target.flops_per_s:
        raise PreflightError(f"the speed of {target.name} is not known: --fastest is for TPUs")
    settings = notebook_settings(notebook, target, parameters)
    info, here, notes = preflight_info(notebook), target_mesh(find_target("cpu")), list[str]()
    if settings.dtype == "bfloat16" and not target.has_bf16:
        settings = replace(settings, dtype="float32")
        notes.append(f"{target.name} is taken for a GPU without bf16 units: DTYPE float32")
    mesh = _mesh(settings, target, fsdp, tp, notes)
    work = _workload(settings, info, mesh or here, notes)
    if settings.remat and target.kind == "gpu":
        notes.append("XLA for CPUs undoes remat: a GPU needs less activations than these")
    steps, suggestion, compile_seconds = tuple[Step, ...](), dict[str, Any](), 0.0
    batches: tuple[Batch, ...] = ()
    moved, compiler = None, ""
    if target.kind == "cpu" and work and work.tokenizer:
        say(f"training on a few batches of {len(work.shapes)} shapes ...")
        steps, compile_seconds, moved = measure_steps(work, here)
    elif mesh:
        compile_ = compiler_for(target, mesh, say)
        steps, suggestion = compile_run(settings, target, mesh, work, compile_, search=search)
        if fastest and all(step.compiled and step.compiled.fits for step in steps):
            batches = fastest_first(settings, target, mesh, compile_)
        compiler = compiler_of(target)
    return PreflightReport(
        notebook=notebook,
        target=target.name,
        mesh=dict((mesh or here).shape),
        steps=steps,
        hours=hours_of(steps) + compile_seconds / 3600,
        session_hours=target.session_hours,
        tokens_per_step=work.settings.accumulation * work.tokens_per_batch if work else 0.0,
        suggestion=suggestion,
        batches=batches,
        checks=_checks(settings, info.reads, target, work, mesh, here, moved),
        compiler=compiler,
        notes=tuple(notes),
    )


def _mesh(
    settings: _Settings, target: Target, fsdp: int, tp: int, notes: list[str]
) -> jax.sharding.Mesh | None:
    """Return the target's mesh; None, with a note, where nothing can be compiled for it."""
    try:
        mesh = target_mesh(target, fsdp=fsdp, tp=tp)
    except PreflightError as error:
        notes.append(f"nothing was compiled: {error}")
        return None
    check_model_divides(named_config(settings.model), mesh)
    return mesh


def _workload(
    settings: _Settings, info: NotebookInfo, mesh: jax.sharding.Mesh, notes: list[str]
) -> Workload | None:
    """Return the batches of an SFT; None for GRPO, and, with a note, where the data is missing."""
    if not isinstance(settings, SftSettings):
        return None
    try:
        work = sft_workload(settings, get_task(info.task), row_multiple=mesh.shape["fsdp"])
    except PreflightError as error:
        notes.append(str(error))
        return None
    notes.extend(work.notes)
    return work


def _checks(
    settings: _Settings,
    reads: tuple[str, ...],
    target: Target,
    work: Workload | None,
    mesh: jax.sharding.Mesh | None,
    here: jax.sharding.Mesh,
    moved: float | None,
) -> tuple[checks.Check, ...]:
    parameters, trained = weight_counts(settings, here)
    found = []
    if mesh:
        rows = [program.rows for program in programs(settings, mesh, work)]
        found += checks.check_mesh(mesh, target.devices, rows)
    found += checks.check_examples(work) if work else []
    found += checks.check_adapters(trained, moved)
    if isinstance(settings, GrpoSettings) and reads:
        found.append(checks.check_rewards(settings, here, reads[0]))
    found += [checks.check_disk(parameters, trained), checks.check_licence(settings.model)]
    return tuple(found)


def compiler_for(
    target: Target, mesh: jax.sharding.Mesh, say: Callable[[str], None]
) -> Callable[[Program], Compiled]:
    """Return what compiles a program for the target, and says how that went.

    It raises PreflightError where the compiler fails for another reason than memory.
    """

    def compile_(program: Program) -> Compiled:
        say(
            f"{program.name}, {program.rows} rows of {program.length} tokens, for {target.name} ..."
        )
        began = time.perf_counter()
        try:
            found = program.compiled_for(target, mesh)
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise PreflightError(
                f"{compiler_of(target)} cannot compile the {program.name} for {target.name}: "
                f"{reason}. Take the compiler that was tried: {INSTALL}"
            ) from error
        verdict = "fits" if found.fits else "does not fit"
        say(f"  {verdict} ({time.perf_counter() - began:.0f} s)")
        return found

    return compile_


def compile_run(
    settings: _Settings,
    target: Target,
    mesh: jax.sharding.Mesh,
    work: Workload | None,
    compile_: Callable[[Program], Compiled],
    *,
    search: bool,
) -> tuple[tuple[Step, ...], dict[str, Any]]:
    """Compile a notebook's programs; return them and, where one does not fit, what would.

    After a refusal nothing more is compiled than the search needs.
    """
    steps: list[Step] = []
    for program in programs(settings, mesh, work):
        compiled = compile_(program)
        names = ("name", "rows", "length", "times")
        shared = {name: getattr(program, name) for name in names}
        seconds = least_seconds(compiled, target)
        steps.append(Step(**shared, seconds=seconds, compiled=compiled))
        if not compiled.fits:
            change = nearest(settings, mesh, compiled, compile_) if search else {}
            return tuple(steps), {parameter_name(name): value for name, value in change.items()}
    return tuple(steps), {}


def measure_steps(work: Workload, mesh: jax.sharding.Mesh) -> tuple[tuple[Step, ...], float, float]:
    """Train a copy of the model on a few batches of each shape and time the steps on this machine.

    Returns the steps, each with the median seconds of those that compiled nothing; the seconds that
    compiling took; and the largest change of a trained weight.
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
        alike = records[index * _MEASURED :][:_MEASURED]
        compiling = [one["seconds"] for one in alike if one["compilations"]]
        steady = [one["seconds"] for one in alike[1:] if not one["compilations"]]
        seconds = float(np.median(steady or [alike[-1]["seconds"]]))
        steps.append(Step(name="update", rows=rows, length=length, times=times, seconds=seconds))
        compile_seconds += sum(max(0.0, one - seconds) for one in compiling)
    return tuple(steps), compile_seconds, max(jax.tree.leaves(changes))


def _train_a_few(
    model: Gemma3, work: Workload, mesh: jax.sharding.Mesh
) -> Sequence[Mapping[str, Any]]:
    """Return the records of a training on `_MEASURED` batches of each shape, shape by shape."""
    chosen: list[TrainingInput] = []
    for shape in work.shapes:
        some = [batch for batch in work.batches if batch.input_tokens.shape == shape][:_MEASURED]
        chosen += (some * _MEASURED)[:_MEASURED]  # where there are few, they are repeated
    sizes: dict[str, Any] = {
        "too_long": 0,
        "rows": 0,
        "total": 0,
        "max_length": work.settings.max_length,
    }
    texts = TrainingData(examples=(), batches=chosen, val_batches=(), **sizes)
    config = replace(work.settings.training, accumulation=1, save_interval="60 min")
    # Standard output is for the preflight's answer.
    with tempfile.TemporaryDirectory(prefix="nblib-") as scratch, redirect_stdout(sys.stderr):
        run = start_run("preflight", {}, root=Path(scratch))
        return train(model, texts, config, run, hashes={}, mesh=mesh).history
