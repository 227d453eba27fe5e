"""Causal attention of training: softmax(Q K^T) V within each example of a row, no mask in memory.

Which example a token belongs to is given as segments `[B, T]`, 0 for padding; examples may share
what they begin with. A mask `[B, T, T]` would take 17 GB for one row of 131,072 tokens, and one
layer's logits 275 GB: neither exists here.

    short rows    in four parts, each with the keys before it
    long rows     the same, 512 queries at a time
    on TPUs       jax's kernel, splash attention: long rows, and others that fill its tiles

For most uses prefer `models.attention.hidden_states`.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int
from tunix.models.gemma3.model import K_MASK

from nblib.models.mesh import current_mesh, current_platform

_PARTS = 4  # of a row
_LEAST = 64  # tokens of a part
_QUERIES = 512  # of a part, computed at a time
_LANES = 128  # of a TPU: its kernel takes heads of a multiple of them
_TILE = 512  # queries, and keys, that the kernel works on at a time
SHARING_LENGTH = _PARTS * _QUERIES  # of rows at most, where examples share what they begin with


class Segments(NamedTuple):
    """The segment of each token of a row; where some are shared, what a token sees besides."""

    own: Int[Array, "B T"]  # 0 is padding
    prefix: Int[Array, "B T"] | None = None  # the segment that it sees too; None: nothing is shared
    position: Int[Array, "B T"] | None = None  # in its text, as far as windows reach there


class _Given(NamedTuple):
    query: Float[Array, "B T N H"]
    keys: Float[Array, "R T H"]
    values: Float[Array, "R T H"]
    segments: Segments


def causal_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Segments,
    *,
    window: int | None,
) -> Float[Array, "B T N H"]:
    """Return each query's mean of the values before it in its segments, and its own.

    Queries are scaled already. `window` is how many keys a query sees, its own included; None is
    all. A part's queries skip the keys after it, and, where nothing is shared, those before the
    window:

        queries   1 . . .      keys of 4 parts: 10 blocks of 16,
        of 4      1 2 . .      three eighths less work,
        parts     1 2 3 .      and as much less memory at a time
                  1 2 3 4

    Raises ValueError for rows over SHARING_LENGTH in which segments are shared.
    """
    length, width = query.shape[1], query.shape[3]
    shared = segments.prefix is not None
    if shared and length > SHARING_LENGTH:
        raise ValueError(f"rows of {length} tokens cannot share, at most {SHARING_LENGTH} can")
    if current_platform() == "tpu" and takes_kernel(length, width, shared=shared):
        return _splash_attention(query, key, value, segments.own, window)
    given = _Given(query, head_rows(key), head_rows(value), segments)
    size = max(_LEAST, -(-length // _PARTS))
    compute = _part if size <= _QUERIES else _part_in_blocks
    parts = [
        compute(given, begin, min(begin + size, length), window) for begin in range(0, length, size)
    ]
    return jnp.concatenate(parts, axis=1)


def takes_kernel(length: int, width: int, *, shared: bool = False) -> bool:
    """Return whether a TPU computes rows of a length, and heads of a width, by its kernel.

    It knows no prefix that examples share.
    """
    filled = length > SHARING_LENGTH or length % _TILE == 0
    return filled and width % _LANES == 0 and not shared


def kernel_operations(length: int, width: int, window: int | None, *, remat: bool) -> float:
    """Return the operations of the kernel for one head of one row, forward and backward.

    The compiler does not count them. A product has two for each pair of query and key in the tiles
    that are computed; the forward pass has two products (twice with `remat`), the backward pass 7.
    """
    keys = length / 2 + _TILE / 2
    if window is not None:
        keys = min(window + _TILE, keys)
    return (11 if remat else 9) * 2 * width * length * keys


def head_rows(heads: Float[Array, "B T K H"]) -> Float[Array, "R T H"]:
    """Return each row's heads as rows of their own: R = B * K."""
    batch, length, count, width = heads.shape
    return heads.swapaxes(1, 2).reshape(batch * count, length, width)


def attend(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "R C H"],
    values: Float[Array, "R C H"],
    mask: Bool[Array, "B T C"],
) -> Float[Array, "B T N H"]:
    """Return each query's mean of the values that its mask lets it see."""
    batch, tokens, count, width = query.shape
    heads, length = len(keys) // batch, keys.shape[1]
    grouped = query.reshape(batch, tokens, heads, -1, width).swapaxes(1, 2)
    logits = jnp.einsum("RQH,RCH->RQC", grouped.reshape(batch * heads, -1, width), keys)
    logits = logits.reshape(batch, heads, tokens, -1, length)
    shares = jax.nn.softmax(jnp.where(mask[:, None, :, None], logits, K_MASK), axis=-1)
    shares = shares.astype(values.dtype).reshape(batch * heads, -1, length)
    output = jnp.einsum("RQC,RCH->RQH", shares, values)
    output = output.reshape(batch, heads, tokens, -1, width).swapaxes(1, 2)
    return output.reshape(batch, tokens, count, width)


def _part(given: _Given, begin: int, end: int, window: int | None) -> Float[Array, "B Q N H"]:
    """Return the output of the queries from `begin` to `end`."""
    shared = given.segments.prefix is not None  # may stand far before those who see it
    first = 0 if window is None or shared else max(0, begin - window + 1)
    own, seen = slice(begin, end), slice(first, end)
    queries = jax.tree.map(lambda one: one[:, own], given.segments)
    keys = jax.tree.map(lambda one: one[:, seen], given.segments)
    mask = _mask(queries, keys, begin - first, window)
    return attend(given.query[:, own], given.keys[:, seen], given.values[:, seen], mask)


