"""GRPO with Tunix's GRPOLearner: rollouts, rewards in groups, an update, and a record of each step.

For every prompt the policy writes a group of completions; what a completion earned above its
group's mean is its advantage, and the update makes the tokens of good ones likelier (Shao et al.
2024, https://arxiv.org/abs/2402.03300). One call trains, logs signals and alarms, keeps the
rollouts, saves, stops cleanly and goes on from the last whole checkpoint.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sentencepiece as spm
from flax import nnx
from jaxtyping import Int

from nblib.runs import Run
from nblib.tasks.rewards import RewardFunction
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import check_tokenizer
from nblib.training.alarms import new_alarms
from nblib.training.checkpoints import write_checksums
from nblib.training.cluster import build_cluster, build_learner
from nblib.training.grpo_config import GrpoConfig
from nblib.training.rollouts import (
    append_rollouts,
    forget_rollouts_after,
    group_advantages,
    step_signals,
)
from nblib.training.session import CompilationCounter, Trained, TrainingSession, weights_norm


def train_grpo(
    policy: nnx.Module,
    reference: nnx.Module | None,
    tokenizer: spm.SentencePieceProcessor,
    task: Task,
    examples: Sequence[Example],
    reward_fn: RewardFunction,
    config: GrpoConfig,
    run: Run,
    *,
    hashes: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    probe: Callable[[nnx.Module], float] | None = None,
    resume_from: str | None = None,
    deadline_s: float = float("inf"),
) -> Trained:
    """Train `policy` on its own completions for `examples`; resume if `run` has checkpoints.

    `policy` is trained in its adapters if it has any, else in full. `reference`, of the KL term,
    may be None where `config.beta` is 0. `probe` measures the answers of the policy every
    `config.probe_every` steps. `hashes`, `resume_from`, `deadline_s`: see `TrainingSession`.
    `metrics.jsonl` gets a record a step: reward and its terms, the task's metrics,
    signals, alarms, loss, seconds; `rollouts.jsonl` gets every completion with its reward.

    Raises TrainingStopped after SIGTERM, with everything saved; TrainingDiverged when loss,
    gradient or weights are no finite numbers; ForeignCheckpoint when the checkpoints belong to
    other parameters; ValueError for prompts that do not fit.
    """
    check_tokenizer(tokenizer, size=policy.num_embed, sha256=None, where="the policy")
    if config.beta > 0 and reference is None:
        raise ValueError(f"beta {config.beta} needs a reference model: give one, or set beta 0")
    prompts = task_prompts(task, examples)
    _check_prompts(tokenizer, [one.id for one in examples], prompts, config)
    options: dict[str, Any] = {"resume_from": resume_from, "deadline_s": deadline_s}
    options |= {"hashes": hashes, "updates_per_step": config.num_iterations}
    with TrainingSession(run, config, config.steps, **options) as session:
        cluster = build_cluster(policy, reference, tokenizer, config, session.folder, mesh)
        forget_rollouts_after(run.path, session.resumed_at)
        asked = (task, examples, reward_fn, probe)
        callbacks = GrpoCallbacks(session, cluster, config, run.path, *asked)
        if session.resumed_at >= config.steps or session.asked_to_stop():
            cluster.close()
        else:
            learner = build_learner(cluster, config, callbacks.reward)
            with mesh:
                learner.train(callbacks.batches(prompts))
        callbacks.end()
    trainer = cluster.actor_trainer
    return session.end(trainer.train_steps // config.num_iterations, trainer.model)


def _check_prompts(
    tokenizer: spm.SentencePieceProcessor,
    ids: Sequence[str],
    prompts: Sequence[str],
    config: GrpoConfig,
) -> None:
    """Refuse prompts that Tunix would silently give a longer shape, and too few of them."""
    if len(prompts) < config.prompts_per_step:
        raise ValueError(
            f"{len(prompts)} prompts are fewer than prompts_per_step {config.prompts_per_step}"
        )
    lengths = [1 + len(tokens) for tokens in tokenizer.encode(prompts)]  # BOS before them
    longest = max(range(len(prompts)), key=lengths.__getitem__)
    if lengths[longest] > config.max_prompt_length:
        raise ValueError(
            f"prompt {ids[longest]} has {lengths[longest]} tokens, max_prompt_length is "
            f"{config.max_prompt_length}: leave it out or raise the limit"
        )


def prompt_order(count: int, *, per_step: int, steps: int, seed: int) -> Int[np.ndarray, "S P"]:
    """Return which prompts each step asks: epoch after epoch, each in an order of its own."""
    epochs = -(-per_step * steps // count)
    order = [np.random.default_rng((seed, epoch)).permutation(count) for epoch in range(epochs)]
    return np.concatenate(order)[: per_step * steps].reshape(steps, per_step).astype(np.int32)


class GrpoCallbacks:
    """Hands out the batches, gives the rewards, and logs each step when it has ended.

    Tunix pulls a batch, draws, asks for the rewards and updates. The next pull is therefore the
    one moment at which everything about the step before is known and nothing is under way.
    """

    def __init__(
        self,
        session: TrainingSession,
        cluster: Any,
        config: GrpoConfig,
        folder: Path,
        task: Task,
        examples: Sequence[Example],
        reward_fn: RewardFunction,
        probe: Callable[[nnx.Module], float] | None,
    ) -> None:
        self._session, self._config, self._folder = session, config, folder
        self._trainer, self._rollout = cluster.actor_trainer, cluster.rollout
        self._task, self._examples, self._reward_fn = task, examples, reward_fn
        self._probe = probe if config.probe_every else None
        self._headline = task.headline.replace("_", " ")  # in words
        self._schedule = config.schedule(config.updates)
        self._drawn: list[dict[str, Any]] = []  # records of this step's completions
        self._metrics: list[Mapping[str, float]] = []  # of each of them
        self._began: float | None = None
        self._compilations, self._compiled_before = CompilationCounter(), 0

    def batches(self, prompts: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield a batch a step until the session is over.

        Tunix skips as many batches as it has made updates, which is not the number of steps where
        it updates more than once a batch: so it is given that many to skip.
        """
        config, session = self._config, self._session
        order = prompt_order(
            len(prompts), per_step=config.prompts_per_step, steps=config.steps, seed=config.seed
        )
        texts = np.array(prompts)
        for _ in range(session.updates_done):
            yield {"prompts": texts[order[0]], "index": order[0]}
        for step in range(session.resumed_at, config.steps):
            self._end_step()
            if self._probe is not None and step % config.probe_every == 0:
                self._measure(self._probe, step)
            if not session.begin_step():
                return
            self._rollout.start_step(step + 1)
            self._began, self._compiled_before = time.perf_counter(), self._compilations.count
            yield {"prompts": texts[order[step]], "index": order[step]}

    def reward(
        self, prompts: Sequence[str], completions: Sequence[str], index: Any, **columns: Any
    ) -> list[float]:
        """Return what the completions earn that Tunix has just drawn; the name is logged by it."""
        lengths, truncated = self._rollout.take()
        first = len(self._drawn)
        asked = [self._examples[number] for number in np.asarray(index)]
        for example, text, tokens, cut in zip(asked, completions, lengths, truncated, strict=True):
            earned = self._reward_fn(example, text, tokens, cut)
            self._metrics.append(earned.score.values)
            record = {"step": self._rollout.step, "id": example.id, "completion": text}
            record |= {"truncated": cut, "tokens": tokens}
            self._drawn.append({**record, "reward": earned.reward, "terms": dict(earned.terms)})
        return [one["reward"] for one in self._drawn[first:]]

    def end(self) -> None:
        """Log the last step, and what the probe says of the policy as it now is."""
        self._end_step()
        history = self._session.history
        # Where the session's end was seen, it may have been measured a moment ago.
        measured = not history or "probe_accuracy" in history[-1]
        if self._probe is not None and not measured and not self._session.asked_to_stop():
            self._measure(self._probe, self._rollout.step or self._config.steps)

    def _end_step(self) -> None:
        """Log the step that has ended, if one has; write checksums of what it saved."""
        if self._began is not None:
            # Tunix logs one step behind. A run killed after the checksums would lack the record.
            self._trainer._write_train_metrics()
            self._log_step(self._record(time.perf_counter() - self._began))
            self._began = None
        write_checksums(self._session.folder)

    def _record(self, seconds: float) -> dict[str, Any]:
        size, step = self._config.num_generations, self._rollout.step

        def groups_of(name: str, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
            return np.array([one[name] for one in records]).reshape(-1, size)

        rewards, tokens = groups_of("reward", self._drawn), groups_of("tokens", self._drawn)
        terms = [one["terms"] for one in self._drawn]
        signals = step_signals(
            rewards,
            terms={name: groups_of(name, terms) for name in terms[0]},
            metrics={name: groups_of(name, self._metrics) for name in self._task.metric_names},
            tokens=tokens,
            truncated=groups_of("truncated", self._drawn),
        )
        advantages = group_advantages(rewards, scaled=self._config.loss != "dr-grpo").ravel()
        grouped = (
            {**drawn, "group": place // size, "advantage": float(advantages[place])}
            for place, drawn in enumerate(self._drawn)
        )
        append_rollouts(self._folder, grouped)
        self._drawn, self._metrics = [], []
        return {
            "step": step,
            **self._trainer_figures(),
            "learning_rate": float(self._schedule(step * self._config.num_iterations - 1)),
            **signals,
            "tokens": int(tokens.sum()),
            "seconds": seconds,
            "rollout_seconds": self._rollout.seconds,
            "compilations": self._compilations.count - self._compiled_before,
        }

    def _trainer_figures(self) -> dict[str, float | None]:
        """Return the means over the step's updates; None where no group had a gradient."""
        logger, updates = self._trainer.metrics_logger, self._config.num_iterations

        def newest(name: str) -> float:
            return float(np.mean(logger.get_metric_history("actor", name, "train")[-updates:]))

        def known(name: str) -> float | None:
            return None if np.isnan(newest(name)) else newest(name)

        means = {"loss": newest("loss"), "grad_norm": newest("grad_norm")}
        kl = known("kl") if self._config.beta > 0 else None
        return {**means, "kl": kl, "entropy": known("entropy"), "clip_share": known("pg_clipfrac")}

    def _log_step(self, record: dict[str, Any]) -> None:
        alarms = new_alarms([*self._session.history, record], self._task)
        record["alarms"] = list(alarms)
        entropy = "-" if record["entropy"] is None else f"{record['entropy']:.2f}"
        self._session.log_step(
            record,
            f"reward {record['reward']:.3f}  {self._headline} {record[self._task.headline]:.1%}  "
            f"zero-variance groups {record['zero_variance_groups']:.0%}  "
            f"tokens {record['completion_tokens']:.0f}  entropy {entropy}",
            # The step's completions were drawn with the weights before it.
            last_good=(record["step"] - 1) * self._config.num_iterations - 1,
            weights_norm=weights_norm(self._trainer.model),
        )
        for message in alarms.values():
            print(f"ALARM, step {record['step']}: {message}", flush=True)

    def _measure(self, probe: Callable[[nnx.Module], float], step: int) -> None:
        accuracy = probe(self._trainer.model)
        line = f"probe: {self._headline} {accuracy:.1%}, greedy"
        self._session.log({"step": step, "probe_accuracy": accuracy}, line)
