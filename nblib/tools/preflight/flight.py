"""One preflight: a notebook's programs, compiled for the target, what they need and how long."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.hosts.settings_base import parameter_name
from nblib.tools.preflight.checks import Check
from nblib.tools.preflight.compiled import Compiled, least_seconds
from nblib.tools.preflight.measured import Measured
from nblib.tools.preflight.plan import Work
from nblib.tools.preflight.programs import Program, largest_batch, programs
from nblib.tools.preflight.targets import INSTALL, PreflightError, Target, compiler_of

_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Step:
    """One program and what the compiler said of it; seconds of one call, 0 where unknown."""

    name: str
    rows: int
    length: int
    times: int
    seconds: float
    compiled: Compiled | None = None


@dataclass(frozen=True, kw_only=True)
class Flight:
    """What a preflight found; hours are 0 where they are not known, or where there is no limit."""

    notebook: str
    target: str
    mesh: Mapping[str, int]
    steps: tuple[Step, ...]
    hours: float
    session_hours: float
    tokens_per_step: float = 0.0  # without padding
    suggestion: Mapping[str, Any] = field(default_factory=dict)  # by the notebook's parameters
    checks: tuple[Check, ...] = ()
    compiler: str = ""  # name and version of what compiled the steps; "" where nothing was compiled
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every program that was compiled fits."""
        return all(step.compiled.fits for step in self.steps if step.compiled)

    def __str__(self) -> str:
        """Lines for a person."""
        axes = ", ".join(f"{name} {size}" for name, size in self.mesh.items())
        lines = [f"{self.notebook} on {self.target} ({axes})"]
        for step in self.steps:
            lines += ["", *_step_lines(step)]
        lines += ["", *self._verdict(), *(f"note      {note}" for note in self.notes)]
        return "\n".join([*lines, "", *map(str, self.checks)])

    def _verdict(self) -> list[str]:
        verdict = "fits" if self.fits else "does not fit"
        if not any(step.compiled for step in self.steps):
            verdict = "measured on this machine" if self.steps else "not compiled"
        lines = [f"verdict   {verdict}"]
        if self.compiler:
            lines.append(f"compiler  {self.compiler}")
        if self.suggestion:
            named = " ".join(f"-p {name} {value}" for name, value in self.suggestion.items())
            lines.append(f"fits with {named}")
        if self.tokens_per_step:
            lines.append(f"tokens    {self.tokens_per_step:,.0f} a step, without padding")
        if self.hours and self.fits:
            limit = f" of {self.session_hours:g} a session" if self.session_hours else ""
            least = "at least " if any(step.compiled for step in self.steps) else ""
            minutes = f"({60 * self.hours:.1f} minutes)"
            lines.append(f"training  {least}{self.hours:.2f} hours{limit} {minutes}")
        return lines


def compile_run(
    settings: SftSettings | GrpoSettings,
    target: Target,
    mesh: jax.sharding.Mesh,
    work: Work | None,
    *,
    search: bool,
    say: Callable[[str], None],
) -> tuple[tuple[Step, ...], Mapping[str, Any]]:
    """Compile a notebook's programs; return them, and for one that does not fit what would.

    `say` gets a line before each compilation. After a refusal nothing more is compiled
    than the search needs. Raises PreflightError where the compiler fails for another reason than
    memory.
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

    found: list[Step] = []
    for program in programs(settings, mesh, work):
        compiled = compile_(program)
        found.append(_step(program, compiled, least_seconds(compiled, target)))
        if not compiled.fits:
            change = nearest(settings, mesh, compiled, compile_) if search else {}
            return tuple(found), {parameter_name(name): value for name, value in change.items()}
    return tuple(found), {}


def nearest(
    settings: SftSettings | GrpoSettings,
    mesh: jax.sharding.Mesh,
    refused: Compiled,
    compile_: Callable[[Program], Compiled],
) -> dict[str, Any]:
    """Return the nearest change of the settings whose update fits; {} where none does.

    First what changes no figure of the training: remat, then half the batch with twice the
    accumulation. What a refused program needed tells which halvings need no compilation.

    Args:
        settings: those that were refused.
        mesh: the target's.
        refused: what the compiler said of them.
        compile_: compiles a program for the target.
    """
    if not settings.remat:
        change: dict[str, Any] = {"remat": True}
        refused = compile_(programs(replace(settings, **change), mesh)[0])
        if refused.fits:
            return change
    too_much = refused.needed_bytes / refused.limit_bytes if refused.limit_bytes else 1.0
    for halvings, change in enumerate(_smaller(settings, mesh), start=1):
        # Half the batch needs at least half the memory.
        try:
            tried = replace(settings, **change)
        except ValueError:  # more batches a step than there are rows
            return {}
        enough = too_much <= 2**halvings
        if enough and compile_(programs(tried, mesh)[0]).fits:
            return change
    return {}


def _smaller(
    settings: SftSettings | GrpoSettings, mesh: jax.sharding.Mesh
) -> Iterator[dict[str, Any]]:
    """Yield the changes that halve the batch of an update, again and again."""
    if isinstance(settings, SftSettings):
        rows, length = largest_batch(settings, mesh)
        accumulation = settings.accumulation
        while rows % (2 * mesh.shape["fsdp"]) == 0:
            rows, accumulation = rows // 2, 2 * accumulation
            yield {"remat": True, "batch_tokens": rows * length, "accumulation": accumulation}
        return
    prompts = settings.micro_batch
    while prompts % 2 == 0:
        prompts //= 2
        yield {"remat": True, "micro_batch": prompts}


def measured_steps(measured: Measured, work: Work) -> tuple[Step, ...]:
    """Return the steps of a run whose seconds were measured."""
    return tuple(
        Step(
            name="update",
            rows=shape[0],
            length=shape[1],
            times=times,
            seconds=measured.seconds[shape],
        )
        for shape, times in work.shapes.items()
    )


def hours_of(steps: tuple[Step, ...]) -> float:
    """Return the hours of all steps together; 0 if the seconds of one of them are not known."""
    used = [step for step in steps if step.times]
    if not used or not all(step.seconds for step in used):
        return 0.0
    return sum(step.times * step.seconds for step in used) / 3600


def _step(program: Program, compiled: Compiled, seconds: float) -> Step:
    return Step(
        name=program.name,
        rows=program.rows,
        length=program.length,
        times=program.times,
        seconds=seconds,
        compiled=compiled,
    )


def _step_lines(step: Step) -> list[str]:
    """Return what a step needs of each device, and its seconds."""
    lines = [f"{step.name}: {step.rows} rows of {step.length} tokens, {step.times} times"]
    found = step.compiled
    if found and not found.fits:
        needed = f"{found.needed_bytes / _GIB:.2f} GiB" if found.needed_bytes else "more"
        limit = f"{found.limit_bytes / _GIB:.2f} GiB" if found.limit_bytes else "there is"
        lines.append(f"  needs {needed} a device, there are {limit}")
    elif found:
        kinds = {
            "weights, optimizer, batch": found.arguments_bytes,
            "activations": found.temporary_bytes,
            "results": found.output_bytes,
            "program": found.code_bytes,
            "at its peak": found.peak_bytes,
        }
        lines += [f"  {size / _GIB:7.2f} GiB  {kind}" for kind, size in kinds.items()]
        lines.append(f"  {found.flops / 1e12:7.2f} T operations")
        lines.append(f"  {found.bytes_moved / _GIB:7.0f} GiB to and from memory")
    if step.seconds:
        lines.append(f"  {step.seconds:7.3f} s{' at least' if found else ''}")
    return lines
