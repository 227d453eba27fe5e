"""The batch that `models.decode` fills again and again, and the two programs that work on it.

All rows are written at one place of the cache. So all texts end there, a new prompt is read into
the places before it, and when the cache is full the texts move to its beginning:

    one question | its answer          one question | its answer
         another | and its     ->       a third one | and that
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int
from tunix.models.gemma3.model import ModelConfig
from tunix.sft.utils import build_positions_from_mask

from nblib.models.attention import InPlaceAttention, attention_of
from nblib.models.next_token import Choice, next_token
from nblib.tokens.tokenizer import PAD_ID

BLOCK = 32  # prompt tokens that are read together, in each row; lengths are multiples of it
GROUPS = 4  # a batch is filled up by a quarter, as soon as so many rows have ended
_STEPS = 128  # at most, between two looks at what has ended


@dataclass(frozen=True)
class Structure:
    """A model without its weights: two of the same text share what was compiled.

    Tunix's configuration cannot be hashed, so a graph definition cannot either.
    """

    graphdef: nnx.GraphDef = field(compare=False)
    text: str


class Rows(NamedTuple):
    """The batch between two steps; B rows, C places in the cache."""

    cache: Any  # layer -> k, v [R, C, H]; R = B * K, the rows' heads
    seen: Bool[Array, "B C"]  # places that hold a token of the row's text
    last: Int[Array, " B"]  # token that the next step reads
    position: Int[Array, " B"]  # its position in the text: so many tokens are in the cache
    written: Int[Array, " B"]  # tokens of the completion
    done: Bool[Array, " B"]
    place: Int[Array, " B"]  # of the prompt, for its noise


class Entering(NamedTuple):
    """Prompts that enter the batch together; G is what is filled up at once."""

    tokens: Int[np.ndarray, "G T"]  # padded on the left
    place: Int[np.ndarray, " G"]  # for their noise
    rows: Int[np.ndarray, " G"]  # of the batch
    filler: Bool[np.ndarray, " G"]  # no prompt: there are fewer


class Rule(NamedTuple):
    """How the next token is drawn, and when a completion ends."""

    key: Array
    temperature: float
    top_p: float
    stop: Int[Array, " S"]
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Writer:
    """The two programs of a model, and what stays the same from call to call."""

    structure: Structure
    state: nnx.State
    rule: Rule
    choice: Choice

    def read(self, rows: Rows, here: int, entering: Entering | None = None) -> Rows:
        """Return the rows with prompts in the cache, all but the last token of each."""
        return _read(self.structure, self.state, rows, here, entering or _nobody(rows, here))

    def write(
        self, rows: Rows, here: int, enough: int = 0
    ) -> tuple[Rows, int, Int[np.ndarray, "B steps"]]:
        """Write tokens until `enough` rows have ended or the cache is full.

        Returns the rows, the next place to write, and the new tokens; as many of them as `written`
        has grown by are a row's, the others are padding.
        """
        rows, place, new = _chunk_decoder(jax.default_backend())(
            self.structure, self.state, rows, here, enough, self.rule, choice=self.choice
        )
        return rows, int(place), np.asarray(new)


def _nobody(rows: Rows, length: int) -> Entering:
    group = group_size(rows)
    tokens: np.ndarray = np.full((group, length), PAD_ID, np.int32)
    place: np.ndarray = np.zeros(group, np.int32)
    return Entering(tokens, place, np.arange(group), np.ones(group, bool))


def group_size(rows: Rows) -> int:
    """Return how many rows are filled together."""
    return max(1, len(rows.last) // GROUPS)


def in_blocks(length: int) -> int:
    """Return a length rounded up to whole blocks."""
    return -(-length // BLOCK) * BLOCK


def no_rows(model: nnx.Module, batch: int, length: int, mesh: jax.sharding.Mesh) -> Rows:
    """Return a batch without a text."""
    last, position, written, place = (jnp.zeros((batch,), jnp.int32) for _ in range(4))
    dtype = model.embedder.input_embedding.dtype
    cache = _empty_cache(model.config, dtype, batch, length)
    seen = jnp.zeros((batch, length), jnp.bool_)
    rows = Rows(cache, seen, last, position, written, jnp.ones((batch,), jnp.bool_), place)
    split = PartitionSpec("fsdp" if batch % mesh.shape["fsdp"] == 0 else None)
    return jax.device_put(rows, NamedSharding(mesh, split))


def cache_shape(config: ModelConfig, batch: int, length: int) -> tuple[int, int, int]:
    """Return the shape of a layer's keys, and of its values."""
    return batch * config.num_kv_heads, length, config.head_dim


