"""`python -m nblib preflight`: from a notebook's name and a target to a flight.

What needs the TPU's compiler is left out where that is missing, and said; the rest is done.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import jax

from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.abstract import named_config
from nblib.models.mesh import check_model_divides
from nblib.tasks.registry import get_task
from nblib.tools.notebooks import NotebookInfo
from nblib.tools.preflight import checks
from nblib.tools.preflight.flight import Flight, Step, compile_run, hours_of, measured_steps
from nblib.tools.preflight.measured import Measured, measure_steps
from nblib.tools.preflight.plan import (
    Work,
    notebook_settings,
    preflight_info,
    sft_work,
)
from nblib.tools.preflight.programs import programs, weight_counts
from nblib.tools.preflight.targets import (
    PreflightError,
    Target,
    compiler_of,
    find_target,
    target_mesh,
)


def run_preflight(
    notebook: str,
    target: Target,
    parameters: Mapping[str, str],
    *,
    fsdp: int = 0,
    tp: int = 1,
    search: bool = True,
    say: Callable[[str], None],
) -> Flight:
    """Do one preflight; SFT on a CPU is measured, all else is compiled.

    Comes after `prepare_environment(target)`; no device of this process may have been used before.

    Args:
        notebook: one of kind sft or grpo.
        target: see `find_target`.
        parameters: of the notebook, as typed.
        fsdp: the mesh's first axis; 0 takes all devices that `tp` leaves.
        tp: its second axis.
        search: for settings that fit, where these do not.
        say: gets a line on each thing that is done.

    Raises PreflightError, and ValueError for parameters and settings that no run would take.
    """
    settings = notebook_settings(notebook, target, parameters)
    mesh, notes = _mesh(target, fsdp, tp)
    if mesh:
        check_model_divides(named_config(settings.model), mesh)
    here = target_mesh(find_target("cpu"))
    info = preflight_info(notebook)
    work = _work(settings, info, mesh or here, notes)
    measured = _measured(settings, target, work, here, say)
    steps: tuple[Step, ...] = ()
    suggestion: Mapping[str, Any] = {}
    if measured and work:
        steps = measured_steps(measured, work)
    elif mesh:
        steps, suggestion = compile_run(settings, target, mesh, work, search=search, say=say)
    return Flight(
        notebook=notebook,
        target=target.name,
        mesh=dict((mesh or here).shape),
        steps=steps,
        hours=hours_of(steps) + (measured.compile_seconds / 3600 if measured else 0.0),
        session_hours=target.session_hours,
        tokens_per_step=(
            settings.accumulation * work.tokens_per_batch
            if work and isinstance(settings, SftSettings)
            else 0.0
        ),
        suggestion=suggestion,
        checks=_checks(settings, info.reads, target, work, mesh, here, measured),
        compiler=compiler_of(target) if mesh and not measured else "",
        notes=(*notes, *(work.notes if work else ())),
    )


def flight_json(flight: Flight) -> str:
    """Return a flight as JSON."""
    return json.dumps({**asdict(flight), "fits": flight.fits}, indent=2)


def _mesh(target: Target, fsdp: int, tp: int) -> tuple[jax.sharding.Mesh | None, list[str]]:
    """Return the target's mesh, or None and why nothing can be compiled for it."""
    try:
        return target_mesh(target, fsdp=fsdp, tp=tp), []
    except PreflightError as error:
        return None, [f"nothing was compiled: {error}"]


def _work(
    settings: SftSettings | GrpoSettings,
    info: NotebookInfo,
    mesh: jax.sharding.Mesh,
    notes: list[str],
) -> Work | None:
    """Return SFT's batches; None, with a note, where the data is not here, and for GRPO."""
    if not isinstance(settings, SftSettings):
        return None
    try:
        return sft_work(settings, get_task(info.task), row_multiple=mesh.shape["fsdp"])
    except PreflightError as error:
        notes.append(str(error))
        return None


def _measured(
    settings: SftSettings | GrpoSettings,
    target: Target,
    work: Work | None,
    here: jax.sharding.Mesh,
    say: Callable[[str], None],
) -> Measured | None:
    if not isinstance(settings, SftSettings) or target.kind != "cpu":
        return None
    if work is None or work.tokenizer is None:
        return None
    say(f"training on a few batches of {len(work.shapes)} shapes ...")
    return measure_steps(settings, work, here)


def _checks(
    settings: SftSettings | GrpoSettings,
    reads: tuple[str, ...],
    target: Target,
    work: Work | None,
    mesh: jax.sharding.Mesh | None,
    here: jax.sharding.Mesh,
    measured: Measured | None,
) -> tuple[checks.Check, ...]:
    parameters, trained = weight_counts(settings, here)
    shapes = [(one.rows, one.length) for one in programs(settings, mesh or here, work)]
    found = checks.check_mesh(mesh, target.devices, shapes) if mesh else []
    found += checks.check_examples(work) if work else []
    found += checks.check_adapters(trained, measured.moved if measured else None)
    if isinstance(settings, GrpoSettings) and reads:
        found.append(checks.check_rewards(settings, here, reads[0]))
    found += [checks.check_disk(parameters, trained), checks.check_licence(settings.model)]
    return tuple(found)
