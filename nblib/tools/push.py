"""Send built kernels to Kaggle by its own client, see how they do, and bring their results home.

What is sent is checked first: the metadata by our schema, the size, the text for credentials.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nblib.hosts.secrets import redacted_notebook
from nblib.runs import point_latest, runs_root
from nblib.sources.hubs import http_status
from nblib.tools.kaggle_client import PushError, kaggle_client, with_cure
from nblib.tools.kernel_metadata import KernelMetadata, read_metadata
from nblib.tools.kernels import WHEEL_TAG, check_size
from nblib.tools.model_dataset import built_datasets, described_dataset, make_ready

_LOST = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")
_AT_WORK = ("queued", "running")


def described(folders: Sequence[Path]) -> str:
    """Return what a push would send, for a person to read.

    Raises:
        ValueError: a folder is no kernel by our schema, or its notebook is too large.
    """
    kernels = [(folder, *_read(folder)) for folder in folders]
    lines = [described_dataset(dataset) for dataset in _datasets(folders)]
    for folder, metadata, text in kernels:
        lines.append(f"{folder / metadata.code_file}: {len(text.encode()) / 1e6:.2f} MB")
        for name, value in asdict(metadata).items():
            lines.append(f"  {name:20} {', '.join(value) if isinstance(value, tuple) else value}")
    return "\n".join(lines)


def push_all(folders: Sequence[Path], *, say: Callable[[str], None]) -> None:
    """Push kernels, each after the datasets that were built for it, and say what became of each.

    Nothing is sent where one of them is wrong. A kernel that is at work already, with this very
    notebook, is not sent again.

    Raises:
        ValueError: a folder is no kernel by our schema, or its notebook is too large.
        PushError: as `push`; names what went, what did not, and the command for the rest.
    """
    for folder in folders:
        _check_secrets(folder)
    for dataset in _datasets(folders):
        make_ready(dataset, say=say)
    for index, folder in enumerate(folders):
        try:
            say(f"{folder}: {push(folder)}")
        except PushError as error:
            raise PushError(f"{error}{_left(folders, index)}") from error


def push(folder: Path) -> str:
    """Push a kernel's folder, which starts it at Kaggle, and return the address of its page.

    Where Kaggle has this very notebook at work already, nothing is sent, and that is returned.

    Raises:
        ValueError: the folder is no kernel by our schema.
        PushError: there are no credentials or no way to Kaggle, or it refused the kernel or what
            that reads.
    """
    metadata, text = _read(folder)
    with kaggle_client() as (client, _):
        state = _state(client, metadata)
        if state in _AT_WORK and _sources(_pushed(client, metadata)) == _sources(text):
            return f"{state} already, this very notebook: not sent again (its page can stop it)"
        answer = client.kernels_push(str(folder))
    if answer is None or answer.error:
        raise PushError(with_cure(f"{metadata.id}: Kaggle refused it: {answer and answer.error}"))
    lost = [f"{name} {', '.join(refused)}" for name in _LOST if (refused := _invalid(answer, name))]
    if lost:
        raise PushError(
            f"{answer.url} runs without its {'; '.join(lost)}: Kaggle does not know them, or you "
            "may not read them. Push what it reads first, and accept a model's licence"
        )
    return str(answer.url)


def status(folder: Path) -> str:
    """Return how a pushed kernel does: queued, running, complete, error, with Kaggle's reason.

    Raises ValueError and PushError as `push` does.
    """
    metadata = read_metadata(folder)
    with kaggle_client() as (client, _):
        answer = client.kernels_status(metadata.id)
    reason = f": {answer.failure_message}" if answer.failure_message else ""
    return f"{answer.status.name.lower()}{reason}"


def pull_output(folder: Path) -> list[Path]:
    """Bring the runs of a pushed kernel into `runs/`, and return those that were not there yet.

    What else it left, its log first of all, goes to `runs/kaggle/<kernel>/`. `latest` points at the
    newest finished run that came.

    Raises ValueError and PushError as `push` does.
    """
    metadata = read_metadata(folder)
    other = runs_root() / "kaggle" / metadata.slug
    other.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=other, prefix=".pulled-") as scratch:
        with kaggle_client() as (client, _):
            client.kernels_output(metadata.id, scratch, page_size=100)
        came = [run for found in _runs_in(Path(scratch)) if (run := _moved(found))]
        shutil.rmtree(Path(scratch, "runs"), ignore_errors=True)
        shutil.copytree(scratch, other, dirs_exist_ok=True)
    return came


def _runs_in(folder: Path) -> list[Path]:
    """Return the folders of runs, oldest first; a `latest` that came as a copy is none of them."""
    found = (config.parent for config in folder.glob("runs/*/*/config.json"))
    return sorted(run for run in found if run.name != "latest")


def _moved(run: Path) -> Path | None:
    """Move a run to its place; None where it is already, from an earlier call or from here."""
    home = runs_root() / run.parent.name / run.name
    if home.exists():
        return None
    home.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(run, home)
    finished = [result.parent.name for result in home.parent.glob("2*/result.json")]
    if max(finished, default="") == home.name:  # names begin with the time
        point_latest(home)
    return home


def _read(folder: Path) -> tuple[KernelMetadata, str]:
    """Return a kernel's metadata and its notebook's text, checked."""
    metadata = read_metadata(folder)
    content = (folder / metadata.code_file).read_bytes()
    check_size(folder / metadata.code_file, len(content))
    return metadata, content.decode()


def _datasets(folders: Sequence[Path]) -> list[Path]:
    """Return the datasets that were built beside these kernels, for them."""
    handles = [handle for folder in folders for handle in read_metadata(folder).dataset_sources]
    return built_datasets(folders[0].parent, handles)


def _check_secrets(folder: Path) -> None:
    metadata, text = _read(folder)
    with kaggle_client() as (_, secrets):
        found = [f"the value of {name}" for name, value in secrets.items() if value in text]
        found += _tokens_in(json.loads(text))
    if found:
        raise PushError(f"{metadata.code_file} holds {found[0]}: nothing was sent")


def _state(client: Any, metadata: KernelMetadata) -> str:
    """Return what a kernel does at Kaggle, "" where there is none of this name."""
    from requests.exceptions import HTTPError

    try:
        return str(client.kernels_status(metadata.id).status.name.lower())
    except ValueError:  # the client's own, where Kaggle refuses to speak of it
        return ""
    except HTTPError as error:
        if http_status(error) == 404:
            return ""
        raise


def _pushed(client: Any, metadata: KernelMetadata) -> str:
    """Return the text of the notebook that Kaggle has."""
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

    request = ApiGetKernelRequest()
    request.user_name, request.kernel_slug = metadata.id.split("/")
    with client.build_kaggle_client() as kaggle:
        return str(kaggle.kernels.kernels_api_client.get_kernel(request).blob.source)


def _sources(notebook: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(notebook)["cells"]]


def _left(folders: Sequence[Path], index: int) -> str:
    """Return which of several kernels went, and the command for those that did not."""
    if len(folders) == 1:
        return ""
    names = [folder.name for folder in folders]
    went, rest = ", ".join(names[:index]) or "none", " ".join(names[index:])
    return f"\npushed: {went}\nleft: {rest}; for these: python -m nblib kernels push {rest}"


def _tokens_in(notebook: Any) -> list[str]:
    """Return the kinds of tokens in a notebook; in the wheel's base64 they stand by chance."""
    cells = [
        cell for cell in notebook["cells"] if WHEEL_TAG not in cell["metadata"].get("tags", ())
    ]
    return [f"a {kind}" for kind in redacted_notebook(cells)[1]]


def _invalid(answer: Any, name: str) -> list[str]:
    return list(getattr(answer, f"invalid_{name}") or ())
