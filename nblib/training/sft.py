"""Supervised fine-tuning with Tunix's PeftTrainer, in adapters or in full.

Whether LoRA or all weights are trained is decided by what the model holds: adapters, if it has
any. One call trains, logs every step to `metrics.jsonl`, saves as asked, stops cleanly on SIGTERM
or at a deadline, and goes on from the last whole checkpoint of its folder.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from tunix.sft import hooks
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput

from nblib.files import append_jsonl
from nblib.models.mesh import check_rows_divide
from nblib.tokens.tokenizer import PAD_ID
from nblib.training.checkpoints import (
    checkpointing_options,
    latest_step,
    prepare_checkpoints,
    seal_checkpoints,
    unsealed_steps,
)
from nblib.training.compilations import CompilationCounter
from nblib.training.loss import model_inputs, next_token_loss
from nblib.training.optimizers import build_optimizer, learning_rate_schedule
from nblib.training.session import Session, Trained, forget_metrics_after

_LOG_EVERY_S = 15.0


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """How to train; validated on construction."""

    learning_rate: float  # peak
    optimizer: str = "adamw"  # adamw, muon
    warmup_share: float = 0.05  # of all steps
    final_share: float = 0.1  # of the peak, at the end of the cosine
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    accumulation: int = 1  # batches a step
    remat: bool = False  # keep layers' inputs only: a fraction of the memory, a third more work
    evaluations: int = 8  # of the validation loss, spread over the run
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
            (programs built); and step, val_loss after each evaluation.
        identity: what must agree for a checkpoint to be continued.
        mesh: the devices.
        val_batches: evaluated before the first step and `evaluations` times on the way.
        deadline_s: stop cleanly after this many seconds, but not before one step was made.

    Raises TrainingStopped after SIGTERM, with everything saved; ForeignCheckpoint when the folder
    belongs to other parameters; ValueError when there is nothing to train on.
    """
    planned = len(batches) // config.accumulation
    if planned == 0:
        raise ValueError(
            f"{len(batches)} batches are fewer than one step's accumulation {config.accumulation}"
        )
    check_rows_divide(len(batches[0].input_tokens), mesh)
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
        folder, metrics_path, schedule, planned, config.accumulation, resumed_at, session
    )
    with mesh:
        trainer = build_trainer(
            model,
            config,
            schedule,
            eval_every_n_steps=max(1, planned // config.evaluations),
            checkpoints=steps_folder,
        )
        trainer.with_training_hooks(watch)
        with session:
            stream = watch.watched(batches[: planned * config.accumulation])
            trainer.train(stream, val_batches or None)
    seal_checkpoints(folder)
    session.end(trainer.train_steps, planned, folder)
    return Trained(steps=trainer.train_steps, planned=planned, resumed_at=resumed_at)


def build_trainer(
    model: nnx.Module,
    config: SftConfig,
    schedule: optax.Schedule,
    *,
    eval_every_n_steps: int = 1,
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
            eval_every_n_steps=eval_every_n_steps,
            # None for 1: MultiSteps around the optimizer keeps a second set of gradients.
            gradient_accumulation_steps=None if config.accumulation == 1 else config.accumulation,
            checkpoint_root_directory=str(checkpoints.resolve()) if checkpoints else None,
            checkpointing_options=checkpointing_options(config.save_interval),
            metrics_logging_options=None,  # anything else would call wandb.init
        ),
    )
    return trainer.with_gen_model_input_fn(
        lambda batch: {**model_inputs(batch), "remat": config.remat}
    ).with_loss_fn(next_token_loss)


