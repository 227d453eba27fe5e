"""The schedule and the two optimizers: AdamW for adapters, Muon for a model from scratch.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) orthogonalises the update of
each weight matrix; embeddings and norms go to AdamW. On the foundation's text it reached AdamW's
loss of 200 steps in about 110.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from optax.contrib import MuonDimensionNumbers, muon
from tunix.sft.peft_trainer import PeftTrainer

NAMES = ("adamw", "muon")
_NORM = "grad_norm"  # its name in the optimizer's state
_ADAM_SHARE = 0.5  # of Muon's learning rate, for what is no matrix
_UPDATE_RMS = 0.2  # Muon's updates then have the size of AdamW's (Liu et al. 2025, 2502.16982)
# Which axes of a weight are summed over and which are produced, by the module that holds it.
_MATRIX_AXES = {
    "attn_vec_einsum": MuonDimensionNumbers((0, 1), (2,)),  # N H D
    "q_einsum": MuonDimensionNumbers((1,), (0, 2)),  # N D H
    "kv_einsum": MuonDimensionNumbers((2,), (3,)),  # 2 K D H
    "qkv_einsum": MuonDimensionNumbers((2,), (3,)),  # 3 N D H
    "kernel": MuonDimensionNumbers((0,), (1,)),  # D F
}


def learning_rate_schedule(
    peak: float, steps: int, *, warmup_share: float, final_share: float
) -> optax.Schedule:
    """Return warm-up and cosine decay over `steps`; the shares are of the steps and of the peak.

    Every step has a rate above 0. Step i of n, with w = warmup_share * n, rounded, at least 1:

        i <= w    peak * i / w
        i > w     peak * (f + (1 - f) * (1 + cos(pi * (i - w) / (n + 1 - w))) / 2), f = final_share
    """
    rates = optax.schedules.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=peak,
        warmup_steps=max(1, round(warmup_share * steps)),
        decay_steps=steps + 1,  # both ends, 0 and the final share, lie one step outside
        end_value=final_share * peak,
    )
    return lambda count: rates(count + 1)  # optax counts the steps from 0


def build_optimizer(
    name: str, schedule: optax.Schedule, *, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
    """Return a named optimizer behind gradient clipping. Raises ValueError for another name."""
    if name == "adamw":
        optimizer = optax.adamw(schedule, b2=0.98, weight_decay=weight_decay)
    elif name == "muon":
        optimizer = muon(
            schedule,
            adam_learning_rate=lambda step: _ADAM_SHARE * schedule(step),
            muon_weight_dimension_numbers=_matrix_axes,
            weight_decay=weight_decay,
            consistent_rms=_UPDATE_RMS,
        )
    else:
        raise ValueError(f"optimizer {name!r} is unknown: expected one of {', '.join(NAMES)}")
    return optax.chain(
        optax.snapshot(_NORM, optax.global_norm), optax.clip_by_global_norm(clip_norm), optimizer
    )


def log_norm_of_steps(trainer: PeftTrainer) -> None:
    """Make a trainer log the norm of each step's gradient, before clipping.

    Where gradients are accumulated, Tunix logs the mean of the norms of the parts. The trainer's
    optimizer must be one of `build_optimizer`.
    """
    parts = trainer.config.get_with_default("gradient_accumulation_steps", 1)
    if parts == 1:
        return
    part_step = trainer.create_train_step_fn()

    def train_step(model: nnx.Module, optimizer: nnx.Optimizer, inputs: Any) -> tuple[Any, ...]:
        loss, figures, _ = part_step(model, optimizer, inputs)
        state = optimizer.opt_state
        norm = optax.tree_utils.tree_get(state, _NORM)
        # Of the parts Tunix logs the mean: the last one, which makes the step, gives it all.
        return loss, figures, jnp.where(state.mini_step[...] == 0, parts * norm[...], 0.0)

    trainer.create_train_step_fn = lambda: train_step


def _matrix_axes(params: Any) -> Any:
    """Return each leaf's matrix axes, None where AdamW is to be used."""

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> MuonDimensionNumbers | None:
        names = jax.tree_util.keystr(path)
        return next((axes for name, axes in _MATRIX_AXES.items() if f"'{name}'" in names), None)

    return jax.tree_util.tree_map_with_path(axes, params)
