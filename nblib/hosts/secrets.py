"""Tokens: found in the environment, at Kaggle or at Colab, never printed, and taken out of files.

Taken out are the known shapes of tokens, also those of other services, and the values of the
secrets that this process holds.
"""

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nblib.hosts.host import this_host
from nblib.models.published import TOKENS

# As those who issue them make them. No word boundary before: colour codes end in a letter.
SHAPES: Mapping[str, re.Pattern[str]] = {
    "Hugging Face token": re.compile(r"hf_[A-Za-z0-9]{20,}"),
    "Kaggle token": re.compile(r"KGAT[_-]?[A-Za-z0-9]{20,}"),
    "Google API key": re.compile(r"AIza[A-Za-z0-9_-]{35}"),
    "GitHub token": re.compile(r"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    "OpenAI key": re.compile(r"sk-(?:proj-)?[A-Za-z0-9]{32,}"),
    "AWS access key": re.compile(r"AKIA[A-Z0-9]{16}"),
}
# Variables whose value is a secret by their name: HF_TOKEN, OPENAI_API_KEY, DB_PASSWORD, ...
_SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.I)
_SHORTEST = 8  # a shorter value is a placeholder, and may stand anywhere in a text


def provide_tokens(names: Sequence[str] = TOKENS) -> dict[str, str]:
    """Put each token that is found into the environment, where the hubs' clients look.

    Asked are the environment, then Kaggle's secrets, then Colab's. Nothing is printed.

    Returns:
        name -> where it was found: "environment", "kaggle" or "colab"; never a value.
    """
    found = {name: "environment" for name in names if os.environ.get(name)}
    for place, ask in {"kaggle": _ask_kaggle, "colab": _ask_colab}.items():
        for name, value in ask([name for name in names if name not in found]).items():
            os.environ[name] = value
            found[name] = place
    return found


def held_secrets(values: Mapping[str, Any] = os.environ) -> dict[str, str]:
    """Return the variables, of this process if no others, that are secrets by their names."""
    return {
        name: value
        for name, value in values.items()
        if _SECRET_NAME.search(name) and isinstance(value, str) and len(value) >= _SHORTEST
    }


def without(secrets: Iterable[str], text: str) -> str:
    """Return the text with stars in place of each secret, for a message."""
    for value in secrets:
        text = text.replace(value, "***")
    return text


def redacted(text: str) -> tuple[str, Counter[str]]:
    """Return the text without secrets, and how often each kind of secret stood in it.

    Example:
        >>> redacted("token hf_" + "x" * 34)
        ('token [Hugging Face token removed]', Counter({'Hugging Face token': 1}))
    """
    found: Counter[str] = Counter()
    for name, value in sorted(held_secrets().items(), key=lambda held: -len(held[1])):
        found[f"value of {name}"] += text.count(value)
        text = text.replace(value, f"[value of {name} removed]")
    for kind, shape in SHAPES.items():
        text, count = shape.subn(f"[{kind} removed]", text)
        found[kind] += count
    return text, +found


def redacted_notebook(content: Any) -> tuple[Any, Counter[str]]:
    """Return a notebook's JSON without secrets in its cells, outputs and metadata.

    Images are left out: in so much base64 a token's first letters stand by chance.
    """
    if isinstance(content, str):
        return redacted(content)
    found: Counter[str] = Counter()
    if isinstance(content, list):
        parts: Any = []
        for item in content:
            part, more = redacted_notebook(item)
            parts.append(part)
            found += more
        return parts, found
    if isinstance(content, dict):
        parts = {}
        for name, item in content.items():
            is_image = name.startswith("image/")
            parts[name], more = (item, Counter()) if is_image else redacted_notebook(item)
            found += more
        return parts, found
    return content, found


def _ask_kaggle(names: Sequence[str]) -> dict[str, str]:
    """Ask for the secrets attached to a Kaggle notebook; without internet there are none."""
    if this_host() != "kaggle" or not _is_installed("kaggle_secrets"):
        return {}
    import kaggle_secrets

    try:
        client = kaggle_secrets.UserSecretsClient()
        return _answers(client.get_secret, names, (kaggle_secrets.BackendError,))
    except (kaggle_secrets.CredentialError, OSError):  # no session of a user, or not to be reached
        return {}


def _ask_colab(names: Sequence[str]) -> dict[str, str]:
    """Ask for the secrets that the user lets this notebook see on its page."""
    if not _is_installed("google.colab"):
        return {}
    from google.colab import userdata

    # Outside of the page the last one comes, and only newer releases have it.
    refusals = ("SecretNotFoundError", "NotebookAccessError", "TimeoutException")
    raised = tuple(getattr(userdata, name) for name in refusals if hasattr(userdata, name))
    return _answers(userdata.get, names, raised)


def _answers(
    ask: Callable[[str], str], names: Sequence[str], refusals: tuple[type[Exception], ...]
) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = ask(name)
        except refusals:
            continue
    return {name: value for name, value in found.items() if value}


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False
