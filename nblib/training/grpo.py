"""GRPO with Tunix's GRPOLearner: rollouts, rewards in groups, an update, and a record of each step.

For every prompt the policy writes a group of completions; what a completion earned above its
group's mean is its advantage, and the update makes the tokens of good ones likelier (Shao et al.
2024, https://arxiv.org/abs/2402.03300). One call trains, logs signals and alarms, keeps the
rollouts, saves, stops cleanly and goes on from the last whole checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import sentencepiece as spm
from flax import nnx

from nblib.models.mesh import check_rows_divide
from nblib.tasks.rewards import RewardFunction
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import check_tokenizer
from nblib.training.alarms import AlarmLimits
from nblib.training.checkpoints import latest_step, prepare_checkpoints
from nblib.training.cluster import build_cluster, build_learner
from nblib.training.divergence import FiniteGuard
from nblib.training.grpo_config import GrpoConfig
from nblib.training.grpo_watch import GrpoWatch
from nblib.training.rollouts import RolloutClock, RolloutLog
from nblib.training.session import Session, StepLog, Trained, forget_metrics_after


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The trained policy: the trainer's own model, which may not be the object handed in."""

    model: nnx.Module
    trained: Trained


def train_grpo(
    policy: nnx.Module,
    reference: nnx.Module | None,
    tokenizer: spm.SentencePieceProcessor,
    task: Task,
    examples: Sequence[Example],
    reward_fn: RewardFunction,
    config: GrpoConfig,
    *,
    folder: Path,
    metrics_path: Path,
    rollouts: RolloutLog,
    identity: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    probe: Callable[[nnx.Module], float] | None = None,
    limits: AlarmLimits | None = None,
    resume_from: str | None = None,
    deadline_s: float = float("inf"),
) -> Policy:
    """Train `policy` on its own completions for `examples`; resume if `folder` holds checkpoints.

    Args:
        policy: trained in its adapters if it has any, else in full.
        reference: what the KL term holds on to; may be None where `config.beta` is 0.
        tokenizer: the model's own.
        task: asks the examples' prompts, and names the metrics that are logged.
        examples: what is asked.
        reward_fn: gives each completion its reward.
        config: how to train.
        folder: the run's checkpoints.
        metrics_path: one record a step: reward and its terms, the task's metrics, signals, alarms,
            loss, seconds.
        rollouts: every completion with its reward.
        identity: what must agree for a checkpoint to be continued.
        mesh: the devices, all of them for the policy, the rollouts and the reference.
        probe: measures the answers of the policy every `config.probe_every` steps.
        limits: when a signal becomes an alarm.
        resume_from: see `prepare_checkpoints`; None where the caller has no such parameter.
        deadline_s: stop cleanly after this many seconds, but not before one step was made.

    Raises TrainingStopped after SIGTERM, with everything saved; TrainingDiverged when loss,
    gradient or weights are no finite numbers; ForeignCheckpoint when the folder belongs to other
    parameters; ValueError for prompts that do not fit.
    """
    check_tokenizer(tokenizer, size=policy.num_embed, sha256=None, where="the policy")
    if config.beta > 0 and reference is None:
        raise ValueError(f"beta {config.beta} needs a reference model: give one, or set beta 0")
    prompts_at_once = config.micro_batch or config.prompts_per_step
    check_rows_divide(prompts_at_once * config.num_generations, mesh)
    prompts = task_prompts(task, examples)
    _check_prompts(tokenizer, [one.id for one in examples], prompts, config)
    claim = {**identity, **asdict(config)}
    root = prepare_checkpoints(folder, claim, resume_from=resume_from).parent
    resumed_at = latest_step(folder)
    forget_metrics_after(metrics_path, resumed_at // config.num_iterations)
    rollouts.forget_after(resumed_at // config.num_iterations)
    clock = RolloutClock(seed=config.seed)
    cluster = build_cluster(policy, reference, tokenizer, config, root, clock, mesh)
    guard = FiniteGuard(
        folder=folder, learning_rate=config.learning_rate, resumable=resume_from is not None
    )
    with Session(deadline_s) as session:
        log = StepLog(
            folder=folder,
            metrics_path=metrics_path,
            planned=config.steps,
            guard=guard,
            session=session,
        )
        watch = GrpoWatch(
            log, cluster.actor_trainer, clock, config, rollouts, task, examples, reward_fn, probe,
            limits or AlarmLimits(),
        )  # fmt: skip
        if resumed_at >= config.steps * config.num_iterations or session.stopped_by:
            cluster.close()
        else:
            learner = build_learner(cluster, config, watch.reward)
            with mesh:
                learner.train(watch.batches(prompts, resumed_at))
        watch.end()
    steps = cluster.actor_trainer.train_steps // config.num_iterations
    session.end(steps, config.steps, folder)
    return Policy(
        model=cluster.actor_trainer.model,
        trained=Trained(
            steps=steps, planned=config.steps, resumed_at=resumed_at // config.num_iterations
        ),
    )


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
