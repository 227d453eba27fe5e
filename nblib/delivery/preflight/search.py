"""The nearest settings that fit, with the compiler as the judge.

First what changes no figure of the training: remat, then half the batch with twice the
accumulation. What a refused program needed tells which halvings are not worth a compilation.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from nblib.delivery.preflight.compiled import Compiled
from nblib.delivery.preflight.programs import Program, largest_batch, programs

Change = dict[str, Any]


def nearest(
    notebook: str,
    settings: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    refused: Compiled,
    compile_: Callable[[Program], Compiled],
) -> Change:
    """Return the nearest change of the settings whose update fits; {} where none does.

    Args:
        notebook: whose settings they are.
        settings: those that were refused.
        mesh: the target's.
        refused: what the compiler said of them.
        compile_: compiles a program for the target.
    """
    if not settings["remat"]:
        change = {"remat": True}
        refused = compile_(programs(notebook, {**settings, **change}, mesh)[0])
        if refused.fits:
            return change
    too_much = refused.needed_bytes / refused.limit_bytes if refused.limit_bytes else 1.0
    for halvings, change in enumerate(_smaller(notebook, settings, mesh), start=1):
        # Half the batch needs at least half the memory.
        if too_much <= 2**halvings:
            tried = {**settings, **change}
            if compile_(programs(notebook, tried, mesh)[0]).fits:
                return change
    return {}


def _smaller(
    notebook: str, settings: Mapping[str, Any], mesh: jax.sharding.Mesh
) -> Iterator[Change]:
    """Yield the changes that halve the batch of an update, again and again."""
    if notebook == "v1_sft_format":
        rows, length = largest_batch(settings, mesh)
        accumulation = settings["accumulation"]
        while rows % (2 * mesh.shape["fsdp"]) == 0:
            rows, accumulation = rows // 2, 2 * accumulation
            yield {"remat": True, "batch_tokens": rows * length, "accumulation": accumulation}
        return
    prompts = settings.get("micro_batch") or settings["prompts_per_step"]
    while prompts % 2 == 0:
        prompts //= 2
        yield {"remat": True, "micro_batch": prompts}
