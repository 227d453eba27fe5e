"""GRPO with Tunix's GRPOLearner: rollouts, rewards in groups, an update, and a record of each step.

For every prompt the policy writes a group of completions; what a completion earned above its
group's mean is its advantage, and the update makes the tokens of good ones likelier (Shao et al.
2024, https://arxiv.org/abs/2402.03300). One call trains, logs signals and alarms, keeps the
rollouts, saves, stops cleanly and goes on from the last whole checkpoint.

Tunix 0.1.8 renames `RLCluster` to `RLEngine`: this is the one module that names it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import optax
import sentencepiece as spm
from flax import nnx
from jaxtyping import Int
from tunix.rl.grpo.drgrpo_learner import DrGRPOConfig
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

from nblib.runs import append_jsonl, read_jsonl
from nblib.tokens.tokenizer import END_OF_TURN, check_tokenizer
from nblib.training.checkpoints import (
    checkpointing_options,
    latest_step,
    prepare_checkpoints,
    seal_checkpoints,
)
from nblib.training.compilations import CompilationCounter
from nblib.training.optimizers import build_optimizer, learning_rate_schedule
from nblib.training.rollouts import PolicyRollout, RolloutClock, RolloutLog
from nblib.training.session import Session, Trained, forget_metrics_after
from nblib.training.signals import AlarmLimits, group_advantages, new_alarms, step_signals

LOSSES = ("grpo", "dr-grpo", "gspo-token")
KL_ESTIMATORS = ("low_var_kl", "kl", "mse_kl")
_LOG_EVERY_S = 15.0


class Rewarded(Protocol):
    """What a judge says of one completion."""

    reward: float
    terms: Mapping[str, float]
    score: Any  # with the flags format, correct, preamble


# (index of the prompt, completion, its tokens, whether it was cut) -> what it earned
Judge = Callable[[int, str, int, bool], Rewarded]


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """How to train; validated on construction. Sizes are in prompts, lengths in tokens."""

    learning_rate: float  # peak
    steps: int  # batches of prompts, each with fresh completions
    prompts_per_step: int
    max_prompt_length: int
    max_new_tokens: int
    num_generations: int = 8  # completions a prompt: the group
    num_iterations: int = 1  # updates on the same completions
    loss: str = "grpo"
    beta: float = 0.0  # weight of the KL term; 0 needs no reference
    kl: str = "low_var_kl"  # Schulman's estimator: never negative, low variance
    epsilon: float = 0.2  # Tunix's default
    temperature: float = 1.0
    micro_batch: int = 0  # prompts a forward pass; 0: all of the step
    cache_size: int = 0  # of the sampler, in tokens; 0: prompt + completion
    optimizer: str = "adamw"
    weight_decay: float = 0.0  # it would move weights even where no group has an advantage
    clip_norm: float = 1.0
    warmup_share: float = 0.05
    final_share: float = 0.1
    probe_every: int = 0  # steps; 0: no probe
    save_interval: str = "30 min"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot train, with the reason."""
        counts = ("steps", "prompts_per_step", "max_prompt_length", "max_new_tokens")
        for name in (*counts, "num_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be above 0")
        if self.num_generations < 2:
            raise ValueError(
                f"num_generations {self.num_generations}: a group of one has no advantage; "
                "use at least 2"
            )
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r} is unknown: expected one of {', '.join(LOSSES)}")
        if self.kl not in KL_ESTIMATORS:
            names = ", ".join(KL_ESTIMATORS)
            raise ValueError(f"kl {self.kl!r} is unknown: expected one of {names}")
        if self.beta < 0 or self.temperature <= 0:
            raise ValueError(
                f"beta {self.beta} must be at least 0 and temperature {self.temperature} above 0"
            )
        self._check_combinations()
        checkpointing_options(self.save_interval)

    def _check_combinations(self) -> None:
        if self.num_iterations > 1 and self.temperature != 1.0:
            raise ValueError(
                f"num_iterations {self.num_iterations} needs temperature 1.0, got "
                f"{self.temperature}: Tunix takes the old log-probabilities at 1.0"
            )
        if self.micro_batch and self.prompts_per_step % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} must divide prompts_per_step "
                f"{self.prompts_per_step}"
            )
        needed = self.max_prompt_length + self.max_new_tokens
        if self.cache_size and self.cache_size < needed:
            raise ValueError(
                f"cache_size {self.cache_size} is under max_prompt_length "
                f"{self.max_prompt_length} + max_new_tokens {self.max_new_tokens} = {needed}"
            )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The trained policy: the trainer's own model, which may not be the object handed in."""

    model: nnx.Module
    trained: Trained


