"""Divergence: a training whose loss, gradient or weights are no finite numbers ends with an error.

Nothing is left of it that could be gone on from: checkpoints that led there are deleted.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import jax
import optax
from flax import nnx

from nblib.training.checkpoints import drop_checkpoints_after, latest_step

_norm = jax.jit(optax.global_norm)


class TrainingDiverged(RuntimeError):
    """Loss, gradient or weights became NaN or infinite; says from where to go on, and how."""


@dataclass(frozen=True, kw_only=True)
class FiniteGuard:
    """Ends a diverged training; `resumable` says that the caller has the parameter RESUME_FROM."""

    folder: Path  # of the run's checkpoints
    learning_rate: float
    resumable: bool

    def check(self, step: int, *, last_good: int, **figures: float) -> None:
        """Raise TrainingDiverged if a figure of a step is not finite.

        Args:
            step: the one that is named.
            last_good: the newest checkpoint that may be kept.
            figures: those of the step, as they are called in the message.
        """
        wrong = [f"{name} {value}" for name, value in figures.items() if not math.isfinite(value)]
        if not wrong:
            return
        drop_checkpoints_after(self.folder, last_good)
        found = f"training diverged at step {step}: {', '.join(wrong)}".replace("_", " ")
        slower = f"LEARNING_RATE {self.learning_rate / 2:g}"
        good = latest_step(self.folder)
        if not good:
            raise TrainingDiverged(
                f"{found}. There is no checkpoint from before. Start again with other parameters, "
                f"for example\n  -p {slower}"
            )
        kept = f"{found}. The last good checkpoint is {good} in {self.folder}."
        if not self.resumable:
            raise TrainingDiverged(f"{kept} Start again with a lower learning rate.")
        raise TrainingDiverged(
            f"{kept} To go on from it, give the same command with other parameters, for example\n"
            f"  -p RESUME_FROM {self.folder} -p {slower}"
        )


def weights_norm(model: nnx.Module) -> float:
    """Return the norm of all weights: no finite number if one of them is none."""
    return float(_norm(nnx.state(model, nnx.Param)))
