"""GSM8K from the network: the Hugging Face hub, Kaggle, TFDS; one function each.

Each returns a `Dataset` or raises a `SourceError` of one line; none asks for a login. The libraries
are optional and slow to import, so each is imported by the function that needs it. They raise many
kinds of error: every function says which it takes for "this source is out of reach", and lets all
others pass. Broken rows are a ValueError, as with files.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from nblib.sources.gsm8k import LAYOUT_NAMES, SPLITS, dataset, find_attached, read_folder
from nblib.sources.rows import Dataset, SourceError, one_line

HUGGING_FACE_NAME = "openai/gsm8k"
# Holds main_train.csv and main_test.csv; the handle that the public Tunix GRPO demo downloads.
KAGGLE_HANDLE = "thedevastator/grade-school-math-8k-q-a"
_TFDS_HOST = "https://raw.githubusercontent.com"  # where TFDS downloads the published files


def from_hugging_face() -> Dataset:
    """Load `openai/gsm8k`; errors as in `load_hugging_face`."""
    loaded = load_hugging_face(HUGGING_FACE_NAME, "main")
    return from_splits(f"Hugging Face hub, {HUGGING_FACE_NAME}", loaded)


def load_hugging_face(name: str, *configuration: str) -> Mapping[str, Iterable[Any]]:
    """Return the splits of a dataset through `datasets`; a copy in its cache works offline.

    Without a network the hub's client gives up after some 25 s and says so meanwhile.

    Out of reach: OSError (connection, hub, disk), ValueError (configuration, no cached copy,
    Arrow), RuntimeError, and the families of `datasets` and of httpx, the hub's transport.
    """
    datasets = _import("datasets")
    own = _import("datasets.exceptions").DatasetsError, _import("httpx").HTTPError
    try:
        loaded: Mapping[str, Iterable[Any]] = datasets.load_dataset(name, *configuration)
    except (OSError, ValueError, RuntimeError, *own) as error:
        raise SourceError(one_line(error)) from error
    return loaded


def from_kaggle() -> Dataset:
    """Download the public Kaggle dataset through `kagglehub` and read the files found in it."""
    kagglehub = _import("kagglehub")
    try:
        downloaded = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except kaggle_errors() as error:
        raise SourceError(one_line(error)) from error
    folder = find_attached(downloaded)
    if folder is None:
        raise SourceError(f"{KAGGLE_HANDLE} holds no {LAYOUT_NAMES}")
    return read_folder(folder, origin=f"Kaggle, {KAGGLE_HANDLE}")


def from_tfds() -> Dataset:
    """Load `gsm8k` through `tensorflow_datasets` as array records, which need no TensorFlow.

    TFDS stores its rows shuffled: ids count in its order, the content is the same.

    Out of reach: OSError (requests' errors are), ValueError (not found), RuntimeError, ImportError
    (parts are imported late), AssertionError (TFDS's check of what it wrote), and TFDS's own
    download errors.
    """
    tfds = _import("tensorflow_datasets")
    _import("tensorflow_datasets.text.gsm8k")  # registers the name
    download = _import("tensorflow_datasets.core.download")
    own = download.util.DownloadError, download.download_manager.NonMatchingChecksumError
    try:
        builder = tfds.builder("gsm8k", file_format=tfds.core.FileFormat.ARRAY_RECORD)
        if not builder.is_prepared():
            # TFDS itself tries ten times and needs minutes to notice that there is no network.
            _import("requests").head(_TFDS_HOST, timeout=10)
            builder.download_and_prepare()
        splits = {split: builder.as_data_source(split=split) for split in SPLITS}
    except (OSError, ValueError, RuntimeError, ImportError, AssertionError, *own) as error:
        raise SourceError(one_line(error)) from error
    return from_splits("TensorFlow Datasets, gsm8k (in its own order)", splits)


def from_splits(origin: str, splits: Mapping[str, Iterable[object]]) -> Dataset:
    """Make rows of a hub's two splits; a row's place is origin, split and index (from 0).

    Raises:
        SourceError: a split is missing.
        ValueError: a broken record, by its place.
    """
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        raise SourceError(f"{origin} has no split {missing[0]!r}, only: {', '.join(splits)}")
    records = {
        split: [(f"{origin}, {split} row {index}", one) for index, one in enumerate(splits[split])]
        for split in SPLITS
    }
    return dataset(origin, records)


def kaggle_errors() -> tuple[type[Exception], ...]:
    """Return what kagglehub raises when it cannot deliver; its own have no common base class."""
    own = _import("kagglehub.exceptions")
    return (
        OSError,
        ValueError,
        RuntimeError,
        own.BackendError,
        own.ColabEnvironmentError,
        own.CredentialError,
        own.DataCorruptionError,
        own.KaggleEnvironmentError,
        own.NotFoundError,
        own.UnauthenticatedError,
    )


def http_status(error: BaseException) -> int | None:
    """Return the status of the HTTP answer behind an error of a hub's client, if there is one."""
    responses = (getattr(cause, "response", None) for cause in _causes(error))
    statuses = (getattr(response, "status_code", None) for response in responses)
    return next((status for status in statuses if status), None)


def is_network_error(error: BaseException) -> bool:
    """Return whether an error of a hub's client means that the hub cannot be reached."""
    requests = _import("requests").exceptions
    of_clients = (_import("httpx").TransportError, requests.ConnectionError, requests.Timeout)
    kinds = (ConnectionError, TimeoutError, *of_clients)
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _import(module: str) -> ModuleType:
    """Import an optional library; a broken installation raises more than ImportError."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise SourceError(f"{one_line(error)} (pip install {package})") from error
    except (AttributeError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise SourceError(f"{module} cannot be imported: {one_line(error)}") from error
