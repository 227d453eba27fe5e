"""Token by token, in a batch that is filled up again: what is finished costs nothing more.

Tunix's Sampler keeps every row until the slowest has ended, attends to the whole cache from the
first token on, computes logits for every token of the prompt, and compiles again for each Sampler.
Here a row that has ended makes room for the next prompt, only the last prompt token gets logits,
and what was compiled serves every model of the same configuration. Each row's noise is its own, so
that a completion does not depend on what else is in the batch.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int

from nblib.models.decode_batch import (
    Entering,
    Rows,
    Rule,
    Structure,
    Writer,
    group_size,
    in_blocks,
    no_rows,
    with_room,
)
from nblib.tokens.tokenizer import PAD_ID

_CPU_ROWS = 32  # more do not fit a processor's cache
_CPU_LANES = 2  # batches side by side, as a step fills one core; everywhere, to write the same


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float
    top_p: float
    seed: int


def decode(
    model: nnx.Module,
    prompts: Sequence[Sequence[int]],
    noise: Noise,
    *,
    stop: Sequence[int],
    max_new_tokens: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    max_prompt_length: int = 0,
) -> list[list[int]]:
    """Continue prompts; return the new tokens of each in their order, with the stop token if any.

    Args:
        model: A Gemma 3 of Tunix, with or without adapters.
        prompts: Token ids, BOS included.
        noise: How tokens are drawn; with a prompt's place in `prompts` it fixes the completion.
        stop: Ids that end a completion.
        max_new_tokens: Of one completion.
        batch_size: Rows that are continued together, at most; few prompts take fewer.
        mesh: Where the model is; the rows are split over its "fsdp" axis if it divides them.
        max_prompt_length: Prompts of any lengths up to this one share what is compiled.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu" and mesh.size == 1
    most = min(batch_size, _CPU_ROWS) if on_cpu else batch_size
    lanes = min(_CPU_LANES if on_cpu else 1, -(-len(prompts) // most))
    size = rows_for(-(-len(prompts) // lanes), most, mesh.shape["fsdp"])
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    padded = in_blocks(max(max_prompt_length, len(prompts[order[0]])))
    graphdef, state = nnx.split(model)
    key, ends = jax.random.key(noise.seed), jnp.asarray(stop, jnp.int32)
    writer = Writer(
        structure=Structure(graphdef, repr(graphdef)),
        state=state,
        rule=Rule(key, noise.temperature, noise.top_p, ends, max_new_tokens),
        choice="greedy" if noise.temperature == 0 else "any" if noise.top_p == 1 else "top-p",
    )

    def empty() -> Rows:
        return no_rows(model, size, padded + in_blocks(max_new_tokens), mesh)

    def lane(places: Sequence[int]) -> list[list[int]]:
        tokens = side_by_side([prompts[place] for place in places], padded)
        with mesh:
            return _continue(writer, empty(), tokens, np.array(places, np.int32))

    def compiled(program: Callable[[Rows, int], Any]) -> None:
        with mesh:
            program(empty(), padded)

    completions: list[list[int]] = [[] for _ in prompts]
    shares = [order[number::lanes] for number in range(lanes)]
    with ThreadPoolExecutor(lanes) as threads:
        if lanes > 1:  # or each lane would compile both programs
            list(threads.map(compiled, (writer.read, writer.write)))
        for places, written in zip(shares, threads.map(lane, shares), strict=True):
            for place, tokens in zip(places, written, strict=True):
                completions[place] = tokens
    return completions


def rows_for(prompts: int, most: int, parts: int) -> int:
    """Return how many rows of a batch so many prompts need, `most` at most.

    One a prompt, rounded up to a power of two for each of the `parts` that the rows are split into:
    then few batches of different sizes are compiled.

    >>> rows_for(5, 64, 1), rows_for(5, 64, 8), rows_for(90, 64, 8)
    (8, 8, 64)
    """
    of_part = -(-prompts // parts)
    return min(most, parts * 2 ** (of_part - 1).bit_length())


def side_by_side(prompts: Sequence[Sequence[int]], length: int) -> Int[np.ndarray, "N T"]:
    """Return prompts of at most `length` tokens as rows of that length, padded on the left."""
    tokens: np.ndarray = np.full((len(prompts), length), PAD_ID, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = prompt
    return tokens


def _continue(
    writer: Writer, rows: Rows, prompts: Int[np.ndarray, "N T"], places: Int[np.ndarray, " N"]
) -> list[list[int]]:
    """Return the completion of each prompt, in an empty batch that is filled again and again."""
    count, reach = prompts.shape
    batch, group = len(rows.last), group_size(rows)
    here = reach  # the place that the next step writes
    owners: np.ndarray = np.full(batch, -1)  # the prompt of each row
    completions: list[list[int]] = [[] for _ in range(count)]
    entered = 0
    while entered < count or (owners >= 0).any():
        free = np.flatnonzero(owners < 0)[:group]
        if entered < count and len(free) == group:
            chosen = np.arange(entered, entered + group)
            owners[free] = np.where(chosen < count, chosen, -1)
            rows, here = with_room(rows, here, reach)
            known = np.minimum(chosen, count - 1)
            entering = Entering(prompts[known], places[known], free, chosen >= count)
            rows = writer.read(rows, here, entering)
            entered += group
            continue
        rows, here = with_room(rows, here, 0)
        rows, here, new = writer.write(rows, here, group if entered < count else batch)
        written = np.asarray(rows.written)
        for row in np.flatnonzero(owners >= 0):
            text = completions[owners[row]]
            text += new[row, : written[row] - len(text)].tolist()
        owners[np.asarray(rows.done)] = -1
    return completions
