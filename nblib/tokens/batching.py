"""From encoded examples to batches: the one way that notebooks, preflight and benchmarks go."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tunix.sft.peft_trainer import TrainingInput

from nblib.tokens.batches import TokenizedExample, batch_stream, cut_too_long, drop_too_long
from nblib.tokens.packing import pack


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How examples become batches; `packing` is one of `tokens.packing.PACKING`."""

    max_length: int  # tokens; a longer example is left out, or its end
    packing: str
    batch_tokens: int  # padding included
    epochs: int
    seed: int  # of order and packing
    cut: bool = False  # leave out the end alone of what is too long: the model never learns to end


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a training reads, in order."""

    examples: tuple[TokenizedExample, ...]  # those that are short enough, before packing
    too_long: int  # left out, or cut where the batching says so
    rows: int  # of an epoch; with packing fewer than there are examples
    batches: Sequence[TrainingInput]  # of all epochs
    val_batches: Sequence[TrainingInput]  # of one pass over the examples to validate on
    max_length: int  # tokens that an example may have
    total: int  # examples that were given
    cut: bool = False  # whether what is too long is among the examples, without its end

    @property
    def whole_share(self) -> float:
        """The share of all examples whose last token is in the loss."""
        return 1 - self.too_long / self.total

    def steps(self, accumulation: int) -> int:
        """How many updates the batches make, of so many batches each."""
        return len(self.batches) // accumulation

    @property
    def sha256(self) -> str:
        """The checksum of tokens and masks in order: what a checkpoint was trained on."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(example.tokens.tobytes() + example.loss_mask.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        """How long the examples are, how many were left out, and how many rows the rest fills."""
        count, lengths = len(self.examples), [len(example.tokens) for example in self.examples]
        learnt = np.mean([example.loss_mask.sum() for example in self.examples])
        done = "cut" if self.cut else "left out, not cut"
        return (
            f"{self.too_long} of {self.total} over {self.max_length} tokens: {done}\n"
            f"{count} examples: {np.mean(lengths):.0f} tokens on average ({learnt:.0f} learnt), "
            f"median {np.median(lengths):.0f}, 95th percentile {np.percentile(lengths, 95):.0f}, "
            f"longest {max(lengths)}\n"
            f"{count} examples in {self.rows} rows, {len(self.batches)} batches"
        )


def training_data(
    encoded: Sequence[TokenizedExample],
    validation: Sequence[TokenizedExample],
    batching: Batching,
    *,
    row_multiple: int = 1,
) -> TrainingData:
    """Leave out (or cut) what is too long, pack where asked, and batch by length.

    `validation` may be empty. `row_multiple` is the number of devices that share a batch.
    Raises ValueError when no example is short enough, or one cannot be packed.
    """

    def batched(
        kept: Sequence[TokenizedExample], epochs: int, *, shuffle: bool
    ) -> tuple[int, Sequence[TrainingInput]]:
        rows = pack(kept, batching.packing, max_length=batching.max_length, seed=batching.seed)
        return len(rows), batch_stream(
            rows,
            tokens_per_batch=batching.batch_tokens,
            epochs=epochs,
            seed=batching.seed,
            shuffle=shuffle,
            row_multiple=row_multiple,
        )

    shorten = cut_too_long if batching.cut else drop_too_long
    kept, too_long = shorten(encoded, batching.max_length)
    rows, batches = batched(kept, batching.epochs, shuffle=True)
    val_batches: Sequence[TrainingInput] = ()
    if validation:
        short, _ = shorten(validation, batching.max_length)
        _, val_batches = batched(short, 1, shuffle=False)
    return TrainingData(
        examples=kept,
        too_long=too_long,
        rows=rows,
        batches=batches,
        val_batches=val_batches,
        max_length=batching.max_length,
        total=len(encoded),
        cut=batching.cut,
    )
