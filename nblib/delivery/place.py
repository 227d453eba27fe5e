"""Where a notebook runs: Kaggle, Colab or a local machine, and on which devices."""

import os
import platform
import sys
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Place:
    """The host and the devices that jax uses there."""

    host: str  # kaggle, colab, local
    python: str
    backend: str  # cpu, gpu, tpu
    devices: tuple[str, ...]
    cores: int

    def __str__(self) -> str:
        """One line for a notebook to print."""
        kinds = f"{len(self.devices)} x {self.devices[0]}"
        return f"{self.host}, Python {self.python}, {self.backend}: {kinds}, {self.cores} CPU cores"


def where_am_i() -> Place:
    """Return the place; this asks jax for its devices."""
    import jax

    return Place(
        host=_host(),
        python=platform.python_version(),
        backend=jax.default_backend(),
        devices=tuple(device.device_kind for device in jax.devices()),
        cores=os.cpu_count() or 1,
    )


def _host() -> str:
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return "kaggle"
    return "colab" if "google.colab" in sys.modules else "local"
