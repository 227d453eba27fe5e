"""From encoded examples to batches: the one way that notebooks, preflight and benchmarks go."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunix.sft.peft_trainer import TrainingInput

from nblib.tokens.batches import (
    TokenizedExample,
    batch_stream,
    drop_too_long,
    examples_sha256,
    length_summary,
)
from nblib.tokens.packing import pack


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a training reads, in order.

    Attributes:
        examples: Those that are short enough, before packing.
        too_long: How many were longer: left out, not cut.
        rows: Of how many rows an epoch is made; with packing fewer than there are examples.
        batches: Of all epochs.
        val_batches: Of one pass over the examples to validate on.
        max_length: Tokens that an example may have.
    """

    examples: tuple[TokenizedExample, ...]
    too_long: int
    rows: int
    batches: Sequence[TrainingInput]
    val_batches: Sequence[TrainingInput]
    max_length: int

    @property
    def sha256(self) -> str:
        """The checksum of tokens and masks: what a checkpoint was trained on."""
        return examples_sha256(self.examples)

    def __str__(self) -> str:
        """How long the examples are, how many were left out, and how many rows the rest fills."""
        total = len(self.examples) + self.too_long
        return (
            f"{self.too_long} of {total} over {self.max_length} tokens: left out, not cut\n"
            f"{length_summary(self.examples)}\n"
            f"{len(self.examples)} examples in {self.rows} rows, {len(self.batches)} batches"
        )


def training_data(
    encoded: Sequence[TokenizedExample],
    val_encoded: Sequence[TokenizedExample] = (),
    *,
    max_length: int,
    packing: str,
    batch_tokens: int,
    epochs: int,
    seed: int,
    row_multiple: int = 1,
) -> TrainingData:
    """Leave out what is too long, pack where asked, and batch by length.

    Args:
        encoded: to learn from.
        val_encoded: to validate on; may be empty.
        max_length: tokens.
        packing: one of `tokens.packing.PACKING`.
        batch_tokens: tokens a batch, padding included.
        epochs: passes over the examples.
        seed: fixes order and packing.
        row_multiple: the devices that share a batch.

    Raises ValueError when no example is short enough, or one cannot be packed.
    """

    def batched(
        kept: Sequence[TokenizedExample], passes: int, *, shuffle: bool
    ) -> tuple[int, Sequence[TrainingInput]]:
        rows = pack(kept, packing, max_length=max_length, seed=seed)
        return len(rows), batch_stream(
            rows,
            tokens_per_batch=batch_tokens,
            epochs=passes,
            seed=seed,
            shuffle=shuffle,
            row_multiple=row_multiple,
        )

    kept, too_long = drop_too_long(encoded, max_length)
    rows, batches = batched(kept, epochs, shuffle=True)
    val_batches: Sequence[TrainingInput] = ()
    if val_encoded:
        _, val_batches = batched(drop_too_long(val_encoded, max_length)[0], 1, shuffle=False)
    return TrainingData(
        examples=kept,
        too_long=too_long,
        rows=rows,
        batches=batches,
        val_batches=val_batches,
        max_length=max_length,
    )
