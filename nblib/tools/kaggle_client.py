"""Kaggle's own client, `kaggle` 2.2, with the user's credentials (environment or `~/.kaggle`).

It prints a line and goes on where the server has refused: look at each answer's `error`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from click import ClickException

from nblib.models.published import variables
from nblib.sources.hubs import http_status


def kaggle_client() -> Any:
    """Return the client, logged in; for an upload that failed it raises, as its own does not.

    Raises ClickException where it is not installed, or there are no credentials.
    """
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi
    except ImportError as error:  # it is for checkouts alone
        raise ClickException(
            f"Kaggle's client cannot be imported ({error}): `make .venv/.ready` installs it in a "
            "checkout, elsewhere `pip install kaggle`"
        ) from error

    class Client(KaggleApi):
        def upload_files(self, request: Any, resources: Any, folder: str, *options: Any) -> None:
            super().upload_files(request, resources, folder, *options)
            there = [one for one in Path(folder).iterdir() if not one.match("*-metadata.json")]
            if len(request.files) < len(there):
                raise OSError(f"only {len(request.files)} of {len(there)} files arrived")

    client = Client()
    try:
        client.authenticate()
    except SystemExit as error:  # it ends the process, having said how to log in
        raise ClickException(
            f"no Kaggle credentials: set {variables(hub=False)}, or KAGGLE_API_TOKEN, or "
            "put kaggle.json into ~/.kaggle"
        ) from error
    return client


def state_of(ask: Callable[[], object]) -> str:
    """Return how a kernel or dataset does at Kaggle, "" where it refuses to speak of that name."""
    try:
        return str(ask())
    except OSError as error:
        if http_status(error) not in (403, 404):
            raise
    except ValueError:  # the client's own, of a kernel that is not there
        pass
    return ""
