"""Data by name: `get_dataset` returns the rows of "builtin" or "gsm8k", wherever they come from.

Both splits come back whole (or as many built-in problems as asked for); selecting rows is
`nblib.sources.rows`, turning them into examples is `nblib.tasks`.
"""

from collections.abc import Callable, Mapping, Sequence

from nblib.sources import gsm8k, hubs
from nblib.sources.gsm8k import Gsm8k
from nblib.sources.rows import Dataset, SourceError, content_sha256, duplicate_notes

NAMES = ("builtin", "gsm8k")
GSM8K_SOURCES = ("folder", "huggingface", "kaggle", "tfds")
_NOT_FOUND = "gsm8k was not found in any source:"
_WHAT_TO_DO = (
    f"Do one of these: set {gsm8k.FOLDER_VARIABLE} to a folder with train.jsonl and test.jsonl "
    "(from https://github.com/openai/grade-school-math); on Kaggle attach the dataset "
    f"{hubs.KAGGLE_HANDLE} or switch the internet on; or use the built-in data, 'builtin'."
)


def get_dataset(
    name: str,
    *,
    folder: str = "",
    num_train: int = 2000,
    num_test: int = 200,
    levels: Sequence[int] = (1, 2, 3, 4, 5),
    long_hand: float = 0.0,
    seed: int = 0,
    source: Sequence[str] = GSM8K_SOURCES,
) -> Dataset:
    """Return the dataset called `name`, with notes on how it was come by.

    Args:
        name: "builtin" (made here, nothing to download) or "gsm8k".
        folder: gsm8k: a folder with train.jsonl and test.jsonl; "" looks into NBLIB_GSM8K_DIR,
            then under /kaggle/input.
        num_train: builtin: number of training rows. gsm8k always comes whole.
        num_test: builtin: number of test rows.
        levels: builtin: the levels to make; for gsm8k see `tasks.task.choose_examples`.
        long_hand: builtin: share of training solutions with every sum worked out by place value.
        seed: builtin: fixes the rows.
        source: gsm8k: where to look, in this order, out of `GSM8K_SOURCES`.

    Raises:
        ValueError: an unknown name or source, or a broken row (the message names file and line).
        SourceError: no source has the data; the message has a line for each and says what to do.
    """
    if name == "builtin":
        return _builtin(num_train, num_test, levels, long_hand, seed)
    if name == "gsm8k":
        return _gsm8k(folder, source)
    raise ValueError(f"name is {name!r}, expected one of: {', '.join(NAMES)}")


def _builtin(
    num_train: int, num_test: int, levels: Sequence[int], long_hand: float, seed: int
) -> Dataset:
    from nblib.sources.wordproblems import word_problems

    train = word_problems(num_train, seed=seed, split="train", levels=levels, long_hand=long_hand)
    test = word_problems(num_test, seed=seed, split="test", levels=levels)
    return Dataset(
        name="builtin",
        origin=f"built-in word problems, seed {seed}, levels {', '.join(map(str, levels))}",
        train=train,
        test=test,
        sha256={"train": content_sha256(train), "test": content_sha256(test)},
        notes=duplicate_notes(train, test),
    )


def _gsm8k(folder: str, source: Sequence[str]) -> Dataset:
    loaded, failures = _first_that_works(_loaders(folder), source)
    return Dataset(
        name="gsm8k",
        origin=loaded.origin,
        train=loaded.train,
        test=loaded.test,
        sha256={"train": content_sha256(loaded.train), "test": content_sha256(loaded.test)},
        notes=(
            *failures,
            *gsm8k.content_notes(loaded),
            *duplicate_notes(loaded.train, loaded.test),
        ),
    )


def _loaders(folder: str) -> Mapping[str, Callable[[], Gsm8k]]:
    return {
        "folder": lambda: gsm8k.from_folder(folder),
        "huggingface": hubs.from_hugging_face,
        "kaggle": hubs.from_kaggle,
        "tfds": hubs.from_tfds,
    }


def _first_that_works(
    loaders: Mapping[str, Callable[[], Gsm8k]], source: Sequence[str]
) -> tuple[Gsm8k, tuple[str, ...]]:
    unknown = [name for name in source if name not in loaders]
    if unknown or not source:
        raise ValueError(f"source is {source!r}, expected a tuple out of {GSM8K_SOURCES}")
    failures: list[str] = []
    for name in source:
        try:
            return loaders[name](), tuple(failures)
        except SourceError as error:
            failures.append(f"{name}: {error}")
    raise SourceError("\n".join((_NOT_FOUND, *(f"  {line}" for line in failures), _WHAT_TO_DO)))
