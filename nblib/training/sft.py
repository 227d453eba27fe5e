"""Supervised fine-tuning with Tunix's PeftTrainer, in adapters or in full.

Whether LoRA or all weights are trained is decided by what the model holds: adapters, if it has
any. One call trains, logs every step to `metrics.jsonl`, saves as asked, stops cleanly on SIGTERM
or at a deadline, and goes on from the last whole checkpoint of its folder.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from tunix.sft import hooks
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput
from tunix.sft.sharding_utils import shard_input

from nblib.files import append_jsonl
from nblib.tokens.tokenizer import PAD_ID
from nblib.training.checkpoints import (
    checkpointing_options,
    latest_step,
    prepare_checkpoints,
    seal_checkpoints,
    unsealed_steps,
)
from nblib.training.compilations import CompilationCounter
from nblib.training.loss import as_one_batch, model_inputs, next_token_loss, weighted_loss
from nblib.training.optimizers import build_optimizer, learning_rate_schedule, log_norm_of_steps
from nblib.training.session import Session, Trained, forget_metrics_after

_LOG_EVERY_S = 15.0
_EVALUATION_SHARE = 0.1  # of the training's work


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """How to train; validated on construction."""

    learning_rate: float  # peak
    optimizer: str = "adamw"  # adamw, muon
    warmup_share: float = 0.05  # of all steps
    final_share: float = 0.1  # of the peak, at the end of the cosine
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    accumulation: int = 1  # batches a step, which are worth one batch of all their rows
    remat: bool = False  # keep layers' inputs only: a fraction of the memory, a third more work
    evaluations: int = 8  # of the validation loss, at most, between the first step and the last
    save_interval: str = "30 min"

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be above 0")
        if not 0 <= self.warmup_share < 1 or not 0 <= self.final_share <= 1:
            raise ValueError(
                f"warmup_share {self.warmup_share} and final_share {self.final_share}: shares of 1"
            )
        if self.accumulation < 1 or self.evaluations < 1:
            raise ValueError(
                f"accumulation {self.accumulation} and evaluations {self.evaluations} "
                "must be at least 1"
            )
        checkpointing_options(self.save_interval)


def train(
    model: nnx.Module,
    batches: Sequence[TrainingInput],
    config: SftConfig,
    *,
    folder: Path,
    metrics_path: Path,
    identity: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    val_batches: Sequence[TrainingInput] = (),
    deadline_s: float = float("inf"),
) -> Trained:
    """Train `model` in place on `batches`, in order; resume if `folder` holds checkpoints.

    Args:
        model: trained in its adapters if it has any, else in full.
        batches: all batches of the run, the same on every start (a sequence of TrainingInput).
        config: how to train.
        folder: the run's checkpoints.
        metrics_path: one record a step: step, loss, learning_rate, grad_norm, tokens (without
            padding), seconds, waiting_seconds (for the batches), tokens_per_second, compilations
            (programs built); and step, val_loss for each of the `evaluation_steps`.
        identity: what must agree for a checkpoint to be continued.
        mesh: the devices.
        val_batches: their loss is that of all their rows in one batch.
        deadline_s: stop cleanly after this many seconds, but not before one step was made.

    Raises TrainingStopped after SIGTERM, with everything saved; ForeignCheckpoint when the folder
    belongs to other parameters; ValueError when there is nothing to train on.
    """
    planned = len(batches) // config.accumulation
    if planned == 0:
        raise ValueError(
            f"{len(batches)} batches are fewer than one step's accumulation {config.accumulation}"
        )
    schedule = learning_rate_schedule(
        config.learning_rate,
        planned,
        warmup_share=config.warmup_share,
        final_share=config.final_share,
    )
    steps_folder = prepare_checkpoints(folder, {**identity, **asdict(config), "steps": planned})
    resumed_at = latest_step(folder)
    forget_metrics_after(metrics_path, resumed_at)
    session = Session(deadline_s)
    watch = _Watch(
        folder, metrics_path, schedule, planned, config, val_batches, resumed_at, session
    )
    with mesh:
        trainer = build_trainer(model, config, schedule, checkpoints=steps_folder)
        trainer.with_training_hooks(watch)
        with session:
            trainer.train(watch.watched(batches))
    seal_checkpoints(folder)
    session.end(trainer.train_steps, planned, folder)
    return Trained(steps=trainer.train_steps, planned=planned, resumed_at=resumed_at)


def build_trainer(
    model: nnx.Module,
    config: SftConfig,
    schedule: optax.Schedule,
    *,
    checkpoints: Path | None = None,
) -> PeftTrainer:
    """Return Tunix's trainer with our optimizer and loss; the newest checkpoint is restored.

    Its `create_train_step_fn()` is the step that `train` runs.
    """
    optimizer = build_optimizer(
        config.optimizer,
        schedule,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )
    trainer = PeftTrainer(
        model,
        optimizer,
        TrainingConfig(
            eval_every_n_steps=1,  # required, and without effect: `_Watch` evaluates
            # None for 1: MultiSteps around the optimizer keeps a second set of gradients.
            gradient_accumulation_steps=None if config.accumulation == 1 else config.accumulation,
            checkpoint_root_directory=str(checkpoints.resolve()) if checkpoints else None,
            checkpointing_options=checkpointing_options(config.save_interval),
            metrics_logging_options=None,  # anything else would call wandb.init
        ),
    )
    trainer.with_gen_model_input_fn(lambda batch: {**model_inputs(batch), "remat": config.remat})
    trainer.with_loss_fn(next_token_loss if config.accumulation == 1 else weighted_loss)
    trainer.eval_loss_fn = weighted_loss
    log_norm_of_steps(trainer)
    return trainer


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


class _Watch(hooks.TrainingHooks):
    """Sees each step: logs it, evaluates, seals checkpoints, ends the stream when asked to."""

    def __init__(
        self,
        folder: Path,
        metrics_path: Path,
        schedule: optax.Schedule,
        planned: int,
        config: SftConfig,
        val_batches: Sequence[TrainingInput],
        resumed_at: int,
        session: Session,
    ) -> None:
        self._folder, self._metrics_path, self._session = folder, metrics_path, session
        self._planned, self._accumulation = planned, config.accumulation
        # All at once, before the first step: a rate a step would compile in the second one.
        self._rates = np.asarray(jax.vmap(schedule)(np.arange(planned)))
        self._val_batches = as_one_batch(list(val_batches))
        self._evaluated_after = evaluation_steps(
            planned,
            config.evaluations,
            train_batches=planned * config.accumulation,
            val_batches=len(val_batches),
        )
        self._resumed_at = resumed_at
        self._tokens: list[int] = []  # of each step handed out, counted without padding
        self._waited: list[float] = []  # for the batches of each step handed out, in seconds
        self._programs = CompilationCounter()
        self._programs_before: dict[int, int] = {}  # by batch
        self._evaluating_s = 0.0
        self._last_step_s = self._last_print_s = 0.0

    def watched(self, batches: Sequence[TrainingInput]) -> Iterator[TrainingInput]:
        """Yield the batches until the session is over; those already used Tunix passes over.

        It never ends within a step: the gradients gathered so far would be saved, and gathered
        once more by the run that goes on.
        """
        for step in range(self._planned):
            if step >= self._resumed_at and not self._session.begin_step():
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
        self._last_step_s = self._last_print_s = self._clock()

    def on_train_step_start(self, train_ctx: PeftTrainer) -> None:
        if train_ctx.iter_steps % self._accumulation == 0:
            self._between_steps(train_ctx)
        self._programs_before[train_ctx.iter_steps] = self._programs.count

    def on_train_step_end(self, train_ctx: PeftTrainer, train_step: int, train_loss: float) -> None:
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
        append_jsonl(self._metrics_path, record)
        self._session.end_step(record, self._planned)
        self._last_step_s = now
        if now - self._last_print_s > _LOG_EVERY_S or train_step in (1, self._planned):
            self._last_print_s = now
            print(f"step {train_step:>5} of {self._planned}  loss {train_loss:.3f}", flush=True)

    def on_train_end(self, train_ctx: PeftTrainer) -> None:
        if train_ctx.train_steps == self._planned:  # else the time is needed to save
            self._between_steps(train_ctx)

    def on_eval_step_start(self, train_ctx: PeftTrainer) -> None:
        pass

    def on_eval_step_end(self, train_ctx: PeftTrainer, eval_loss: float) -> None:
        pass

    def _between_steps(self, trainer: PeftTrainer) -> None:
        """Seal what the step before has saved; measure the validation loss where it is due."""
        due = bool(self._val_batches) and trainer.train_steps in self._evaluated_after
        if due or unsealed_steps(self._folder):
            # Tunix logs one step behind. A run killed after the seal would lack the record.
            trainer._write_train_metrics()
            seal_checkpoints(self._folder)
        if due:
            self._evaluate(trainer)

    def _evaluate(self, trainer: PeftTrainer) -> None:
        began = time.perf_counter()
        _, loss_of = trainer.jit_train_and_eval_step()
        axis = trainer.config.data_sharding_axis
        losses = [loss_of(shard_input(batch, axis))[0] for batch in self._val_batches]
        val_loss = float(np.mean(losses))
        append_jsonl(self._metrics_path, {"step": trainer.train_steps, "val_loss": val_loss})
        print(f"step {trainer.train_steps:>5} of {self._planned}  validation loss {val_loss:.3f}")
        self._evaluating_s += time.perf_counter() - began

    def _clock(self) -> float:
        """Return seconds that stand still while the validation loss is measured."""
        return time.perf_counter() - self._evaluating_s
