"""Packing: several examples in a row, none of them cut, with little padding.

A row is an example made of examples. Each part begins with its BOS, by which the trainer's inputs
tell them apart: positions restart there and attention stays inside (`training.loss.model_inputs`).
The loss of a batch is what it would be with every example in a row of its own.

On an accelerator padding is the greater waste; on a CPU it is attention over the whole row, and
`batches`, with rows of similar length, is faster.
"""

import random
from collections.abc import Sequence

import numpy as np

from nblib.tokens.batches import TokenizedExample, bucket_of
from nblib.tokens.tokenizer import BOS_ID, PAD_ID

PACKING = ("on", "off")


def pack(
    examples: Sequence[TokenizedExample], packing: str, *, max_length: int, seed: int
) -> tuple[TokenizedExample, ...]:
    """Return rows of one length that hold all the examples, or, with `packing` "off", these.

    Long examples first, those of one length in random order, each goes into the first row that has
    room; a row has `max_length` tokens, rounded up to a batch's length. All rows have that length,
    so that a step is compiled once.

        tokens     <bos> 8 9 <end> <bos> 7 <end> <pad>
        loss_mask    0   0 1   1     0   1   1     0

    Raises ValueError for an example that does not fit, or that does not begin with its only BOS
    outside the loss mask; and for another `packing`.
    """
    if packing not in PACKING:
        raise ValueError(f"PACKING {packing!r} is unknown: expected one of {', '.join(PACKING)}")
    if packing == "off":
        return tuple(examples)
    length = bucket_of(max_length)
    for example in examples:
        _check(example, length)
    order = list(range(len(examples)))
    random.Random(f"packing/{seed}").shuffle(order)
    order.sort(key=lambda index: -len(examples[index].tokens))
    rows = first_fit([len(examples[index].tokens) for index in order], length)
    return tuple(_join([examples[order[place]] for place in row], length) for row in rows)


def first_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Return which of the lengths go into which row: each into the first that has room.

    >>> first_fit([5, 4, 6, 2], 8)
    [[0, 3], [1], [2]]
    """
    rows: list[list[int]] = []
    room: np.ndarray = np.full(len(lengths), row_length)
    for index, length in enumerate(lengths):
        row = int(np.argmax(room >= length))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        room[row] -= length
    return rows


def _check(example: TokenizedExample, row_length: int) -> None:
    if len(example.tokens) > row_length:
        raise ValueError(
            f"example {example.id} has {len(example.tokens)} tokens, a packed row {row_length}: "
            "leave it out or raise MAX_LENGTH"
        )
    if np.flatnonzero(example.tokens == BOS_ID).tolist() != [0] or example.loss_mask[0]:
        raise ValueError(
            f"example {example.id} cannot be packed: it must begin with its only BOS (id {BOS_ID}),"
            f" not to be learnt; got tokens {example.tokens[:4].tolist()}..., "
            f"{np.count_nonzero(example.tokens == BOS_ID)} times BOS, mask {example.loss_mask[0]}"
        )


def _join(parts: Sequence[TokenizedExample], length: int) -> TokenizedExample:
    tokens: np.ndarray = np.full(length, PAD_ID, np.int32)
    loss_mask: np.ndarray = np.zeros(length, np.float32)
    for name, row in (("tokens", tokens), ("loss_mask", loss_mask)):
        joined = np.concatenate([getattr(part, name) for part in parts])
        row[: len(joined)] = joined
    return TokenizedExample(
        id="+".join(part.id for part in parts), tokens=tokens, loss_mask=loss_mask
    )
