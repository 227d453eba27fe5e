"""The rows that the foundation is trained, validated and evaluated on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from nblib.sources.datasets import get_dataset
from nblib.sources.rows import Row, SourceError, content_sha256
from nblib.sources.wordproblems import word_problems

_VALIDATION_SIZE = 200
_GSM8K_IN_PRACTICE = 3  # every third row, so that practice does not make its text forgotten


@dataclass(frozen=True, kw_only=True)
class FoundationRows:
    """Four parts; no built-in question is in two of them."""

    train: tuple[Row, ...]  # GSM8K's rows once an epoch
    practice: tuple[Row, ...]  # fresh problems and a sample of GSM8K; may be empty
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    sha256: str  # of train and practice
    notes: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Where the rows come from, in one line."""
        return "; ".join(self.notes)


def foundation_rows(
    levels: Sequence[int],
    count: int,
    *,
    held_out: int,
    gsm8k_epochs: int,
    gsm8k_folder: str,
    practice: int,
    practice_levels: Sequence[int],
    long_hand: float,
    seed: int,
) -> FoundationRows:
    """Return built-in problems and, where a folder has it, GSM8K's training text.

    GSM8K is optional and only read from a folder ("" looks where `get_dataset` does): a foundation
    must not wait for a hub. Its test split is not touched. `long_hand` is as in `word_problems`: a
    model that has read both ways can write both.

    Raises ValueError for a broken row or levels that hold too few problems, SourceError for a
    folder that was named and does not have it.
    """
    problems = partial(word_problems, split="train", long_hand=long_hand)
    built_in = problems(count + _VALIDATION_SIZE, seed=seed, levels=levels)
    test = word_problems(held_out, seed=seed, split="test", levels=levels)
    notes = [f"{count} built-in problems of levels {', '.join(map(str, levels))}"]
    gsm8k, gsm8k_notes = _gsm8k_train(gsm8k_folder, gsm8k_epochs) if gsm8k_epochs else ((), ())
    notes += gsm8k_notes
    train = built_in[:count] + gsm8k * gsm8k_epochs
    fresh: tuple[Row, ...] = ()
    if practice:
        known = {row.fields["question"] for row in built_in}
        drawn = problems(practice, seed=seed + 1, levels=practice_levels)
        fresh = tuple(row for row in drawn if row.fields["question"] not in known)
        of_levels = ", ".join(map(str, practice_levels))
        notes.append(f"then practice: {len(fresh)} more, of levels {of_levels}")
        fresh += gsm8k[::_GSM8K_IN_PRACTICE]
    return FoundationRows(
        train=train,
        practice=fresh,
        validation=built_in[count:],
        test=test,
        sha256=content_sha256(train + fresh),
        notes=tuple(notes),
    )


def _gsm8k_train(folder: str, epochs: int) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Return GSM8K's training rows, or none, and lines that say which."""
    try:
        gsm8k = get_dataset("gsm8k", folder=folder, source=("folder",))
    except SourceError:
        if folder:  # asked for by name: training without it would be another model
            raise
        return (), ("no GSM8K (no folder of it, NBLIB_GSM8K_DIR)",)
    note = f"{len(gsm8k.train)} rows of GSM8K's train split, {epochs} times"
    return gsm8k.train, (note, *gsm8k.notes)
