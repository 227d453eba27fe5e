"""One run's folder: where a notebook leaves its files, and the contract that other tools read.

`start_run` makes `runs/<notebook>/<run id>/` or continues the newest unfinished run that has the
same parameters; `finish_run` checks the result, writes it and moves `latest`. A run is unfinished
while it has no `result.json`, or one whose `steps_left` is above 0: its session's time was over.
This module knows nothing of models or tasks, and imports no jax. Files are written by `files`.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from nblib.files import read_json, read_object, to_jsonable, write_json, write_text

# Of every stage in result.json, beside the metrics of its task; null where a file of answers does
# not say which ones were cut.
TRUNCATION = "truncation_rate"
RESULT_KEYS = ("notebook", "task", "profile", "seed", "wall_s", "model", "data", "stages")
# What can change a run's numbers, so what its manifest names.
MANIFEST_PACKAGES = (
    *("nblib", "jax", "jaxlib", "flax", "google-tunix", "qwix", "orbax-checkpoint", "optax"),
    *("grain", "numpy", "scipy", "sentencepiece", "safetensors"),
)
# Where Kaggle attaches datasets, models and outputs; elsewhere a folder that stands for it.
KAGGLE_INPUT = Path(os.environ.get("NBLIB_KAGGLE_INPUT", "/kaggle/input"))
RUNS_VARIABLE = "NBLIB_RUNS_DIR"
POINTER_VARIABLE = "NBLIB_RUN_POINTER"

# Locks held by this process. The operating system drops a lock when its process dies, however it
# dies, so there is no stale lock and no process id that another process could have taken over.
_held_locks: dict[Path, IO[str]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run's folder, new or continued, and what the notebook began with."""

    notebook: str
    path: Path
    resumed: bool
    parameters: Mapping[str, Any]  # every one of the notebook
    devices: Sequence[str]  # the accelerators as jax names them
    started: float  # `time.monotonic()` at the notebook's start

    @property
    def checkpoints(self) -> Path:
        """Where Orbax keeps the training state."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """What the next notebook or another tool loads."""
        return self.path / "export"


def runs_root() -> Path:
    """Return the folder of all runs: `NBLIB_RUNS_DIR`, else Kaggle's kept folder, else `./runs`."""
    default = "/kaggle/working/runs" if os.environ.get("KAGGLE_KERNEL_RUN_TYPE") else "runs"
    return Path(os.environ.get(RUNS_VARIABLE) or default)


def start_run(
    notebook: str,
    parameters: Mapping[str, Any],
    *,
    devices: Sequence[str] = (),
    started: float | None = None,
    root: Path | None = None,
) -> Run:
    """Continue the newest unfinished run with these parameters, or make a new one.

    A run with checkpoints goes before a newer one without, whose start must have failed. A run
    that another live process holds is left alone: a second process gets a new folder.
    `config.json` holds the parameters. When the variable `NBLIB_RUN_POINTER` names a file, the
    run's path is written there, so that the program that started the notebook finds its run.
    `started` is now when None, `root` is `runs_root()`.

    Raises:
        OSError: the folder cannot be written, or the disk is full; no part of a run is left.
    """
    folder = (root or runs_root()).resolve() / notebook
    config = to_jsonable(parameters)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        continued = _continued_run(folder, config)
        path = continued or _new_run(folder, config)
    except OSError as error:
        raise type(error)(
            f"{error.strerror}: '{folder}': set {RUNS_VARIABLE} to a folder that can be written"
        ) from error
    if pointer := os.environ.get(POINTER_VARIABLE):
        write_text(Path(pointer), str(path))
    return Run(
        notebook=notebook,
        path=path,
        resumed=continued is not None,
        parameters=parameters,
        devices=devices,
        started=time.monotonic() if started is None else started,
    )


def finish_run(run: Run, result: Mapping[str, Any], *, metrics: Sequence[str]) -> None:
    """Check `result` against the contract, write `result.json` and point `latest` at this run.

    Every stage of the result is `{"n", metric, metric + "_ci95", ...}` with all the `metrics` of
    the task.

    Raises:
        ValueError: a key is missing, or a metric is outside 0..1 or outside its own interval.
    """
    content = to_jsonable(result)
    _check_result(content, notebook=run.notebook, metrics=(*metrics, TRUNCATION))
    write_json(run.path / "result.json", content)
    point_latest(run.path)
    _unlock(run.path)


def write_manifest(run: Run, *, hashes: Mapping[str, str | int]) -> dict[str, Any]:
    """Write `manifest.json` and return it: versions, Python, platform, commit, devices, hashes.

    The hashes are of what went in: `{"data/train": "<sha256>", "tokenizer": ..., "model": ...}`.
    """
    manifest = {
        "versions": {name: _installed_version(name) for name in MANIFEST_PACKAGES},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "hashes": dict(hashes),
        "devices": list(run.devices),
    }
    write_json(run.path / "manifest.json", manifest)
    return manifest


