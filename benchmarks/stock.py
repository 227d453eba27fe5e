"""Training as Tunix does it out of the box, 0.1.7 or newer: what `nblib` is measured against.

Its default losses, the optimizer of its demos, and for SFT the inputs of its demo; padding is up
to the program that makes the batches.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from tunix.rl import function_registry
from tunix.rl.common import TrainExample
from tunix.rl.grpo.grpo_learner import GRPOConfig
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.tokens.tokenizer import EOS_ID, PAD_ID

_LEARNING_RATE = 1e-4  # of no consequence for speed and size


def stock_sft_trainer(model: nnx.Module) -> PeftTrainer:
    """Return a trainer with Tunix's default loss."""
    trainer = _trainer(model)
    return trainer.with_gen_model_input_fn(_inputs)


def stock_grpo_trainer(policy: nnx.Module, *, num_generations: int) -> PeftTrainer:
    """Return the trainer of Tunix's GRPO learner, without its cluster; no reference model."""
    algorithm = GRPOConfig(num_generations=num_generations, num_iterations=1, beta=0.0)
    algorithm.temperature = 1.0
    policy_loss = function_registry.get_policy_loss_fn(algorithm.policy_loss_fn)

    def loss(model: nnx.Module, train_example: TrainExample, algo_config: GRPOConfig) -> Any:
        return policy_loss(
            model, train_example, algo_config=algo_config, pad_id=PAD_ID, eos_id=EOS_ID
        )

    trainer = _trainer(policy).with_gen_model_input_fn(
        lambda example: {"train_example": example, "algo_config": algorithm}
    )
    return trainer.with_loss_fn(loss, has_aux=True)


def train_step(trainer: PeftTrainer) -> Callable[[Any], Any]:
    """Return the trainer's compiled step; it takes a batch and returns the loss first.

    After 0.1.7 Tunix asks with each batch whether the weights are updated.
    """
    step, _ = trainer.jit_train_and_eval_step()
    if "is_update_step" in inspect.signature(trainer.create_train_step_fn()).parameters:
        return partial(step, is_update_step=jnp.array(True))
    return step


def _trainer(model: nnx.Module) -> PeftTrainer:
    return PeftTrainer(model, optax.adamw(_LEARNING_RATE), TrainingConfig(eval_every_n_steps=1))


def _inputs(batch: TrainingInput) -> dict[str, jax.Array]:
    padding_mask = batch.input_tokens != PAD_ID
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": build_positions_from_mask(padding_mask),
        "attention_mask": make_causal_attn_mask(padding_mask),
    }
