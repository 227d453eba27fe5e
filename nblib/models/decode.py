"""Continuous batching: a finished row's slot is refilled with the next prompt.

For most uses prefer `evaluation.answers.generate`. Tunix's Sampler keeps every row until the
slowest has ended, attends to the whole KV cache from the first token on, computes logits for every
token of the prompt, and compiles again for each Sampler. Here only the last prompt token gets
logits, and what was compiled serves every model of the same configuration. Each row has noise of
its own, so that a completion does not depend on what else is in the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int

from nblib.models.decode_batch import (
    BLOCK,
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
from nblib.models.decode_constrained import ConstrainedDecoder
from nblib.models.processes import on_host
from nblib.tokens.grammar import Grammar
from nblib.tokens.tokenizer import PAD_ID

_CPU_ROWS = 32  # more do not fit a processor's cache
_MOST_POSITIONS = 2**19  # of a device's KV cache: 2.1 GB of Gemma 3 1B's global layers, in fp32
_CPU_LANES = 2  # batches side by side, because a step fills one core; always 2, for equal results


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float
    top_p: float
    seed: int


class Text(NamedTuple):
    """What a row begins with."""

    prompt: Sequence[int]
    completion: Sequence[int] = ()  # tokens of it that are there already


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
    grammars: Sequence[Grammar | None] | None = None,
) -> list[list[int]]:
    """Continue prompts; return the new tokens of each in their order, with the stop token if any.

    By grammars each step takes the token among the legal ones only. Greedily a completion is first
    written without: as long as the likeliest token of all is legal, it is the likeliest legal one.
    Only from the first illegal token on is it written again, with masks.

    Args:
        model: A Gemma 3 of Tunix, with or without adapters.
        prompts: Token ids, BOS included.
        sampling: Together with a prompt's index in `prompts` it fixes the completion.
        stop: Ids that end a completion.
        max_new_tokens: Of one completion.
        batch_size: Rows at most; few prompts take fewer, and so do very long ones.
        mesh: The rows are split over its "fsdp" axis if it divides them.
        max_prompt_length: Prompts of any lengths up to this one share what is compiled.
        grammars: What each completion may be; None is anything. Their stop tokens must be `stop`.
    """
    if grammars is not None and len(grammars) != len(prompts):
        raise ValueError(f"{len(grammars)} grammars for {len(prompts)} prompts, expected one each")
    programs = _programs(model, sampling, stop, max_new_tokens)
    in_lanes = partial(_in_lanes, model=model, batch_size=batch_size, mesh=mesh)
    length = in_blocks(max(max_prompt_length, *map(len, prompts)))
    room = in_blocks(max_new_tokens)
    texts = {index: Text(prompt) for index, prompt in enumerate(prompts)}
    completions: dict[int, list[int]] = {}
    greedy = sampling.temperature == 0
    if grammars is None or greedy:
        completions = in_lanes(CompiledDecoder(**programs), texts, length=length, room=room)
    if grammars is not None and greedy:
        texts = _resumed(texts, completions, grammars)
        length, room = length + room, BLOCK  # so short because most texts leave room before them
    if grammars is not None and texts:
        matchers = {
            index: grammar.matcher(text.completion)
            for index, text in texts.items()
            if (grammar := grammars[index]) is not None
        }
        decoder = ConstrainedDecoder(**programs, matchers=matchers)
        completions |= in_lanes(decoder, texts, length=length, room=room)
    return [completions[index] for index in range(len(prompts))]


def _programs(
    model: nnx.Module, sampling: Sampling, stop: Sequence[int], max_new_tokens: int
) -> dict[str, Any]:
    """Return the fields of a `CompiledDecoder`."""
    graphdef, state = nnx.split(model)
    key, ends = jax.random.key(sampling.seed), jnp.asarray(stop, jnp.int32)
    greedy, whole = sampling.temperature == 0, sampling.top_p == 1
    return {
        "structure": Structure(graphdef, repr(graphdef)),
        "state": state,
        "rule": Rule(key, sampling.temperature, sampling.top_p, ends, max_new_tokens),
        "choice": "greedy" if greedy else "any" if whole else "top-p",
    }


def _resumed(
    texts: Mapping[int, Text],
    completions: Mapping[int, Sequence[int]],
    grammars: Sequence[Grammar | None],
) -> dict[int, Text]:
    """Return the texts whose completions break their grammars, each up to its first bad token."""
    legal = {
        index: grammar.count_legal(completions[index])
        for index, grammar in enumerate(grammars)
        if grammar is not None
    }
    return {
        index: Text(texts[index].prompt, completions[index][:count])
        for index, count in legal.items()
        if count < len(completions[index])
    }


def _in_lanes(
    decoder: CompiledDecoder,
    texts: Mapping[int, Text],
    *,
    model: nnx.Module,
    length: int,
    room: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> dict[int, list[int]]:
    """Return the completions of texts by their indices.

    The cache has `length` positions for what a row begins with, and `room` for new tokens before
    the texts must be moved.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu" and mesh.size == 1
    fitting = max(1, _MOST_POSITIONS // (length + room)) * mesh.shape["fsdp"]
    most = min(batch_size, fitting, *[_CPU_ROWS] * on_cpu)
    lanes = min(_CPU_LANES if on_cpu else 1, -(-len(texts) // most))
    size = rows_for(-(-len(texts) // lanes), most, mesh.shape["fsdp"])
    order = sorted(texts, key=lambda index: -sum(map(len, texts[index])))

    def empty() -> Rows:
        return empty_rows(model, size, length + room, mesh)

    def lane(indices: Sequence[int]) -> list[list[int]]:
        own = [texts[index] for index in indices]
        tokens = left_padded([[*text.prompt, *text.completion] for text in own], length)
        begun = [text.completion for text in own]
        with mesh:
            return _continue(decoder, empty(), tokens, np.array(indices, np.int32), begun)

    def compiled(program: Callable[[Rows, int], Any]) -> None:
        with mesh:
            program(empty(), length)

    completions: dict[int, list[int]] = {}
    shares = [order[number::lanes] for number in range(lanes)]
    with ThreadPoolExecutor(lanes) as threads:
        if lanes > 1:  # or each lane would compile both programs
            list(threads.map(compiled, (decoder.prefill, decoder.decode)))
        for indices, written in zip(shares, threads.map(lane, shares), strict=True):
            completions |= zip(indices, written, strict=True)
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
    begun: Sequence[Sequence[int]],
) -> list[list[int]]:
    """Return the whole completion of each text, of which `begun` is there; `rows` is empty."""
    count, length = prompts.shape
    batch, group = len(rows.last), group_size(rows)
    cursor = length
    owners: np.ndarray = np.full(batch, -1)  # the prompt in each row
    completions = [list(tokens) for tokens in begun]
    there = np.array([len(tokens) for tokens in begun], np.int32)
    entered = 0
    while entered < count or (owners >= 0).any():
        free = np.flatnonzero(owners < 0)[:group]
        if entered < count and len(free) == group:
            chosen = np.arange(entered, entered + group)
            owners[free] = np.where(chosen < count, chosen, -1)
            rows, cursor = with_space(rows, cursor, length)
            known = np.minimum(chosen, count - 1)
            entering = PromptBatch(
                prompts[known], indices[known], there[known], free, chosen >= count
            )
            rows = decoder.prefill(rows, cursor, entering)
            entered += group
            continue
        rows, cursor = with_space(rows, cursor, 0)
        rows, cursor, new = decoder.decode(rows, cursor, group if entered < count else batch)
        written, done = on_host((rows.written, rows.done))
        for row in np.flatnonzero(owners >= 0):
            text = completions[owners[row]]
            text += new[row, : written[row] - len(text)].tolist()
        owners[done] = -1
    return completions
