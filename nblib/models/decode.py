"""Continuous batching: a finished row's slot is refilled with the next prompt.

For most uses prefer `evaluation.answers.generate`. Tunix's Sampler keeps every row until the
slowest has ended, attends to the whole KV cache from the first token on, computes logits for every
token of the prompt, and compiles again for each Sampler. Here only the last prompt token gets
logits, and what was compiled serves every model of the same configuration. Each row has noise of
its own, so that a completion does not depend on what else is in the batch.
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
    CompiledDecoder,
    PromptBatch,
    Rows,
    Rule,
    Structure,
    empty_rows,
    group_size,
    in_blocks,
    with_space,
)
from nblib.tokens.tokenizer import PAD_ID

_CPU_ROWS = 32  # more do not fit a processor's cache
_CPU_LANES = 2  # batches side by side, because a step fills one core; always 2, for equal results


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float
    top_p: float
    seed: int


def decode(
    model: nnx.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
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
        sampling: Together with a prompt's index in `prompts` it fixes the completion.
        stop: Ids that end a completion.
        max_new_tokens: Of one completion.
        batch_size: Rows at most; few prompts take fewer.
        mesh: The rows are split over its "fsdp" axis if it divides them.
        max_prompt_length: Prompts of any lengths up to this one share what is compiled.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu" and mesh.size == 1
    most = min(batch_size, _CPU_ROWS) if on_cpu else batch_size
    lanes = min(_CPU_LANES if on_cpu else 1, -(-len(prompts) // most))
    size = rows_for(-(-len(prompts) // lanes), most, mesh.shape["fsdp"])
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    padded = in_blocks(max(max_prompt_length, len(prompts[order[0]])))
    graphdef, state = nnx.split(model)
    key, ends = jax.random.key(sampling.seed), jnp.asarray(stop, jnp.int32)
    greedy, whole = sampling.temperature == 0, sampling.top_p == 1
    decoder = CompiledDecoder(
        structure=Structure(graphdef, repr(graphdef)),
        state=state,
        rule=Rule(key, sampling.temperature, sampling.top_p, ends, max_new_tokens),
        choice="greedy" if greedy else "any" if whole else "top-p",
    )

    def empty() -> Rows:
        return empty_rows(model, size, padded + in_blocks(max_new_tokens), mesh)

    def lane(indices: Sequence[int]) -> list[list[int]]:
        tokens = left_padded([prompts[index] for index in indices], padded)
        with mesh:
            return _continue(decoder, empty(), tokens, np.array(indices, np.int32))

    def compiled(program: Callable[[Rows, int], Any]) -> None:
        with mesh:
            program(empty(), padded)

    completions: list[list[int]] = [[] for _ in prompts]
    shares = [order[number::lanes] for number in range(lanes)]
    with ThreadPoolExecutor(lanes) as threads:
        if lanes > 1:  # or each lane would compile both programs
            list(threads.map(compiled, (decoder.prefill, decoder.decode)))
        for indices, written in zip(shares, threads.map(lane, shares), strict=True):
            for index, tokens in zip(indices, written, strict=True):
                completions[index] = tokens
    return completions


def rows_for(prompts: int, most: int, parts: int) -> int:
    """Return how many rows, `most` at most, a batch of so many prompts has.

    One a prompt, rounded up to a power of two for each of the `parts` that the rows are split into:
    then few batches of different sizes are compiled.

    >>> rows_for(5, 64, 1), rows_for(5, 64, 8), rows_for(90, 64, 8)
    (8, 8, 64)
    """
    of_part = -(-prompts // parts)
    return min(most, parts * 2 ** (of_part - 1).bit_length())


def left_padded(prompts: Sequence[Sequence[int]], length: int) -> Int[np.ndarray, "N T"]:
    """Return prompts of at most `length` tokens as rows of that length."""
    tokens: np.ndarray = np.full((len(prompts), length), PAD_ID, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = prompt
    return tokens


def _continue(
    decoder: CompiledDecoder,
    rows: Rows,
    prompts: Int[np.ndarray, "N T"],
    indices: Int[np.ndarray, " N"],
) -> list[list[int]]:
    """Return the completion of each prompt; `rows` is an empty batch."""
    count, length = prompts.shape
    batch, group = len(rows.last), group_size(rows)
    cursor = length
    owners: np.ndarray = np.full(batch, -1)  # the prompt in each row
    completions: list[list[int]] = [[] for _ in range(count)]
    entered = 0
    while entered < count or (owners >= 0).any():
        free = np.flatnonzero(owners < 0)[:group]
        if entered < count and len(free) == group:
            chosen = np.arange(entered, entered + group)
            owners[free] = np.where(chosen < count, chosen, -1)
            rows, cursor = with_space(rows, cursor, length)
            known = np.minimum(chosen, count - 1)
            entering = PromptBatch(prompts[known], indices[known], free, chosen >= count)
            rows = decoder.prefill(rows, cursor, entering)
            entered += group
            continue
        rows, cursor = with_space(rows, cursor, 0)
        rows, cursor, new = decoder.decode(rows, cursor, group if entered < count else batch)
        written = np.asarray(rows.written)
        for row in np.flatnonzero(owners >= 0):
            text = completions[owners[row]]
            text += new[row, : written[row] - len(text)].tolist()
        owners[np.asarray(rows.done)] = -1
    return completions
