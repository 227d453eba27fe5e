"""GRPO's loss of packed rows: Tunix's figures, without its padding and without the full logits.

Tunix's own loss computes each completion in a row of its own, as long as the longest that is
allowed, and holds logits, their log-softmax and their softmax, each `[B, T, V]`. Here rows are
packed, only the completions' tokens have logits, which exist a chunk at a time, and micro-batches
without a completion are not computed. Ratios, clipping, KL and means are Tunix's, in value and
gradient.
GRPO: https://arxiv.org/abs/2402.03300. GSPO: https://arxiv.org/abs/2507.18071
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from tunix.models.gemma3.model import Gemma3
from tunix.rl import common
from tunix.rl.grpo.grpo_learner import GRPOConfig

from nblib.models.attention import hidden_states
from nblib.models.causal_attention import SHARING_LENGTH
from nblib.models.mesh import current_mesh
from nblib.models.processes import on_host, split_rows
from nblib.tokens.tokenizer import PAD_ID
from nblib.training.grpo_config import GrpoConfig
from nblib.training.loss import token_scores
from nblib.training.policy_batch import (
    PolicyBatch,
    in_micro_batches,
    pack_completions,
    row_arrays,
)

_LOG_RATIO_LIMIT, _GSPO_LIMIT = 20.0, 10.0  # Tunix's

LossAndFigures = tuple[Float[Array, ""], dict[str, Array]]


def packed_scores(
    model: Gemma3,
    tokens: Int[Array, "R L"],
    positions: Int[Array, "R L"],
    segments: Int[Array, "R L"],
    prefixes: Int[Array, "R L"],
    counted: Array,
    *,
    temperature: float = 1.0,
    remat: bool = False,
) -> tuple[Float[Array, "R L"], Float[Array, "R L"]]:
    """Return log-probability and entropy at each token that counts, in nats; else 0.

    The entropy carries no gradient: it is logged, not trained. As in Tunix, padding keeps its
    probability p although it is never drawn: a token was drawn with a log-probability higher by
    -log(1 - p), 1e-6 for a trained model.
    """
    shared = prefixes if tokens.shape[1] <= SHARING_LENGTH else None
    hidden = hidden_states(model, tokens, positions, segments, prefixes=shared, remat=remat)
    # Position t predicts token t + 1, and a row begins with no completion.
    scores = token_scores(
        model, hidden[:, :-1], tokens[:, 1:], counted[:, 1:] != 0, temperature=temperature
    )
    log_probs, entropies = (jnp.pad(one, ((0, 0), (1, 0))) for one in scores)
    return log_probs, entropies


def completion_log_probs(
    model: nnx.Module,
    prompts: Int[np.ndarray, "B P"],
    completions: Int[np.ndarray, "B C"],
    config: GrpoConfig,
    *,
    temperature: float,
) -> Float[np.ndarray, "B C"]:
    """Return the log-probability of each completion token, in nats; 0 where padding is.

    Prompts are padded on the left, completions on the right.
    """
    lengths = np.count_nonzero(completions != PAD_ID, axis=1)
    packed = pack_completions(prompts, completions, lengths, config)
    rows = config.rows_at_once(current_mesh().shape["fsdp"])
    count = -(-len(packed.tokens) // rows)
    arrays = (*row_arrays(packed).values(), packed.counted)
    parts = [in_micro_batches(one, rows, count) for one in arrays]
    score = partial(_packed_log_probs, model, temperature=temperature)
    found = [score(*split_rows([one[:, part] for one in parts])) for part in range(count)]
    return packed.gathered(np.concatenate(on_host(found)), completions.shape)


@partial(nnx.jit, graph_updates=False, static_argnames=("temperature",))
def _packed_log_probs(model: Gemma3, *rows: Array, temperature: float) -> Float[Array, "R L"]:
    """Return the log-probabilities of `packed_scores`, compiled."""
    return packed_scores(model, *rows, temperature=temperature)[0]


def grpo_loss(
    model: Gemma3, train_example: PolicyBatch, algo_config: GRPOConfig, remat: bool = False
) -> LossAndFigures:
    """Return the loss of "grpo", "dr-grpo" or "gspo-token", and the figures that are logged.

    A figure is [sum over the completions' tokens, number of these tokens]. Where no completion is
    in the rows, loss and gradient are 0, and figures are of 0 tokens.
    """
    kind = nnx.LoRAParam if nnx.state(model, nnx.LoRAParam) else nnx.Param
    graphdef, trained, fixed = nnx.split(model, kind, ...)

    def compute(trained: nnx.State, index: Array) -> LossAndFigures:
        merged = nnx.merge(graphdef, trained, fixed, copy=True)  # remat writes to what it is given
        return _loss_of_a_part(merged, train_example.micro_batch(index), algo_config, remat)

    filled = jnp.any(train_example.weights != 0, axis=(0, 2)).sum()  # the first ones
    return _sum_of_parts(filled, compute, trained)


def _sum_of_parts(
    count: Int[Array, ""], compute: Callable[[nnx.State, Array], LossAndFigures], trained: nnx.State
) -> LossAndFigures:
    """Return the sum of `compute(trained, part)` over the parts before `count`.

    The gradient of a part is taken within the loop, so that no part's activations outlive it. By
    itself jax takes no gradient of a loop whose number of turns is not known.
    """

    def summed(part_of: Callable[[nnx.State, Array], Any], trained: nnx.State) -> Any:
        first = jax.ShapeDtypeStruct((), jnp.int32)
        nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(part_of, trained, first))

        def add(part: Array, total: Any) -> Any:
            return jax.tree.map(jnp.add, total, part_of(trained, part))

        return jax.lax.fori_loop(0, count, add, nothing)

    @jax.custom_vjp
    def value(trained: nnx.State) -> LossAndFigures:
        return summed(compute, trained)

    def forward(trained: nnx.State) -> tuple[LossAndFigures, nnx.State]:
        return summed(jax.value_and_grad(compute, has_aux=True), trained)

    def backward(gradient: nnx.State, cotangents: Any) -> tuple[nnx.State]:
        return (jax.tree.map(lambda one: one * cotangents[0].astype(one.dtype), gradient),)

    value.defvjp(forward, backward)
    return value(trained)


def _loss_of_a_part(
    model: Gemma3, batch: PolicyBatch, algo_config: GRPOConfig, remat: bool
) -> LossAndFigures:
    rows = (batch.tokens, batch.positions, batch.segments, batch.prefixes, batch.weights)
    temperature, weights = algo_config.temperature, batch.weights
    log_probs, entropies = packed_scores(model, *rows, temperature=temperature, remat=remat)
    old = batch.old_log_probs
    old = jax.lax.stop_gradient(log_probs) if old is None else old
    log_ratio = _log_ratio(log_probs, old, batch, algo_config)
    ratio, epsilon = jnp.exp(log_ratio), algo_config.epsilon
    free = -batch.advantages * ratio
    clipped = -batch.advantages * jnp.clip(ratio, 1 - epsilon, 1 + epsilon)
    loss = (weights * jnp.maximum(free, clipped)).sum()
    kl = jnp.zeros_like(log_probs)
    if batch.reference_log_probs is not None:
        kl = common.compute_kl_divergence(
            log_probs, batch.reference_log_probs, algo_config.kl_loss_mode
        )
        loss += algo_config.beta * (weights * kl).sum()
    figures = {"kl": kl, "entropy": entropies, "pg_clipfrac": clipped > free}
    counted = weights != 0
    return loss, {
        name: jnp.stack([(values * counted).sum(), counted.sum()]).astype(jnp.float32)
        for name, values in figures.items()
    }


def _log_ratio(log_probs: Array, old: Array, batch: PolicyBatch, algo_config: GRPOConfig) -> Array:
    """Return the log of new over old probability: of each token, or for GSPO of the completion."""
    log_ratio = jnp.clip(log_probs - old, -_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)
    if algo_config.loss_algo != "gspo-token":
        return log_ratio
    whole = _segment_means(log_ratio, batch.segments, batch.weights != 0)
    log_ratio = log_probs - jax.lax.stop_gradient(log_probs - whole)
    return jnp.minimum(log_ratio, _GSPO_LIMIT)


def _segment_means(values: Array, segments: Array, counted: Array) -> Array:
    """Return at each token the mean over the counted ones of its segment, a completion's."""

    def of_a_row(values: Array, segments: Array, counted: Array) -> Array:
        most = len(values) + 1
        total, tokens = (
            jax.ops.segment_sum(one * counted, segments, most)
            for one in (values, jnp.ones_like(values))
        )
        return (total / jnp.maximum(tokens, 1))[segments]

    return jax.vmap(of_a_row)(values, segments, counted)
