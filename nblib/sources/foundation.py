"""The rows that the foundation is trained, validated and judged on."""

from collections.abc import Sequence
from dataclasses import dataclass

from nblib.sources.datasets import get_dataset
from nblib.sources.rows import Row, content_sha256
from nblib.sources.wordproblems import word_problems

_VALIDATION_SIZE = 200


@dataclass(frozen=True, kw_only=True)
class FoundationRows:
    """Training rows in order (GSM8K's once an epoch), a slice to validate on, held-out rows."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    origin: str
    sha256: str  # of the training rows
    notes: tuple[str, ...]


def foundation_rows(
    levels: Sequence[int],
    count: int,
    *,
    held_out: int,
    gsm8k_epochs: int,
    gsm8k_folder: str,
    seed: int,
) -> FoundationRows:
    """Return built-in problems and, where its folder is given, GSM8K's training text.

    GSM8K is optional and only ever read from a folder: a foundation must not wait for a hub. Its
    test split is not touched. Raises what `get_dataset` and `word_problems` raise.
    """
    built_in = word_problems(count + _VALIDATION_SIZE, seed=seed, split="train", levels=levels)
    test = word_problems(held_out, seed=seed, split="test", levels=levels)
    notes = [f"{count} built-in problems of levels {', '.join(map(str, levels))}"]
    train = built_in[:count]
    if gsm8k_epochs and gsm8k_folder:
        gsm8k = get_dataset("gsm8k", folder=gsm8k_folder, source=("folder",))
        train += gsm8k.train * gsm8k_epochs
        notes += [f"{len(gsm8k.train)} rows of GSM8K's train split, {gsm8k_epochs} times"]
        notes += gsm8k.notes
    elif gsm8k_epochs:
        notes += ["no GSM8K folder (NBLIB_GSM8K_DIR): built-in problems only"]
    return FoundationRows(
        train=train,
        validation=built_in[count:],
        test=test,
        origin="; ".join(notes),
        sha256=content_sha256(train),
        notes=tuple(notes),
    )
