"""The device mesh: axes `fsdp` and `tp`, every device used.

Tunix reads the mesh from `with mesh:`; under `jax.set_mesh` it sees none and replicates the batch.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def device_mesh(
    fsdp: int = 0, tp: int = 1, *, devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """Return a mesh over all devices, jax's own if none are given; `fsdp` 0: all that `tp` leaves.

    Raises ValueError when the axes do not use every device.
    """
    devices = jax.devices() if devices is None else devices
    fsdp = fsdp or len(devices) // tp
    if fsdp * tp != len(devices):
        raise ValueError(
            f"mesh (fsdp {fsdp}, tp {tp}) uses {fsdp * tp} of {len(devices)} devices: "
            "choose axes whose product is the number of devices"
        )
    return jax.sharding.Mesh(
        np.array(devices).reshape(fsdp, tp),
        ("fsdp", "tp"),
        axis_types=(jax.sharding.AxisType.Auto,) * 2,
    )


def mesh_summary(mesh: jax.sharding.Mesh) -> str:
    """Return a line on the axes, and a warning that names the devices which the mesh leaves idle.

    >>> mesh_summary(device_mesh(8, 1))  # on a TPU v5e-8
    'mesh       fsdp 8, tp 1: all 8 devices'
    """
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    devices, used = jax.devices(), set(mesh.devices.flat)
    idle = [str(device) for device in devices if device not in used]
    if not idle:
        return f"mesh       {axes}: all {len(devices)} devices"
    return (
        f"mesh       {axes}: WARNING, {len(idle)} of {len(devices)} devices are idle: "
        f"{', '.join(idle)}. Choose axes whose product is {len(devices)}."
    )
