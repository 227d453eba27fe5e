"""What surrounds each step of SFT: its batches, its record, the validation loss, its seal."""

import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import optax
from tunix.sft import hooks
from tunix.sft.peft_trainer import PeftTrainer, TrainingInput
from tunix.sft.sharding_utils import shard_input

from nblib.tokens.tokenizer import PAD_ID
from nblib.training.checkpoints import seal_checkpoints, unsealed_steps
from nblib.training.compilations import CompilationCounter
from nblib.training.loss import as_one_batch
from nblib.training.session import StepLog

_EVALUATION_SHARE = 0.1  # of the training's work


def evaluation_steps(
    planned: int, evaluations: int, *, train_batches: int, val_batches: int
) -> set[int]:
    """Return after which steps the validation loss is measured: 0, all, and evenly between.

    Those between are at most `evaluations`, and together a tenth of the training's work, where a
    batch that is trained on counts as three that are only read (two more for the way back).

    >>> sorted(evaluation_steps(100, 3, train_batches=100, val_batches=5))
    [0, 25, 50, 75, 100]
    >>> sorted(evaluation_steps(7, 8, train_batches=7, val_batches=1))
    [0, 2, 5, 7]
    """
    affordable = int(_EVALUATION_SHARE * 3 * train_batches / max(1, val_batches))
    parts = 1 + min(evaluations, affordable, planned - 1)
    return {round(planned * part / parts) for part in range(parts + 1)}


class SftWatch(hooks.TrainingHooks):
    """Sees each step: logs it, evaluates, seals checkpoints, ends the stream when asked to."""

    def __init__(
        self,
        log: StepLog,
        schedule: optax.Schedule,
        accumulation: int,
        evaluations: int,
        val_batches: Sequence[TrainingInput],
        resumed_at: int,
    ) -> None:
        self._log, self._planned, self._accumulation = log, log.planned, accumulation
        # All at once, before the first step: a rate a step would compile in the second one.
        self._rates = np.asarray(jax.vmap(schedule)(np.arange(log.planned)))
        self._val_batches = as_one_batch(list(val_batches))
        self._evaluated_after = evaluation_steps(
            log.planned,
            evaluations,
            train_batches=log.planned * accumulation,
            val_batches=len(val_batches),
        )
        self._resumed_at = resumed_at
        self._tokens: list[int] = []  # of each step handed out, counted without padding
        self._waited: list[float] = []  # for the batches of each step handed out, in seconds
        self._programs = CompilationCounter()
        self._programs_before: dict[int, int] = {}  # by batch
        self._evaluating_s = 0.0
        self._last_step_s = 0.0

    def watched(self, batches: Sequence[TrainingInput]) -> Iterator[TrainingInput]:
        """Yield the batches until the session is over; those already used Tunix passes over.

        It never ends within a step: the gradients gathered so far would be saved, and gathered
        once more by the run that goes on.
        """
        for step in range(self._planned):
            if step >= self._resumed_at and not self._log.session.begin_step():
                return
            began = time.perf_counter()
            first = step * self._accumulation
            parts = [batches[first + part] for part in range(self._accumulation)]
            if self._accumulation > 1:
                parts = as_one_batch(parts)
            self._waited.append(time.perf_counter() - began)
            tokens = (np.count_nonzero(part.input_tokens != PAD_ID) for part in parts)
            self._tokens.append(int(sum(tokens)))
            yield from parts

    def on_train_start(self, train_ctx: PeftTrainer) -> None:
        """Begin to measure time."""
        self._last_step_s = self._clock()

    def on_train_step_start(self, train_ctx: PeftTrainer) -> None:
        """Do what is due between two steps; called for each batch."""
        if train_ctx.iter_steps % self._accumulation == 0:
            self._between_steps(train_ctx)
        self._programs_before[train_ctx.iter_steps] = self._programs.count

    def on_train_step_end(self, train_ctx: PeftTrainer, train_step: int, train_loss: float) -> None:
        """Write a step down, a step late: the next one is under way."""
        now = self._clock()  # the step has ended: its loss is a number here
        seconds = now - self._last_step_s
        first, after = (step * self._accumulation for step in (train_step - 1, train_step))
        tokens = self._tokens[train_step - 1]
        programs = self._programs_before.get(after, self._programs.count)
        norms = train_ctx.metrics_logger.get_metric_history("", "grad_norm", "train")
        record = {
            "step": train_step,
            "loss": float(train_loss),
            "learning_rate": float(self._rates[train_step - 1]),
            "grad_norm": float(norms[-1]),
            "tokens": tokens,
            "seconds": seconds,
            "waiting_seconds": self._waited[train_step - 1],
            "tokens_per_second": tokens / seconds,
            "compilations": programs - self._programs_before[first],
        }
        # The weights before the last step gave a finite loss; later ones gave this.
        self._log.step(record, f"loss {train_loss:.3f}", last_good=train_step - 2)
        self._last_step_s = now

    def on_train_end(self, train_ctx: PeftTrainer) -> None:
        """Do what is due after the last step of the run."""
        if train_ctx.train_steps == self._planned:  # else the time is needed to save
            self._between_steps(train_ctx)

    def on_eval_step_start(self, train_ctx: PeftTrainer) -> None:
        """Never called: Tunix is given nothing to evaluate."""

    def on_eval_step_end(self, train_ctx: PeftTrainer, eval_loss: float) -> None:
        """Never called."""

    def _between_steps(self, trainer: PeftTrainer) -> None:
        """Seal what the step before has saved; measure the validation loss where it is due."""
        due = bool(self._val_batches) and trainer.train_steps in self._evaluated_after
        if due or unsealed_steps(self._log.folder):
            # Tunix logs one step behind. A run killed after the seal would lack the record.
            trainer._write_train_metrics()
            seal_checkpoints(self._log.folder)
        if due:
            self._evaluate(trainer)

    def _evaluate(self, trainer: PeftTrainer) -> None:
        began = time.perf_counter()
        _, loss_of = trainer.jit_train_and_eval_step()
        axis = trainer.config.data_sharding_axis
        losses = [loss_of(shard_input(batch, axis))[0] for batch in self._val_batches]
        val_loss = float(np.mean(losses))
        step = trainer.train_steps
        self._log.guard.check(step, last_good=step - 1, validation_loss=val_loss)
        record = {"step": step, "val_loss": val_loss}
        self._log.measured(record, f"validation loss {val_loss:.3f}")
        self._evaluating_s += time.perf_counter() - began

    def _clock(self) -> float:
        """Return seconds that stand still while the validation loss is measured."""
        return time.perf_counter() - self._evaluating_s
