"""The batch that `models.decode` refills, and the two programs that work on it: prefill and decode.

All rows write their next token at one position of the KV cache, the cursor. So every text ends
there, a new prompt is put right before it, and when the cache is full the texts move to its start.
Two rows, cursor 9, of a cache of 12 positions (p prompt, c completion):

    decode to 9    . p p p c c c c c | . . .        then row 1 has ended: its slot gets a prompt
                   . . . p p c c c c | . . .
    prefill row 1  . p p p c c c c c | . . .        both go on at position 9
                   . . . . p p p p p | . . .

Of a long cache a local layer keeps what its window can see alone, as a ring: position p is at slot
p modulo the ring's length. Gemma 3's 270m has 3 global layers of 18, so that 131,072 positions of a
row take 0.4 GB and not 2.4.
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
from tunix.models.gemma3.model import Attention, AttentionType
from tunix.sft.utils import build_positions_from_mask

from nblib.models.attention import InPlaceAttention, attention_of, called, unembed
from nblib.models.next_token import Choice, next_token
from nblib.models.processes import on_host, on_mesh
from nblib.tokens.tokenizer import PAD_ID

BLOCK = 32  # prompt tokens that prefill takes at a time, in each row; lengths are multiples of it
GROUPS = 4  # a quarter of the batch is refilled at once, as soon as so many rows have ended
_STEPS = 128  # at most, between two looks at what has ended


@dataclass(frozen=True)
class Structure:
    """A model without its weights: two of the same text share what was compiled.

    Tunix's configuration cannot be hashed, so a graph definition cannot either.
    """

    graphdef: nnx.GraphDef = field(compare=False)
    text: str


class Rows(NamedTuple):
    """The batch between two steps; B rows, C positions in the cache."""

    cache: Any  # layer -> k, v [R, C or a ring, H]; R = B * K, the rows' heads
    valid: Bool[Array, "B C"]  # positions that hold a token of the row's text
    last: Int[Array, " B"]  # newest token, not yet in the cache
    position: Int[Array, " B"]  # its position in the text: so many tokens are in the cache
    written: Int[Array, " B"]  # tokens of the completion
    done: Bool[Array, " B"]
    prompt: Int[Array, " B"]  # its index, for its noise


class PromptBatch(NamedTuple):
    """Prompts that enter the batch together; G is what is refilled at once."""

    tokens: Int[np.ndarray, "G T"]  # padded on the left
    prompt: Int[np.ndarray, " G"]  # their indices, for their noise
    written: Int[np.ndarray, " G"]  # tokens of them that are the completion's beginning
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
class CompiledDecoder:
    """The two programs of a model, and what stays the same from call to call."""

    structure: Structure
    state: nnx.State
    rule: Rule
    choice: Choice

    def prefill(self, rows: Rows, cursor: int, entering: PromptBatch | None = None) -> Rows:
        """Return the rows with prompts in the cache, all but the last token of each.

        Without prompts it only compiles the program.
        """
        if entering is None:
            group = np.arange(group_size(rows))
            tokens: np.ndarray = np.full((len(group), cursor), PAD_ID, np.int32)
            none = np.zeros_like(group, np.int32)
            entering = PromptBatch(tokens, none, none, group, group >= 0)
        return _prefill(self.structure, self.state, rows, cursor, entering)

    def decode(
        self, rows: Rows, cursor: int, enough: int = 0
    ) -> tuple[Rows, int, Int[np.ndarray, "B steps"]]:
        """Write tokens until `enough` rows have ended or the cache is full.

        Returns the rows, the next cursor, and the new tokens: of a row as many as `written` has
        grown by, then padding.
        """
        rows, following, new = _chunk_decoder(jax.default_backend())(
            self.structure, self.state, rows, cursor, enough, self.rule, choice=self.choice
        )
        return rows, int(following), on_host(new)


def group_size(rows: Rows) -> int:
    """Return how many rows are refilled together."""
    return max(1, len(rows.last) // GROUPS)


def in_blocks(length: int) -> int:
    """Return a length rounded up to whole blocks."""
    return -(-length // BLOCK) * BLOCK


def empty_rows(model: nnx.Module, batch: int, length: int, mesh: jax.sharding.Mesh) -> Rows:
    """Return a batch without a text."""
    dtype = model.embedder.input_embedding.dtype
    last, position, written, prompt = (jnp.zeros((batch,), jnp.int32) for _ in range(4))
    rows = Rows(
        cache={
            layer: {name: jnp.zeros(shape, dtype) for name in ("k", "v")}
            for layer, shape in cache_shapes(model, batch, length).items()
        },
        valid=jnp.zeros((batch, length), jnp.bool_),
        last=last,
        position=position,
        written=written,
        done=jnp.ones((batch,), jnp.bool_),
        prompt=prompt,
    )
    split = PartitionSpec("fsdp" if batch % mesh.shape["fsdp"] == 0 else None)
    return on_mesh(rows, NamedSharding(mesh, split))


def cache_shapes(model: nnx.Module, batch: int, length: int) -> dict[str, tuple[int, int, int]]:
    """Return layer -> the shape of its keys, and of its values."""

    def positions(attention: Attention) -> int:
        if attention.attn_type != AttentionType.LOCAL_SLIDING:
            return length
        ring = in_blocks(attention.sliding_window_size) + BLOCK  # a block is written, then attends
        return ring if 2 * ring <= length else length

    config = model.config
    return {
        f"layer_{index}": (batch * config.num_kv_heads, positions(layer.attn), config.head_dim)
        for index, layer in enumerate(model.layers)
    }


def with_space(rows: Rows, cursor: int, before: int) -> tuple[Rows, int]:
    """Return rows and cursor such that it is in the cache, with `before` positions before it.

    If it is not, the texts move to the start of the cache.
    """
    if before <= cursor < rows.valid.shape[1]:
        return rows, cursor
    longest = int(np.max(np.where(*on_host((rows.done, 0, rows.position)))))
    moved = max(longest, before)
    return _moved(rows, moved - cursor), moved


@partial(jax.jit, donate_argnames=("rows",))
def _moved(rows: Rows, by: int) -> Rows:
    """Return the rows with their texts that many positions further on; none is cut in two."""
    moved = partial(jnp.roll, shift=by, axis=1)
    return rows._replace(cache=jax.tree.map(moved, rows.cache), valid=moved(rows.valid))


@partial(jax.jit, static_argnames=("structure",), donate_argnames=("rows",))
def _prefill(
    structure: Structure, state: nnx.State, rows: Rows, cursor: int, entering: PromptBatch
) -> Rows:
    """Put the prompts, but for their last tokens, into the cache right before the cursor."""
    tokens = jnp.pad(entering.tokens[:, :-1], [(0, 0), (1, 0)], constant_values=PAD_ID)
    mask = tokens != PAD_ID
    positions = build_positions_from_mask(mask)

    def prefill_block(block: Array, cache: Any) -> Any:
        begin = block * BLOCK
        own = partial(jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=BLOCK, axis=1)
        causal = jnp.arange(tokens.shape[1]) <= begin + jnp.arange(BLOCK)[:, None]
        seen = mask[:, None] & causal
        return call_in_place(
            structure.graphdef, state, own(tokens), own(positions), cache, begin, seen
        )[1]

    shortest = jnp.argmax(jnp.any(mask, axis=0))  # no row has a token before it
    heads = len(rows.cache["layer_0"]["k"]) // len(rows.last)
    length, whole = tokens.shape[1], rows.valid.shape[1]

    def small(old: Array) -> Array:
        positions = length if old.shape[1] == whole else min(length, old.shape[1])
        return jnp.zeros((heads * len(tokens), positions, old.shape[2]), old.dtype)

    empty = jax.tree.map(small, rows.cache)
    blocks = length // BLOCK
    cache = jax.lax.fori_loop(shortest // BLOCK, blocks, prefill_block, empty)

    def placed(array: Array, new: Array, own: Array) -> Array:
        """Put new [G, T, ...] into its own rows of array [B, C, ...], and nothing else in them.

        Position p of it goes to cursor - T + p; in a ring, modulo the ring's length.
        """
        after = [(0, 0), (0, array.shape[1] - new.shape[1]), *[(0, 0)] * (array.ndim - 2)]
        return array.at[own].set(jnp.roll(jnp.pad(new, after), cursor - length, axis=1))

    own_heads = (entering.rows[:, None] * heads + jnp.arange(heads)).reshape(-1)

    def given(array: Array, new: Any) -> Array:
        return array.at[entering.rows].set(new)

    return Rows(
        cache=jax.tree.map(partial(placed, own=own_heads), rows.cache, cache),
        valid=placed(rows.valid, mask, entering.rows),
        last=given(rows.last, entering.tokens[:, -1]),
        position=given(rows.position, jnp.sum(mask, axis=1)),
        written=given(rows.written, entering.written),
        done=given(rows.done, entering.filler),
        prompt=given(rows.prompt, entering.prompt),
    )


def call_in_place(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    cache: Any,
    begin: Int[Array, ""],
    mask: Bool[Array, "B T C"],
) -> tuple[Float[Array, "B T D"], Any]:
    """Return the model's hidden states, and the KV cache with the tokens written from `begin` on.

    The model's attention is exchanged; its weights and adapters act as in a call of its own.
    """
    model = nnx.merge(graphdef, state)
    begun = {layer: {**arrays, "begin": begin} for layer, arrays in cache.items()}
    with attention_of(model, InPlaceAttention):
        return called(model, tokens, positions, begun, mask)


def last_logits(state: nnx.State, hidden: Float[Array, "B T D"]) -> Float[Array, "B V"]:
    """Return the logits that follow each row's last token."""
    return unembed(state["embedder"]["input_embedding"].get_value(), hidden[:, -1])


