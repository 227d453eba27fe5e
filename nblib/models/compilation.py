"""Compiled programs on the disk, so that the next run of the same code starts without compiling.

jax's own cache finds a program by its text, by versions and flags, and by the kind of its devices,
for a CPU its features: https://docs.jax.dev/en/latest/persistent_compilation_cache.html
Here it gets a folder, a limit, and all programs, the small ones too. What is computed by such
programs can be kept as well, under `code_digest` and `machine_name`.
"""

import hashlib
import platform as python_platform
import re
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import jax

MOST_BYTES = 2 * 10**9  # of all machines together; v1 of the embedded model leaves 5 MB
_FREE_BYTES = 10**9  # of the disk, below which nothing is kept: a run needs them more
_CPUS = Path("/proc/cpuinfo")
_CPU = re.compile(r"^(?:model name|flags|Features)\s*:.*$", re.MULTILINE)


def keep_compiled(root: Path, platform: str) -> str:
    """Keep what jax compiles below `root` from now on, and return a line that says so.

    The least recently used programs go first where the folder is above `MOST_BYTES`. What the user
    has set, by JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE, stays. A folder that
    cannot be written is no error: the line says why nothing is kept.

    >>> keep_compiled(Path("~/.cache/nblib").expanduser(), "cpu")
    '143 programs of earlier runs are in /home/me/.cache/nblib/compiled/cpu-0.10.2-5e2a90c1'
    """
    folder = root / "compiled" / machine_name(platform)
    given = jax.config.jax_compilation_cache_dir
    if not jax.config.jax_enable_compilation_cache:
        return "not kept, as jax_enable_compilation_cache is off"
    if given and given != str(folder):
        return f"kept in {given}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # can it be written?
            free = shutil.disk_usage(folder).free
        _drop_oldest(folder.parent)
        found = sum(1 for _ in folder.glob("*-cache"))
    except OSError as error:
        return f"not kept for later runs: {error}"
    if free < _FREE_BYTES:
        return f"not kept for later runs: {free / 1e9:.1f} GB are free at {folder}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # The small ones are many: together they take as long to compile as a training step.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if not found:
        return f"none of earlier runs, compiling takes its time; kept in {folder}"
    return f"{found} programs of earlier runs are in {folder}"


@cache
def machine_name(platform: str) -> str:
    """Return a name for what runs the programs: jax's platform, jaxlib, the CPU and its features.

    A home folder may be shared by machines, and another CPU cannot run each program of this one.
    """
    try:
        facts = _CPU.findall(_CPUS.read_text(encoding="utf-8"))
    except OSError:  # no Linux
        facts = [python_platform.processor()]
    cpu = repr((python_platform.machine(), sorted(set(facts))))
    return f"{platform}-{metadata.version('jaxlib')}-{hashlib.sha256(cpu.encode()).hexdigest()[:8]}"


def computed_by(mesh: jax.sharding.Mesh) -> str:
    """Return what a model's answers depend on beside the model: machine, devices, and our code."""
    device = mesh.devices.flat[0]
    code = code_digest(("tokens", "models"), ("jax", "jaxlib", "google-tunix"))[:12]
    return f"{mesh.size} x {device.device_kind}, {machine_name(device.platform)}, code {code}"


def code_digest(rooms: Iterable[str], packages: Iterable[str]) -> str:
    """Return a hash of the sources of rooms of nblib, and of the versions of packages.

    >>> code_digest(["tokens", "models"], ["jaxlib"])
    '9f86d081884c7d659a2feaa0c55ad015...'
    """
    digest = hashlib.sha256()
    for room in rooms:
        for path in sorted((Path(__file__).parents[1] / room).glob("*.py")):
            digest.update(path.read_bytes())
    for name in packages:
        digest.update(f"{name}=={_version(name)} ".encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _drop_oldest(folder: Path) -> None:
    """Delete the programs, of any machine, that were not used for longest, down to the limit."""
    files = [(path, path.stat()) for path in folder.rglob("*-cache")]
    files.sort(key=lambda one: max(one[1].st_atime, one[1].st_mtime), reverse=True)
    total = 0
    for path, stat in files:
        total += stat.st_size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)
