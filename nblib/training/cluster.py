"""Tunix's cluster and learner for GRPO, made from our config.

Tunix 0.1.8 renames `RLCluster` to `RLEngine`: this is the one module that names it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sentencepiece as spm
from flax import nnx
from tunix.rl.grpo.drgrpo_learner import DrGRPOConfig
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

from nblib.tokens.tokenizer import END_OF_TURN
from nblib.training.checkpoints import checkpointing_options
from nblib.training.grpo_config import GrpoConfig
from nblib.training.optimizers import build_optimizer
from nblib.training.policy_loss import grpo_loss
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
    optimizer = build_optimizer(
        config.optimizer,
        config.schedule,
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


def build_learner(
    cluster: RLCluster, config: GrpoConfig, reward: Callable[..., Any]
) -> GRPOLearner:
    """Return the learner of the chosen loss, with all its figures logged.

    The loss is ours in place of Tunix's, which holds the logits of all positions.
    """
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
    cluster.actor_trainer.with_loss_fn(
        lambda model, train_example, algo_config: grpo_loss(
            model,
            train_example,
            algo_config,
            pad_id=cluster.rollout.pad_id(),
            remat=config.remat,
        ),
        has_aux=True,
    )
    cluster.actor_trainer.with_rl_metrics_to_log(
        {name: np.mean for name in ("kl", "entropy", "pg_clipfrac")}
    )
    return learner