def is_unfinished(path: Path, config: Any) -> bool:
    """Whether a run's folder can be continued with these parameters, as `to_jsonable` gives."""
    try:
        if read_json(path / "config.json") != config:
            return False
        return not is_finished(path)
    # No run, one that hardly began, or one whose parameters cannot be read.
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def is_finished(path: Path) -> bool:
    """Whether a run's folder has a result, and no step is left; ValueError where it is damaged."""
    result = path / "result.json"
    return result.is_file() and not read_object(result).get("steps_left", 0) > 0


def has_checkpoints(path: Path) -> bool:
    """Whether the training of a run's folder has saved something."""
    return any(path.glob("checkpoints/*/*"))


def _continued_run(folder: Path, config: Any) -> Path | None:
    runs = (path for path in folder.iterdir() if not path.is_symlink())
    # Names begin with the time: newest first.
    for path in sorted(runs, key=lambda run: (has_checkpoints(run), run.name), reverse=True):
        if is_unfinished(path, config) and _lock(path):
            print(f"continuing the unfinished run {path}", flush=True)
            return path
    return None


def _new_run(folder: Path, config: Any) -> Path:
    canonical = json.dumps(config, sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    path = _new_folder(folder, f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{digest}")
    try:
        _lock(path)  # before config.json: without it no process continues this folder
        write_json(path / "config.json", config)
    except OSError:
        _unlock(path)
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


def _new_folder(folder: Path, run_id: str) -> Path:
    """Two runs may start in the same second: the later one gets a suffix."""
    path, number = folder / run_id, 1
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
            path = folder / f"{run_id}-{number}"


def _lock(path: Path) -> bool:
    """Hold the run for this process; False when another live process holds it."""
    if path in _held_locks:  # a cell run twice in one kernel
        return True
    file = (path / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _held_locks[path] = file
    # A forked data worker must not keep the run locked after its parent was killed.
    os.register_at_fork(after_in_child=file.close)
    return True


def _unlock(path: Path) -> None:
    lock = _held_locks.pop(path, None)
    if lock is not None:
        lock.close()


def point_latest(path: Path) -> None:
    """Make `latest` a link to this run or, where there are no links, write `latest.txt`."""
    temporary = path.parent / f".latest.{os.getpid()}.tmp"
    try:
        temporary.symlink_to(path.name)
        os.replace(temporary, path.parent / "latest")
    except OSError:  # a file system without symbolic links, or a copied folder in the way
        temporary.unlink(missing_ok=True)
        write_text(path.parent / "latest.txt", path.name + "\n")


def _check_result(result: Mapping[str, Any], *, notebook: str, metrics: Sequence[str]) -> None:
    where = f"result.json of {notebook}"
    _require(result, RESULT_KEYS, where)
    _expect(result["notebook"] == notebook, result, "notebook", where, repr(notebook))
    is_left = isinstance(left := result.get("steps_left", 0), int) and left >= 0
    _expect(is_left, result, "steps_left", where, "a number of steps")
    # A run without evaluation has no stage at all.
    for name, stage in result["stages"].items():
        check_stage(stage, metrics, f"{where}, stage {name}")


def check_stage(stage: Any, metrics: Sequence[str], where: str) -> None:
    """Check these metrics of a stage of `result.json`; a ValueError begins with `where`."""
    if not isinstance(stage, dict):
        raise ValueError(f"{where} is {stage!r}, expected an object")
    _require(stage, ("n", *metrics, *(f"{name}_ci95" for name in metrics)), where)
    is_count = isinstance(stage["n"], int) and stage["n"] >= 1
    _expect(is_count, stage, "n", where, "the number of items, at least 1")
    for name in metrics:
        value, interval = stage[name], stage[f"{name}_ci95"]
        if value is None and interval is None:  # there was nothing that it is a share of
            continue
        around = f"[low, high] in 0..1 around {value}"
        _expect(_is_fraction(value), stage, name, where, "a fraction in 0..1")
        _expect(_is_interval_around(value, interval), stage, f"{name}_ci95", where, around)


def _require(content: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")


def _expect(kept: bool, content: Mapping[str, Any], key: str, where: str, expected: str) -> None:
    if not kept:
        raise ValueError(f"{where}: {key} is {content[key]!r}, expected {expected}")


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _is_interval_around(figure: float, value: Any) -> bool:
    rounding = 1e-9  # an interval's end at 0 or 1 comes out of floating point arithmetic
    match value:
        case [low, high] if _is_fraction(low) and _is_fraction(high):
            return bool(low - rounding <= figure <= high + rounding)
    return False


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The checkout's commit, with "-dirty" when files differ from it; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here, or a stuck one
        return None
    return answer.stdout.strip() or None
