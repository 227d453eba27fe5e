"""Completions of GRPO in packed rows, in which a prompt stands once for all its completions there.

Rows of their own, padded to the longest that is allowed, are mostly padding. Here a row holds as
many completions as fit, of one prompt or of several. All of a prompt but its last token is shared:
its completions begin with that token, and see the shared part besides themselves. So each token has
the position, and sees the tokens, that it would alone in a row:

    prompt a b c, completions 1 2 and 3 4 5:

    tokens      a b   c 1 2   c 3 4 5   .
    positions   0 1   2 3 4   2 3 4 5   0
    segments    1 1   2 2 2   3 3 3 3   0
    prefixes    1 1   1 1 1   1 1 1 1   0      the segment that a token sees besides its own
    counted     . .   . + +   . + + +   .      completion tokens, each predicted by the one before
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from nblib.tokens.tokenizer import PAD_ID

Tokens = Sequence[int] | Int[np.ndarray, " T"]


class _Piece(NamedTuple):
    """Tokens that stand together in a row."""

    tokens: Tokens
    position: int  # of the first
    prefix: int  # the segment that they see besides their own; 0: none
    completion: int = -1  # its number, of which these are the tokens after the first `skipped`
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """Packed rows, and where in them the completions' tokens stand."""

    tokens: Int[np.ndarray, "N L"]
    positions: Int[np.ndarray, "N L"]
    segments: Int[np.ndarray, "N L"]  # 0 is padding
    prefixes: Int[np.ndarray, "N L"]
    # Of each completion token, in one order: its row and column, its completion, its number in it.
    row: Int[np.ndarray, " S"]
    column: Int[np.ndarray, " S"]
    completion: Int[np.ndarray, " S"]
    number: Int[np.ndarray, " S"]

    @property
    def counted(self) -> Bool[np.ndarray, "N L"]:
        """Where the completions' tokens stand."""
        counted = np.zeros(self.tokens.shape, bool)
        counted[self.row, self.column] = True
        return counted

    def spread(self, values: Shaped[np.ndarray, "B C"]) -> Shaped[np.ndarray, "N L"]:
        """Return a value of each completion token where it stands, 0 elsewhere."""
        spread = np.zeros(self.tokens.shape, values.dtype)
        spread[self.row, self.column] = values[self.completion, self.number]
        return spread

    def gathered(
        self, values: Shaped[np.ndarray, "N L"], shape: tuple[int, int]
    ) -> Shaped[np.ndarray, "B C"]:
        """Return the values of each completion's tokens, 0 after its end: `spread` turned round."""
        gathered = np.zeros(shape, values.dtype)
        gathered[self.completion, self.number] = values[self.row, self.column]
        return gathered


def pack_groups(
    prompts: Sequence[Tokens], completions: Sequence[Tokens], *, row_length: int, share: bool = True
) -> PackedRows:
    """Pack each completion behind its prompt; equal prompts share, empty completions are left out.

    Prompt by prompt, the longest completion first, each goes into the first row with space that
    holds its prompt already, else into the first with space for both. Without `share` each
    completion has the whole prompt in its own segment.

    Raises ValueError where a prompt and its completion are longer than a row.
    """
    keys = [tuple(map(int, prompt)) for prompt in prompts]
    rows = _Rows(row_length)
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    order = sorted(range(len(keys)), key=lambda i: (first[keys[i]], -len(completions[i])))
    for index in order:
        if len(completions[index]):
            rows.add(keys[index], completions[index], index, share=share)
    return rows.packed()


class _Rows:
    """Rows as they are filled: their pieces, their space, the prompts that each holds."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._pieces: list[list[_Piece]] = []
        self._space: np.ndarray = np.zeros(0, int)
        self._prefixes: list[dict[tuple[int, ...], int]] = []  # of each row: prompt -> its segment

    def add(self, prompt: tuple[int, ...], completion: Tokens, index: int, *, share: bool) -> None:
        shared = prompt[:-1] if share else ()
        own = [*prompt[len(shared) :], *completion]
        if len(shared) + len(own) > self._length:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and its completion of {len(completion)} are "
                f"longer than a row of {self._length}"
            )
        row = self._row_for(prompt if shared else None, len(shared), len(own))
        pieces, prefixes = self._pieces[row], self._prefixes[row]
        if shared and prompt not in prefixes:
            pieces.append(_Piece(shared, 0, 0))
            prefixes[prompt] = len(pieces)
            self._space[row] -= len(shared)
        skipped = len(own) - len(completion)
        pieces.append(_Piece(own, len(shared), prefixes.get(prompt, 0), index, skipped))
        self._space[row] -= len(own)

    def _row_for(self, prompt: tuple[int, ...] | None, shared: int, own: int) -> int:
        """Return the row that a completion goes into, a new one where none has space."""
        holding = [row for row, held in enumerate(self._prefixes) if prompt in held]
        for row in holding:
            if self._space[row] >= own:
                return row
        row = int(np.argmax(np.append(self._space >= shared + own, True)))
        if row == len(self._pieces):
            self._pieces.append([])
            self._prefixes.append({})
            self._space = np.append(self._space, self._length)
        return row

    def packed(self) -> PackedRows:
        shape = len(self._pieces), self._length
        names = ("tokens", "positions", "segments", "prefixes")
        arrays: dict[str, Any] = {name: np.zeros(shape, np.int32) for name in names}
        arrays["tokens"][:] = PAD_ID
        places: list[np.ndarray] = [np.zeros((4, 0), int)]
        for row, begin, segment, piece in self._placed():
            size, numbers = len(piece.tokens), np.arange(len(piece.tokens))
            own = row, slice(begin, begin + size)
            arrays["tokens"][own] = piece.tokens
            arrays["positions"][own] = piece.position + numbers
            arrays["segments"][own] = segment
            arrays["prefixes"][own] = piece.prefix or segment
            if piece.completion >= 0:
                learnt = numbers[piece.skipped :]
                own_places: Any = (row, begin + learnt, piece.completion, learnt - piece.skipped)
                places.append(np.stack(np.broadcast_arrays(*own_places)))
        found = zip(("row", "column", "completion", "number"), np.hstack(places), strict=True)
        return PackedRows(**arrays, **dict(found))

    def _placed(self) -> Iterator[tuple[int, int, int, _Piece]]:
        """Yield each piece with its row, where it begins, and its segment."""
        for row, pieces in enumerate(self._pieces):
            begin = 0
            for segment, piece in enumerate(pieces, start=1):
                yield row, begin, segment, piece
                begin += len(piece.tokens)
