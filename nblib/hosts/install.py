"""The first cell's work: this runtime's packages at the pinned versions, by one resolver call.

Runs before jax is imported and before anything is installed, so it imports the standard library
alone. What is installed is named in `kaggle_install_commands.txt`, which lies at the checkout's
root and travels inside the package. A local checkout is left alone: `make` sets that up.
"""

import glob
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nblib
from nblib.hosts.host import this_host

COMMANDS = Path(__file__).with_name("kaggle_install_commands.txt")
# Any other package that is in use already stays as it is: replaced under a running kernel, its old
# and new modules would mix, and a restart would be needed for no gain.
MUST_MATCH = ("jax", "flax", "google-tunix", "qwix", "orbax-checkpoint", "optax")
# Of the resolver's choice, but if it changes under a running kernel, that must restart as well.
ALSO_LOADED = ("jaxlib", "numpy")
_MODULES = {"google-tunix": "tunix", "orbax-checkpoint": "orbax.checkpoint"}
# What an extra of jax adds, by which it is seen whether it is there.
_EXTRAS = {"tpu": "libtpu", "cuda12": "jax-cuda12-plugin"}
_GOOGLE_PCI_VENDOR = "0x1ae0"  # as jax finds TPU chips, jax._src.hardware_utils


class RestartNeeded(RuntimeError):
    """Packages are in place, but this process has loaded others before."""

    def _render_traceback_(self) -> list[str]:
        """Show the one line that a reader needs; IPython asks for this."""
        return [str(self)]


def install_packages(version: str) -> None:
    """Install what is not there at its pinned version; say nothing when all is.

    Args:
        version: of the notebook, which must be that of this library.

    Raises:
        ValueError: the notebook is of another version than this library.
        RestartNeeded: a package was loaded before at another version.
        subprocess.CalledProcessError: the resolver failed; its output says why.
    """
    if version != nblib.__version__:
        raise ValueError(
            f"this notebook is of nblib {version}, but {nblib.__version__} is installed: "
            "run `pip uninstall -y nblib` and restart the kernel"
        )
    pinned = [_for_accelerator(pin) for pin in pinned_packages()]
    wanted = [pin for pin in pinned if not _may_stay(pin)]
    missing = [pin for pin in wanted if not _is_installed(pin)]
    if missing and _is_local_checkout():
        print(f"not as pinned: {', '.join(missing)}; `make .venv/.ready` installs them")
        return
    if missing:
        print(f"installing {', '.join(missing)}", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *wanted], check=True)
        importlib.invalidate_caches()
    _refuse_stale(wanted)


def pinned_packages() -> list[str]:
    """Return the requirements of the one install command, in its order.

    Raises:
        ValueError: the file holds anything but one `pip install -q`.
    """
    words = shlex.split(COMMANDS.read_text(encoding="utf-8"), comments=True)
    if words[:3] != ["pip", "install", "-q"] or "pip" in words[3:]:
        raise ValueError(f"{COMMANDS}: expected one `pip install -q` of pinned packages")
    return words[3:]


def _for_accelerator(pin: str) -> str:
    """Return jax's pin with the extra for what is in this machine; any other as it is."""
    if not pin.startswith("jax[tpu]"):
        return pin
    if _has_tpu():
        return pin
    return pin.replace("[tpu]", "[cuda12]" if shutil.which("nvidia-smi") else "")


def _has_tpu() -> bool:
    vendors = (Path(file) for file in glob.glob("/sys/bus/pci/devices/*/vendor"))
    return bool(os.environ.get("ISTPUVM")) or any(
        vendor.read_text().strip() == _GOOGLE_PCI_VENDOR for vendor in vendors
    )


def _parsed(pin: str) -> tuple[str, str | None, str]:
    """Split `name[extra]==version`; ValueError for anything else."""
    match = re.fullmatch(r"([\w.-]+)(?:\[(\w+)\])?==([\w.]+)", pin)
    if match is None:
        raise ValueError(f"{COMMANDS}: {pin!r} is no pin, expected name==version")
    return match[1], match[2], match[3]


def _may_stay(pin: str) -> bool:
    name = _parsed(pin)[0]
    return name not in MUST_MATCH and name in sys.modules


def _is_installed(pin: str) -> bool:
    name, extra, version = _parsed(pin)
    return _version(name) == version and (extra is None or _version(_EXTRAS[extra]) is not None)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_local_checkout() -> bool:
    return this_host() == "local" and (Path(nblib.__file__).parents[1] / "pyproject.toml").is_file()


def _refuse_stale(pins: list[str]) -> None:
    """Compare what is in memory with what is on disk."""
    for name in (*(_parsed(pin)[0] for pin in pins), *ALSO_LOADED):
        module = sys.modules.get(_MODULES.get(name, name))
        loaded, installed = getattr(module, "__version__", None), _version(name)
        if loaded not in (None, installed):
            raise RestartNeeded(
                f"{name} {loaded} was loaded before {installed} was installed: restart the kernel "
                "and run all cells again (nothing will be installed then)"
            )
