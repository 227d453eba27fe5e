"""One session of a notebook: its host, settings and devices, its hours and its disk space.

A hosted session ends at its limit, also in the middle of a step. So the time for what follows the
training is kept back, estimated from what was measured before it and from sizes, and the training
gets the rest. On Kaggle only /kaggle/working is kept, 20 GB of it.
"""

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import psutil
from IPython.display import display

from nblib.files import to_jsonable
from nblib.hosts.host import Host, this_host, where_am_i
from nblib.hosts.secrets import provide_tokens
from nblib.hosts.settings_base import Settings
from nblib.hosts.shared_run import start_shared_run
from nblib.models.mesh import device_mesh, mesh_summary
from nblib.report.tables import Table, settings_table
from nblib.runs import Run
from nblib.training.checkpoints import KEEP
from nblib.training.session import duration

# https://www.kaggle.com/docs/notebooks: hours of one session, and what is kept of its folder.
KAGGLE_HOURS: Mapping[str, float] = {"tpu": 9.0, "gpu": 12.0, "cpu": 12.0}
KAGGLE_KEPT, KAGGLE_KEPT_BYTES = Path("/kaggle/working"), 20e9
_EVALUATION_SHARE = 1.5  # of the evaluation before: the tuned model may write at greater length
_EXPORT_S = 60.0  # loading and compiling again, to compare
_EXPORT_BYTES_PER_S = 25e6  # merged, written, hashed, read again and compared
_SPARE_SHARE = 0.02  # of the session: the last checkpoint, plots, the report
_STATE_BYTES = 12  # of a trained weight in a checkpoint: itself and Adam's two moments, in fp32
_WEIGHT_BYTES = 4  # of any weight in an export, in fp32
_LOG_BYTES = 0.1e9  # metrics, rollouts, predictions, the report

S = TypeVar("S", bound=Settings)


class NotEnoughSpace(OSError):
    """The disk would be full before the training has ended."""


@dataclass(frozen=True, kw_only=True)
class Session(Generic[S]):
    """One session of a notebook; `begin` makes it."""

    host: Host
    settings: S
    mesh: jax.sharding.Mesh
    limit_s: float  # infinite where the host sets none
    began: float  # Unix time
    started: float  # time.monotonic() at the notebook's start

    @property
    def used_s(self) -> float:
        """Seconds since the session began."""
        return time.time() - self.began

    @property
    def hours(self) -> str:
        """How much of the session is used, in words."""
        if math.isinf(self.limit_s):
            return "no limit; set SESSION_HOURS where there is one"
        return f"{duration(self.used_s)} of {duration(self.limit_s)} are used"

    def start_run(self, notebook: str, **also: Any) -> Run:
        """Start the run of these settings, or continue an unfinished one, and show its parameters.

        One that was killed, or whose session was over, is found again by its parameters, among the
        local runs or in an attached output.

        Args:
            notebook: its name, such as "v1_sft_format".
            also: more that a run is found by, such as the hash of the model it starts from.
        """
        parameters = {**self.settings.parameters, **also}
        devices = self.host.devices
        run = start_shared_run(notebook, parameters, devices=devices, started=self.started)
        display(settings_table(to_jsonable(parameters), title=f"Settings of {run.path}"))
        return run

    def training_s(self, evaluation_s: float, *, exported: int) -> float:
        """Return the seconds that training may take, and print how they were found.

        Args:
            evaluation_s: what the evaluation before the training took, of as many questions as
                the one after it.
            exported: weights of the model that will be exported.
        """
        if math.isinf(self.limit_s):
            return math.inf
        evaluation = _EVALUATION_SHARE * evaluation_s
        export = _EXPORT_S + exported * _WEIGHT_BYTES / _EXPORT_BYTES_PER_S
        spare = _SPARE_SHARE * self.limit_s
        left = self.limit_s - self.used_s - evaluation - export - spare
        print(
            f"session: {self.hours}; kept back are {duration(evaluation)} to evaluate "
            f"({_EVALUATION_SHARE:g} times the {duration(evaluation_s)} before training), "
            f"{duration(export)} to export {exported:,} weights, {duration(spare)} to spare: "
            f"{duration(left)} to train",
            flush=True,
        )
        return max(0.0, left)


def begin(settings_type: type[S], parameters: Mapping[str, Any]) -> Session[S]:
    """Begin a notebook's session: find host, devices and tokens, check the settings, show all.

    The session is counted from the start of this process, the notebook's kernel. Its limit is
    SESSION_HOURS, else 9 hours on a Kaggle TPU, 12 on Kaggle's other machines, and none elsewhere:
    Colab does not say its own.

    Args:
        settings_type: the class of the notebook's settings.
        parameters: the notebook's `globals()`, with its parameters in capitals.

    Raises:
        AcceleratorMissing: PROFILE, or the host's image, asks for another device than jax has.
        ValueError: a parameter that cannot work, by its name.
    """
    started = time.monotonic()
    host = where_am_i(parameters.get("PROFILE", "auto"))
    settings = settings_type.of(parameters)
    usual = KAGGLE_HOURS[host.backend] if host.name == "kaggle" else math.inf
    session = Session(
        host=host,
        settings=settings,
        mesh=device_mesh(),
        limit_s=3600 * (settings.session_hours or usual),
        began=psutil.Process().create_time(),
        started=started,
    )
    tokens = ", ".join(f"{name} ({where})" for name, where in provide_tokens().items())
    mesh = mesh_summary(session.mesh)
    facts = {**host.facts, "mesh": mesh, "hours": session.hours, "credentials": tokens or "none"}
    display(Table(columns=("session", ""), rows=tuple(facts.items())))
    return session


def check_disk_space(run: Path, *, trained: int, exported: int) -> str:
    """Return a line on the disk space that a training needs in its run's folder, and what is free.

    Args:
        run: the run's folder, or what there is above it; checkpoints in it are not needed again.
        trained: weights that are trained, each with the optimizer's state in every checkpoint.
        exported: weights of the whole model.

    Raises:
        NotEnoughSpace: less is free; says what to delete or to change.
    """
    # A new checkpoint is written before the oldest is deleted.
    checkpoints = (KEEP + 1) * trained * _STATE_BYTES
    exports = (exported + trained) * _WEIGHT_BYTES
    needed = max(0, checkpoints - _size_bytes(run / "checkpoints")) + exports + _LOG_BYTES
    free = free_bytes(run)
    line = (
        f"{_gigabytes(needed)} are needed ({KEEP + 1} checkpoints of "
        f"{_gigabytes(trained * _STATE_BYTES)}, export and adapters {_gigabytes(exports)}, logs), "
        f"{_gigabytes(free)} are free"
    )
    if needed > free:
        raise NotEnoughSpace(
            f"{line} at {run}. Delete older runs beside it, or lower LORA_RANK; a local run may "
            "set NBLIB_RUNS_DIR to a folder on a larger disk."
        )
    return line


def free_bytes(folder: Path) -> float:
    """Return how much can still be written and kept at a folder that is there."""
    free = float(shutil.disk_usage(folder).free)
    if this_host() == "kaggle" and folder.resolve().is_relative_to(KAGGLE_KEPT):
        return min(free, KAGGLE_KEPT_BYTES - _size_bytes(KAGGLE_KEPT))
    return free


def _size_bytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)


def _gigabytes(size_bytes: float) -> str:
    small = size_bytes < 5e7
    return f"{size_bytes / 1e6:.0f} MB" if small else f"{size_bytes / 1e9:.1f} GB"