@cache
def _chunk_decoder(platform: str) -> Callable[..., tuple[Rows, Array, Int[Array, "B steps"]]]:
    """Return `_decode_chunk`, compiled with what this kind of device needs."""
    # Without it a CPU's compiler copies the KV cache in each step.
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
    cursor: int,
    enough: int,
    rule: Rule,
    *,
    choice: Choice,
) -> tuple[Rows, Int[Array, ""], Int[Array, "B steps"]]:
    """Do what `CompiledDecoder.decode` says, for at most `_STEPS` tokens."""
    end = jnp.minimum(cursor + _STEPS, rows.valid.shape[1])

    def going_on(carry: tuple[Array, Rows, Array]) -> Array:
        at, rows, _ = carry
        return (at < end) & (jnp.sum(rows.done) < enough)

    def one_step(carry: tuple[Array, Rows, Array]) -> tuple[Array, Rows, Array]:
        at, rows, new = carry
        rows = with_next(*forward(structure, state, rows, at), rule, choice)
        return at + 1, rows, new.at[:, at - cursor].set(rows.last)

    new = jnp.full((len(rows.last), _STEPS), PAD_ID, jnp.int32)
    cursor = jnp.asarray(cursor, jnp.int32)
    following, rows, new = jax.lax.while_loop(going_on, one_step, (cursor, rows, new))
    return rows, following, new


