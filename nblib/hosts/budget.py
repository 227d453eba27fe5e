"""What a session may use, said before training begins: hours, and room on the disk.

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

from nblib.hosts.place import Place, this_host
from nblib.training.checkpoints import KEEP
from nblib.training.session import duration

# https://www.kaggle.com/docs/notebooks: hours of one session, and what is kept of its folder.
KAGGLE_HOURS: Mapping[str, float] = {"tpu": 9.0, "gpu": 12.0, "cpu": 12.0}
KAGGLE_KEPT, KAGGLE_KEPT_BYTES = Path("/kaggle/working"), 20e9
_EVALUATION_SHARE = 1.5  # of the evaluation before: the tuned model may write at greater length
_EXPORT_S = 60.0  # loading and compiling again, to compare
_EXPORT_BYTES_A_SECOND = 25e6  # merged, written, hashed, read again and compared
_SPARE_SHARE = 0.02  # of the session: the last checkpoint, plots, the report
_STATE_BYTES = 12  # of a trained weight in a checkpoint: itself and Adam's two moments, in fp32
_WEIGHT_BYTES = 4  # of any weight in an export, in fp32
_LOG_BYTES = 0.1e9  # metrics, rollouts, predictions, the report


class NotEnoughRoom(OSError):
    """The disk would be full before the training has ended."""


@dataclass(frozen=True, kw_only=True)
class SessionBudget:
    """The hours of one session, and when it began."""

    limit_s: float  # infinite where the place sets none
    began: float  # Unix time

    def __post_init__(self) -> None:
        """Refuse a session without time."""
        if not self.limit_s > 0:
            raise ValueError(
                f"SESSION_HOURS {self.limit_s / 3600:g} must be above 0, or 0 for what is usual "
                "where this runs"
            )

    def __str__(self) -> str:
        """One line for a notebook to print."""
        if math.isinf(self.limit_s):
            return "session: no limit; set SESSION_HOURS where there is one"
        return f"session: {duration(self.used_s)} of {duration(self.limit_s)} are used"

    @property
    def used_s(self) -> float:
        """Seconds since the session began."""
        return time.time() - self.began

    def training_s(self, *, evaluation_s: float, exported: int) -> float:
        """Return the seconds that training may take, and print how they were found.

        Args:
            evaluation_s: what the evaluation before the training took, of as many questions as
                the one after it.
            exported: weights of the model that will be exported.
        """
        if math.isinf(self.limit_s):
            return math.inf
        evaluation = _EVALUATION_SHARE * evaluation_s
        export = _EXPORT_S + exported * _WEIGHT_BYTES / _EXPORT_BYTES_A_SECOND
        spare = _SPARE_SHARE * self.limit_s
        left = self.limit_s - self.used_s - evaluation - export - spare
        print(
            f"{self}; kept back are {duration(evaluation)} to evaluate ({_EVALUATION_SHARE:g} "
            f"times the {duration(evaluation_s)} before training), {duration(export)} to export "
            f"{exported:,} weights, {duration(spare)} to spare: {duration(left)} to train",
            flush=True,
        )
        return max(0.0, left)


def session_budget(place: Place, hours: float = 0.0) -> SessionBudget:
    """Return the session of this process; `hours` 0 means what is usual at the place.

    That is 9 hours on a Kaggle TPU, 12 on its other machines, and no limit elsewhere: Colab does
    not say its own. The session is counted from the start of this process, the notebook's kernel.
    Raises ValueError for hours below 0.
    """
    import psutil

    usual = KAGGLE_HOURS[place.backend] if place.host == "kaggle" else math.inf
    began = psutil.Process().create_time()
    return SessionBudget(limit_s=3600 * (hours or usual), began=began)


def check_room(run: Path, *, trained: int, exported: int) -> str:
    """Return a line on the room that a training needs in its run's folder, and what there is.

    Args:
        run: the run's folder, or what there is above it; checkpoints in it are not needed again.
        trained: weights that are trained, each with the optimizer's state in every checkpoint.
        exported: weights of the whole model.

    Raises:
        NotEnoughRoom: less is free; says what to delete or to change.
    """
    # A new checkpoint is written before the oldest is deleted.
    checkpoints = (KEEP + 1) * trained * _STATE_BYTES
    exports = (exported + trained) * _WEIGHT_BYTES
    missing = max(0, checkpoints - _size_bytes(run / "checkpoints"))
    needed = missing + exports + _LOG_BYTES
    free = free_bytes(run)
    line = (
        f"{_gigabytes(needed)} are needed ({KEEP + 1} checkpoints of "
        f"{_gigabytes(trained * _STATE_BYTES)}, export and adapters {_gigabytes(exports)}, logs), "
        f"{_gigabytes(free)} are free"
    )
    if needed > free:
        raise NotEnoughRoom(
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
