"""Kaggle's own client (`kaggle` 2.2) with the user's credentials; what it raises is a `PushError`.

It reads its credentials from the environment or `~/.kaggle`. It answers with a printed line and
exit code 0 even where the server has refused: who calls it has to look at the answer.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nblib.hosts.secrets import held_secrets, without
from nblib.models.published import variables

# What Kaggle says -> what to do.
_CURES: Mapping[str, str] = {
    r"session count": "Wait until one of your sessions has ended (`python -m nblib kernels "
    "status`), or stop one on its page.",
    r"megabyte|too large": "Take data and images out of the notebook, or attach them as a dataset.",
    r"answered 401": "Make a new API token on your account's page.",
    r"answered 403": "Use its owner's credentials, or `kernels build --owner YOUR_NAME`.",
    r"answered 429": "Wait some minutes.",
}
_MAX_WORDS = 300  # of a body, which may be a whole page


class PushError(RuntimeError):
    """Kaggle, or its client, did not do what was asked; the message says what, and no secret."""


@contextmanager
def kaggle_client() -> Iterator[tuple[Any, Mapping[str, str]]]:
    """Yield Kaggle's client and the secrets it may know; its errors become a PushError."""
    from kaggle import api
    from requests.exceptions import RequestException

    secrets = held_secrets()
    try:
        _authenticate(api.authenticate)
        secrets |= held_secrets(api.config_values)
        yield api, secrets
    except (RequestException, OSError, ValueError) as error:  # the last: no such kernel, for one
        raise PushError(without(secrets.values(), with_cure(_words(error)))) from None


def with_cure(words: str) -> str:
    """Return Kaggle's words with what to do, where that is known."""
    for pattern, cure in _CURES.items():
        if re.search(pattern, words, re.IGNORECASE):
            return f"{words.rstrip('.')}. {cure}"
    return words


def _words(error: Exception) -> str:
    """Return what the server said: the client gives a message, or only the status and no body."""
    response = getattr(error, "response", None)
    if response is None:
        return f"Kaggle's client: {error}"
    body = " ".join(response.text.split())
    said = str(error) if str(error) in body else f"{error}: {body[:_MAX_WORDS]}"
    return f"Kaggle answered {response.status_code}: {said}"


def _authenticate(authenticate: Callable[[], None]) -> None:
    try:
        authenticate()
    except SystemExit as error:  # the client ends the process; it has said how to log in
        raise PushError(
            f"no Kaggle credentials: set {variables(hub=False)}, or KAGGLE_API_TOKEN, or "
            "put kaggle.json into ~/.kaggle"
        ) from error
