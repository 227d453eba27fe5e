"""Packing: several examples in a row, none of them cut, with little padding.

The trainer tells the parts of a row apart by their BOS: positions restart there and attention stays
inside a part (`training.loss.model_inputs`). The loss of a batch is what it would be with every
example in a row of its own:

    row         <bos> 8 9 <end> <bos> 7 <end> <pad>
    loss_mask     0   0 1   1     0   1   1     0
    position      0   1 2   3     0   1   2     -

On an accelerator padding is the greater waste; on a CPU it is attention over the whole row, so that
rows of similar length (`tokens.batches`) are faster.
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
    space (first-fit decreasing). All rows have `max_length` tokens, rounded up to a batch's length,
    so that a step is compiled once.
    Raises ValueError for an example that does not fit or does not begin with its only BOS, outside
    the loss mask; and for another `packing`.
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
    """Return which of the lengths go into which row: each into the first that has space.

    >>> first_fit([5, 4, 6, 2], 8)
    [[0, 3], [1], [2]]
    """
    rows: list[list[int]] = []
    space: np.ndarray = np.full(len(lengths), row_length)
    for index, length in enumerate(lengths):
        row = int(np.argmax(space >= length))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        space[row] -= length
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
    tokens = np.concatenate([part.tokens for part in parts])
    loss_mask = np.concatenate([part.loss_mask for part in parts])
    padding = (0, length - len(tokens))
    return TokenizedExample(
        id="+".join(part.id for part in parts),
        tokens=np.pad(tokens, padding, constant_values=PAD_ID),
        loss_mask=np.pad(loss_mask, padding),
    )
