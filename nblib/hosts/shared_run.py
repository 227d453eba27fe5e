"""One run of several processes: the first writes its folder, the others work on a copy of it.

    runs/v1_sft_format/20260101-120000-0123abcd/                  process 0, on a shared disk
    /tmp/nblib-1-x7_/v1_sft_format/20260101-120000-0123abcd/      process 1, gone when it ends
        checkpoints -> the first one's, into which Orbax lets each process write its part

So all run the same code: each writes and reads again what it needs, such as an export that is
compared with the model in memory, and the first one's files are the run's.
"""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from nblib import __version__
from nblib.files import to_jsonable, write_text
from nblib.hosts.inputs import bring_attached_run
from nblib.models.mesh import device_mesh
from nblib.models.processes import check_same_in_all, in_first, is_first, of_all
from nblib.runs import POINTER_VARIABLE, RUNS_VARIABLE, Run, start_run

_WAIT_S = 60.0  # until a new folder shows on another machine: NFS looks again after 30 s
_copies: list[tempfile.TemporaryDirectory[str]] = []  # each is deleted when this process ends


def start_shared_run(
    notebook: str, parameters: Mapping[str, Any], *, devices: Sequence[str], started: float
) -> Run:
    """Start or continue a run, also one of an attached output; in several processes the same one.

    Raises as `start_run`, and ValueError where the processes were started differently, cannot see
    the run's folder, have no device to use, or ask what may answer each of them differently.
    """
    if jax.process_count() > 1:
        _check_processes(to_jsonable(parameters))
    given: dict[str, Any] = {"devices": devices, "started": started}
    runs: list[Run] = []  # of the first process

    def start() -> tuple[str, bool]:
        bring_attached_run(notebook, parameters)
        runs.append(start_run(notebook, parameters, **given))
        return str(runs[0].path), runs[0].resumed

    path, resumed = in_first(start)
    own = Path(path) if is_first() else _copied(Path(path))
    if blind := [str(number) for number, sees in enumerate(of_all(own.is_dir())) if not sees]:
        raise ValueError(
            f"process {', '.join(blind)} does not see {path}: set {RUNS_VARIABLE} to a folder that "
            "all machines share"
        )
    if is_first():
        return runs[0]
    if pointer := os.environ.get(POINTER_VARIABLE):
        write_text(Path(pointer), str(own))
    return Run(notebook=notebook, path=own, resumed=resumed, parameters=parameters, **given)


def _check_processes(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError, in all processes, where they cannot do this run together."""
    mesh = device_mesh()
    have, used = (
        Counter(one.process_index for one in devices)
        for devices in (jax.devices(), mesh.devices.flat)
    )
    if len({*have.values()}) > 1:  # before anything else: to agree on something needs it
        raise ValueError(
            f"processes have {', '.join(map(str, have.values()))} devices: give each as many"
        )
    if len(used) < len(have):
        raise ValueError(
            f"{len(have)} processes have {have.total()} devices, of which the mesh takes "
            f"{mesh.size}: start so many processes that each has a device in it"
        )
    versions = {"nblib": __version__, "jax": jax.__version__}
    check_same_in_all({**parameters, "versions": versions}, "parameters or versions")
    if asked := [name for name, value in parameters.items() if value == "endpoint"]:
        raise ValueError(
            f"{asked[0].upper()} is an endpoint, which may answer each process differently: run "
            "this notebook in one process"
        )
    if parameters.get("export_flax"):
        raise ValueError(
            "EXPORT_FLAX is written by one process alone: leave it out, and export it from the "
            "run's export/ afterwards"
        )


def _copied(path: Path) -> Path:
    """Return a copy of the first process's folder, but for its checkpoints, which are shared.

    A path that is not there is returned where the folder never shows.
    """
    ends = time.monotonic() + _WAIT_S
    while not (path / "config.json").is_file():
        if time.monotonic() > ends:
            return path / "config.json"
        time.sleep(1.0)
    _copies.append(tempfile.TemporaryDirectory(prefix=f"nblib-{jax.process_index()}-"))
    own = Path(_copies[-1].name, path.parent.name, path.name)
    shutil.copytree(path, own, ignore=shutil.ignore_patterns("checkpoints", ".lock"))
    (own / "checkpoints").symlink_to(path / "checkpoints")
    return own
