"""The device mesh: axes `fsdp` (batch and weights) and `tp` (each layer), and what they divide.

Tunix sees the mesh of `with mesh:` alone; under `jax.set_mesh` it replicates the batch.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import jax
import numpy as np
from jax.interpreters import pxla
from tunix.models.gemma3.model import ModelConfig


def device_mesh(
    fsdp: int = 0, tp: int = 1, *, devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """Return a mesh over the first `fsdp * tp` devices, jax's own if none are given.

    `fsdp` 0 takes the largest power of two that fits beside `tp`; it divides every Gemma 3
    and the usual batches: of 6 devices 4. `mesh_summary` names devices that are left idle.
    Raises ValueError when there are fewer devices.
    """
    devices = jax.devices() if devices is None else devices
    if not fsdp and len(devices) >= tp > 0:
        fsdp = 1 << (len(devices) // tp).bit_length() - 1
    if min(fsdp, tp) < 1 or fsdp * tp > len(devices):
        raise ValueError(
            f"mesh (fsdp {fsdp}, tp {tp}) does not fit {len(devices)} devices: choose axes above 0 "
            f"whose product is at most {len(devices)}"
        )
    return jax.sharding.Mesh(
        np.array(devices[: fsdp * tp]).reshape(fsdp, tp),
        ("fsdp", "tp"),
        axis_types=(jax.sharding.AxisType.Auto,) * 2,
    )


def current_mesh() -> jax.sharding.Mesh:
    """Return the mesh of `with mesh:`, outside of one that of a single device."""
    mesh = pxla.thread_resources.env.physical_mesh
    return device_mesh(1, 1) if mesh.empty else mesh


def current_platform() -> str:
    """Return what the devices are that a program is traced for: "cpu", "gpu" or "tpu"."""
    return str(current_mesh().devices.flat[0].platform)


def check_model_divides(config: ModelConfig, mesh: jax.sharding.Mesh) -> None:
    """Raise ValueError, naming a mesh that does, where the mesh does not divide the weights.

    As Tunix splits them: the width over fsdp; vocabulary, heads and layers' widths over tp.
    """
    width, fsdp, tp = config.embed_dim, mesh.shape["fsdp"], mesh.shape["tp"]
    sizes = [config.num_embed, width, config.hidden_dim, config.num_heads, config.head_dim]
    if config.num_kv_heads > 1:  # a single one is not split
        sizes.append(config.num_kv_heads)
    common = math.gcd(*sizes)
    if width % fsdp == 0 and common % tp == 0:
        return
    best = max(
        (rows * columns, (rows, columns))
        for rows, columns in product(range(1, mesh.size + 1), repeat=2)
        if rows * columns <= mesh.size and width % rows == common % columns == 0
    )[1]
    raise ValueError(
        f"mesh (fsdp {fsdp}, tp {tp}) does not divide the model: fsdp has to divide {width}, its "
        f"width, and tp {common}, which divides its vocabulary, heads and widths: take "
        f"device_mesh{best}"
    )


def check_rows_divide(rows: int, mesh: jax.sharding.Mesh) -> None:
    """Raise ValueError, naming a mesh that does, where fsdp does not divide a batch's rows.

    Tunix would give every device the whole batch.
    """
    fsdp, tp = mesh.shape["fsdp"], mesh.shape["tp"]
    if rows % fsdp:
        raise ValueError(
            f"a batch of {rows} rows cannot be split over fsdp {fsdp}: give it a multiple of "
            f"{fsdp}, or take device_mesh({math.gcd(rows, fsdp)}, {tp})"
        )


def mesh_summary(mesh: jax.sharding.Mesh) -> str:
    """Return a line on the axes, and a warning that names the devices which the mesh leaves idle.

    >>> mesh_summary(device_mesh(8, 1))  # on a TPU v5e-8
    'fsdp 8, tp 1: all 8 devices'
    """
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    devices, used = jax.devices(), set(mesh.devices.flat)
    idle = [str(device) for device in devices if device not in used]
    if not idle:
        return f"{axes}: all {len(devices)} devices"
    return (
        f"{axes}: WARNING, {len(idle)} of {len(devices)} devices are idle: "
        f"{', '.join(idle)}. device_mesh(fsdp, tp) takes more, where its axes divide the model."
    )
