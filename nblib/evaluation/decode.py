"""Token by token, for a batch that shrinks: what is finished costs nothing more.

Tunix's Sampler keeps every row until the slowest has ended, attends to the whole cache from the
first token on, computes logits for every token of the prompt, and compiles anew for each Sampler.
Here rows that have ended leave the batch at the end of a chunk of steps, the cache grows with what
is written, only the last prompt token gets logits, and what was compiled serves every model of the
same configuration. Lengths and batches come in few sizes, as compiling one costs as much as
hundreds of steps. Each row's noise is its own, so that a completion does not depend on its batch.

The model is Tunix's; prompts are padded on the left, so that all rows write at one place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.tokens.tokenizer import PAD_ID

LENGTH_MULTIPLE = 128  # of prompts and cache
_CHUNK = 32  # steps between two looks at what has ended
_SHRINK = 4  # a batch goes on at a quarter of its size as soon as no more rows are left
_AT_ONCE = 4096  # prompt tokens read together; more do not fit a processor's cache


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class _Structure:
    """A model without its weights: two of the same text share what was compiled.

    Tunix's configuration cannot be hashed, so a graph definition cannot either.
    """

    graphdef: nnx.GraphDef = field(compare=False)
    text: str


class _Rows(NamedTuple):
    """The batch between two steps; B rows, C places in the cache."""

    cache: Any  # layer -> k, v [B, C, K, H] and end_index [B]
    seen: Bool[Array, "B C"]  # places that hold a token
    last: Int[Array, " B"]  # token that the next step reads
    position: Int[Array, " B"]  # its position in the text
    done: Bool[Array, " B"]
    place: Int[Array, " B"]  # of the prompt, for its noise


def decode(
    model: nnx.Module,
    prompts: Sequence[Sequence[int]],
    places: Sequence[int],
    noise: Noise,
    *,
    stop: Sequence[int],
    padded: int,
    max_new_tokens: int,
    batch_size: int,
    fixed_shapes: bool = False,
) -> list[list[int]]:
    """Continue a batch of prompts; return the new tokens of each, with the stop token if it came.

    Args:
        model: A Gemma 3 of Tunix, with or without adapters.
        prompts: Token ids, BOS included, at most `batch_size` of them and none above `padded`.
        places: What each prompt's noise is drawn by; with the seed it fixes the completion.
        noise: How tokens are drawn.
        stop: Ids that end a completion.
        padded: Prompts are padded to this length, a multiple of LENGTH_MULTIPLE.
        max_new_tokens: Of one completion.
        batch_size: Rows; those without a prompt cost time, but no compilation of their own.
        fixed_shapes: Never shrink or grow: compiled once, whatever is written.
    """
    graphdef, state = nnx.split(model)
    structure = _Structure(graphdef, repr(graphdef))
    ends, greedy = jnp.asarray(stop, jnp.int32), noise.temperature == 0
    drawn = (jax.random.key(noise.seed), noise.temperature, noise.top_p)
    chunk = max_new_tokens if fixed_shapes else min(_CHUNK, max_new_tokens)
    decode_chunk = _chunk_decoder(jax.default_backend())
    tokens, done = _filled(prompts, padded, batch_size)
    place: np.ndarray = np.zeros(batch_size, np.int32)
    place[: len(places)] = places
    rows = _prefill(structure, state, jnp.asarray(tokens), jnp.asarray(done), jnp.asarray(place))
    owners = np.arange(batch_size)  # the prompt of each row
    written: list[list[int]] = [[] for _ in prompts]
    for begin in range(0, max_new_tokens, chunk):
        rows = _with_room(rows, padded + begin + chunk)
        rows, new = decode_chunk(
            structure, state, rows, begin, ends, drawn, steps=chunk, greedy=greedy
        )
        _collect(written, owners, np.asarray(new), stop, max_new_tokens)
        active = np.flatnonzero(~np.asarray(rows.done))
        if not len(active):
            break
        smaller = max(1, batch_size // _SHRINK)
        if not fixed_shapes and len(active) <= smaller < len(owners):
            chosen: np.ndarray = np.resize(active, smaller)
            rows = _taken(rows, jnp.asarray(chosen), jnp.arange(smaller) >= len(active))
            owners = owners[chosen]
            owners[len(active) :] = len(prompts)  # a filler writes for nobody
    return written


def _filled(
    prompts: Sequence[Sequence[int]], padded: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens [B, padded], padded on the left, and which rows have no prompt of their own."""
    tokens: np.ndarray = np.full((batch_size, padded), PAD_ID, np.int32)
    for row in range(batch_size):
        ids = prompts[min(row, len(prompts) - 1)]
        tokens[row, padded - len(ids) :] = ids
    return tokens, np.arange(batch_size) >= len(prompts)


def _collect(
    written: list[list[int]],
    owners: np.ndarray,
    new: np.ndarray,
    stop: Sequence[int],
    max_new_tokens: int,
) -> None:
    """Add each row's new tokens to its prompt's, up to the stop token or the limit."""
    for owner, tokens in zip(owners, new.tolist(), strict=True):
        if owner >= len(written) or (written[owner] and written[owner][-1] in stop):
            continue
        for token in tokens[: max_new_tokens - len(written[owner])]:
            written[owner].append(token)
            if token in stop:
                break


