"""What surrounds each step of GRPO: its batch, its rewards, its record, its alarms, its seal."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Int
from tunix.sft.peft_trainer import PeftTrainer

from nblib.files import read_jsonl
from nblib.tasks.rewards import Reward, RewardFunction
from nblib.tasks.task import Example, Task
from nblib.training.alarms import AlarmLimits, new_alarms
from nblib.training.checkpoints import seal_checkpoints
from nblib.training.compilations import CompilationCounter
from nblib.training.divergence import weights_norm
from nblib.training.grpo_config import GrpoConfig
from nblib.training.rollouts import RolloutClock, RolloutLog
from nblib.training.session import StepLog
from nblib.training.signals import group_advantages, step_signals


def prompt_order(count: int, *, per_step: int, steps: int, seed: int) -> Int[np.ndarray, "S P"]:
    """Return which prompts each step asks: epoch after epoch, each in an order of its own."""
    epochs = -(-per_step * steps // count)
    order = [np.random.default_rng((seed, epoch)).permutation(count) for epoch in range(epochs)]
    return np.concatenate(order)[: per_step * steps].reshape(steps, per_step).astype(np.int32)


class GrpoWatch:
    """Hands out the batches, gives the rewards, and writes down each step when it has ended.

    Tunix pulls a batch, draws, asks for the rewards and updates. The next pull is therefore the
    one moment at which everything about the step before is known and nothing is under way.
    """

    def __init__(
        self,
        log: StepLog,
        trainer: PeftTrainer,
        clock: RolloutClock,
        config: GrpoConfig,
        rollouts: RolloutLog,
        task: Task,
        examples: Sequence[Example],
        reward_fn: RewardFunction,
        probe: Callable[[nnx.Module], float] | None,
        limits: AlarmLimits,
    ) -> None:
        self._log, self._trainer, self._clock, self._config = log, trainer, clock, config
        self._rollouts, self._probe, self._limits = rollouts, probe, limits
        self._task, self._examples, self._reward_fn = task, examples, reward_fn
        self._schedule = config.schedule
        kept = log.metrics_path
        self._history: list[Any] = read_jsonl(kept) if kept.is_file() else []
        self._earned: list[Reward] = []  # of this step's completions
        self._drawn: list[dict[str, Any]] = []  # their records
        self._began: float | None = None
        self._programs, self._compiled = CompilationCounter(), 0

    def batches(self, prompts: Sequence[str], resumed_at: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield a batch a step until the session is over.

        Tunix skips as many batches as it has made updates, which is not the number of steps where
        it updates more than once a batch: so it is given that many to skip.
        """
        config = self._config
        order = prompt_order(
            len(prompts), per_step=config.prompts_per_step, steps=config.steps, seed=config.seed
        )
        texts = np.array(prompts)
        for _ in range(resumed_at):
            yield {"prompts": texts[order[0]], "index": order[0]}
        first = resumed_at // config.num_iterations
        for step in range(first, config.steps):
            self.end_step()
            self._measure_probe(step)
            if not self._log.session.begin_step():
                return
            self._clock.start_step(step + 1)
            self._began, self._compiled = time.perf_counter(), self._programs.count
            yield {"prompts": texts[order[step]], "index": order[step]}

    def reward(
        self, prompts: Sequence[str], completions: Sequence[str], index: Any, **columns: Any
    ) -> list[float]:
        """Return what the completions earn that Tunix has just drawn; the name is logged by it."""
        lengths, truncated = self._clock.take()
        drawn = zip(np.asarray(index), completions, lengths, truncated, strict=True)
        first = len(self._earned)
        for number, text, length, cut in drawn:
            example, tokens, is_cut = self._examples[number], int(length), bool(cut)
            earned = self._reward_fn(example, text, tokens, is_cut)
            self._earned.append(earned)
            self._drawn.append(
                {
                    "step": self._clock.step,
                    "id": example.id,
                    "completion": text,
                    "truncated": is_cut,
                    "tokens": tokens,
                    "reward": earned.reward,
                    "terms": dict(earned.terms),
                }
            )
        return [earned.reward for earned in self._earned[first:]]

    def end(self) -> None:
        """Write down the last step, and what the probe says of the policy as it now is."""
        self.end_step()
        if self._history and not self._log.session.stopped_by:
            self._measure_probe(self._clock.step or self._config.steps, last=True)

    def end_step(self) -> None:
        """Write down the step that has ended, if one has; seal what it saved."""
        if self._began is not None:
            # Tunix logs one step behind. A run killed after the seal would lack the record.
            self._trainer._write_train_metrics()
            self._write_down(self._record(time.perf_counter() - self._began))
            self._began = None
        seal_checkpoints(self._log.folder)

    def _record(self, seconds: float) -> dict[str, Any]:
        earned, size = self._earned, self._config.num_generations

        def groups_of(values: Sequence[float]) -> np.ndarray:
            return np.array(values).reshape(-1, size)

        rewards = groups_of([one.reward for one in earned])
        tokens = groups_of([one["tokens"] for one in self._drawn])
        signals = step_signals(
            rewards,
            terms={n: groups_of([one.terms[n] for one in earned]) for n in earned[0].terms},
            metrics={
                name: groups_of([one.score.values[name] for one in earned])
                for name in self._task.metric_names
            },
            tokens=tokens,
            truncated=groups_of([one["truncated"] for one in self._drawn]),
        )
        advantages = group_advantages(rewards, scaled=self._config.loss != "dr-grpo").ravel()
        groups: np.ndarray = np.arange(rewards.size) // size
        self._rollouts.append(
            {**drawn, "group": int(group), "advantage": float(advantage)}
            for drawn, group, advantage in zip(self._drawn, groups, advantages, strict=True)
        )
        step = self._clock.step
        self._earned, self._drawn = [], []
        return {
            "step": step,
            **self._trainer_figures(),
            "learning_rate": float(self._schedule(step * self._config.num_iterations - 1)),
            **signals,
            "tokens": int(tokens.sum()),
            "seconds": seconds,
            "rollout_seconds": self._clock.seconds,
            "compilations": self._programs.count - self._compiled,
        }

    def _trainer_figures(self) -> dict[str, float | None]:
        """Return the means over the step's updates; None where no group had anything to teach."""
        logger, updates = self._trainer.metrics_logger, self._config.num_iterations

        def newest(name: str) -> float:
            return float(np.mean(logger.get_metric_history("actor", name, "train")[-updates:]))

        def known(name: str) -> float | None:
            return None if np.isnan(newest(name)) else newest(name)

        return {
            "loss": newest("loss"),
            "grad_norm": newest("grad_norm"),
            "kl": known("kl") if self._config.beta > 0 else None,
            "entropy": known("entropy"),
            "clip_share": known("pg_clipfrac"),
        }

    def _write_down(self, record: dict[str, Any]) -> None:
        alarms = new_alarms([*self._history, record], self._limits, self._task)
        record["alarms"] = [alarm.name for alarm in alarms]
        entropy = "-" if record["entropy"] is None else f"{record['entropy']:.2f}"
        headline = self._task.headline
        words = headline.replace("_", " ")
        self._log.step(
            record,
            f"reward {record['reward']:.3f}  {words} {record[headline]:.1%}  "
            f"zero-variance groups {record['zero_variance_groups']:.0%}  "
            f"tokens {record['completion_tokens']:.0f}  entropy {entropy}",
            # The step's completions were drawn with the weights before it.
            last_good=(record["step"] - 1) * self._config.num_iterations - 1,
            weights_norm=weights_norm(self._trainer.model),
        )
        self._history.append(record)
        for alarm in alarms:
            print(f"ALARM, step {record['step']}: {alarm.message}", flush=True)

    def _measure_probe(self, step: int, *, last: bool = False) -> None:
        every = self._config.probe_every
        if self._probe is None or not every or (step % every and not last):
            return
        if self._history and "probe_accuracy" in self._history[-1]:
            return  # measured a moment ago, when the session's end was seen
        record = {"step": step, "probe_accuracy": self._probe(self._trainer.model)}
        self._history.append(record)
        words = self._task.headline.replace("_", " ")
        self._log.measured(record, f"probe: {words} {record['probe_accuracy']:.1%}, greedy")
