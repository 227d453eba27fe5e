"""One training session: when to stop, what it says at its end, and what a killed one leaves.

Shared by `sft` and `grpo`. A session ends early on SIGTERM (the host takes the machine back) or at
a deadline (a notebook's time limit); both end the data stream, so that the trainer saves and closes
as it does at its own end.
"""

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nblib.runs import read_jsonl, write_jsonl


class TrainingStopped(RuntimeError):
    """Training was asked to stop; what it had is saved and can be gone on from."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left: steps done of steps planned, and the step it began at."""

    steps: int
    planned: int
    resumed_at: int


class Session:
    """Within the block, SIGTERM and the deadline end the training instead of the process."""

    def __init__(self, deadline_s: float = float("inf")) -> None:
        self.stopped_by = ""
        self._ends = time.perf_counter() + deadline_s

    def __enter__(self) -> "Session":
        def handle(signum: int, frame: FrameType | None) -> None:
            self.stopped_by = "SIGTERM"

        self._before = signal.signal(signal.SIGTERM, handle)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    @property
    def over(self) -> bool:
        """Whether no further step may begin."""
        return bool(self.stopped_by) or time.perf_counter() > self._ends

    def raise_if_stopped(self, steps: int, planned: int, folder: Path) -> None:
        """Raise TrainingStopped where a signal, not the deadline, ended the training."""
        if self.stopped_by:
            raise TrainingStopped(
                f"{self.stopped_by}: saved at step {steps} of {planned} in {folder}. "
                "Run the same command again to go on."
            )


def forget_metrics_after(path: Path, step: int) -> None:
    """Drop what a killed run logged after its last checkpoint, and what is measured again now.

    At `step` itself the training record stays; a record of a measurement (`val_loss`,
    `probe_accuracy`) goes, because it is made again when the training goes on.
    """
    if not path.is_file():
        return
    kept = (
        record
        for record in read_jsonl(path)
        if record["step"] < step or (record["step"] == step and "loss" in record)
    )
    write_jsonl(path, kept)