def _empty_cache(config: ModelConfig, dtype: Any, batch: int, length: int) -> Any:
    shape = cache_shape(config, batch, length)
    return {
        f"layer_{index}": {name: jnp.zeros(shape, dtype) for name in ("k", "v")}
        for index in range(config.num_layers)
    }


def with_room(rows: Rows, here: int, reach: int) -> tuple[Rows, int]:
    """Return the rows and the next place to write: in the cache, with `reach` places before it.

    Where it is not so, the texts move to the beginning of the cache.
    """
    if reach <= here < rows.seen.shape[1]:
        return rows, here
    longest = int(np.max(np.where(rows.done, 0, rows.position)))
    place = max(longest, reach)
    return _moved(rows, place - here), place


@partial(jax.jit, donate_argnames=("rows",))
def _moved(rows: Rows, by: int) -> Rows:
    """Return the rows with their texts that many places further on; no part of one goes round."""

    def moved(array: Array) -> Array:
        return jnp.roll(array, by, axis=1)

    return rows._replace(cache=jax.tree.map(moved, rows.cache), seen=moved(rows.seen))


@partial(jax.jit, static_argnames=("structure",), donate_argnames=("rows",))
def _read(
    structure: Structure, state: nnx.State, rows: Rows, here: int, entering: Entering
) -> Rows:
    """Read the prompts, but for their last tokens, into the places before `here`."""
    tokens = jnp.pad(entering.tokens[:, :-1], [(0, 0), (1, 0)], constant_values=PAD_ID)
    mask = tokens != PAD_ID
    positions = build_positions_from_mask(mask)

    def read(block: Array, cache: Any) -> Any:
        begin = block * BLOCK
        own = partial(jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=BLOCK, axis=1)
        causal = jnp.arange(tokens.shape[1]) <= begin + jnp.arange(BLOCK)[:, None]
        return call_in_place(
            structure.graphdef,
            state,
            own(tokens),
            own(positions),
            cache,
            begin,
            mask[:, None] & causal,
        )[1]

    shortest = jnp.argmax(jnp.any(mask, axis=0))  # no row has a token before it
    heads = len(rows.cache["layer_0"]["k"]) // len(rows.last)
    empty = jax.tree.map(
        lambda array: jnp.zeros(
            (heads * len(tokens), tokens.shape[1], array.shape[2]), array.dtype
        ),
        rows.cache,
    )
    cache = jax.lax.fori_loop(shortest // BLOCK, tokens.shape[1] // BLOCK, read, empty)

    def placed(array: Array, new: Array) -> Array:
        """Put new [G, T, ...] into its rows of array [B, C, ...], and nothing else in them."""
        whole = jnp.zeros((len(new), *array.shape[1:]), array.dtype)
        start = (0, here - new.shape[1], *[0] * (array.ndim - 2))
        return array.at[entering.rows].set(jax.lax.dynamic_update_slice(whole, new, start))

    def placed_heads(array: Array, new: Array) -> Array:
        def of_rows(heads: Array, rows: int) -> Array:
            return heads.reshape(rows, -1, *heads.shape[1:]).swapaxes(1, 2)

        found = placed(of_rows(array, len(rows.last)), of_rows(new, len(tokens)))
        return found.swapaxes(1, 2).reshape(array.shape)

    def given(array: Array, new: Any) -> Array:
        return array.at[entering.rows].set(new)

    return Rows(
        cache=jax.tree.map(placed_heads, rows.cache, cache),
        seen=placed(rows.seen, mask),
        last=given(rows.last, entering.tokens[:, -1]),
        position=given(rows.position, jnp.sum(mask, axis=1)),
        written=given(rows.written, 0),
        done=given(rows.done, entering.filler),
        place=given(rows.place, entering.place),
    )


def call_in_place(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    cache: Any,
    begin: Int[Array, ""],
    mask: Bool[Array, "B T C"],
) -> tuple[Float[Array, "B T V"], Any]:
    """Return the model's logits, and the cache with the tokens written from place `begin` on.

    The model's attention is exchanged; its weights and adapters act as in a call of its own.
    """
    model = nnx.merge(graphdef, state)
    begun = {layer: {**arrays, "begin": begin} for layer, arrays in cache.items()}
    with attention_of(model, InPlaceAttention):
        return model(tokens, positions, begun, mask)


@cache
def _chunk_decoder(platform: str) -> Callable[..., tuple[Rows, Array, Int[Array, "B steps"]]]:
    """Return `_decode_chunk`, compiled with what this kind of device needs."""
    # Where a CPU's compiler does not look that closely, each step copies the cache.
    options = {"xla_cpu_copy_insertion_use_region_analysis": True} if platform == "cpu" else None
    return jax.jit(
        _decode_chunk,
        static_argnames=("structure", "choice"),
        donate_argnames=("rows",),
        compiler_options=options,
    )


def _decode_chunk(
    structure: Structure,
    state: nnx.State,
    rows: Rows,
    here: int,
    enough: int,
    rule: Rule,
    *,
    choice: Choice,
) -> tuple[Rows, Int[Array, ""], Int[Array, "B steps"]]:
    """Write tokens until `enough` rows have ended or the cache is full.

    Returns the rows, the next place to write, and the new tokens; as many of them as `written` has
    grown by are a row's, the others are padding.
    """
    end = jnp.minimum(here + _STEPS, rows.seen.shape[1])

    def going_on(carry: tuple[Array, Rows, Array]) -> Array:
        place, rows, _ = carry
        return (place < end) & (jnp.sum(rows.done) < enough)

    def one_step(carry: tuple[Array, Rows, Array]) -> tuple[Array, Rows, Array]:
        place, rows, new = carry
        seen = rows.seen.at[:, place].set(True)
        logits, cache = call_in_place(
            structure.graphdef,
            state,
            rows.last[:, None],
            rows.position[:, None],
            rows.cache,
            place,
            seen[:, None],
        )
        token = next_token(
            logits[:, -1],
            _noise_keys(rule, rows),
            choice=choice,
            temperature=rule.temperature,
            top_p=rule.top_p,
            done=rows.done,
        )
        token = jnp.where(rows.done, PAD_ID, token).astype(jnp.int32)
        written = rows.written + ~rows.done
        done = rows.done | jnp.isin(token, rule.stop) | (written >= rule.max_new_tokens)
        after = Rows(cache, seen, token, rows.position + 1, written, done, rows.place)
        return place + 1, after, new.at[:, place - here].set(token)

    new = jnp.full((len(rows.last), _STEPS), PAD_ID, jnp.int32)
    here = jnp.asarray(here, jnp.int32)
    place, rows, new = jax.lax.while_loop(going_on, one_step, (here, rows, new))
    return rows, place, new


def _noise_keys(rule: Rule, rows: Rows) -> Array:
    """Return a key for each row: its prompt's place and the length of its text alone decide."""

    def key(place: Array, written: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(rule.key, place), written)

    return jax.vmap(key)(rows.place, rows.written)
