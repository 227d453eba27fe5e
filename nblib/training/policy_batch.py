"""The completions of one update of GRPO, in packed rows, cut into micro-batches of equal size.

How a batch is cut makes no difference to the update: each token carries its weight in the loss of
the whole, and the losses of micro-batches add up.
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from tunix.rl.grpo.grpo_learner import TrainExample

from nblib.models.causal_attention import SHARING_LENGTH
from nblib.tokens.group_packing import PackedRows, pack_groups
from nblib.tokens.tokenizer import PAD_ID
from nblib.training.grpo_config import GrpoConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PolicyBatch:
    """K micro-batches of R rows of L tokens; rows come first, because Tunix splits the first axis.

    What follows `prefixes` is of the completions' tokens, where these stand.
    """

    tokens: Int[Array, "R K L"]
    positions: Int[Array, "R K L"]
    segments: Int[Array, "R K L"]  # 0 is padding
    prefixes: Int[Array, "R K L"]  # see `tokens.group_packing`
    weights: Float[Array, "R K L"]  # of the token's loss in the update's; 0: it is not counted
    advantages: Float[Array, "R K L"]
    old_log_probs: Float[Array, "R K L"] | None = None
    reference_log_probs: Float[Array, "R K L"] | None = None

    def micro_batch(self, index: Int[Array, ""] | int) -> "PolicyBatch":
        """Return one of the micro-batches; its arrays have no axis K."""
        picked = partial(jax.lax.dynamic_index_in_dim, index=index, axis=1, keepdims=False)
        return jax.tree.map(picked, self)


def policy_batch(example: TrainExample, config: GrpoConfig, *, rows: int) -> PolicyBatch:
    """Pack what Tunix's learner made of one step's completions, B of them in groups.

    The weights make the loss the mean over completions of each one's mean over its tokens, for Dr.
    GRPO of each one's sum over the longest length that is allowed. Zero-variance groups count in
    that mean; they have no gradient but that of a KL term, and without one are left out of the
    rows.
    """
    mask, prompts = np.asarray(example.completion_mask), np.asarray(example.prompt_ids)
    lengths = mask.sum(axis=1)
    advantages = _zero_where_equal(np.asarray(example.advantages), config.num_generations)
    rewarded = advantages.reshape(-1, config.num_generations).any(axis=1)
    left_out = np.repeat(~rewarded, config.num_generations) & (example.ref_per_token_logps is None)
    in_rows = np.where(left_out, 0, lengths)
    packed = pack_completions(prompts, np.asarray(example.completion_ids), in_rows, config)
    over = np.full_like(lengths, mask.shape[1]) if config.loss == "dr-grpo" else lengths
    weights = 1 / np.maximum(over * np.count_nonzero(lengths), 1)
    values = {
        "weights": np.broadcast_to(weights[:, None], mask.shape),
        "advantages": np.broadcast_to(advantages[:, None], mask.shape),
        "old_log_probs": example.old_per_token_logps,
        "reference_log_probs": example.ref_per_token_logps,
    }
    given = {name: np.asarray(one, "f4") for name, one in values.items() if one is not None}
    arrays = row_arrays(packed) | {name: packed.spread(one) for name, one in given.items()}
    # Not so many as are filled, or each step would be compiled again: a row a completion is enough.
    count = -(-len(lengths) // rows)
    cut = {name: in_micro_batches(one, rows, count) for name, one in arrays.items()}
    return PolicyBatch(**cut)


def pack_completions(
    prompts: Int[np.ndarray, "B P"],
    completions: Int[np.ndarray, "B C"],
    lengths: Int[np.ndarray, " B"],
    config: GrpoConfig,
) -> PackedRows:
    """Pack prompts that are padded on the left, and so many tokens of each completion."""
    return pack_groups(
        [prompt[prompt != PAD_ID] for prompt in prompts],
        [tokens[:length] for tokens, length in zip(completions, lengths, strict=True)],
        row_length=config.row_length,
        share=config.row_length <= SHARING_LENGTH,
    )


def row_arrays(packed: PackedRows) -> dict[str, np.ndarray]:
    """Return the arrays of packed rows that a model is called with."""
    names = ("tokens", "positions", "segments", "prefixes")
    return {name: getattr(packed, name) for name in names}


def in_micro_batches(
    array: Shaped[np.ndarray, "N L"], rows: int, count: int
) -> Shaped[np.ndarray, "R K L"]:
    """Return rows as `count` micro-batches, the last ones filled up with empty rows."""
    filled = np.zeros((count * rows, array.shape[1]), array.dtype)
    filled[: len(array)] = array
    return filled.reshape(count, rows, -1).swapaxes(0, 1)


def _zero_where_equal(advantages: Float[np.ndarray, " B"], size: int) -> Float[np.ndarray, " B"]:
    """Return the advantages, exactly 0 in zero-variance groups: a mean of equals is rounded."""
    groups = advantages.reshape(-1, size)
    return np.where(np.ptp(groups, axis=1, keepdims=True) == 0, 0, groups).ravel()
