"""One training session: when to stop, what is written down of its steps, what a killed one leaves.

Shared by `sft` and `grpo`. A session ends early on SIGTERM (the host takes the machine back) or at
a deadline (a notebook's time limit); both end the data stream, so that the trainer saves and closes
as it does at its own end.
"""

import math
import signal
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from nblib.files import append_jsonl, read_jsonl, write_jsonl
from nblib.training.divergence import FiniteGuard

_LOG_EVERY_S = 15.0
_PLAN_AFTER = 5  # measured steps: the first ones of a run are no rule


class TrainingStopped(RuntimeError):
    """Training was asked to stop; what it had is saved and can be gone on from."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left: steps done of steps planned, and the step it began at."""

    steps: int
    planned: int
    resumed_at: int

    @property
    def left(self) -> int:
        """Steps that the next session has to make."""
        return self.planned - self.steps

    def __str__(self) -> str:
        """How far it came, in words: "80 steps", "40 of 80 steps (the session was over)"."""
        if self.left:
            return f"{self.steps} of {self.planned} steps (the session was over)"
        return f"{self.steps} steps"


class Session:
    """Within the block, SIGTERM and the deadline end the training instead of the process."""

    def __init__(self, deadline_s: float = float("inf")) -> None:
        self.stopped_by = ""
        self._ends = time.perf_counter() + deadline_s
        self._begun = False
        self._measured: list[float] = []  # seconds of steps in which nothing was compiled

    def __enter__(self) -> "Session":
        def handle(signum: int, frame: FrameType | None) -> None:
            self.stopped_by = "SIGTERM"

        self._before = signal.signal(signal.SIGTERM, handle)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def begin_step(self) -> bool:
        """Return whether a step may begin.

        The first one always may, unless a signal came: sessions that are too short for anything
        else still get a training to its end.
        """
        late = self._begun and time.perf_counter() > self._ends
        if self.stopped_by or late:
            return False
        self._begun = True
        return True

    def end_step(self, record: Mapping[str, Any], planned: int) -> None:
        """Take the record of a step (step, seconds, compilations); print the plan once it is known.

        The plan says how long the steps take that are still to be made, and whether they fit.
        """
        if record["compilations"]:
            return
        self._measured.append(record["seconds"])
        if len(self._measured) == _PLAN_AFTER and record["step"] < planned:
            step_s = statistics.median(self._measured)
            left_s = self._ends - time.perf_counter()
            print(plan_line(record["step"], planned, step_s, left_s), flush=True)

    def end(self, steps: int, planned: int, folder: Path) -> None:
        """Say what the deadline left undone; raise TrainingStopped where a signal ended it."""
        if self.stopped_by:
            raise TrainingStopped(
                f"{self.stopped_by}: saved at step {steps} of {planned} in {folder}. "
                "Run the same command again to go on."
            )
        if steps < planned:
            print(
                f"the session's time is over: saved at step {steps} of {planned}, "
                f"{planned - steps:,} are left. Start this notebook again with the same "
                "parameters, here or with its output attached as an input, to go on.",
                flush=True,
            )


@dataclass(kw_only=True)
class StepLog:
    """Writes down each step of a training, and says one in so many seconds on the screen."""

    folder: Path  # of the checkpoints
    metrics_path: Path
    planned: int  # steps
    guard: FiniteGuard
    session: Session
    _printed: float = -math.inf

    def step(self, record: Mapping[str, Any], line: str, *, last_good: int, **more: float) -> None:
        """Write a step down.

        Args:
            record: of `metrics.jsonl`, with step, loss, grad_norm, seconds, compilations.
            line: the step in words.
            last_good: the newest checkpoint that may be kept if the step is one that diverged.
            more: figures that must be finite besides loss and gradient.
        """
        step = record["step"]
        self.guard.check(
            step,
            last_good=last_good,
            loss=record["loss"],
            gradient_norm=record["grad_norm"],
            **more,
        )
        append_jsonl(self.metrics_path, record)
        self.session.end_step(record, self.planned)
        now = time.perf_counter()
        if now - self._printed > _LOG_EVERY_S or step in (1, self.planned):
            self._printed = now
            self.say(step, line)

    def measured(self, record: Mapping[str, Any], line: str) -> None:
        """Write down what was measured between two steps."""
        append_jsonl(self.metrics_path, record)
        self.say(record["step"], line)

    def say(self, step: int, line: str) -> None:
        """Print a line that begins with the step."""
        print(f"step {step:>5} of {self.planned}  {line}", flush=True)


def plan_line(step: int, planned: int, step_s: float, left_s: float) -> str:
    """Return what is still to be done in words, from the seconds a step.

    >>> plan_line(5, 3743, 1.4, 32_400)
    'plan: 3,738 steps at 1.40 s: 1 h 27 min of 9 h 00 min'
    """
    steps = planned - step
    needed = f"plan: {steps:,} steps at {step_s:.2f} s: {duration(steps * step_s)}"
    if math.isinf(left_s):
        return needed
    if steps * step_s <= left_s:
        return f"{needed} of {duration(left_s)}"
    fitting = int(max(0.0, left_s) / step_s)
    return (
        f"{needed}, but {duration(left_s)} are there for training: about {steps - fitting:,} "
        "steps are left to another session"
    )


def duration(seconds: float) -> str:
    """Return a time in words: "40 s", "12 min", "1 h 27 min"."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


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
