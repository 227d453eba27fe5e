"""The machines that a preflight can compile for, on a machine that has none of them.

The `libtpu` wheel, the extra `preflight`, compiles for TPUs on any Linux machine. Topologies and
memory: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm
"""

import os
import re
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

INSTALL = "python -m pip install -e '.[preflight]'"
_GIB = 2**30
_KAGGLE_DEVICES = 8  # at most, and 9 hours of them
# Topology and devices. The names of v3, v4 and v5p count cores, of which a v4 and v5p chip has two.
TPUS = {
    "v3-8": ("v3:2x2", 8),
    "v4-8": ("v4:2x2x1", 4),
    "v5e-1": ("v5e:1x1", 1),
    "v5e-4": ("v5e:2x2", 4),
    "v5e-8": ("v5e:2x4", 8),
    "v5e-16": ("v5e:4x4", 16),  # a slice of a pod: four hosts of four chips, a process on each
    "v5e-32": ("v5e:4x8", 32),
    "v5p-8": ("v5p:2x2x1", 4),
    "v6e-1": ("v6e:1x1", 1),
    "v6e-4": ("v6e:2x2", 4),
    "v6e-8": ("v6e:2x4", 8),
}
# Of a device, a core of a v3 and a chip of the others: bytes, bf16 operations and bytes a second.
_DEVICES = {
    "v3": (16 * _GIB, 61.5e12, 450e9),
    "v4": (32 * _GIB, 275e12, 1228e9),
    "v5e": (16 * _GIB, 197e12, 819e9),
    "v5p": (95 * _GIB, 459e12, 2765e9),
    "v6e": (32 * _GIB, 918e12, 1640e9),
}

_DEVICES_FLAG = "--xla_force_host_platform_device_count"
_GPUS = re.compile(r"gpu-([1-9]\d{0,3})(?:x([1-8]))?")
# GiB of the free GPUs, a T4 (15) or a P100 (16), older than those with bf16 units.
_LARGEST_OLD = 16


class PreflightError(ValueError):
    """A preflight that cannot be done; the message says what to do instead."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A machine to compile for; memory and peak speeds are of one device, 0 where not limited."""

    name: str
    kind: str  # tpu, gpu, cpu
    devices: int = 1
    memory_bytes: int = 0
    flops_per_s: float = 0.0  # in bf16
    bytes_per_s: float = 0.0  # to and from the memory
    session_hours: float = 0.0
    topology: str = ""
    has_bf16: bool = True  # units for it; in its place a run takes float32


def find_target(name: str) -> Target:
    """Return a target by name; "gpu-24" is one GPU of 24 GiB, "gpu-15x2" two of 15.

    Raises PreflightError naming those there are.
    """
    if name == "cpu":
        return Target(name=name, kind="cpu")
    if gpus := _GPUS.fullmatch(name):
        size, count = int(gpus[1]), int(gpus[2] or 1)
        return Target(
            name=name,
            kind="gpu",
            devices=count,
            memory_bytes=size * _GIB,
            session_hours=12.0,
            has_bf16=size > _LARGEST_OLD,
        )
    kind = name.partition("-")[0]
    if name not in TPUS:
        known = ", ".join((*TPUS, "cpu", "gpu-<GiB of memory>", "gpu-<GiB>x<devices>"))
        raise PreflightError(f"target {name!r} is unknown: expected one of {known}")
    topology, devices = TPUS[name]
    memory_bytes, flops_per_s, bytes_per_s = _DEVICES[kind]
    return Target(
        name=name,
        kind="tpu",
        devices=devices,
        memory_bytes=memory_bytes,
        flops_per_s=flops_per_s,
        bytes_per_s=bytes_per_s,
        session_hours=9.0 if devices <= _KAGGLE_DEVICES else 0.0,
        topology=topology,
    )


def prepare_environment(target: Target) -> None:
    """Set the variables by which jax computes on the CPU and libtpu compiles for the target.

    To be called before jax looks for its devices; variables of libtpu that the user has set stay.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    if target.kind == "gpu" and target.devices > 1:  # parts of this CPU stand for them
        flags = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES_FLAG}={target.devices}"
        os.environ["XLA_FLAGS"] = flags.strip()
    if target.kind == "tpu":
        os.environ["TPU_ACCELERATOR_TYPE"] = target.name.replace("v5e", "v5litepod")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # two preflights at once
        os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")


def compiler_of(target: Target) -> str:
    """Return name and version of the compiler for the target: for a TPU the libtpu installed here.

    Raises PreflightError where that is missing.
    """
    package = "libtpu" if target.kind == "tpu" else "jaxlib"
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError as error:
        raise PreflightError(
            f"{package} is not installed, so nothing can be compiled for a TPU: {INSTALL}"
        ) from error


def target_devices(target: Target) -> list[Any]:
    """Return jax's devices of the target; those of a TPU can be compiled for and compute nothing.

    Raises PreflightError for a libtpu that is missing or that refuses the topology.
    """
    import jax
    from jax.experimental import topologies

    if target.kind != "tpu":
        return jax.devices("cpu")[: target.devices]
    compiler = compiler_of(target)
    # Without this libtpu assumes a host of four chips, and refuses a topology of one.
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