@partial(jax.jit, static_argnames=("structure",))
def _prefill(
    structure: _Structure,
    state: nnx.State,
    tokens: Int[Array, "B T"],
    done: Bool[Array, " B"],
    place: Int[Array, " B"],
) -> _Rows:
    """Read all but the last token of each prompt into a cache; no logits are computed."""
    model = nnx.merge(structure.graphdef, state)

    def read(tokens: Int[Array, "G T"]) -> tuple[Any, Bool[Array, "G T"]]:
        mask = tokens != PAD_ID
        dtype = model.embedder.input_embedding.dtype
        cache = _empty_cache(model.config, *tokens.shape, dtype=dtype)
        attention = make_causal_attn_mask(mask)
        return model(tokens, build_positions_from_mask(mask), cache, attention)[1], mask

    batch, length = tokens.shape
    together = max(n for n in range(1, batch + 1) if batch % n == 0 and (n - 1) * length < _AT_ONCE)
    groups = tokens[:, :-1].reshape(-1, together, length - 1)
    cache, mask = jax.tree.map(
        lambda array: array.reshape(batch, *array.shape[2:]), jax.lax.map(read, groups)
    )
    return _Rows(cache, mask, tokens[:, -1], jnp.sum(mask, axis=1), done, place)


def _empty_cache(config: Any, batch: int, length: int, *, dtype: Any) -> Any:
    shape = (batch, length, config.num_kv_heads, config.head_dim)
    return {
        f"layer_{index}": {
            "k": jnp.zeros(shape, dtype),
            "v": jnp.zeros(shape, dtype),
            "end_index": jnp.zeros((batch,), jnp.int32),
        }
        for index in range(config.num_layers)
    }


def _with_room(rows: _Rows, tokens: int) -> _Rows:
    """Return the rows with a cache for so many tokens, its length rounded up."""
    extra = -(-tokens // LENGTH_MULTIPLE) * LENGTH_MULTIPLE - rows.seen.shape[1]
    return _grown(rows, extra=extra) if extra > 0 else rows


@partial(jax.jit, static_argnames=("extra",))
def _grown(rows: _Rows, *, extra: int) -> _Rows:
    """Return the rows with room for `extra` more tokens."""

    def longer(array: Array) -> Array:
        if array.ndim == 1:  # end_index
            return array
        return jnp.pad(array, [(0, 0), (0, extra), *[(0, 0)] * (array.ndim - 2)])

    return rows._replace(cache=jax.tree.map(longer, rows.cache), seen=longer(rows.seen))


@jax.jit
def _taken(rows: _Rows, chosen: Int[Array, " S"], done: Bool[Array, " S"]) -> _Rows:
    """Return the chosen rows; those of `done` only fill the batch up."""
    return jax.tree.map(lambda array: array[chosen], rows)._replace(done=done)


@cache
def _chunk_decoder(platform: str) -> Callable[..., tuple[_Rows, Int[Array, "B steps"]]]:
    """Return `_decode_chunk`, compiled with what this kind of device needs."""
    # Where a CPU's compiler does not look that closely, each step copies the cache four times.
    options = {"xla_cpu_copy_insertion_use_region_analysis": True} if platform == "cpu" else None
    return jax.jit(
        _decode_chunk,
        static_argnames=("structure", "steps", "greedy"),
        donate_argnames=("rows",),
        compiler_options=options,
    )


def _decode_chunk(
    structure: _Structure,
    state: nnx.State,
    rows: _Rows,
    begin: int,
    stop: Int[Array, " S"],
    drawn: tuple[Array, float, float],
    *,
    steps: int,
    greedy: bool,
) -> tuple[_Rows, Int[Array, "B steps"]]:
    """Write up to `steps` tokens in each row, until all rows have ended.

    Tokens after a row's stop token are padding; `begin` is the number of tokens written before.
    """

    def going_on(carry: tuple[Array, _Rows, Array]) -> Array:
        step, rows, _ = carry
        return (step < steps) & ~jnp.all(rows.done)

    def one_step(carry: tuple[Array, _Rows, Array]) -> tuple[Array, _Rows, Array]:
        step, rows, new = carry
        model = nnx.merge(structure.graphdef, state)
        here = rows.cache["layer_0"]["end_index"][0]
        seen = rows.seen.at[:, here].set(True)
        logits, cache = model(
            rows.last[:, None], rows.position[:, None], rows.cache, seen[:, None, :]
        )
        token = (
            jnp.argmax(logits[:, -1], axis=-1)
            if greedy
            else _draw(logits[:, -1], drawn, rows.place, begin + step)
        )
        token = jnp.where(rows.done, PAD_ID, token).astype(jnp.int32)
        done = rows.done | jnp.isin(token, stop)
        rows = _Rows(cache, seen, token, rows.position + 1, done, rows.place)
        return step + 1, rows, new.at[:, step].set(token)

    new = jnp.full((len(rows.last), steps), PAD_ID, jnp.int32)
    _, rows, new = jax.lax.while_loop(going_on, one_step, (jnp.int32(0), rows, new))
    return rows, new


def _draw(
    logits: Float[Array, "B V"],
    drawn: tuple[Array, float, float],
    place: Int[Array, " B"],
    step: Int[Array, ""],
) -> Int[Array, " B"]:
    """Draw a token a row from the smallest set whose probability reaches top_p."""
    key, temperature, top_p = drawn
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), step))(place)
    scaled = logits.astype(jnp.float32) / temperature
    ordered, ids = jax.lax.top_k(scaled, scaled.shape[-1])
    shares = jax.nn.softmax(ordered, axis=-1)
    ordered = jnp.where(jnp.cumsum(shares, axis=-1) - shares > top_p, -jnp.inf, ordered)
    rank = jax.vmap(jax.random.categorical)(keys, ordered)
    return jnp.take_along_axis(ids, rank[:, None], axis=-1)[:, 0]
