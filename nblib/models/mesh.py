"""The device mesh: axes `fsdp` and `tp`, every device used.

Tunix reads the mesh from `with mesh:`; under `jax.set_mesh` it sees none and replicates the batch.
"""

import jax
import numpy as np


def device_mesh(fsdp: int = 0, tp: int = 1) -> jax.sharding.Mesh:
    """Return a mesh over all devices; `fsdp` 0 means all that `tp` leaves.

    Raises ValueError when the axes do not use every device.
    """
    devices = jax.devices()
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
