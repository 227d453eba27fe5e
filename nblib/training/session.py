"""One training session, for SFT and GRPO alike: where it goes on, when it stops, what it logs.

A session ends early on SIGTERM (the host takes the machine back), at a deadline (a notebook's time
limit), or with an error when loss, gradient or weights are no finite numbers. The first two end the
data stream, so that the trainer saves and closes as it does at its own end.
"""

import math
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import optax
from flax import nnx

from nblib.files import append_jsonl, read_jsonl, write_jsonl
from nblib.models.memory import give_back_memory
from nblib.models.processes import in_first, of_all
from nblib.runs import Run
from nblib.training.checkpoints import drop_checkpoints_after, latest_step, prepare_checkpoints
from nblib.training.optimizers import TrainerConfig

_PRINT_EVERY_S = 15.0
_PLAN_AFTER = 5  # measured steps: the first ones of a run are no rule
# Lowering: it happens for each program, also where a disk cache then holds what XLA would make.
_COMPILED = "/jax/core/compile/jaxpr_to_mlir_module_duration"

_norm = jax.jit(optax.global_norm)


class TrainingStopped(RuntimeError):
    """Training was asked to stop; what it had is saved and can be gone on from."""


class TrainingDiverged(RuntimeError):
    """Loss, gradient or weights became NaN or infinite; says from where to go on, and how."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left: steps done of steps planned, the model, the records of all steps."""

    steps: int
    planned: int
    resumed_at: int  # the step it began at
    # The trainer's own, which for GRPO may not be the object handed in.
    model: nnx.Module | None = field(default=None, compare=False, repr=False)
    history: Sequence[Mapping[str, Any]] = field(default=(), compare=False, repr=False)

    @property
    def left(self) -> int:
        """Steps that the next session has to make."""
        return self.planned - self.steps

    def __str__(self) -> str:
        """How far it came, in words: "80 steps", "40 of 80 steps (the session was over)"."""
        cut = f" of {self.planned} steps (the session was over)"
        return f"{self.steps}{cut if self.left else ' steps'}"


class CompilationCounter:
    """Counts the programs that jax has built in this process since the counter was made.

    Make one for each training: a Tunix trainer that is closed clears all of jax's listeners.
    """

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **details: object) -> None:
        self.count += event == _COMPILED


