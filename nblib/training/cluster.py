"""Tunix's cluster and learner for GRPO, made from our config.

Tunix 0.1.8 renames `RLCluster` to `RLEngine`: this is the one module that names it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sentencepiece as spm
from flax import nnx
from tunix.models.gemma3.model import Gemma3
from tunix.rl.grpo.drgrpo_learner import DrGRPOConfig
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner, TrainExample
from tunix.rl.rl_cluster import ClusterConfig, Mode, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig
from tunix.sft import sharding_utils
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

from nblib.tokens.tokenizer import stop_tokens
from nblib.training.checkpoints import checkpointing_options
from nblib.training.grpo_config import GrpoConfig
from nblib.training.optimizers import build_optimizer, log_norm_of_steps
from nblib.training.policy_loss import completion_log_probs, grpo_loss
from nblib.training.rollouts import PolicyRollout, RolloutClock


def build_cluster(
    policy: nnx.Module,
    reference: nnx.Module | None,
    tokenizer: spm.SentencePieceProcessor,
    config: GrpoConfig,
    root: Path,
    clock: RolloutClock,
    mesh: jax.sharding.Mesh,
) -> RLCluster:
    """Return Tunix's cluster: policy, rollouts and reference on the same devices."""
    micro = config.micro_batch or None
    training = RLTrainingConfig(
        actor_optimizer=_optimizer(config),
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
    cluster = _LeanCluster(
        actor=policy,
        reference=reference if config.beta > 0 else None,
        tokenizer=tokenizer,
        cluster_config=ClusterConfig(
            role_to_mesh={role: mesh for role in (Role.ACTOR, Role.REFERENCE, Role.ROLLOUT)},
            rollout_engine=partial(PolicyRollout, clock=clock, stop=stop_tokens(tokenizer)),
            training_config=training,
            rollout_config=RolloutConfig(
                max_tokens_to_generate=config.max_new_tokens,
                max_prompt_length=config.max_prompt_length,
                kv_cache_size=config.max_prompt_length + config.max_new_tokens,
                temperature=config.temperature,
                top_p=1.0,  # what is trained must be what was drawn from
                top_k=None,
            ),
        ),
    )
    cluster.actor_trainer.config.max_steps = None  # or it draws a progress bar of its own
    return cluster


class _LeanCluster(RLCluster):
    """Tunix's cluster, but its log-probabilities never hold the logits of all positions.

    They are fp32 for every dtype of the model.
    """

    def get_ref_per_token_logps(
        self,
        prompt_tokens: jax.Array,
        completion_tokens: jax.Array,
        pad_id: int,
        eos_id: int,
        micro_batch_size: int | None = None,
    ) -> jax.Array:
        """Return the reference's log-probability of each completion token [B, C]."""
        reference = self.inference_worker.get_model("reference")
        batch = (prompt_tokens, completion_tokens)
        temperature = self.get_rollout_config(mode=Mode.TRAIN).temperature
        return self._log_probs(Role.REFERENCE, reference, batch, micro_batch_size, temperature)

    def get_old_per_token_logps(
        self,
        prompt_tokens: jax.Array,
        completion_tokens: jax.Array,
        micro_batch_size: int | None = None,
    ) -> jax.Array:
        """Return the policy's own before the update [B, C]; at temperature 1.0, as Tunix does."""
        batch = (prompt_tokens, completion_tokens)
        return self._log_probs(Role.ROLLOUT, self.rollout.model(), batch, micro_batch_size, 1.0)

    def _log_probs(
        self,
        role: Role,
        model: nnx.Module,
        batch: tuple[jax.Array, ...],
        rows: int | None,
        temperature: float,
    ) -> jax.Array:
        axis = self.cluster_config.training_config.data_sharding_axis
        pad_id = self.rollout.pad_id()
        with self._get_mesh_and_logical_axis_rules_cm(role):
            prompts, completions = (sharding_utils.shard_input(tokens, axis) for tokens in batch)
            size = rows or len(prompts)
            parts = [
                completion_log_probs(
                    model,
                    prompts[begin : begin + size],
                    completions[begin : begin + size],
                    pad_id=pad_id,
                    temperature=temperature,
                )
                for begin in range(0, len(prompts), size)
            ]
            return jnp.concatenate(parts)


def build_learner(
    cluster: RLCluster, config: GrpoConfig, reward: Callable[..., Any]
) -> GRPOLearner:
    """Return the learner of the chosen loss, with all its figures logged.

    The loss is ours in place of Tunix's, which holds the logits of all positions.
    """
    learner = _LeanLearner(rl_cluster=cluster, reward_fns=[reward], algo_config=_algorithm(config))
    cluster.actor_trainer.with_loss_fn(_loss(config, cluster.rollout.pad_id()), has_aux=True)
    cluster.actor_trainer.with_rl_metrics_to_log(
        {name: _mean_over_tokens for name in ("kl", "entropy", "pg_clipfrac")}
    )
    log_norm_of_steps(cluster.actor_trainer)
    return learner


class _LeanLearner(GRPOLearner):
    """Tunix's learner, with the groups that teach nothing last.

    So they fill micro-batches of their own, which `grpo_loss` need not compute. In the mean over a
    step's micro-batches the order makes no difference.
    """

    def _generate_and_compute_advantage(self, *args: Any, **kwargs: Any) -> TrainExample:
        example = super()._generate_and_compute_advantage(*args, **kwargs)
        groups = np.asarray(example.advantages).reshape(-1, self.algo_config.num_generations)
        equal = np.ptp(groups, axis=1) == 0  # not 0 each: a mean of equal rewards is rounded
        order = np.argsort(np.repeat(equal, groups.shape[1]), kind="stable")
        advantages = jnp.asarray(np.where(equal[:, None], 0, groups).ravel())
        return jax.tree.map(lambda rows: rows[order], replace(example, advantages=advantages))


def _mean_over_tokens(figures: Sequence[Any]) -> float:
    """Return a figure's mean over the tokens of all micro-batches; NaN if none was computed."""
    total, tokens = np.sum(figures, axis=0)
    return float(total / tokens) if tokens else float("nan")


def policy_trainer(policy: nnx.Module, config: GrpoConfig, *, pad_id: int) -> PeftTrainer:
    """Return the cluster's trainer without a cluster, so that its step can be looked at alone.

    Its `create_train_step_fn()` is the update of one micro-batch.
    """
    algorithm = _algorithm(config)
    algorithm.temperature = config.temperature  # as the learner sets it
    parts = config.prompts_per_step // (config.micro_batch or config.prompts_per_step)
    trainer = PeftTrainer(
        policy,
        _optimizer(config),
        TrainingConfig(
            eval_every_n_steps=config.steps,
            gradient_accumulation_steps=parts if parts > 1 else None,
        ),
    )
    trainer.with_gen_model_input_fn(
        lambda example: {"train_example": example, "algo_config": algorithm}
    )
    trainer.with_loss_fn(_loss(config, pad_id), has_aux=True)
    log_norm_of_steps(trainer)
    return trainer


def _optimizer(config: GrpoConfig) -> optax.GradientTransformation:
    return build_optimizer(
        config.optimizer,
        config.schedule,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )


def _algorithm(config: GrpoConfig) -> GRPOConfig:
    settings: dict[str, Any] = {
        "num_generations": config.num_generations,
        "num_iterations": config.num_iterations,
        "beta": config.beta,
        "kl_loss_mode": config.kl,
        "epsilon": config.epsilon,
    }
    if config.loss == "dr-grpo":
        return DrGRPOConfig(**settings)
    return GRPOConfig(loss_algo=config.loss, **settings)


def _loss(config: GrpoConfig, pad_id: int) -> Callable[..., Any]:
    """Return our loss as Tunix's trainer calls it."""

    def loss(model: Gemma3, train_example: TrainExample, algo_config: GRPOConfig) -> Any:
        return grpo_loss(model, train_example, algo_config, pad_id=pad_id, remat=config.remat)

    return loss
