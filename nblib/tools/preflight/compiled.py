"""What the compiler says of a program: bytes a device by kind, operations, or its refusal.

Compiling takes minutes, so the figures are kept on disk, under a hash of all that they depend on.
"""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from nblib.files import read_json, to_jsonable, write_json
from nblib.models.compilation import code_digest
from nblib.runs import runs_root
from nblib.tools.preflight.targets import Target

# Sources that a compiled step depends on: modules of nblib, and packages.
_ROOMS = ("tokens", "models", "training", "tools/preflight")
_PACKAGES = ("jax", "jaxlib", "flax", "google-tunix", "qwix", "optax", "libtpu")
# "Used 22.60G of 15.75G hbm", or "temporaries (20.89G) exceeds available HBM (15.75G)".
_SIZE = r"\(?([\d.]+)([KMGT])\)?"
_REFUSAL = re.compile(rf"{_SIZE} (?:of|exceeds available HBM) {_SIZE}")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One program on one device of the target.

    Of a program that the compiler refuses, only `needed_bytes` and `limit_bytes` are known.
    """

    fits: bool
    arguments_bytes: int = 0  # weights, optimizer state, batch
    temporary_bytes: int = 0  # activations and gradients
    output_bytes: int = 0  # what does not replace an argument
    code_bytes: int = 0
    peak_bytes: int = 0
    needed_bytes: int = 0
    limit_bytes: int = 0
    flops: float = 0.0
    bytes_moved: float = 0.0  # to and from the memory
    compile_seconds: float = 0.0
    refusal: str = ""


def least_seconds(compiled: Compiled, target: Target) -> float:
    """Return the least time for the compiler's count of operations and bytes; 0: not known.

    The compiler's own seconds (`optimal_seconds`) were negative for every step tried with libtpu
    0.0.51. What devices send each other is not in it.
    """
    if not (compiled.fits and target.flops_per_s and target.bytes_per_s):
        return 0.0
    computing = compiled.flops / target.flops_per_s
    return max(computing, compiled.bytes_moved / target.bytes_per_s)


def compile_cached(
    key: Mapping[str, Any], lower: Callable[[], Any], *, memory_bytes: int = 0
) -> Compiled:
    """Return the figures of a program, from disk if it was compiled before.

    Args:
        key: all that the program is made from but the code, which is added here.
        lower: lowers it, to what has jax's `compile()`.
        memory_bytes: of a device, where the compiler knows no limit (0: none is checked).
    """
    key = {**key, "memory_bytes": memory_bytes}
    path = runs_root() / "preflight" / "compiled" / f"{_digest(key)}.json"
    if path.is_file():
        return Compiled(**read_json(path)["compiled"])
    compiled = compile_lowered(lower(), memory_bytes=memory_bytes)
    write_json(path, {"key": key, "compiled": compiled})
    return compiled


def compile_lowered(lowered: Any, *, memory_bytes: int = 0) -> Compiled:
    """Compile and return the figures; too little memory is an answer, any other failure an error.

    Raises jax's JaxRuntimeError for a failure that is not about memory.
    """
    began = time.perf_counter()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _refused(str(error), time.perf_counter() - began)
    memory, cost = program.memory_analysis(), program.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    output = memory.output_size_in_bytes - memory.alias_size_in_bytes
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes + output
    # XLA for CPUs leaves the temporaries out of its peak.
    peak = max(memory.peak_memory_in_bytes, used) + memory.generated_code_size_in_bytes
    return Compiled(
        fits=not memory_bytes or peak <= memory_bytes,
        arguments_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=output,
        code_bytes=memory.generated_code_size_in_bytes,
        peak_bytes=peak,
        needed_bytes=peak,
        limit_bytes=memory_bytes,
        flops=max(0.0, cost.get("flops", 0.0)),
        bytes_moved=max(0.0, cost.get("bytes accessed", 0.0)),
        compile_seconds=time.perf_counter() - began,
    )


def _refused(message: str, seconds: float) -> Compiled:
    found = _REFUSAL.search(message)
    needed, needed_unit, limit, limit_unit = found.groups() if found else ("0", "G", "0", "G")
    return Compiled(
        fits=False,
        needed_bytes=round(float(needed) * _UNITS[needed_unit]),
        limit_bytes=round(float(limit) * _UNITS[limit_unit]),
        compile_seconds=seconds,
        refusal=message.strip().splitlines()[0][:300],
    )


def _digest(key: Mapping[str, Any]) -> str:
    """Return a name for a key, the code that lowers it, and the packages that compile it."""
    text = repr(sorted(to_jsonable(key).items())) + code_digest(_ROOMS, _PACKAGES)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
