"""Data by name: `get_dataset` returns both splits of "builtin", "gsm8k" or a file of rows.

Selecting rows is for `nblib.sources.rows`, making examples of them for `nblib.tasks`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nblib.sources import gsm8k, hubs
from nblib.sources.builtin import builtin_dataset
from nblib.sources.duckdb_file import DUCKDB
from nblib.sources.examples_table import from_examples
from nblib.sources.json_lines import SUFFIXES, from_json_lines
from nblib.sources.rows import Dataset, SourceError

NAMES = ("builtin", "gsm8k")
FILES = (*SUFFIXES, *DUCKDB)
TABLES = ("extraction",)  # tasks whose files are tables of examples, with kinds of rows
_ASKED = {
    "envelope": "prompt",
    "proofs": "statement",
    "text_proofs": "statement",
}  # task -> the field of a row that holds its question
GSM8K_SOURCES = ("folder", "huggingface", "kaggle", "tfds")
_NOT_FOUND = "gsm8k was not found in any source:"
_WHAT_TO_DO = (
    f"Do one of these: set {gsm8k.FOLDER_VARIABLE} to a folder with train.jsonl and test.jsonl "
    "(from https://github.com/openai/grade-school-math); on Kaggle attach the dataset "
    f"{hubs.KAGGLE_HANDLE} or switch the internet on; or use the built-in data, 'builtin'."
)


def is_file(name: str) -> bool:
    """Return whether a name is that of a file of rows."""
    return name.endswith(FILES)


def is_data(name: str) -> bool:
    """Return whether `get_dataset` takes the name: one of `NAMES`, or a file's."""
    return name in NAMES or is_file(name)


def get_dataset(
    name: str,
    *,
    task: str = "gsm8k",
    slugs: Sequence[str] = (),
    folder: str = "",
    num_train: int = 2000,
    num_test: int = 200,
    levels: Sequence[int] = (1, 2, 3, 4, 5),
    long_hand: float = 0.0,
    seed: int = 0,
    source: Sequence[str] = GSM8K_SOURCES,
) -> Dataset:
    """Return the dataset called `name`, with notes on the sources that were tried.

    Args:
        name: "builtin" (made here, nothing to download), "gsm8k", a file of JSON Lines, or, for
            "extraction", a DuckDB file.
        task: the task that the rows are for: it has built-in rows of its own.
        slugs: of "extraction": the kinds of page whose rows are read; () reads all.
        folder: gsm8k: a folder with train.jsonl and test.jsonl; "" looks into NBLIB_GSM8K_DIR,
            then under /kaggle/input.
        num_train: builtin: number of training rows. gsm8k always comes whole.
        num_test: builtin: number of test rows.
        levels: built-in word problems: the levels to make; else see `tasks.task.choose_examples`.
        long_hand: built-in word problems: share of training solutions with every sum worked out
            by place value.
        seed: builtin: fixes the rows.
        source: gsm8k: where to look, in this order, out of `GSM8K_SOURCES`.

    Raises:
        ValueError: an unknown name or source, or a broken row (the message names file and line).
        SourceError: no source has the data; the message has a line for each and says what to do.
    """
    asked = _ASKED.get(task, "question")
    if task in TABLES and is_file(name):
        return from_examples(name, slugs=slugs)
    if name.endswith(SUFFIXES):
        return from_json_lines(name, asked=asked)
    if name == "gsm8k" and task != "gsm8k":
        raise ValueError(f"name is 'gsm8k', whose rows are none of the task {task!r}")
    if name == "gsm8k":
        return _gsm8k(folder, source)
    if name != "builtin":
        kinds = FILES if task in TABLES else SUFFIXES
        expected = f"{', '.join(NAMES)}, or a file {', '.join(kinds)}"
        raise ValueError(f"name is {name!r}, expected one of {expected}")
    return builtin_dataset(
        task,
        asked=asked,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        slugs=slugs,
        levels=levels,
        long_hand=long_hand,
    )


def _gsm8k(folder: str, source: Sequence[str]) -> Dataset:
    """Return GSM8K from the first source that has it; a note says why each one before had not."""
    load: Mapping[str, Callable[[], Dataset]] = {
        "folder": lambda: gsm8k.from_folder(folder),
        "huggingface": hubs.from_hugging_face,
        "kaggle": hubs.from_kaggle,
        "tfds": hubs.from_tfds,
    }
    if not source or not set(source) <= load.keys():
        raise ValueError(f"source is {source!r}, expected a tuple out of {GSM8K_SOURCES}")
    failures: list[str] = []
    for name in source:
        try:
            loaded = load[name]()
        except SourceError as error:
            failures.append(f"{name}: {error}")
        else:
            return replace(loaded, notes=(*failures, *loaded.notes))
    raise SourceError("\n".join((_NOT_FOUND, *(f"  {line}" for line in failures), _WHAT_TO_DO)))
