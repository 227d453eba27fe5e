"""What SFT and GRPO configure alike, and the optimizers: AdamW for adapters, Muon from scratch.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) orthogonalises the update of
each weight matrix; embeddings and norms go to AdamW. On the foundation's text it reached AdamW's
loss of 200 steps in about 110.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.interpreters import pxla
from optax.contrib import MuonDimensionNumbers, muon
from tunix.sft.peft_trainer import PeftTrainer

from nblib.models.processes import split_rows
from nblib.training.checkpoints import checkpointing_options

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


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What SFT and GRPO configure alike; validated on construction."""

    learning_rate: float  # peak
    optimizer: str = "adamw"  # adamw, muon
    warmup_share: float = 0.05  # of all updates
    final_share: float = 0.1  # of the peak, at the end of the cosine
    weight_decay: float = 0.0  # in GRPO it would move weights even where no group has an advantage
    clip_norm: float = 1.0
    remat: bool = False  # gradient checkpointing: a fraction of the memory, a third more work
    save_interval: str = "30 min"

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be above 0")
        if self.optimizer not in NAMES:
            raise ValueError(
                f"optimizer {self.optimizer!r} is unknown: expected one of {', '.join(NAMES)}"
            )
        if not 0 <= self.warmup_share < 1 or not 0 <= self.final_share <= 1:
            raise ValueError(
                f"warmup_share {self.warmup_share} and final_share {self.final_share}: shares of 1"
            )
        checkpointing_options(self.save_interval)

    def schedule(self, updates: int) -> optax.Schedule:
        """Return warm-up and cosine decay; every update has a rate above 0.

        Update i of n, with w = warmup_share * n, rounded, at least 1, and f = final_share:

            i <= w    peak * i / w
            i > w     peak * (f + (1 - f) * (1 + cos(pi * (i - w) / (n + 1 - w))) / 2)
        """
        rates = optax.schedules.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=self.learning_rate,
            warmup_steps=max(1, round(self.warmup_share * updates)),
            decay_steps=updates + 1,  # both ends, 0 and the final share, lie one update outside
            end_value=self.final_share * self.learning_rate,
        )
        return lambda count: rates(count + 1)  # optax counts from 0


def build_optimizer(config: TrainerConfig, updates: int) -> optax.GradientTransformation:
    """Return the optimizer of a training of so many updates, behind gradient clipping."""
    schedule = config.schedule(updates)
    if config.optimizer == "adamw":
        optimizer = optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay)
    else:
        made = muon(
            schedule,
            adam_learning_rate=lambda step: _ADAM_SHARE * schedule(step),
            muon_weight_dimension_numbers=_matrix_axes,
            weight_decay=config.weight_decay,
            consistent_rms=_UPDATE_RMS,
        )
        optimizer = without_holes(made)
    return optax.chain(
        optax.snapshot(_NORM, optax.global_norm),
        optax.clip_by_global_norm(config.clip_norm),
        optimizer,
    )


def without_holes(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the optimizer with a state in which every place holds an array.

    Muon's leaves a hole where a weight is AdamW's, and the other way round. Tunix cannot restore
    holes from a checkpoint where the weights lie on a mesh.
    """

    def is_hole(one: Any) -> bool:
        inner = one.get_value() if isinstance(one, nnx.Variable) else one
        return isinstance(inner, optax.MaskedNode)

    def init(params: optax.Params) -> optax.OptState:
        state = optimizer.init(params)
        return jax.tree.map(
            lambda one: jnp.zeros(()) if is_hole(one) else one, state, is_leaf=is_hole
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        holes = jax.eval_shape(optimizer.init, params)
        opened = jax.tree.map(
            lambda hole, one: hole if is_hole(hole) else one, holes, state, is_leaf=is_hole
        )
        moved, after = optimizer.update(updates, opened, params)
        filled = jax.tree.map(
            lambda one, old: old if is_hole(one) else one, after, state, is_leaf=is_hole
        )
        return moved, filled

    return optax.GradientTransformation(init, update)


def prepare_steps(trainer: PeftTrainer) -> None:
    """Make a trainer compile its steps by `jit_step`, and log the norm of each step's gradient.

    Its batches, whole in every process, it splits by `split_rows`.

    The trainer's optimizer must be one of `build_optimizer`.
    """
    _log_norm_of_steps(trainer)
    trainer._prepare_inputs = split_rows

    def compiled(skip_jit: bool = False, cache_nnx_graph: bool = False) -> tuple[Any, Any]:
        if trainer._jitted_train_step_fn is None:
            trainer._shard_optimizer(pxla.thread_resources.env.physical_mesh)
            evaluate = nnx.jit(trainer.create_eval_step_fn(), graph_updates=False)
            trainer._jitted_eval_step_fn = partial(evaluate, trainer.model)
            step = jit_step(trainer)
            trainer._jitted_train_step_fn = partial(step, trainer.model, trainer.optimizer)
        return trainer._jitted_train_step_fn, trainer._jitted_eval_step_fn

    trainer.jit_train_and_eval_step = compiled


def jit_step(trainer: PeftTrainer) -> Any:
    """Return what compiles a trainer's step, a function of its model, optimizer and batch.

    Tunix's would hand out a copy of all weights at each step, those that are frozen included.
    """
    return nnx.jit(trainer.create_train_step_fn(), graph_updates=False, donate_argnums=1)


def _log_norm_of_steps(trainer: PeftTrainer) -> None:
    """Log the norm of each step's gradient, before clipping.

    Where gradients are accumulated, Tunix logs the mean of the norms of the parts.
    """
    parts = trainer.config.get_with_default("gradient_accumulation_steps", 1)
    if parts == 1:  # then Tunix's is that norm
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
