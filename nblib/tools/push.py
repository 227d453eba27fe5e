"""Send built kernels to Kaggle by its own client, see how they do, and bring their results home.

Checked before anything is sent: the metadata, the size, the text for credentials.
"""

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click import ClickException

from nblib.files import read_json
from nblib.hosts.secrets import held_secrets, redacted_notebook, without
from nblib.runs import point_latest, runs_root
from nblib.tools.kaggle_client import kaggle_client, state_of
from nblib.tools.kernels import WHEEL_TAG, check_size
from nblib.tools.metadata import DatasetMetadata, KernelMetadata, read_kernel_metadata

TIMEOUT_S = 600.0  # for Kaggle to make a dataset ready
POLL_S = 5.0
_Kernel = tuple[Path, KernelMetadata, str]  # its folder, and its notebook's text
_SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")
# What Kaggle says -> what to do.
_CURES: Mapping[str, str] = {
    r"session count": "Wait until one of your sessions has ended (`python -m nblib kernels "
    "status`), or stop one on its page.",
    r"megabyte|too large": "Take data and images out of the notebook, or attach them as a dataset.",
    r"answered 401": "Make a new API token on your account's page.",
    r"answered 403": "Use its owner's credentials, or `kernels build --owner YOUR_NAME`.",
    r"answered 429": "Wait some minutes.",
}


def described(folders: Sequence[Path]) -> str:
    """Return what a push would send, for a person to read.

    Raises ValueError: a folder is no kernel by our schema, or its notebook is too large.
    """
    kernels = list(map(_read, folders))
    lines = [_described_dataset(*dataset) for dataset in _datasets(kernels)]
    for folder, metadata, text in kernels:
        lines.append(f"{folder / metadata.code_file}: {len(text.encode()) / 1e6:.2f} MB")
        for name, value in metadata:
            lines.append(f"  {name:20} {', '.join(value) if isinstance(value, tuple) else value}")
    return "\n".join(lines)


def push_all(folders: Sequence[Path], *, say: Callable[[str], None]) -> None:
    """Push kernels, each after the datasets that were built for it, and say what became of each.

    Nothing is sent where one of them is wrong. A kernel that is at work already, with this very
    notebook, is not sent again.

    Raises ValueError: a folder is no kernel by our schema, or its notebook is too large. Raises
    ClickException: Kaggle cannot be reached, or refused something; names what went and what not.
    """
    kernels = list(map(_read, folders))
    _check_secrets(kernels)
    for handle, dataset in _datasets(kernels):
        _make_ready(handle, dataset, say=say)
    for index, (folder, metadata, text) in enumerate(kernels):
        try:
            say(f"{folder}: {_push(folder, metadata, text)}")
        except ClickException as error:
            if len(folders) == 1:
                raise
            names = [folder.name for folder in folders]
            went, rest = ", ".join(names[:index]) or "none", " ".join(names[index:])
            raise ClickException(
                f"{error}\npushed: {went}\n"
                f"left: {rest}; for these: python -m nblib kernels push {rest}"
            ) from error


def status(folder: Path) -> str:
    """Return how a pushed kernel does: queued, running, complete, error, with Kaggle's reason.

    Raises ValueError and ClickException as `push_all` does.
    """
    metadata = read_kernel_metadata(folder)
    with _kaggle_client() as (client, _):
        answer = client.kernels_status(metadata.id)
    reason = f": {answer.failure_message}" if answer.failure_message else ""
    return f"{answer.status.name.lower()}{reason}"


def pull_output(folder: Path) -> list[Path]:
    """Bring the runs of a pushed kernel into `runs/`, and return those that were not there yet.

    What else it left, its log first of all, goes to `runs/kaggle/<kernel>/`. `latest` points at the
    newest finished run that came.

    Raises ValueError and ClickException as `push_all` does.
    """
    metadata = read_kernel_metadata(folder)
    other = runs_root() / "kaggle" / metadata.slug
    other.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=other, prefix=".pulled-") as scratch:
        with _kaggle_client() as (client, _):
            client.kernels_output(metadata.id, scratch, page_size=100)
        runs = sorted(config.parent for config in Path(scratch).glob("runs/*/*/config.json"))
        # A `latest` that came as a copy is no run of its own.
        came = [home for run in runs if run.name != "latest" and (home := _moved(run))]
        shutil.rmtree(Path(scratch, "runs"), ignore_errors=True)
        shutil.copytree(scratch, other, dirs_exist_ok=True)
    return came


def _moved(run: Path) -> Path | None:
    """Move a pulled run into `runs/` and return where it is; None if that run is there already."""
    home = runs_root() / run.parent.name / run.name
    if home.exists():
        return None
    home.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(run, home)
    finished = [result.parent.name for result in home.parent.glob("2*/result.json")]
    if max(finished, default="") == home.name:  # names begin with the time
        point_latest(home)
    return home


def _read(folder: Path) -> _Kernel:
    metadata = read_kernel_metadata(folder)
    content = (folder / metadata.code_file).read_bytes()
    check_size(folder / metadata.code_file, len(content))
    return folder, metadata, content.decode()