def forward(
    structure: Structure, state: nnx.State, rows: Rows, at: Int[Array, ""]
) -> tuple[Rows, Float[Array, "B V"]]:
    """Put each row's newest token into the cache at a position; also return what may follow it."""
    valid = rows.valid.at[:, at].set(True)
    token, position = rows.last[:, None], rows.position[:, None]
    hidden, cache = call_in_place(
        structure.graphdef, state, token, position, rows.cache, at, valid[:, None]
    )
    return rows._replace(cache=cache, valid=valid), last_logits(state, hidden)


def with_next(rows: Rows, logits: Float[Array, "B V"], rule: Rule, choice: Choice) -> Rows:
    """Return the rows after `forward` with their next tokens; padding where a row is done."""
    drawn = next_token(
        logits,
        _noise_keys(rule, rows),
        choice=choice,
        temperature=rule.temperature,
        top_p=rule.top_p,
        done=rows.done,
    )
    drawn = jnp.where(rows.done, PAD_ID, drawn).astype(jnp.int32)
    written = rows.written + ~rows.done
    done = rows.done | jnp.isin(drawn, rule.stop) | (written >= rule.max_new_tokens)
    return rows._replace(last=drawn, position=rows.position + 1, written=written, done=done)


def _noise_keys(rule: Rule, rows: Rows) -> Array:
    """Return a key for each row: its prompt's index and the length of its text alone decide."""

    def key(prompt: Array, written: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(rule.key, prompt), written)

    return jax.vmap(key)(rows.prompt, rows.written)
