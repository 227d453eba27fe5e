"""Credentials for Kaggle and the Hugging Face hub: their variables, whether there are any, values.

Nothing is asked for and nothing printed: the values are there to be kept out of what is sent.
"""

import base64
import os

# What a download may need: the Hugging Face hub's token, Kaggle's old pair and its new token.
TOKENS = ("HF_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")


def variables(*, hub: bool) -> str:
    """Return what a user has to set for the Hugging Face hub, or for Kaggle."""
    return "HF_TOKEN" if hub else "KAGGLE_USERNAME and KAGGLE_KEY"


def hub_token() -> str | None:
    """Return the Hugging Face hub's token from the environment; None where it is not set."""
    return os.environ.get("HF_TOKEN") or None


def has_credentials(*, hub: bool) -> bool:
    """Return whether a client would send credentials: to the Hugging Face hub, or to Kaggle."""
    if hub:
        from huggingface_hub import get_token

        return bool(hub_token() or get_token())
    from kagglehub.config import get_kaggle_credentials

    return get_kaggle_credentials() is not None


def credential_values() -> tuple[str, ...]:
    """Return what must never be printed or sent: the credentials that the clients would use."""
    from huggingface_hub import get_token
    from kagglehub.config import get_kaggle_credentials

    found = [hub_token(), get_token()]
    kaggle = get_kaggle_credentials()
    if kaggle:
        basic = base64.b64encode(f"{kaggle.username}:{kaggle.key}".encode()).decode()
        found += [kaggle.key, kaggle.api_key, basic]
    return tuple({secret for secret in found if secret})
