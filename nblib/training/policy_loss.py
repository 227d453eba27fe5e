"""GRPO's loss without the full logits: Tunix's figures, from completions scored chunk by chunk.

Tunix's own loss holds the logits of prompt and completion, their log-softmax and their softmax,
each `[B, T, V]`. Here only the completion's tokens have logits, which exist a chunk at a time;
ratios, clipping, KL and means are Tunix's, in value and gradient. A batch of zero-variance groups
has no gradient, and is not computed.
GRPO: https://arxiv.org/abs/2402.03300. GSPO: https://arxiv.org/abs/2507.18071
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tunix.models.gemma3.model import Gemma3
from tunix.rl import common
from tunix.rl.grpo.grpo_learner import GRPOConfig, TrainExample
from tunix.sft.utils import build_positions_from_mask

from nblib.models.attention import hidden_states
from nblib.training.loss import token_scores

_LOG_RATIO_LIMIT, _GSPO_LIMIT = 20.0, 10.0  # Tunix's

LossAndFigures = tuple[Float[Array, ""], dict[str, Array]]


def completion_scores(
    model: Gemma3,
    prompt_ids: Int[Array, "B P"],
    completion_ids: Int[Array, "B C"],
    completion_mask: Bool[Array, "B C"],
    *,
    pad_id: int,
    temperature: float = 1.0,
    remat: bool = False,
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Return log-probability and entropy at each token that the mask counts, in nats; else 0.

    Prompts are padded on the left, completions on the right. The entropy carries no gradient: it
    is logged, not trained. As in Tunix, padding keeps its probability p although it is never drawn:
    a token was drawn with a log-probability higher by -log(1 - p), 1e-6 for a trained model.
    """
    tokens = jnp.concatenate([prompt_ids, completion_ids], axis=1)
    is_text = tokens != pad_id
    positions = build_positions_from_mask(is_text)
    hidden = hidden_states(model, tokens, positions, is_text.astype(jnp.int32), remat=remat)
    before = prompt_ids.shape[1] - 1  # the last prompt token predicts the first completion token

    return token_scores(
        model, hidden[:, before:-1], completion_ids, completion_mask != 0, temperature=temperature
    )


@partial(nnx.jit, graph_updates=False, static_argnames=("pad_id", "temperature"))
def completion_log_probs(
    model: Gemma3,
    prompt_ids: Int[Array, "B P"],
    completion_ids: Int[Array, "B C"],
    *,
    pad_id: int,
    temperature: float,
) -> Float[Array, "B C"]:
    """Return the log-probabilities of `completion_scores`, compiled; 0 where padding is."""
    mask = completion_ids != pad_id
    scores = completion_scores(
        model, prompt_ids, completion_ids, mask, pad_id=pad_id, temperature=temperature
    )
    return scores[0]


def grpo_loss(
    model: Gemma3,
    train_example: TrainExample,
    algo_config: GRPOConfig,
    *,
    pad_id: int,
    remat: bool = False,
) -> LossAndFigures:
    """Return the loss of "grpo", "dr-grpo" or "gspo-token", and the figures that are logged.

    A figure is [sum over the completions' tokens, number of these tokens], so that the figures of
    micro-batches add up to a mean per token. Where all advantages are 0 and there is no KL term,
    loss and gradient are 0 without being computed, and figures are of 0 tokens.
    """
    compute = partial(_computed_loss, pad_id=pad_id, remat=remat)
    if train_example.ref_per_token_logps is not None:
        return compute(model, train_example, algo_config)
    kind = nnx.LoRAParam if nnx.state(model, nnx.LoRAParam) else nnx.Param
    graphdef, trained, fixed = nnx.split(model, kind, ...)
    merge = partial(nnx.merge, graphdef, copy=True)  # remat writes to what it is given
    return _unless_nothing(
        jnp.any(train_example.advantages != 0),
        lambda trained: compute(merge(trained, fixed), train_example, algo_config),
        trained,
    )


def _unless_nothing(
    anything: Bool[Array, ""],
    compute: Callable[[nnx.State], LossAndFigures],
    trained: nnx.State,
) -> LossAndFigures:
    """Return `compute(trained)` if `anything`, else a loss of 0 and figures of 0 tokens.

    The gradient is taken within the branch. By itself jax would pass all that a backward pass needs
    from one conditional to another, and the compiler could drop none of it.
    """

    def nothing(trained: nnx.State) -> LossAndFigures:
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(compute, trained))

    @jax.custom_vjp
    def value(trained: nnx.State) -> LossAndFigures:
        return jax.lax.cond(anything, compute, nothing, trained)

    def forward(trained: nnx.State) -> tuple[Any, nnx.State]:
        return jax.lax.cond(
            anything,
            jax.value_and_grad(compute, has_aux=True),
            lambda trained: (nothing(trained), jax.tree.map(jnp.zeros_like, trained)),
            trained,
        )

    def backward(gradient: nnx.State, cotangents: Any) -> tuple[nnx.State]:
        return (jax.tree.map(lambda one: one * cotangents[0].astype(one.dtype), gradient),)

    value.defvjp(forward, backward)
    return value(trained)


def _computed_loss(
    model: Gemma3, train_example: TrainExample, algo_config: GRPOConfig, **scoring: Any
) -> LossAndFigures:
    mask = train_example.completion_mask
    log_probs, entropies = completion_scores(
        model,
        train_example.prompt_ids,
        train_example.completion_ids,
        mask,
        temperature=algo_config.temperature,
        **scoring,
    )
    old = train_example.old_per_token_logps
    log_ratio = _log_ratio(
        log_probs, jax.lax.stop_gradient(log_probs) if old is None else old, mask, algo_config
    )
    ratio, epsilon = jnp.exp(log_ratio), algo_config.epsilon
    advantages = train_example.advantages.astype(jnp.float32)[:, None]
    free = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1 - epsilon, 1 + epsilon)

    def mean(values: Array) -> Array:
        return common.aggregate_loss(values, mask, algo_config.loss_agg_mode)

    loss = mean(jnp.maximum(free, clipped))
    kl = jnp.zeros_like(log_probs)
    if train_example.ref_per_token_logps is not None:
        kl = common.compute_kl_divergence(
            log_probs, train_example.ref_per_token_logps, algo_config.kl_loss_mode
        )
        loss += algo_config.beta * mean(kl)
    figures = {"kl": kl, "entropy": entropies, "pg_clipfrac": clipped > free}
    return loss, {
        name: jnp.stack([(values * mask).sum(), mask.sum()]).astype(jnp.float32)
        for name, values in figures.items()
    }


def _log_ratio(log_probs: Array, old: Array, mask: Array, algo_config: GRPOConfig) -> Array:
    """Return the log of new over old probability: of each token, or for GSPO of the completion."""
    log_ratio = jnp.clip(log_probs - old, -_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT)
    if algo_config.loss_algo != "gspo-token":
        return log_ratio
    whole = (log_ratio * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)
    log_ratio = log_probs - jax.lax.stop_gradient(log_probs - whole[:, None])
    return jnp.minimum(log_ratio, _GSPO_LIMIT)
