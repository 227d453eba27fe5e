"""Speed and memory side by side with Tunix as it comes: `python -m benchmarks`, from a checkout.

Not part of nblib's wheel; nblib imports nothing of it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a bench's own process: jax on the CPU, this package importable."""
    path = os.pathsep.join(filter(None, (str(_CHECKOUT), environment.get("PYTHONPATH"))))
    return {**environment, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