class _Watch(hooks.TrainingHooks):
    """Sees each step: logs it, seals checkpoints, ends the stream when asked to."""

    def __init__(
        self,
        folder: Path,
        metrics_path: Path,
        schedule: optax.Schedule,
        planned: int,
        accumulation: int,
        resumed_at: int,
        session: Session,
    ) -> None:
        self._folder, self._metrics_path, self._session = folder, metrics_path, session
        self._planned, self._accumulation = planned, accumulation
        # All at once, before the first step: a rate a step would compile in the second one.
        self._rates = np.asarray(jax.vmap(schedule)(np.arange(planned)))
        self._resumed_at = resumed_at
        self._tokens: list[int] = []  # of each batch handed out, counted without padding
        self._waited: list[float] = []  # for each batch handed out, in seconds
        self._programs = CompilationCounter()
        self._programs_before: dict[int, int] = {}  # by batch
        self._eval_began: float | None = None
        self._evaluating_s = 0.0
        self._last_step_s = self._last_print_s = 0.0

    def watched(self, batches: Iterable[TrainingInput]) -> Iterator[TrainingInput]:
        """Yield the batches until the session is over; those already used Tunix passes over.

        It never ends within a step: the gradients gathered so far would be saved, and gathered
        once more by the run that goes on.
        """
        used = self._resumed_at * self._accumulation
        began = time.perf_counter()
        for index, batch in enumerate(batches):
            begins = index >= used and index % self._accumulation == 0
            if begins and not self._session.begin_step():
                return
            self._waited.append(time.perf_counter() - began)
            self._tokens.append(int(np.count_nonzero(batch.input_tokens != PAD_ID)))
            yield batch
            began = time.perf_counter()

    def on_train_start(self, train_ctx: PeftTrainer) -> None:
        self._last_step_s = self._last_print_s = self._clock()

    def on_train_step_start(self, train_ctx: PeftTrainer) -> None:
        if unsealed_steps(self._folder):  # the step before has saved
            # Tunix logs one step behind. A run killed after the seal would lack the record.
            train_ctx._write_train_metrics()
            seal_checkpoints(self._folder)
        self._programs_before[train_ctx.iter_steps] = self._programs.count

    def on_train_step_end(self, train_ctx: PeftTrainer, train_step: int, train_loss: float) -> None:
        now = self._clock()  # the step has ended: its loss is a number here
        seconds = now - self._last_step_s
        first, after = (step * self._accumulation for step in (train_step - 1, train_step))
        tokens = sum(self._tokens[first:after])
        programs = self._programs_before.get(after, self._programs.count)
        record = {
            "step": train_step,
            "loss": float(train_loss),
            "learning_rate": float(self._rates[train_step - 1]),
            "grad_norm": _newest(train_ctx, "grad_norm", "train"),
            "tokens": tokens,
            "seconds": seconds,
            "waiting_seconds": sum(self._waited[first:after]),
            "tokens_per_second": tokens / seconds,
            "compilations": programs - self._programs_before[first],
        }
        append_jsonl(self._metrics_path, record)
        self._session.end_step(record, self._planned)
        self._last_step_s = now
        if now - self._last_print_s > _LOG_EVERY_S or train_step in (1, self._planned):
            self._last_print_s = now
            print(f"step {train_step:>5} of {self._planned}  loss {train_loss:.3f}", flush=True)

    def on_eval_step_start(self, train_ctx: PeftTrainer) -> None:
        if self._eval_began is None:
            # Steps still under way are training's time.
            jax.block_until_ready(nnx.state(train_ctx.model, nnx.Param))
            self._eval_began = time.perf_counter()

    def on_eval_step_end(self, train_ctx: PeftTrainer, eval_loss: float) -> None:
        val_loss = _newest(train_ctx, "loss", "eval")
        record = {"step": train_ctx.train_steps, "val_loss": val_loss}
        append_jsonl(self._metrics_path, record)
        print(f"step {train_ctx.train_steps:>5} of {self._planned}  validation loss {val_loss:.3f}")
        self._evaluating_s += time.perf_counter() - (self._eval_began or 0.0)
        self._eval_began = None

    def on_train_end(self, train_ctx: PeftTrainer) -> None:
        pass

    def _clock(self) -> float:
        """Return seconds that stand still while the validation loss is measured."""
        return time.perf_counter() - self._evaluating_s


def _newest(trainer: PeftTrainer, name: str, mode: str) -> float:
    return float(trainer.metrics_logger.get_metric_history("", name, mode)[-1])
