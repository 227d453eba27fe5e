"""Tunix's cluster, rollouts and learner for GRPO, made from our config.

Tunix 0.1.8 renames `RLCluster` to `RLEngine`: this is the one module that names it.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sentencepiece as spm
from flax import nnx
from tunix.models.gemma3.model import Gemma3
from tunix.rl.grpo.drgrpo_learner import DrGRPOConfig
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import CacheConfig, RolloutConfig, RolloutOutput
from tunix.rl.rollout.vanilla_rollout import VanillaRollout
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

from nblib.models.decode import Sampling, decode, left_padded
from nblib.tokens.tokenizer import stop_tokens
from nblib.training.checkpoints import checkpointing_options
from nblib.training.grpo_config import GrpoConfig
from nblib.training.optimizers import build_optimizer, prepare_steps
from nblib.training.policy_batch import PolicyBatch, policy_batch
from nblib.training.policy_loss import completion_log_probs, grpo_loss


class PolicyRollout(VanillaRollout):
    """Tunix's rollouts, drawn by `nblib.models.decode`.

    Tunix's own leave the stop token out of what is trained, draw the same noise each step, and keep
    every row until the slowest has ended. Here a completion that stopped carries its stop token, so
    that stopping is rewarded with the answer, and each step has its own noise, the same one when a
    killed run makes that step again.
    """

    def __init__(
        self,
        rollout_actor: nnx.Module,
        tokenizer: Any,
        mesh: jax.sharding.Mesh,
        rollout_config: RolloutConfig,
        *,
        seed: int,
    ) -> None:
        config = rollout_actor.config
        unused = CacheConfig(
            cache_size=rollout_config.kv_cache_size,
            num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        )
        super().__init__(rollout_actor, tokenizer, unused)
        self._tokenizer, self._mesh, self._seed = tokenizer, mesh, seed
        self._stop = stop_tokens(tokenizer)
        self.start_step(0)

    def start_step(self, step: int) -> None:
        """Begin a step: its noise depends on the seed, the step and the draws in it."""
        self.step, self._draws = step, 0
        self.seconds = 0.0  # spent drawing in this step
        self._lengths: list[int] = []  # of completions not taken yet, stop token included
        self._truncated: list[bool] = []

    def take(self) -> tuple[list[int], list[bool]]:
        """Return and forget the lengths of all completions since, and whether each was cut."""
        taken = self._lengths, self._truncated
        self._lengths, self._truncated = [], []
        return taken

    def generate(
        self, prompts: list[str], rollout_config: RolloutConfig, **kwargs: Any
    ) -> RolloutOutput:
        """Return one completion a prompt; `text` is without, `tokens` with the stop token."""
        began = time.perf_counter()
        encoded = [[self._tokenizer.bos_id(), *self._tokenizer.encode(text)] for text in prompts]
        seeds = np.random.SeedSequence((self._seed, self.step, self._draws))
        sampling = Sampling(
            temperature=rollout_config.temperature,
            top_p=rollout_config.top_p or 1.0,
            seed=int(seeds.generate_state(1)[0]),
        )
        completions = decode(
            self.model(),
            encoded,
            sampling,
            stop=self._stop,
            max_new_tokens=rollout_config.max_tokens_to_generate,
            batch_size=len(prompts),
            mesh=self._mesh,
            max_prompt_length=rollout_config.max_prompt_length,
        )
        self._draws += 1
        self.seconds += time.perf_counter() - began
        self._lengths += [len(tokens) for tokens in completions]
        self._truncated += [tokens[-1] not in self._stop for tokens in completions]
        texts = [[token for token in tokens if token not in self._stop] for tokens in completions]
        return RolloutOutput(
            text=[self._tokenizer.decode(tokens) for tokens in texts],
            logits=None,
            tokens=[np.array(tokens, np.int32) for tokens in completions],
            left_padded_prompt_tokens=left_padded(encoded, rollout_config.max_prompt_length),
            logprobs=None,
        )


def build_cluster(
    policy: nnx.Module,
    reference: nnx.Module | None,
    tokenizer: spm.SentencePieceProcessor,
    config: GrpoConfig,
    checkpoints: Path,
    mesh: jax.sharding.Mesh,
) -> RLCluster:
    """Return Tunix's cluster: policy, rollouts and reference on the same devices."""
    training = RLTrainingConfig(
        actor_optimizer=build_optimizer(config, config.updates),
        eval_every_n_steps=config.steps,
        max_steps=config.updates,
        mini_batch_size=config.prompts_per_step,
        compute_logps_micro_batch_size=config.prompts_per_step,
        rollout_micro_batch_size=config.prompts_per_step,
        checkpoint_root_directory=str(checkpoints.resolve()),
        checkpointing_options=checkpointing_options(config.save_interval),
        metrics_logging_options=None,  # anything else would call wandb.init
    )
    cluster = _LeanCluster(
        actor=policy,
        reference=reference if config.beta > 0 else None,
        tokenizer=tokenizer,
        cluster_config=ClusterConfig(
            role_to_mesh={role: mesh for role in (Role.ACTOR, Role.REFERENCE, Role.ROLLOUT)},
            rollout_engine=partial(PolicyRollout, seed=config.seed),
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
    cluster.config = config
    cluster.actor_trainer.config.max_steps = None  # or it draws a progress bar of its own
    return cluster


class _LeanCluster(RLCluster):
    """Tunix's cluster, but its log-probabilities are of packed rows, a chunk's logits at a time.

    They are fp32 for every dtype of the model.
    """

    config: GrpoConfig

    def get_ref_per_token_logps(self, **batch: Any) -> np.ndarray:
        """Return the reference's log-probability of each completion token [B, C]."""
        model = self.inference_worker.get_model("reference")
        return self._log_probs(Role.REFERENCE, model, self.config.temperature, **batch)

    def get_old_per_token_logps(self, **batch: Any) -> np.ndarray:
        """Return the policy's own before the update [B, C]; at temperature 1.0, as Tunix does."""
        return self._log_probs(Role.ROLLOUT, self.rollout.model(), 1.0, **batch)

    def _log_probs(
        self,
        role: Role,
        model: nnx.Module,
        temperature: float,
        *,
        prompt_tokens: jax.Array,
        completion_tokens: jax.Array,
        **ignored: int,
    ) -> np.ndarray:
        with self._get_mesh_and_logical_axis_rules_cm(role):
            return completion_log_probs(
                model,
                np.asarray(prompt_tokens),
                np.asarray(completion_tokens),
                self.config,
                temperature=temperature,
            )


def build_learner(
    cluster: RLCluster, config: GrpoConfig, reward: Callable[..., Any]
) -> GRPOLearner:
    """Return the learner of the chosen loss, with all its figures logged.

    The loss is ours in place of Tunix's, which holds the logits of all positions.
    """
    learner = _LeanLearner(rl_cluster=cluster, reward_fns=[reward], algo_config=_algorithm(config))
    cluster.actor_trainer.with_loss_fn(_loss(config), has_aux=True)
    cluster.actor_trainer.with_rl_metrics_to_log(
        {name: _mean_over_tokens for name in ("kl", "entropy", "pg_clipfrac")}
    )
    prepare_steps(cluster.actor_trainer)
    return learner


class _LeanLearner(GRPOLearner):
    """Tunix's learner, whose batches are packed."""

    def _process_accumulated_batches(self, *args: Any, **kwargs: Any) -> list[PolicyBatch]:
        config = self.rl_cluster.config
        rows = config.rows_at_once(self.rl_cluster.r2m[Role.ACTOR].shape["fsdp"])
        made = super()._process_accumulated_batches(*args, **kwargs)
        return [policy_batch(example, config, rows=rows) for example in made]


def _mean_over_tokens(figures: Sequence[Any]) -> float:
    """Return a figure's mean over the tokens of a step; NaN if none was computed."""
    total, tokens = np.sum(figures, axis=0)
    return float(total / tokens) if tokens else float("nan")


def policy_trainer(policy: nnx.Module, config: GrpoConfig) -> PeftTrainer:
    """Return the cluster's trainer without a cluster, so that its step can be looked at alone.

    Its `create_train_step_fn()` is the update.
    """
    algorithm = _algorithm(config)
    algorithm.temperature = config.temperature  # as the learner sets it
    trainer = PeftTrainer(
        policy,
        build_optimizer(config, config.updates),
        TrainingConfig(eval_every_n_steps=config.steps),
    )
    trainer.with_gen_model_input_fn(
        lambda example: {"train_example": example, "algo_config": algorithm}
    )
    trainer.with_loss_fn(_loss(config), has_aux=True)
    prepare_steps(trainer)
    return trainer


def _algorithm(config: GrpoConfig) -> GRPOConfig:
    drgrpo = config.loss == "dr-grpo"
    make = DrGRPOConfig if drgrpo else partial(GRPOConfig, loss_algo=config.loss)
    return make(
        num_generations=config.num_generations,
        num_iterations=config.num_iterations,
        beta=config.beta,
        kl_loss_mode=config.kl,
        epsilon=config.epsilon,
    )


def _loss(config: GrpoConfig) -> Callable[..., Any]:
    """Return our loss as Tunix's trainer calls it."""

    def loss(model: Gemma3, train_example: PolicyBatch, algo_config: GRPOConfig) -> Any:
        return grpo_loss(model, train_example, algo_config, remat=config.remat)

    return loss
