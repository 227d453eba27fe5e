"""Decoding by grammars: the next token is chosen among those that a row's grammar allows.

The grammars are on the host, so this loop is too. The masks of a step do not depend on its logits:
they are made while the device computes these.

    device   forward 7 .................. | choose 7 |             forward 8 ..........
    host     masks for 7 | waits ................... | takes in 7 | masks for 8 | waits

For most uses prefer `decode`: it decodes greedily without masks first, and comes here only for the
completions that broke their grammar.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from nblib.models.decode_batch import CompiledDecoder, Rows, Rule, Structure, forward, with_next
from nblib.models.next_token import Choice
from nblib.models.processes import on_host
from nblib.tokens.grammar import Matcher

_BITS = 32  # of a word of a mask


@dataclass(frozen=True, kw_only=True)
class ConstrainedDecoder(CompiledDecoder):
    """As `CompiledDecoder`, with a matcher for each prompt that stands at its completion's end.

    Decoding moves the matchers on. A prompt without one is completed freely.
    """

    matchers: Mapping[int, Matcher]  # by the prompts' indices

    def decode(
        self, rows: Rows, cursor: int, enough: int = 0
    ) -> tuple[Rows, int, Int[np.ndarray, "B steps"]]:
        """Write a token, and more until `enough` rows have ended or the cache is full."""
        (owners, done), new = on_host((rows.prompt, rows.done)), []
        while True:
            going_on = {
                row: matcher
                for row in np.flatnonzero(~done).tolist()
                if (matcher := self.matchers.get(owners[row]))
            }
            rows, logits = _forward(self.structure, self.state, rows, cursor)
            masks = _masks(going_on, logits.shape)
            rows = _choose(rows, logits, masks, self.rule, choice=self.choice)
            tokens, done = on_host((rows.last, rows.done))
            for row, matcher in going_on.items():
                matcher.consume(int(tokens[row]))
            new.append(tokens)
            cursor += 1
            if done.sum() >= enough or cursor == rows.valid.shape[1]:
                return rows, cursor, np.stack(new, axis=1)


def _masks(matchers: Mapping[int, Matcher], shape: tuple[int, int]) -> Int[np.ndarray, "B W"]:
    """Return the packed masks of logits of a shape; a row without a matcher is free."""
    batch, vocabulary = shape
    masks: np.ndarray = np.full((batch, -(-vocabulary // _BITS)), -1, np.int32)  # -1: all bits
    for row, matcher in matchers.items():
        matcher.fill(masks, row)
    return masks


@partial(jax.jit, static_argnames=("structure",), donate_argnames=("rows",))
def _forward(
    structure: Structure, state: nnx.State, rows: Rows, at: int
) -> tuple[Rows, Float[Array, "B V"]]:
    return forward(structure, state, rows, jnp.asarray(at, jnp.int32))


@partial(jax.jit, static_argnames=("choice",), donate_argnames=("rows",))
def _choose(
    rows: Rows,
    logits: Float[Array, "B V"],
    masks: Int[Array, "B W"],
    rule: Rule,
    *,
    choice: Choice,
) -> Rows:
    """Return the rows with their next tokens, of those whose bits are set."""
    bits = (masks[:, :, None] >> jnp.arange(_BITS)) & 1
    legal = bits.reshape(len(masks), -1)[:, : logits.shape[1]] == 1
    return with_next(rows, jnp.where(legal, logits.astype(jnp.float32), -jnp.inf), rule, choice)
