"""The machines that a preflight knows, and their compiler, which needs none of them.

The `libtpu` wheel compiles for TPUs on any Linux machine: it is the extra `preflight`. Topologies
and memory: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

LIBTPU = "libtpu"
INSTALL = "python -m pip install -e '.[preflight]'"
_GIB = 2**30


class PreflightError(ValueError):
    """A preflight that cannot be done; the message says what to do instead."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A machine to compile for; memory is of one device, as its maker states it."""

    name: str
    kind: str  # tpu, gpu, cpu
    devices: int = 1
    memory_bytes: int = 0  # 0: not limited here
    flops_per_s: float = 0.0  # of bf16, at most; 0: not known
    bytes_per_s: float = 0.0  # to and from that memory, at most
    session_hours: float = 0.0  # 0: no limit
    topology: str = ""
    accelerator_type: str = ""


# GiB, bf16 operations and bytes a second, of a device: a core of v3, a chip of the others.
_DEVICES = {
    "v3": (16, 61.5e12, 450e9),
    "v4": (32, 275e12, 1228e9),
    "v5e": (16, 197e12, 819e9),
    "v5p": (95, 459e12, 2765e9),
    "v6e": (32, 918e12, 1640e9),
}


def _tpu(name: str, topology: str, devices: int, accelerator: str = "") -> Target:
    memory_gib, flops_per_s, bytes_per_s = _DEVICES[name.partition("-")[0]]
    return Target(
        name=name,
        kind="tpu",
        devices=devices,
        memory_bytes=memory_gib * _GIB,
        flops_per_s=flops_per_s,
        bytes_per_s=bytes_per_s,
        session_hours=9.0,  # Kaggle
        topology=topology,
        accelerator_type=accelerator or name,
    )


# A v2 or v3 is named by its cores, each a device; v4 and v5p by cores as well, two to a device.
_TPUS = (
    _tpu("v3-8", "v3:2x2", 8),
    _tpu("v4-8", "v4:2x2x1", 4),
    _tpu("v5e-1", "v5e:1x1", 1, "v5litepod-1"),
    _tpu("v5e-4", "v5e:2x2", 4, "v5litepod-4"),
    _tpu("v5e-8", "v5e:2x4", 8, "v5litepod-8"),
    _tpu("v5p-8", "v5p:2x2x1", 4),
    _tpu("v6e-1", "v6e:1x1", 1),
    _tpu("v6e-4", "v6e:2x2", 4),
    _tpu("v6e-8", "v6e:2x4", 8),
)
TARGETS: Mapping[str, Target] = {
    **{target.name: target for target in _TPUS},
    "cpu": Target(name="cpu", kind="cpu"),
}


def find_target(name: str) -> Target:
    """Return a target by name; "gpu-24" is one GPU of 24 GiB.

    Raises PreflightError naming those there are.
    """
    kind, _, size = name.partition("-")
    if kind == "gpu" and size.isdecimal() and int(size) > 0:
        return Target(name=name, kind="gpu", memory_bytes=int(size) * _GIB, session_hours=12.0)
    if name not in TARGETS:
        known = ", ".join((*TARGETS, "gpu-<GiB of memory>"))
        raise PreflightError(f"target {name!r} is unknown: expected one of {known}")
    return TARGETS[name]


def prepare_environment(target: Target) -> None:
    """Let jax compute on the CPU, also beside an accelerator, and libtpu compile for the target.

    To be called before jax looks for its devices; what the user has set stays.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    if target.kind == "tpu":
        os.environ["TPU_ACCELERATOR_TYPE"] = target.accelerator_type
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # two preflights at once
        os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")


def compiler_of(target: Target) -> str:
    """Return the name and version of what compiles for the target.

    Any libtpu that is installed is taken: on a TPU host it is the one that the run will have.
    Raises PreflightError where a TPU's compiler is missing.
    """
    if target.kind != "tpu":
        return f"jaxlib {metadata.version('jaxlib')}"
    try:
        return f"{LIBTPU} {metadata.version(LIBTPU)}"
    except metadata.PackageNotFoundError as error:
        raise PreflightError(
            f"{LIBTPU} is not installed, so nothing can be compiled for a TPU: {INSTALL}"
        ) from error


def target_devices(target: Target) -> Sequence[Any]:
    """Return jax's devices of the target: of a TPU they compile and cannot compute.

    Raises PreflightError for a libtpu that is missing or that refuses the topology.
    """
    import jax
    from jax.experimental import topologies

    if target.kind != "tpu":
        return jax.devices("cpu")[:1]
    compiler = compiler_of(target)
    # By itself libtpu takes a host to have four chips, of which one cannot be a part.
    host = {"chips_per_host_bounds": [1, 1, 1]} if target.devices == 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=target.topology, **host)
    except (RuntimeError, NotImplementedError) as error:  # what XLA's clients raise
        raise PreflightError(
            f"{compiler} cannot describe {target.topology} for {target.name}: {error}"
        ) from error
    if len(found.devices) != target.devices:
        raise PreflightError(
            f"{compiler} gives {len(found.devices)} devices for {target.topology}, "
            f"{target.name} has {target.devices}"
        )
    return found.devices


def target_mesh(target: Target, *, fsdp: int = 0, tp: int = 1) -> "jax.sharding.Mesh":
    """Return the notebooks' mesh over the target's devices. Raises as `target_devices` does."""
    from nblib.models.mesh import device_mesh

    return device_mesh(fsdp, tp, devices=target_devices(target))
