"""What surrounds each step of GRPO: its batch, its rewards, its record, its alarms, its seal."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flax import nnx
from jaxtyping import Int
from tunix.sft.peft_trainer import PeftTrainer

from nblib.files import append_jsonl, read_jsonl
from nblib.training.alarms import AlarmLimits, new_alarms
from nblib.training.checkpoints import seal_checkpoints
from nblib.training.compilations import CompilationCounter
from nblib.training.divergence import FiniteGuard, weights_norm
from nblib.training.grpo_config import GrpoConfig
from nblib.training.rollouts import RolloutClock, RolloutLog
from nblib.training.session import Session
from nblib.training.signals import group_advantages, step_signals

_LOG_EVERY_S = 15.0


class Rewarded(Protocol):
    """What a judge says of one completion."""

    reward: float
    terms: Mapping[str, float]
    score: Any  # with the flags format, correct, preamble


# (index of the prompt, completion, its tokens, whether it was cut) -> what it earned
Judge = Callable[[int, str, int, bool], Rewarded]


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
        trainer: PeftTrainer,
        clock: RolloutClock,
        config: GrpoConfig,
        folder: Path,
        metrics_path: Path,
        rollouts: RolloutLog,
        ids: Sequence[str],
        judge: Judge,
        probe: Callable[[nnx.Module], float] | None,
        limits: AlarmLimits,
        guard: FiniteGuard,
        session: Session,
    ) -> None:
        self._trainer, self._clock, self._config = trainer, clock, config
        self._folder, self._metrics_path, self._rollouts = folder, metrics_path, rollouts
        self._ids, self._judge, self._probe = ids, judge, probe
        self._limits, self._guard, self._session = limits, guard, session
        self._schedule = config.schedule
        self._history: list[Any] = read_jsonl(metrics_path) if metrics_path.is_file() else []
        self._judged: list[Rewarded] = []
        self._drawn: list[dict[str, Any]] = []  # records of this step's completions
        self._began: float | None = None
        self._programs, self._compiled = CompilationCounter(), 0
        self._printed = 0.0

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
            if not self._session.begin_step():
                return
            self._clock.start_step(step + 1)
            self._began, self._compiled = time.perf_counter(), self._programs.count
            yield {"prompts": texts[order[step]], "index": order[step]}

    def reward(
        self, prompts: Sequence[str], completions: Sequence[str], index: Any, **columns: Any
    ) -> list[float]:
        """Judge the completions that Tunix has just drawn; the name is the one it logs."""
        lengths, truncated = self._clock.take()
        drawn = zip(np.asarray(index), completions, lengths, truncated, strict=True)
        rewards = []
        for number, text, length, cut in drawn:
            judged = self._judge(int(number), text, int(length), bool(cut))
            rewards.append(judged.reward)
            self._judged.append(judged)
            self._drawn.append(
                {
                    "step": self._clock.step,
                    "id": self._ids[number],
                    "completion": text,
                    "truncated": bool(cut),
                    "tokens": int(length),
                    "reward": judged.reward,
                    "terms": dict(judged.terms),
                }
            )
        return rewards

    def end(self) -> None:
        """Write down the last step, and what the probe says of the policy as it now is."""
        self.end_step()
        if self._history and not self._session.stopped_by:
            self._measure_probe(self._clock.step or self._config.steps, last=True)

    def end_step(self) -> None:
        """Write down the step that has ended, if one has; seal what it saved."""
        if self._began is not None:
            # Tunix logs one step behind. A run killed after the seal would lack the record.
            self._trainer._write_train_metrics()
            record = self._record(time.perf_counter() - self._began)
            self._guard.check(
                record["step"],
                # The step's completions were drawn with the weights before it.
                last_good=(record["step"] - 1) * self._config.num_iterations - 1,
                loss=record["loss"],
                gradient_norm=record["grad_norm"],
                weights_norm=weights_norm(self._trainer.model),
            )
            self._log(record)
            self._session.end_step(record, self._config.steps)
            self._began = None
        seal_checkpoints(self._folder)

    def _record(self, seconds: float) -> dict[str, Any]:
        shape = (-1, self._config.num_generations)
        rewards = np.array([one.reward for one in self._judged]).reshape(shape)
        flags = {
            name: np.array([getattr(one.score, name) for one in self._judged]).reshape(shape)
            for name in ("format", "correct", "preamble")
        }
        tokens = np.array([one["tokens"] for one in self._drawn])
        signals = step_signals(
            rewards=rewards,
            terms={
                name: np.array([one.terms[name] for one in self._judged]).reshape(shape)
                for name in self._judged[0].terms
            },
            tokens=tokens.reshape(shape),
            truncated=np.array([one["truncated"] for one in self._drawn]).reshape(shape),
            **flags,
        )
        advantages = group_advantages(rewards, scaled=self._config.loss != "dr-grpo").ravel()
        groups: np.ndarray = np.arange(rewards.size) // self._config.num_generations
        self._rollouts.append(
            {**drawn, "group": int(group), "advantage": float(advantage)}
            for drawn, group, advantage in zip(self._drawn, groups, advantages, strict=True)
        )
        step = self._clock.step
        self._judged, self._drawn = [], []
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

    def _log(self, record: dict[str, Any]) -> None:
        alarms = new_alarms([*self._history, record], self._limits)
        record["alarms"] = [alarm.name for alarm in alarms]
        self._history.append(record)
        append_jsonl(self._metrics_path, record)
        for alarm in alarms:
            print(f"ALARM, step {record['step']}: {alarm.message}", flush=True)
        now, last = time.perf_counter(), record["step"] == self._config.steps
        if now - self._printed > _LOG_EVERY_S or record["step"] == 1 or last:
            self._printed = now
            entropy = "-" if record["entropy"] is None else f"{record['entropy']:.2f}"
            print(
                f"step {record['step']:>4} of {self._config.steps}  "
                f"reward {record['reward']:.3f}  right {record['answer_accuracy']:.1%}  "
                f"flat groups {record['flat_groups']:.0%}  "
                f"tokens {record['completion_tokens']:.0f}  entropy {entropy}",
                flush=True,
            )

    def _measure_probe(self, step: int, *, last: bool = False) -> None:
        every = self._config.probe_every
        if self._probe is None or not every or (step % every and not last):
            return
        if self._history and "probe_accuracy" in self._history[-1]:
            return  # measured a moment ago, when the session's end was seen
        accuracy = self._probe(self._trainer.model)
        record = {"step": step, "probe_accuracy": accuracy}
        self._history.append(record)
        append_jsonl(self._metrics_path, record)
        print(
            f"step {step:>4} of {self._config.steps}  probe: {accuracy:.1%} right, greedy",
            flush=True,
        )
