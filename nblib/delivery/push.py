"""Send built kernels to Kaggle by its own client, see how they do, and bring their results home.

The client (`kaggle` 2.2) reads its credentials from the environment or `~/.kaggle`. It answers with
a printed line and exit code 0 even where the server has refused; here that is a `PushError`. What
is sent is checked first: the metadata by our schema, the text for credentials.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nblib.delivery.kernel_metadata import read_metadata
from nblib.delivery.kernels import WHEEL_TAG
from nblib.delivery.secrets import held_secrets, redacted_notebook, without
from nblib.runs import point_latest, runs_root

_LOST = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")


class PushError(RuntimeError):
    """Kaggle, or its client, did not do what was asked; the message says what, and no secret."""


def described(folder: Path) -> str:
    """Return what a push would send, for a person to read.

    Raises:
        ValueError: the folder is no kernel by our schema.
    """
    metadata = read_metadata(folder)
    size_bytes = (folder / metadata.code_file).stat().st_size
    lines = [f"{folder / metadata.code_file}: {size_bytes / 1e6:.2f} MB"]
    for name, value in asdict(metadata).items():
        lines.append(f"  {name:20} {', '.join(value) if isinstance(value, tuple) else value}")
    return "\n".join(lines)


def push(folder: Path) -> str:
    """Push a kernel's folder, which starts it at Kaggle, and return the address of its page.

    Raises:
        ValueError: the folder is no kernel by our schema.
        PushError: the notebook holds a secret, there are no credentials or no way to Kaggle, or it
            refused the kernel or what that reads.
    """
    metadata = read_metadata(folder)
    text = (folder / metadata.code_file).read_text(encoding="utf-8")
    with _client() as (client, secrets):
        found = [f"the value of {name}" for name, value in secrets.items() if value in text]
        found += _tokens_in(json.loads(text))
        if found:
            raise PushError(f"{metadata.code_file} holds {found[0]}: it was not sent")
        answer = client.kernels_push(str(folder))
    if answer is None or answer.error:
        raise PushError(f"{metadata.id}: Kaggle refused it: {answer and answer.error}")
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
    with _client() as (client, _):
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
        with _client() as (client, _):
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


def _tokens_in(notebook: Any) -> list[str]:
    """Return the kinds of tokens in a notebook; in the wheel's base64 they stand by chance."""
    cells = [
        cell for cell in notebook["cells"] if WHEEL_TAG not in cell["metadata"].get("tags", ())
    ]
    return [f"a {kind}" for kind in redacted_notebook(cells)[1]]


def _invalid(answer: Any, name: str) -> list[str]:
    return list(getattr(answer, f"invalid_{name}") or ())


@contextmanager
def _client() -> Iterator[tuple[Any, Mapping[str, str]]]:
    """Yield Kaggle's client and the secrets it may know; its errors become a PushError."""
    from kaggle import api
    from requests.exceptions import RequestException

    secrets = held_secrets()
    try:
        _authenticate(api.authenticate)
        secrets |= held_secrets(api.config_values)
        yield api, secrets
    except (RequestException, OSError, ValueError) as error:  # the last: no such kernel, for one
        raise PushError(without(secrets.values(), f"Kaggle's client: {error}")) from None


def _authenticate(authenticate: Callable[[], None]) -> None:
    try:
        authenticate()
    except SystemExit as error:  # the client ends the process; it has said how to log in
        raise PushError(
            "no Kaggle credentials: set KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN, or "
            "put kaggle.json into ~/.kaggle"
        ) from error
