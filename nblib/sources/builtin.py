"""Built-in rows of each task: made here, nothing to download."""

from collections.abc import Sequence

from nblib.sources.examples_table import of_slugs, split_records
from nblib.sources.inequalities import inequalities
from nblib.sources.rows import Dataset, Row
from nblib.sources.shop_pages import shop_pages
from nblib.sources.travel import travel_requests
from nblib.sources.wordproblems import word_problems


def builtin_dataset(
    task: str,
    *,
    asked: str,
    num_train: int,
    num_test: int,
    seed: int,
    slugs: Sequence[str] = (),
    levels: Sequence[int] = (),
    long_hand: float = 0.0,
) -> Dataset:
    """Return both splits of a task's rows; a task without rows of its own gets word problems.

    `asked` is the field of a row that holds its question; the others are those of `get_dataset`.
    """
    name, sizes = "builtin", (("train", num_train), ("test", num_test))
    if task == "extraction":
        pages = [row for split, count in sizes for row in shop_pages(count, seed=seed, split=split)]
        chosen = of_slugs("the built-in data", pages, slugs)
        return split_records(name, f"built-in shop pages, seed {seed}", chosen)
    if task == "envelope":
        origin = f"built-in travel requests, seed {seed}"
        splits = [travel_requests(count, seed=seed, split=split) for split, count in sizes]
    elif task in ("proofs", "text_proofs"):
        origin = f"built-in inequalities, seed {seed}"
        splits = [inequalities(count, seed=seed, split=split) for split, count in sizes]
    else:
        origin = f"built-in word problems, seed {seed}, levels {', '.join(map(str, levels))}"
        share = {"train": long_hand, "test": 0.0}
        splits = [
            word_problems(count, seed=seed, split=split, levels=levels, long_hand=share[split])
            for split, count in sizes
        ]
    train, test = splits
    return Dataset.of(name, origin, train, test, asked=asked)


def composed_rows(count: int) -> tuple[Row, ...]:
    """Return inequalities of techniques that no training row puts together; one for every seed.

    What a model does with them says whether it learnt to compose, and not only the compositions.
    """
    return inequalities(count, seed=0, split="composed")