def train_grpo(
    policy: nnx.Module,
    reference: nnx.Module | None,
    tokenizer: spm.SentencePieceProcessor,
    prompts: Mapping[str, str],
    judge: Judge,
    config: GrpoConfig,
    *,
    folder: Path,
    metrics_path: Path,
    rollouts: RolloutLog,
    identity: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    probe: Callable[[nnx.Module], float] | None = None,
    limits: AlarmLimits | None = None,
    deadline_s: float = float("inf"),
) -> Policy:
    """Train `policy` on its own completions of `prompts`; resume if `folder` holds checkpoints.

    Args:
        policy: trained in its adapters if it has any, else in full.
        reference: what the KL term holds on to; may be None where `config.beta` is 0.
        tokenizer: the model's own.
        prompts: id -> prompt, as the model reads it.
        judge: gives each completion its reward; its index counts in the order of `prompts`.
        config: how to train.
        folder: the run's checkpoints.
        metrics_path: one record a step: reward and its terms, signals, alarms, loss, seconds.
        rollouts: every completion with its reward.
        identity: what must agree for a checkpoint to be continued.
        mesh: the devices, all of them for the policy, the rollouts and the reference.
        probe: measures the answers of the policy every `config.probe_every` steps.
        limits: when a signal becomes an alarm.
        deadline_s: stop cleanly after this many seconds.

    Raises TrainingStopped after SIGTERM, with everything saved; ForeignCheckpoint when the folder
    belongs to other parameters; ValueError for prompts that do not fit.
    """
    check_tokenizer(tokenizer, size=policy.num_embed, sha256=None, where="the policy")
    if config.beta > 0 and reference is None:
        raise ValueError(f"beta {config.beta} needs a reference model: give one, or set beta 0")
    _check_prompts(tokenizer, prompts, config)
    root = prepare_checkpoints(folder, {**identity, **asdict(config)}).parent
    resumed_at = latest_step(folder)
    forget_metrics_after(metrics_path, resumed_at // config.num_iterations)
    rollouts.forget_after(resumed_at // config.num_iterations)
    clock = RolloutClock(seed=config.seed)
    cluster = _cluster(policy, reference, tokenizer, config, root, clock, mesh)
    with Session(deadline_s) as session:
        watch = _Watch(
            cluster, clock, config, folder, metrics_path, rollouts, list(prompts), judge,
            probe, limits or AlarmLimits(), session,
        )  # fmt: skip
        if resumed_at >= config.steps * config.num_iterations or session.over:
            cluster.close()
        else:
            learner = _learner(cluster, config, watch.reward)
            with mesh:
                learner.train(watch.batches(list(prompts.values()), resumed_at))
        watch.end()
    steps = cluster.actor_trainer.train_steps // config.num_iterations
    session.raise_if_stopped(steps, config.steps, folder)
    return Policy(
        model=cluster.actor_trainer.model,
        trained=Trained(
            steps=steps, planned=config.steps, resumed_at=resumed_at // config.num_iterations
        ),
    )


def prompt_order(count: int, *, per_step: int, steps: int, seed: int) -> Int[np.ndarray, "S P"]:
    """Return which prompts each step asks: epoch after epoch, each in an order of its own."""
    epochs = -(-per_step * steps // count)
    order = [np.random.default_rng((seed, epoch)).permutation(count) for epoch in range(epochs)]
    return np.concatenate(order)[: per_step * steps].reshape(steps, per_step).astype(np.int32)


class _Watch:
    """Hands out the batches, gives the rewards, and writes down each step when it has ended.

    Tunix pulls a batch, draws, asks for the rewards and updates. The next pull is therefore the
    one moment at which everything about the step before is known and nothing is under way.
    """

    def __init__(
        self,
        cluster: RLCluster,
        clock: RolloutClock,
        config: GrpoConfig,
        folder: Path,
        metrics_path: Path,
        rollouts: RolloutLog,
        ids: Sequence[str],
        judge: Judge,
        probe: Callable[[nnx.Module], float] | None,
        limits: AlarmLimits,
        session: Session,
    ) -> None:
        self._cluster, self._clock, self._config = cluster, clock, config
        self._folder, self._metrics_path, self._rollouts = folder, metrics_path, rollouts
        self._ids, self._judge, self._probe = ids, judge, probe
        self._limits, self._session = limits, session
        self._schedule = _schedule(config)
        self._history: list[Any] = read_jsonl(metrics_path) if metrics_path.is_file() else []
        self._judged: list[Rewarded] = []
        self._drawn: list[dict[str, Any]] = []  # records of this step's completions
        self._cut: list[bool] = []
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
            if self._session.over:
                return
            self._clock.start_step(step + 1)
            self._began, self._compiled = time.perf_counter(), self._programs.count
            yield {"prompts": texts[order[step]], "index": order[step]}

    def reward(
        self, prompts: Sequence[str], completions: Sequence[str], index: Any, **columns: Any
    ) -> list[float]:
        """Judge the completions that Tunix has just drawn; the name is the one it logs."""
        lengths, truncated = self._clock.take()
        index = np.asarray(index)
        judged = [
            self._judge(int(number), text, int(length), bool(cut))
            for number, text, length, cut in zip(
                index, completions, lengths, truncated, strict=True
            )
        ]
        self._judged += judged
        self._cut += truncated.tolist()
        self._drawn += [
            {
                "step": self._clock.step,
                "id": self._ids[number],
                "completion": text,
                "truncated": bool(cut),
                "tokens": int(length),
                "reward": one.reward,
                "terms": dict(one.terms),
            }
            for number, text, length, cut, one in zip(
                index, completions, lengths, truncated, judged, strict=True
            )
        ]
        return [one.reward for one in judged]

    def end(self) -> None:
        """Write down the last step, and what the probe says of the policy as it now is."""
        self.end_step()
        if self._history and not self._session.stopped_by:
            self._measure_probe(self._clock.step or self._config.steps, last=True)

    def end_step(self) -> None:
        """Write down the step that has ended, if one has; seal what it saved."""
        trainer = self._cluster.actor_trainer
        if self._began is not None:
            # Tunix logs one step behind. A run killed after the seal would lack the record.
            trainer._write_train_metrics()
            self._log(self._record(time.perf_counter() - self._began))
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
            truncated=np.array(self._cut).reshape(shape),
            **flags,
        )
        advantages = group_advantages(rewards, scaled=self._config.loss != "dr-grpo").ravel()
        groups: np.ndarray = np.arange(rewards.size) // self._config.num_generations
        self._rollouts.append(
            {**drawn, "group": int(group), "advantage": float(advantage)}
            for drawn, group, advantage in zip(self._drawn, groups, advantages, strict=True)
        )
        step = self._clock.step
        self._judged, self._drawn, self._cut = [], [], []
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
        """Return the means over the step's updates."""
        logger, updates = self._cluster.actor_trainer.metrics_logger, self._config.num_iterations

        def newest(name: str) -> float:
            return float(np.mean(logger.get_metric_history("actor", name, "train")[-updates:]))

        return {
            "loss": newest("loss"),
            "grad_norm": newest("grad_norm"),
            "kl": newest("kl") if self._config.beta > 0 else None,
            "entropy": newest("entropy"),
            "clip_share": newest("pg_clipfrac"),
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
            print(
                f"step {record['step']:>4} of {self._config.steps}  "
                f"reward {record['reward']:.3f}  right {record['answer_accuracy']:.1%}  "
                f"flat groups {record['flat_groups']:.0%}  "
                f"tokens {record['completion_tokens']:.0f}  entropy {record['entropy']:.2f}",
                flush=True,
            )

    def _measure_probe(self, step: int, *, last: bool = False) -> None:
        every = self._config.probe_every
        if self._probe is None or not every or (step % every and not last):
            return
        if self._history and "probe_accuracy" in self._history[-1]:
            return  # measured a moment ago, when the session's end was seen
        accuracy = self._probe(self._cluster.actor_trainer.model)
        record = {"step": step, "probe_accuracy": accuracy}
        self._history.append(record)
        append_jsonl(self._metrics_path, record)
        print(
            f"step {step:>4} of {self._config.steps}  probe: {accuracy:.1%} right, greedy",
            flush=True,
        )


def _check_prompts(
    tokenizer: spm.SentencePieceProcessor, prompts: Mapping[str, str], config: GrpoConfig
) -> None:
    """Refuse prompts that Tunix would silently give a longer shape, and too few of them."""
    if len(prompts) < config.prompts_per_step:
        raise ValueError(
            f"{len(prompts)} prompts are fewer than prompts_per_step {config.prompts_per_step}"
        )
    lengths = {
        name: 1 + len(ids)  # the sampler puts BOS before them
        for name, ids in zip(prompts, tokenizer.encode(list(prompts.values())), strict=True)
    }
    longest = max(lengths, key=lengths.__getitem__)
    if lengths[longest] > config.max_prompt_length:
        raise ValueError(
            f"prompt {longest} has {lengths[longest]} tokens, max_prompt_length is "
            f"{config.max_prompt_length}: leave it out or raise the limit"
        )


def _schedule(config: GrpoConfig) -> optax.Schedule:
    return learning_rate_schedule(
        config.learning_rate,
        config.steps * config.num_iterations,
        warmup_share=config.warmup_share,
        final_share=config.final_share,
    )


def _cluster(
    policy: nnx.Module,
    reference: nnx.Module | None,
    tokenizer: spm.SentencePieceProcessor,
    config: GrpoConfig,
    root: Path,
    clock: RolloutClock,
    mesh: jax.sharding.Mesh,
) -> RLCluster:
    """Return Tunix's cluster: policy, rollouts and reference on the same devices."""
    optimizer = build_optimizer(
        config.optimizer,
        _schedule(config),
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )
    micro = config.micro_batch or None
    training = RLTrainingConfig(
        actor_optimizer=optimizer,
        eval_every_n_steps=config.steps,
        max_steps=config.steps * config.num_iterations,
        mini_batch_size=config.prompts_per_step,
        train_micro_batch_size=micro if micro != config.prompts_per_step else None,
        compute_logps_micro_batch_size=micro,
        rollout_micro_batch_size=config.prompts_per_step,
        checkpoint_root_directory=str(root.resolve()),
        checkpointing_options=checkpointing_options(config.save_interval),
        metrics_logging_options=None,  # anything else would call wandb.init
    )
    end_token = tokenizer.piece_to_id(END_OF_TURN)
    cluster = RLCluster(
        actor=policy,
        reference=reference if config.beta > 0 else None,
        tokenizer=tokenizer,
        cluster_config=ClusterConfig(
            role_to_mesh={role: mesh for role in (Role.ACTOR, Role.REFERENCE, Role.ROLLOUT)},
            rollout_engine=partial(PolicyRollout, clock=clock, end_token=end_token),
            training_config=training,
            rollout_config=RolloutConfig(
                max_tokens_to_generate=config.max_new_tokens,
                max_prompt_length=config.max_prompt_length,
                kv_cache_size=config.cache_size or config.max_prompt_length + config.max_new_tokens,
                temperature=config.temperature,
                top_p=1.0,  # what is trained must be what was drawn from
                top_k=None,
            ),
        ),
    )
    cluster.actor_trainer.config.max_steps = None  # or it draws a progress bar of its own
    return cluster


def _learner(cluster: RLCluster, config: GrpoConfig, reward: Callable[..., Any]) -> GRPOLearner:
    settings: dict[str, Any] = {
        "num_generations": config.num_generations,
        "num_iterations": config.num_iterations,
        "beta": config.beta,
        "kl_loss_mode": config.kl,
        "epsilon": config.epsilon,
    }
    if config.loss == "dr-grpo":
        algorithm = DrGRPOConfig(**settings)
    else:
        algorithm = GRPOConfig(loss_algo=config.loss, **settings)
    learner = GRPOLearner(rl_cluster=cluster, reward_fns=[reward], algo_config=algorithm)
    cluster.actor_trainer.with_rl_metrics_to_log(
        {name: np.mean for name in ("kl", "entropy", "pg_clipfrac")}
    )
    return learner