def _check_secrets(kernels: Sequence[_Kernel]) -> None:
    with _kaggle_client() as (_, secrets):
        for _folder, metadata, text in kernels:
            found = [f"the value of {name}" for name, value in secrets.items() if value in text]
            cells = [  # in the wheel's base64 a token stands by chance
                cell
                for cell in json.loads(text)["cells"]
                if WHEEL_TAG not in cell["metadata"].get("tags", ())
            ]
            found += [f"a {kind}" for kind in redacted_notebook(cells)[1]]
            if found:
                raise ClickException(f"{metadata.code_file} holds {found[0]}: nothing was sent")


def _push(folder: Path, metadata: KernelMetadata, text: str) -> str:
    """Push a kernel, which starts it at Kaggle, and return the address of its page."""
    with _kaggle_client() as (client, _):
        state = state_of(lambda: client.kernels_status(metadata.id).status.name.lower())
        if state in ("queued", "running") and _cells(_pushed(client, metadata)) == _cells(text):
            return f"{state} already, this very notebook: not sent again (its page can stop it)"
        answer = client.kernels_push(str(folder))
    if answer is None or answer.error:
        raise ClickException(
            _with_cure(f"{metadata.id}: Kaggle refused it: {answer and answer.error}")
        )
    refused = {name: getattr(answer, f"invalid_{name}") for name in _SOURCES}
    lost = [f"{name} {', '.join(handles)}" for name, handles in refused.items() if handles]
    if lost:
        raise ClickException(
            f"{answer.url} runs without its {'; '.join(lost)}: Kaggle does not know them, or you "
            "may not read them. Push what it reads first, and accept a model's licence"
        )
    return str(answer.url)


def _pushed(client: Any, metadata: KernelMetadata) -> str:
    """Return the text of the notebook that Kaggle has."""
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

    request = ApiGetKernelRequest()
    request.user_name, request.kernel_slug = metadata.id.split("/")
    with client.build_kaggle_client() as kaggle:
        return str(kaggle.kernels.kernels_api_client.get_kernel(request).blob.source)


def _cells(notebook: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(notebook)["cells"]]


def _datasets(kernels: Sequence[_Kernel]) -> list[tuple[str, Path]]:
    """Return handle and folder of the datasets that were built beside these kernels, for them."""
    wanted = {handle for _, metadata, _ in kernels for handle in metadata.dataset_sources}
    found = sorted(kernels[0][0].parent.glob(f"*/{DatasetMetadata.file}"))
    built = [(DatasetMetadata.checked(read_json(path)).id, path.parent) for path in found]
    return [(handle, folder) for handle, folder in built if handle in wanted]


def _described_dataset(handle: str, folder: Path) -> str:
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    name = f"private dataset {handle}"
    return f"{folder}: {size_bytes / 1e6:.2f} MB, {name}, made first where it is not there"


def _make_ready(handle: str, folder: Path, *, say: Callable[[str], None]) -> None:
    """Create a built dataset at Kaggle if it is not there, and wait until kernels can read it."""
    with _kaggle_client() as (client, _):
        if not state_of(lambda: client.dataset_status(handle)):
            say(_described_dataset(handle, folder))
            answer = client.dataset_create_new(str(folder), quiet=True)
            if answer.error:
                reason = _with_cure(f"Kaggle refused the dataset {handle}: {answer.error}")
                raise ClickException(f"{reason}\nNo kernel was sent.")
        began = time.monotonic()
        while (state := state_of(lambda: client.dataset_status(handle))) != "ready":
            if state in ("failed", "deleted"):
                raise ClickException(
                    f"the dataset {handle} is {state} at Kaggle, no kernel was sent: remove it on "
                    f"https://www.kaggle.com/datasets/{handle}, then give the same command again"
                )
            if time.monotonic() - began > TIMEOUT_S:
                raise ClickException(
                    f"the dataset {handle} was not ready after {TIMEOUT_S / 60:.0f} minutes "
                    f"({state or 'not there'}), no kernel was sent: give the same command again"
                )
            say(f"waiting until Kaggle has the dataset {handle} ready ({state or 'not there yet'})")
            time.sleep(POLL_S)


@contextmanager
def _kaggle_client() -> Iterator[tuple[Any, Mapping[str, str]]]:
    """Yield Kaggle's client and the secrets it may know; its errors become a ClickException."""
    secrets = held_secrets()
    try:
        client = kaggle_client()
        secrets |= held_secrets(client.config_values)
        yield client, secrets
    except (OSError, ValueError) as error:  # the last: no such kernel, for one
        raise ClickException(without(secrets.values(), _with_cure(_words(error)))) from None


def _words(error: Exception) -> str:
    """Return what the server said: the client gives a message, or only the status and no body."""
    response = getattr(error, "response", None)
    if response is None:
        return f"Kaggle's client: {error}"
    body = " ".join(response.text.split())
    said = str(error) if str(error) in body else f"{error}: {body[:300]}"  # it may be a page
    return f"Kaggle answered {response.status_code}: {said}"


def _with_cure(words: str) -> str:
    """Return Kaggle's words with what to do, where that is known."""
    for pattern, cure in _CURES.items():
        if re.search(pattern, words, re.IGNORECASE):
            return f"{words.rstrip('.')}. {cure}"
    return words
