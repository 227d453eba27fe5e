"""The nearest settings that fit, with the compiler as the judge.

First what changes no figure of the training: remat, then half the batch with twice the
accumulation. What a refused program needed tells which halvings are not worth a compilation.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax

from nblib.delivery.preflight.compiled import Compiled
from nblib.delivery.preflight.programs import Program, largest_batch, programs
from nblib.delivery.settings import GrpoSettings, SftSettings

Change = dict[str, Any]


def nearest(
    settings: SftSettings | GrpoSettings,
    mesh: jax.sharding.Mesh,
    refused: Compiled,
    compile_: Callable[[Program], Compiled],
) -> Change:
    """Return the nearest change of the settings whose update fits; {} where none does.

    Args:
        settings: those that were refused.
        mesh: the target's.
        refused: what the compiler said of them.
        compile_: compiles a program for the target.
    """
    if not settings.remat:
        change: Change = {"remat": True}
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


def _smaller(settings: SftSettings | GrpoSettings, mesh: jax.sharding.Mesh) -> Iterator[Change]:
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
