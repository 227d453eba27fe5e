"""Other settings than a run has: the nearest that fit a machine, and the fastest of those that do.

Each is compiled, which takes minutes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.hosts.settings_base import parameter_name
from nblib.tools.preflight.compiled import Compiled, least_seconds
from nblib.tools.preflight.programs import Program, largest_batch, programs
from nblib.tools.preflight.targets import Target

_MOST_TOKENS = 2**20  # a batch; GSM8K's training rows are 1.5 times as many
_Settings = SftSettings | GrpoSettings


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch of an update that was compiled, as the notebook's parameters name it."""

    parameters: Mapping[str, Any]
    fits: bool
    token_us: float  # least microseconds a token of all devices together, padding included; 0: none

    def __str__(self) -> str:
        """The parameters as a command takes them, and the time."""
        named = " ".join(f"-p {name} {value}" for name, value in self.parameters.items())
        return f"{named}: {f'{self.token_us:.2f} us a token' if self.fits else 'does not fit'}"


def fastest_first(
    settings: _Settings,
    target: Target,
    mesh: jax.sharding.Mesh,
    compile_: Callable[[Program], Compiled],
) -> tuple[Batch, ...]:
    """Return the batches from what is set upwards, the fastest by the compiler's counts first.

    The batch is doubled while it fits; then once more with remat, from the first that did not.
    What the devices send each other is not counted. Nothing says how well so large a batch learns.
    """
    found: list[Batch] = []
    for change in _larger(settings, mesh, found):
        program = programs(replace(settings, **change), mesh)[0]
        compiled = compile_(program)
        seconds = least_seconds(compiled, target)
        named = {parameter_name(name): value for name, value in change.items()}
        token_us = 1e6 * seconds / (program.rows * program.length)
        found.append(Batch(parameters=named, fits=compiled.fits, token_us=token_us))
    return tuple(sorted(found, key=lambda one: (not one.fits, one.token_us)))


def _larger(
    settings: _Settings, mesh: jax.sharding.Mesh, found: list[Batch]
) -> Iterator[dict[str, Any]]:
    """Yield changes that double an update's batch; one that does not fit is tried with remat."""
    if isinstance(settings, SftSettings):
        rows, length = largest_batch(settings, mesh)
        most = _MOST_TOKENS
    else:
        config = settings.grpo
        rows, length = config.rows_at_once(mesh.shape["fsdp"]), config.row_length
        most = config.prompts_per_step * config.num_generations * length
    size = rows * length
    remat = settings.remat
    while size <= most:
        yield {"batch_tokens": size, "remat": remat}
        if found[-1].fits:
            size *= 2
        elif remat:
            return
        else:
            remat = True


def nearest(
    settings: _Settings,
    mesh: jax.sharding.Mesh,
    refused: Compiled,
    compile_: Callable[[Program], Compiled],
) -> dict[str, Any]:
    """Return the nearest change of refused settings whose update fits; {} where none does.

    First what changes no figure of the training: remat, then half the batch with twice the
    accumulation. A halving that cannot be enough, by what the refused program needed, is not tried.
    """
    if not settings.remat:
        change: dict[str, Any] = {"remat": True}
        refused = compile_(programs(replace(settings, **change), mesh)[0])
        if refused.fits:
            return change
    too_much = refused.needed_bytes / refused.limit_bytes if refused.limit_bytes else 1.0
    for halvings, change in enumerate(_smaller(settings, mesh), start=1):
        try:
            tried = replace(settings, **change)
        except ValueError:  # more batches a step than there are rows
            return {}
        enough = too_much <= 2**halvings  # half the batch needs at least half the memory
        if enough and compile_(programs(tried, mesh)[0]).fits:
            return change
    return {}


def _smaller(settings: _Settings, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    """Yield the changes that halve the batch of an update, again and again."""
    if isinstance(settings, SftSettings):
        rows, length = largest_batch(settings, mesh)
        accumulation = settings.accumulation
        while rows % (2 * mesh.shape["fsdp"]) == 0:
            rows, accumulation = rows // 2, 2 * accumulation
            yield {"remat": True, "batch_tokens": rows * length, "accumulation": accumulation}
        return
    config, devices = settings.grpo, mesh.shape["fsdp"]
    rows = config.rows_at_once(devices)
    while rows % (2 * devices) == 0:
        rows //= 2
        yield {"remat": True, "batch_tokens": rows * config.row_length}