class TrainingSession:
    """One training of `planned` steps; within the block SIGTERM ends it instead of the process.

    Its folder is the run's, or with a `name` `checkpoints/<name>` and `metrics_<name>.jsonl` in it.
    `hashes` of what goes in are with the run's parameters the identity of the checkpoints, which
    count updates: `updates_per_step`. `resume_from` (see `prepare_checkpoints`) is None where the
    notebook has no such parameter. The session stops `deadline_s` seconds after it began, but not
    before one step was made.

    Raises ForeignCheckpoint when the checkpoints belong to other parameters.
    """

    def __init__(
        self,
        run: Run,
        config: TrainerConfig,
        planned: int,
        *,
        hashes: Mapping[str, Any],
        name: str = "",
        updates_per_step: int = 1,
        resume_from: str | None = None,
        deadline_s: float = float("inf"),
    ) -> None:
        self.planned, self.stopped_by, self._signal = planned, "", ""
        self.folder = run.checkpoints / name
        self._metrics_path = run.path / (f"metrics_{name}.jsonl" if name else "metrics.jsonl")
        identity = {**hashes, **run.parameters, **asdict(config), "steps": planned}

        def prepare() -> tuple[str, int]:
            steps = prepare_checkpoints(self.folder, identity, resume_from=resume_from)
            return str(steps), latest_step(self.folder)

        steps_folder, self.updates_done = in_first(prepare)
        self.steps_folder = Path(steps_folder)
        self.resumed_at = self.updates_done // updates_per_step
        self.history = _kept_records(self._metrics_path, self.resumed_at)
        self._learning_rate, self._resumable = config.learning_rate, resume_from is not None
        self._ends = time.perf_counter() + deadline_s
        self._begun, self._printed = False, -math.inf
        self._measured: list[float] = []  # seconds of steps in which nothing was compiled

    def __enter__(self) -> "TrainingSession":
        def handle(signum: int, frame: FrameType | None) -> None:
            self._signal = "SIGTERM"

        self._before = signal.signal(signal.SIGTERM, handle)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def begin_step(self) -> bool:
        """Return whether a step may begin.

        The first one always may, unless a signal came: sessions that are too short for anything
        else still get a training to its end.
        """
        is_over = of_all(self._begun and time.perf_counter() > self._ends)[0]  # by the first clock
        begins = not self.asked_to_stop() and not is_over
        if begins and not self._begun:
            print("the first step: compiled, or read from what earlier runs compiled", flush=True)
        self._begun |= begins
        return begins

    def asked_to_stop(self) -> bool:
        """Return whether a signal came, in any process; all of them must ask."""
        if any(of_all(bool(self._signal))):
            self.stopped_by = "SIGTERM"
        return bool(self.stopped_by)

    def log_step(
        self, record: Mapping[str, Any], line: str, *, last_good: int, **figures: float
    ) -> None:
        """Log a step, print its `line` every 15 seconds, and once how long the others will take.

        `record` has step, loss, grad_norm, seconds and compilations; `figures` must be finite, too.
        """
        step, norm = record["step"], record["grad_norm"]
        self.check_finite(step, last_good, loss=record["loss"], gradient_norm=norm, **figures)
        now = time.perf_counter()
        if not record["compilations"]:
            self._measured.append(record["seconds"])
            if len(self._measured) == _PLAN_AFTER and step < self.planned:
                step_s = statistics.median(self._measured)
                print(plan_line(step, self.planned, step_s, self._ends - now), flush=True)
        due = now - self._printed > _PRINT_EVERY_S or step in (1, self.planned)
        self._printed = now if due else self._printed
        self.log(record, line if due else None)

    def log(self, record: Mapping[str, Any], line: str | None) -> None:
        """Log a record and print a line that begins with its step."""
        append_jsonl(self._metrics_path, record)
        self.history.append(record)
        if line is not None:
            print(f"step {record['step']:>5} of {self.planned}  {line}", flush=True)

    def check_finite(self, step: int, last_good: int, **figures: float) -> None:
        """Raise TrainingDiverged if a figure of a step is not finite.

        Checkpoints after `last_good`, which may lead there, are deleted.
        """
        wrong = [f"{name} {value}" for name, value in figures.items() if not math.isfinite(value)]
        if not wrong:
            return
        in_first(lambda: drop_checkpoints_after(self.folder, last_good))
        good = latest_step(self.folder)
        kept = f"The last good checkpoint is {good} in {self.folder}."
        slower = f"-p LEARNING_RATE {self._learning_rate / 2:g}"
        if not good:
            kept = "There is no checkpoint from before."
            cure = f"Start again with other parameters, for example\n  {slower}"
        elif not self._resumable:
            cure = "Start again with a lower learning rate."
        else:
            cure = (
                "To go on from it, give the same command with other parameters, for example\n"
                f"  -p RESUME_FROM {self.folder} {slower}"
            )
        found = f"training diverged at step {step}: {', '.join(wrong)}".replace("_", " ")
        raise TrainingDiverged(f"{found}. {kept} {cure}")

    def end(self, steps: int, model: nnx.Module) -> Trained:
        """Return what was trained; say what the deadline left undone.

        Raises TrainingStopped where a signal ended the session.
        """
        if self.asked_to_stop():
            raise TrainingStopped(
                f"{self.stopped_by}: saved at step {steps} of {self.planned} in {self.folder}. "
                "Run the same command again to go on."
            )
        if steps < self.planned:
            print(
                f"the session's time is over: saved at step {steps} of {self.planned}, "
                f"{self.planned - steps:,} are left. Start this notebook again with the same "
                "parameters, here or with its output attached as an input, to go on.",
                flush=True,
            )
        give_back_memory()
        made = {"model": model, "history": tuple(self.history)}
        return Trained(steps=steps, planned=self.planned, resumed_at=self.resumed_at, **made)


def weights_norm(model: nnx.Module) -> float:
    """Return the norm of all weights: no finite number if one of them is none."""
    return float(_norm(nnx.state(model, nnx.Param)))


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


def _kept_records(path: Path, step: int) -> list[Mapping[str, Any]]:
    """Return the records up to the last checkpoint; drop from the file what will be logged again.

    At `step` itself the training record stays; a record of a measurement (`val_loss`,
    `probe_accuracy`) goes, because it is made again when the training goes on.
    """
    if not path.is_file():
        return []
    kept = [
        record
        for record in read_jsonl(path)
        if record["step"] < step or (record["step"] == step and "loss" in record)
    ]
    write_jsonl(path, kept)
    return kept
