"""Supervised fine-tuning with Tunix's PeftTrainer, in adapters or in full.

Whether LoRA or all weights are trained is decided by what the model holds: adapters, if it has
any. One call trains, logs every step to `metrics.jsonl`, saves as asked, stops cleanly on SIGTERM
or at a deadline, and goes on from the last whole checkpoint of its run.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.sft import hooks
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput

from nblib.models.memory import give_back_memory
from nblib.models.mesh import check_rows_divide
from nblib.models.processes import split_rows
from nblib.runs import Run
from nblib.tokens.batching import TrainingData
from nblib.tokens.tokenizer import PAD_ID
from nblib.training.checkpoints import checkpointing_options, has_new_steps, write_checksums
from nblib.training.loss import as_one_batch, model_inputs, next_token_loss, weighted_loss
from nblib.training.optimizers import TrainerConfig, build_optimizer, prepare_steps
from nblib.training.session import CompilationCounter, Trained, TrainingSession, weights_norm

_EVALUATION_SHARE = 0.1  # of the training's work


@dataclass(frozen=True, kw_only=True)
class SftConfig(TrainerConfig):
    """How to fine-tune; validated on construction."""

    accumulation: int = 1  # batches a step, which are worth one batch of all their rows
    evaluations: int = 8  # of the validation loss, at most, between the first step and the last

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        if self.accumulation < 1 or self.evaluations < 1:
            raise ValueError(
                f"accumulation {self.accumulation} and evaluations {self.evaluations} "
                "must be at least 1"
            )


def train(
    model: nnx.Module,
    texts: TrainingData,
    config: SftConfig,
    run: Run,
    *,
    hashes: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    name: str = "",
    resume_from: str | None = None,
    deadline_s: float = float("inf"),
) -> Trained:
    """Train `model` in place on the batches of `texts`, in order; resume if `run` has checkpoints.

    `metrics.jsonl` gets a record a step: step, loss, learning_rate, grad_norm, tokens (without
    padding), seconds, waiting_seconds (for the batches), tokens_per_second, compilations (programs
    built); and step, val_loss (of all rows in one batch) for each of the `evaluation_steps`.
    `hashes`, `name`, `resume_from`, `deadline_s`: see `TrainingSession`.

    Raises TrainingStopped after SIGTERM, with everything saved; TrainingDiverged when loss,
    gradient or weights are no finite numbers; ForeignCheckpoint when the checkpoints belong to
    other parameters; ValueError when there is nothing to train on.
    """
    count = len(texts.batches)
    planned = count // config.accumulation
    if planned == 0:
        raise ValueError(
            f"{count} batches are fewer than one step's accumulation {config.accumulation}"
        )
    check_rows_divide(len(texts.batches[0].input_tokens), mesh)
    options: dict[str, Any] = {"name": name, "resume_from": resume_from, "deadline_s": deadline_s}
    with TrainingSession(run, config, planned, hashes=hashes, **options) as session, mesh:
        trainer = build_trainer(model, config, planned, checkpoints=session.steps_folder)
        callbacks = SftCallbacks(session, config, texts)
        trainer.with_training_hooks(callbacks)
        trainer.train(callbacks.batches())
    steps = trainer.train_steps
    session.check_finite(steps, steps - 1, weights_norm=weights_norm(trainer.model))
    write_checksums(session.folder)
    return session.end(steps, trainer.model)


def build_trainer(
    model: nnx.Module, config: SftConfig, steps: int, *, checkpoints: Path | None = None
) -> PeftTrainer:
    """Return Tunix's trainer with our optimizer and loss; the newest checkpoint is restored.

    Its `create_train_step_fn()` is the step that `train` runs.
    """
    trainer = PeftTrainer(
        model,
        build_optimizer(config, steps),
        TrainingConfig(
            eval_every_n_steps=1,  # required, and without effect: `SftCallbacks` evaluates
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
    prepare_steps(trainer)
    return trainer


def evaluation_steps(
    planned: int, evaluations: int, *, train_batches: int, val_batches: int
) -> set[int]:
    """Return after which steps the validation loss is measured: 0, all, and evenly between.

    Those between are at most `evaluations`, and together a tenth of the training's work, where a
    forward and backward pass counts as three forward passes.

    >>> sorted(evaluation_steps(7, 8, train_batches=7, val_batches=1))
    [0, 2, 5, 7]
    """
    affordable = int(_EVALUATION_SHARE * 3 * train_batches / max(1, val_batches))
    parts = 1 + min(evaluations, affordable, planned - 1)
    return {round(planned * part / parts) for part in range(parts + 1)}


class SftCallbacks(hooks.TrainingHooks):
    """Around each step: hands out its batches, logs it, evaluates, writes checksums.

    Tunix reports a step when the next one is under way:

        batches 1, start 1, batches 2, start 2, end 1, batches 3, start 3, end 2, ...
    """

    def __init__(self, session: TrainingSession, config: SftConfig, texts: TrainingData) -> None:
        self._session, self._accumulation = session, config.accumulation
        self._batches = texts.batches
        # All at once, before the first step: a rate a step would compile in the second one.
        schedule = config.schedule(session.planned)
        self._rates = np.asarray(jax.vmap(schedule)(np.arange(session.planned)))
        self._val_batches = as_one_batch(list(texts.val_batches))
        self._evaluated_after = evaluation_steps(
            session.planned,
            config.evaluations,
            train_batches=session.planned * config.accumulation,
            val_batches=len(texts.val_batches),
        )
        # By step: tokens without padding, seconds for the batches, programs built before it.
        self._tokens: dict[int, int] = {}
        self._waited: dict[int, float] = {}
        self._compiled_before: dict[int, int] = {}
        self._compilations = CompilationCounter()
        self._began = 0.0

    def batches(self) -> Iterator[TrainingInput]:
        """Yield the batches until the session is over; those already used Tunix passes over.

        It never ends within a step: the gradients gathered so far would be saved, and gathered
        once more by the run that goes on.
        """
        for _ in range(self._session.resumed_at * self._accumulation):
            yield self._batches[0]
        for step in range(self._session.resumed_at, self._session.planned):
            if not self._session.begin_step():
                return
            began = time.perf_counter()
            first = step * self._accumulation
            parts = [self._batches[first + part] for part in range(self._accumulation)]
            if self._accumulation > 1:
                parts = as_one_batch(parts)
            self._waited[step + 1] = time.perf_counter() - began
            self._tokens[step + 1] = sum(int((part.input_tokens != PAD_ID).sum()) for part in parts)
            yield from parts

    def on_train_start(self, train_ctx: PeftTrainer) -> None:
        """Begin to measure time."""
        self._began = time.perf_counter()

    def on_train_step_start(self, train_ctx: PeftTrainer) -> None:
        """Do what is due between two steps; called for each batch."""
        if train_ctx.iter_steps % self._accumulation == 0:
            self._between_steps(train_ctx)
            self._compiled_before[train_ctx.train_steps + 1] = self._compilations.count

    def on_train_step_end(self, train_ctx: PeftTrainer, train_step: int, train_loss: float) -> None:
        """Log a step, a step late."""
        now = time.perf_counter()  # the step has ended: its loss is a number here
        seconds, tokens = now - self._began, self._tokens[train_step]
        compiled = self._compiled_before.get(train_step + 1, self._compilations.count)
        norms = train_ctx.metrics_logger.get_metric_history("", "grad_norm", "train")
        record = {
            "step": train_step,
            "loss": float(train_loss),
            "learning_rate": float(self._rates[train_step - 1]),
            "grad_norm": float(norms[-1]),
            "tokens": tokens,
            "seconds": seconds,
            "waiting_seconds": self._waited[train_step],
            "tokens_per_second": tokens / seconds,
            "compilations": compiled - self._compiled_before[train_step],
        }
        # The weights before the last step gave a finite loss; later ones gave this.
        self._session.log_step(record, f"loss {train_loss:.3f}", last_good=train_step - 2)
        self._began = now

    def on_train_end(self, train_ctx: PeftTrainer) -> None:
        """Do what is due after the last step of the run."""
        if train_ctx.train_steps == self._session.planned:  # else the time is needed to save
            self._between_steps(train_ctx)

    def on_eval_step_start(self, *context: Any) -> None:
        """Never called: Tunix is given nothing to evaluate."""

    on_eval_step_end = on_eval_step_start

    def _between_steps(self, trainer: PeftTrainer) -> None:
        """Write checksums of what the last step saved; evaluate where it is due."""
        due = bool(self._val_batches) and trainer.train_steps in self._evaluated_after
        if due or has_new_steps(self._session.folder):
            # Tunix logs one step behind. A run killed after the checksums would lack the record.
            trainer._write_train_metrics()
            write_checksums(self._session.folder)
        if due:
            self._evaluate(trainer)

    def _evaluate(self, trainer: PeftTrainer) -> None:
        began = time.perf_counter()
        _, loss_of = trainer.jit_train_and_eval_step()
        step = trainer.train_steps
        losses = [loss_of(split_rows(batch))[0] for batch in self._val_batches]
        val_loss = float(np.mean(losses))
        give_back_memory()  # what an evaluation needs is of another size than what a step does
        self._session.check_finite(step, step - 1, validation_loss=val_loss)
        self._session.log({"step": step, "val_loss": val_loss}, f"validation loss {val_loss:.3f}")
        self._began += time.perf_counter() - began  # no time of a step
