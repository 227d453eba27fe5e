"""The next token of each row of a batch: the likeliest, or one drawn from the model's distribution.

Padding is never chosen: training and scoring mask it as no token.
Top-p: A. Holtzman et al., https://arxiv.org/abs/1904.09751.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nblib.tokens.tokenizer import PAD_ID

Choice = Literal["greedy", "any", "top-p"]
_LIKELIEST = (256, 4096)  # tokens that top-p looks at before it sorts the whole vocabulary


def next_token(
    logits: Float[Array, "B V"],
    keys: Array,
    *,
    choice: Choice,
    temperature: float,
    top_p: float,
    done: Bool[Array, " B"],
) -> Int[Array, " B"]:
    """Return a token for each row; `keys` [B] are its noise. Rows that are done get any token.

    "greedy" takes the likeliest; "any" draws from all tokens; "top-p" draws from the smallest set
    of the likeliest whose probability reaches `top_p`, ties going to the lower id.
    """
    logits = logits.at[:, PAD_ID].set(-jnp.inf)
    if choice == "greedy":
        return jnp.argmax(logits, axis=-1)
    scaled = logits.astype(jnp.float32) / temperature
    if choice == "any":
        return jax.vmap(jax.random.categorical)(keys, scaled)
    return _among_likeliest(scaled, keys, top_p, done)


def _among_likeliest(
    scaled: Float[Array, "B V"], keys: Array, top_p: float, done: Bool[Array, " B"]
) -> Int[Array, " B"]:
    """Draw by top-p without sorting the vocabulary, which would take longer than the model's step.

    The likeliest 256 tokens are sorted first, more of them only while some row's set is not whole.
    A token's noise depends on its rank alone, so that a row draws what it would draw from the whole
    sorted vocabulary, in any batch.
    """
    total = jax.nn.logsumexp(scaled, axis=-1, keepdims=True)
    vocabulary = scaled.shape[-1]

    def look_at(count: int, token: Array, whole: Array) -> tuple[Array, Array]:
        ordered, ids = jax.lax.top_k(scaled, count)
        shares = jnp.exp(ordered - total)
        reached = jnp.cumsum(shares, axis=-1)
        kept = jnp.where(reached - shares > top_p, -jnp.inf, ordered)
        rank = jax.vmap(jax.random.categorical)(keys, kept)
        drawn = jnp.take_along_axis(ids, rank[:, None], axis=-1)[:, 0]
        return jnp.where(whole, token, drawn), whole | (reached[:, -1] > top_p)

    token, whole = jnp.zeros_like(done, jnp.int32), done
    for count in (*(count for count in _LIKELIEST if count < vocabulary), vocabulary):
        token, whole = jax.lax.cond(
            jnp.all(whole), lambda *found: found, partial(look_at, count), token, whole
        )
    return token