def _part_in_blocks(
    given: _Given, begin: int, end: int, window: int | None
) -> Float[Array, "B Q N H"]:
    """Return what `_part` does, by blocks of queries, whose logits the backward pass makes again.

    Each block sees equally many keys. Those before the row, and queries after the part, are filler.
    """
    blocks = -(-(end - begin) // _QUERIES)
    size = -(-(end - begin) // blocks)
    before = begin if window is None else window - 1
    after = begin + blocks * size - end
    numbers = given.segments.own
    queries, own = (_filled(one, begin, end, 0, after) for one in (given.query, numbers))
    keys, values, segments = (
        _filled(one, max(0, begin - before), end, max(0, before - begin), after)
        for one in (given.keys, given.values, numbers + 1)  # so that no filler is a segment
    )
    width = keys.shape[1] if window is None else before + size

    @jax.checkpoint
    def block(start: Array) -> Array:
        first = jnp.zeros_like(start) if window is None else start
        ours = partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size, axis=1)
        seen = partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=width, axis=1)
        both = Segments(ours(own) + 1), Segments(seen(segments))
        mask = _mask(*both, before + start - first, window)
        return attend(ours(queries), seen(keys), seen(values), mask)

    outputs = jax.lax.map(block, jnp.arange(blocks) * size)  # [blocks, B, size, N, H]
    joined = jnp.moveaxis(outputs, 0, 1).reshape(-1, blocks * size, *outputs.shape[3:])
    return joined[:, : end - begin]


def _filled(array: Array, begin: int, end: int, before: int, after: int) -> Array:
    """Return positions `begin` to `end` of axis 1, with so many zeros before and after them."""
    kept = array[:, begin:end]
    return jnp.pad(kept, [(0, 0), (before, after), *[(0, 0)] * (array.ndim - 2)])


def _mask(
    own: Segments, seen: Segments, ahead: int | Array, window: int | None
) -> Bool[Array, "B Q C"]:
    """Return which keys each query sees; the first query stands at key `ahead`."""
    at = ahead + jnp.arange(own.own.shape[1])[:, None]
    key = jnp.arange(seen.own.shape[1])
    same = own.own[:, :, None] == seen.own[:, None, :]
    if own.prefix is None or own.position is None or seen.position is None:
        return same & (key <= at if window is None else (key <= at) & (key > at - window))
    same |= own.prefix[:, :, None] == seen.own[:, None, :]
    if window is None:
        return same & (key <= at)
    near = own.position[:, :, None] - seen.position[:, None, :] < window
    return same & (key <= at) & near


def _splash_attention(
    query: Array, key: Array, value: Array, segments: Array, window: int | None
) -> Float[Array, "B T N H"]:
    """Return the attention by jax's kernel for TPUs, each device's own rows and heads.

    https://docs.jax.dev/en/latest/pallas/tpu
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds  # for TPUs alone

    length = query.shape[1]
    after = -length % _TILE
    query, key, value = (
        jnp.pad(one, [(0, 0), (0, after), (0, 0), (0, 0)]).swapaxes(1, 2)
        for one in (query, key, value)
    )
    segments = jnp.pad(segments, [(0, 0), (0, after)])
    rows, heads, shared = _split_over(query.shape[0], query.shape[1], key.shape[1])
    by_head, by_group = PartitionSpec(rows, heads), PartitionSpec(rows, shared)

    @partial(
        jax.shard_map,
        mesh=current_mesh(),
        in_specs=(by_head, by_group, by_group, PartitionSpec(rows)),
        out_specs=by_head,
        check_vma=False,  # the kernel does not say over what its output varies
    )
    def of_a_device(query: Array, key: Array, value: Array, segments: Array) -> Array:
        kernel = _kernel(query.shape[1], query.shape[2], window)
        return jax.vmap(kernel)(query, key, value, SegmentIds(segments, segments))

    return of_a_device(query, key, value, segments).swapaxes(1, 2)[:, :length]


@cache  # to find what a long row's tiles hold takes seconds, for each layer in each pass
def _kernel(heads: int, length: int, window: int | None) -> Any:
    """Return the kernel for the rows of a device."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (length, length)
    near = splash.LocalMask(shape, (window - 1, 0), 0) if window else splash.CausalMask(shape)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes = splash.BlockSizes(**{f"block_{name}": _TILE for name in names})
    mask = splash.MultiHeadMask([near] * heads)
    with jax.ensure_compile_time_eval():
        return splash.make_splash_mha_single_device(mask, block_sizes=sizes)


def _split_over(rows: int, heads: int, shared: int) -> tuple[str | None, str | None, str | None]:
    """Return the mesh axes that rows, heads, and the heads of keys and values are split over."""
    mesh = current_mesh()
    fsdp, tp = mesh.shape["fsdp"], mesh.shape["tp"]
    by_rows = "fsdp" if rows % fsdp == 0 else None
    if heads % tp or (shared > 1 and shared % tp):
        return by_rows, None, None
    return by_rows, "tp", "tp" if shared % tp == 0 else None
