"""The host that a notebook runs on: Kaggle, Colab or a local machine, and its devices.

Asked for before anything else starts jax's devices: a poisoned variable is cleaned before libtpu
reads it, and a missing accelerator stops the run at once.
"""

import os
import platform
import re
import socket
import sys
import tempfile
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.files import cache_folder
from nblib.hosts.launch import ALONE, Launch, join
from nblib.runs import runs_root

# Lists of hosts: names or addresses, some with ports, brackets around IPv6.
_TPU_LISTS = ("TPU_WORKER_HOSTNAMES", "TPU_WORKER_ADDRS")
_HOSTS = re.compile(r"[\w.:\[\]-]+(,[\w.:\[\]-]+)*")
_INTERNET = ("huggingface.co", 443)
_INTERNET_TIMEOUT_S = 2.0
_CURES = {
    "kaggle": (
        "Choose it under Settings, Accelerator (TPU v5e-8), or say so in kernel-metadata.json, "
        '"machine_shape": "TpuV5E8" and no docker_image: with one Kaggle gives a CPU image and '
        "says nothing."
    ),
    "colab": "Choose it under Runtime, Change runtime type, and connect again.",
    "local": 'Install jax for it: pip install "jax[tpu]", or "jax[cuda12]" for a GPU.',
}


class AcceleratorMissing(RuntimeError):
    """The accelerator that was asked for is not there."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine, the devices that jax uses on it, and where files are kept."""

    name: str  # kaggle, colab, local
    run_type: str  # Batch or Interactive on Kaggle, else ""
    python: str
    backend: str  # cpu, gpu, tpu
    devices: tuple[str, ...]
    device_bytes: int | None  # memory of one device; None where it does not say
    cores: int
    working: Path
    scratch: Path
    internet: bool | None  # None: not asked
    launch: Launch = ALONE
    compiled: str = ""  # programs of earlier runs, in words

    @property
    def facts(self) -> dict[str, str]:
        """What a reader wants to know of the host, each in a few words."""
        memory = f", {self.device_bytes / 2**30:.1f} GiB each" if self.device_bytes else ""
        launch = self.launch
        internet = {None: {}, True: {"internet": "yes"}, False: {"internet": "no"}}[self.internet]
        return {
            "host": f"{self.name} {self.run_type}".strip(),
            "Python": self.python,
            "devices": f"{len(self.devices)} x {self.devices[0]} ({self.backend}){memory}",
            "CPU cores": str(self.cores),
            "runs": f"{self.working}, kept" if self.name == "kaggle" else str(self.working),
            "scratch": str(self.scratch),
            "compiled programs": self.compiled,
            **internet,
            **({"process": f"{launch.number} of {launch.count}"} if launch.count > 1 else {}),
        }


def where_am_i(profile: str = "auto") -> Host:
    """Return the host; this asks jax for its devices, and keeps what it compiles from now on.

    Poisoned TPU variables are cleaned before, with a line for each.

    Args:
        profile: the notebook's; "tpu" and "gpu" ask for that accelerator.

    Raises:
        AcceleratorMissing: it was asked for, by the profile or by the host's image, and jax has
            other devices; says what to do.
    """
    for line in clean_tpu_variables(os.environ):
        print(line, flush=True)
    from nblib.models.compilation import keep_compiled  # imports jax

    host = this_host()
    launch = join()
    devices = _devices(profile, host)
    of_others = [one for one in devices if launch.count > 1 and one.process_index != launch.number]
    own = next(one for one in devices if one not in of_others)
    scratch = Path("/kaggle/temp" if host == "kaggle" else tempfile.gettempdir())
    return Host(
        name=host,
        run_type=os.environ.get("KAGGLE_KERNEL_RUN_TYPE", ""),
        python=platform.python_version(),
        backend=devices[0].platform,
        devices=tuple(device.device_kind for device in devices),
        device_bytes=(own.memory_stats() or {}).get("bytes_limit"),
        cores=os.cpu_count() or 1,
        working=runs_root().absolute(),
        scratch=scratch,
        internet=None if host == "local" else _has_internet(),
        launch=launch,
        compiled=keep_compiled(
            scratch if host == "kaggle" else cache_folder(), devices[0].platform
        ),
    )


def clean_tpu_variables(environment: MutableMapping[str, str]) -> list[str]:
    """Put "localhost" for what is no list of hosts, in the variables that libtpu takes for one.

    Where Kaggle's look-up of the TPU's hosts fails, they hold its warning's text, and libtpu does
    not start; without them it looks the hosts up again and may fail in the same way. The chips of a
    notebook's TPU are all on its own machine. Returns a line for each variable that was cleaned.
    """
    lines = []
    for name in _TPU_LISTS:
        value = environment.get(name)
        if value is not None and not _HOSTS.fullmatch(value):
            environment[name] = "localhost"
            lines.append(f"{name} was no list of hosts, now localhost: {value!r}")
    return lines


def _devices(profile: str, host: str) -> list[Any]:
    import jax

    wanted = profile if profile in ("tpu", "gpu") else _promised(profile, host)
    try:
        devices = jax.devices()
    except RuntimeError as error:  # JAX_PLATFORMS names one that is not there
        raise AcceleratorMissing(f"{error}\n{_CURES[host]}") from error
    found = devices[0].platform
    if wanted and found != wanted:
        by = f'PROFILE = "{profile}"' if profile == wanted else "this host's image"
        raise AcceleratorMissing(
            f"{by} asks for a {wanted.upper()}, jax found {len(devices)} x "
            f'{devices[0].device_kind} ({found}). {_CURES[host]} Or set PROFILE = "cpu".'
        )
    return devices


def _promised(profile: str, host: str) -> str:
    """Return the accelerator that a hosted image is made for, "" where it says nothing."""
    hosted = profile == "auto" and host != "local"
    return "tpu" if hosted and os.environ.get("ISTPUVM") else ""


def this_host() -> str:
    """Return "kaggle", "colab" or "local"; starts nothing."""
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return "kaggle"
    return "colab" if "google.colab" in sys.modules else "local"


def _has_internet() -> bool:
    try:
        with socket.create_connection(_INTERNET, timeout=_INTERNET_TIMEOUT_S):
            return True
    except OSError:
        return False
