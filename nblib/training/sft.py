"""Supervised fine-tuning with Tunix's PeftTrainer, in adapters or in full.

Whether LoRA or all weights are trained is decided by what the model holds: adapters, if it has
any. One call trains, logs every step to `metrics.jsonl`, saves as asked, stops cleanly on SIGTERM
or at a deadline, and goes on from the last whole checkpoint of its folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput

from nblib.models.mesh import check_rows_divide
from nblib.training.checkpoints import (
    checkpointing_options,
    latest_step,
    prepare_checkpoints,
    seal_checkpoints,
)
from nblib.training.divergence import FiniteGuard, weights_norm
from nblib.training.loss import model_inputs, next_token_loss, weighted_loss
from nblib.training.optimizers import build_optimizer, learning_rate_schedule, log_norm_of_steps
from nblib.training.session import Session, StepLog, Trained, forget_metrics_after
from nblib.training.sft_watch import SftWatch


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
    resume_from: str | None = None,
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
        resume_from: see `prepare_checkpoints`; None where the caller has no such parameter.
        deadline_s: stop cleanly after this many seconds, but not before one step was made.

    Raises TrainingStopped after SIGTERM, with everything saved; TrainingDiverged when loss,
    gradient or weights are no finite numbers; ForeignCheckpoint when the folder belongs to other
    parameters; ValueError when there is nothing to train on.
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
    claim = {**identity, **asdict(config), "steps": planned}
    steps_folder = prepare_checkpoints(folder, claim, resume_from=resume_from)
    resumed_at = latest_step(folder)
    forget_metrics_after(metrics_path, resumed_at)
    session = Session(deadline_s)
    guard = FiniteGuard(
        folder=folder, learning_rate=config.learning_rate, resumable=resume_from is not None
    )
    log = StepLog(
        folder=folder, metrics_path=metrics_path, planned=planned, guard=guard, session=session
    )
    watch = SftWatch(
        log, schedule, config.accumulation, config.evaluations, val_batches, resumed_at
    )
    with mesh:
        trainer = build_trainer(model, config, schedule, checkpoints=steps_folder)
        trainer.with_training_hooks(watch)
        with session:
            trainer.train(watch.watched(batches))
    steps = trainer.train_steps
    guard.check(steps, last_good=steps - 1, weights_norm=weights_norm(trainer.model))
    seal_checkpoints(folder)
    session.end(steps, planned, folder)
    return Trained(steps=steps, planned=planned, resumed_at=resumed_at)


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
            eval_every_n_steps=1,  # required, and without effect: `SftWatch` evaluates
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
