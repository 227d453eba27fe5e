"""The embedded model as a private Kaggle dataset, which built kernels attach.

A kernel's source must be smaller than the model, so `kernels build` leaves the weights out of the
wheel and writes them as a dataset's folder. The dataset's name holds a hash of the weights: other
weights are another dataset, and one that is there already never changes.
"""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nblib.files import read_json, write_json
from nblib.models.folders import MANIFEST_FILE, read_manifest, weights_sha256
from nblib.models.published import EMBEDDED_FOLDER, LICENCES, WEIGHTS_KEY, embedded_dataset
from nblib.sources.hubs import http_status
from nblib.tools.hub_metadata import DatasetMetadata, checked
from nblib.tools.kaggle_client import PushError, kaggle_client, with_cure

TIMEOUT_S = 600.0
POLL_S = 5.0
_NOT_THERE = (403, 404)  # Kaggle refuses to speak of what does not exist
_DESCRIPTION = (
    "The small Gemma 3 that ships with nblib, for kernels that its `kernels build` made: attached "
    "to one, it is found by its manifest, which also says what it was trained on. Apache-2.0."
)


def sealed_manifest() -> dict[str, Any]:
    """Return the embedded model's manifest with the hash of its weights.

    It travels in the wheel and in the dataset, and is how the one finds the other.
    """
    return {**read_manifest(EMBEDDED_FOLDER), WEIGHTS_KEY: weights_sha256(EMBEDDED_FOLDER)}


def write_model_dataset(parent: Path, *, owner: str) -> str:
    """Write the dataset's folder, as `kaggle datasets create -p` takes it; return its handle."""
    manifest = sealed_manifest()
    slug = embedded_dataset(manifest[WEIGHTS_KEY])
    metadata = DatasetMetadata(
        id=f"{owner}/{slug}",
        title=slug.replace("-", " "),
        licenses=({"name": LICENCES["apache-2.0"].kaggle_dataset},),
        description=_DESCRIPTION,
    )
    folder = parent / slug
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EMBEDDED_FOLDER, folder)
    write_json(folder / MANIFEST_FILE, manifest)
    content = {key: value for key, value in asdict(metadata).items() if value}
    write_json(folder / DatasetMetadata.file, content)
    return metadata.id


def built_datasets(parent: Path, handles: Iterable[str]) -> list[Path]:
    """Return the built folders of those datasets that were built here."""
    wanted = set(handles)
    found = sorted(path.parent for path in parent.glob(f"*/{DatasetMetadata.file}"))
    return [folder for folder in found if _metadata(folder).id in wanted]


def described_dataset(folder: Path) -> str:
    """Return what would be sent of a built dataset, for a person to read."""
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    name = f"private dataset {_metadata(folder).id}"
    return f"{folder}: {size_bytes / 1e6:.2f} MB, {name}, made first where it is not there"


def make_ready(folder: Path, *, say: Callable[[str], None]) -> None:
    """Create a built dataset at Kaggle if it is not there, and wait until kernels can read it.

    Raises:
        PushError: Kaggle refused it, could not process it, or takes longer than `TIMEOUT_S`.
    """
    handle = _metadata(folder).id
    with kaggle_client() as (client, _):
        state = _state(client, handle)
        if not state:
            say(described_dataset(folder))
            _create(client, folder, handle)
            state = _state(client, handle)
        began = time.monotonic()
        while state != "ready":
            if state in ("failed", "deleted"):
                raise PushError(
                    f"the dataset {handle} is {state} at Kaggle, no kernel was sent: remove it on "
                    f"https://www.kaggle.com/datasets/{handle}, then give the same command again"
                )
            if time.monotonic() - began > TIMEOUT_S:
                raise PushError(
                    f"the dataset {handle} was not ready after {TIMEOUT_S / 60:.0f} minutes "
                    f"({state or 'not there'}), no kernel was sent: give the same command again"
                )
            say(f"waiting until Kaggle has the dataset {handle} ready ({state or 'not there yet'})")
            time.sleep(POLL_S)
            state = _state(client, handle)


def _metadata(folder: Path) -> DatasetMetadata:
    return checked(DatasetMetadata, read_json(folder / DatasetMetadata.file))


def _state(client: Any, handle: str) -> str:
    """Return what Kaggle calls the dataset's state, "" where there is no such dataset."""
    from requests.exceptions import HTTPError

    try:
        return str(client.dataset_status(handle))
    except HTTPError as error:
        if http_status(error) in _NOT_THERE:
            return ""
        raise


def _create(client: Any, folder: Path, handle: str) -> None:
    answer = client.dataset_create_new(str(folder), quiet=True)
    if answer.error:
        reason = with_cure(f"Kaggle refused the dataset {handle}: {answer.error}")
        raise PushError(f"{reason}\nNo kernel was sent.")
