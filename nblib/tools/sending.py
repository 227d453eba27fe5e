"""Sends a package through the hub's own client: `kaggle`, `kagglehub` or `huggingface_hub`.

What is sent is a folder of links to the export's files, with the metadata file that the hub knows,
and each Orbax tree as one archive, as some clients leave folders out. All is private at first:
making it public is a person's decision, on the hub's page.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click import ClickException

from nblib.files import write_json, write_text
from nblib.hosts.secrets import without
from nblib.models.folders import CARD_FILE
from nblib.models.published import credential_values, has_credentials, hub_token, variables
from nblib.sources.hubs import http_status, is_network_error, kaggle_errors
from nblib.tools.kaggle_client import kaggle_client, state_of
from nblib.tools.publishing import Package, files_of

HUGGING_FACE = "huggingface"
_MESSAGE = "Published by nblib"


def send(package: Package) -> str:
    """Send a package, and return the address of its page.

    Raises ClickException, saying why and how to go on; the export is as it was.
    """
    import httpx

    on_hub = package.target == HUGGING_FACE
    refused: tuple[type[Exception], ...] = (httpx.HTTPError, *kaggle_errors())
    if not has_credentials(hub=on_hub):
        raise ClickException(f"no credentials for {package.target}: set {variables(hub=on_hub)}")
    try:
        with _staged(package) as folder:
            return _SENDERS[package.target](package, folder)
    except refused as error:
        again = "are sent again, and become a version together"
        raise ClickException(
            f"{package.name} was not published: {_reason(package, error)}\n{package.folder} is as "
            "it was. Mend this, then give the same command again: the files "
            + ("that have arrived are not sent twice." if on_hub else f"{again}.")
        ) from error


@contextmanager
def _staged(package: Package) -> Iterator[Path]:
    """Yield a temporary folder of links to what is sent."""
    from huggingface_hub import metadata_load, metadata_save

    with tempfile.TemporaryDirectory(prefix="nblib-publish-") as name:
        staged = Path(name)
        for path in package.files:
            (staged / path.name).symlink_to(path.resolve())
        for tree in package.trees:
            with zipfile.ZipFile(staged / f"{tree.name}.zip", "w") as archive:
                for path in files_of(tree):
                    archive.write(path, path.relative_to(tree))
        card = staged / CARD_FILE
        head = metadata_load(card) or {}
        if head.get("license") != package.licence.name:  # its writer did not know the licence
            text = card.read_text(encoding="utf-8")
            card.unlink()  # the link, not the export's own file
            write_text(card, text)
            metadata_save(card, head | {"license": package.licence.name})
        if package.target != HUGGING_FACE:
            write_json(staged / package.metadata.file, package.metadata.content)
        if package.licence.notice:
            write_text(staged / "NOTICE", package.licence.notice)
        yield staged


def _send_dataset(package: Package, folder: Path) -> str:
    client = kaggle_client()
    if state_of(lambda: client.dataset_status(package.name)):
        answer = client.dataset_create_version(str(folder), _MESSAGE, quiet=True)
    else:
        answer = client.dataset_create_new(str(folder), quiet=True)
    if answer.error:
        raise ValueError(answer.error)
    return f"https://www.kaggle.com/datasets/{package.name}"


def _send_model(package: Package, folder: Path) -> str:
    import kagglehub

    one = package.metadata
    handle = f"{one.ownerSlug}/{one.modelSlug}/{one.framework}/{one.instanceSlug}"
    kagglehub.model_upload(handle, str(folder), one.licenseName, _MESSAGE)
    return f"https://www.kaggle.com/models/{one.ownerSlug}/{one.modelSlug}"


def _send_hub(package: Package, folder: Path) -> str:
    from huggingface_hub import HfApi

    api = HfApi(token=hub_token())
    api.create_repo(package.name, private=True, exist_ok=True)
    api.upload_folder(repo_id=package.name, folder_path=folder, commit_message=_MESSAGE)
    return f"{api.endpoint}/{package.name}"


_SENDERS = {
    "kaggle-dataset": _send_dataset,
    "kaggle-model": _send_model,
    HUGGING_FACE: _send_hub,
}


def _reason(package: Package, error: Exception) -> str:
    """Return what went wrong and what to do, in one line without credentials."""
    status = http_status(error)
    match status:
        case 401:
            wanted = variables(hub=package.target == HUGGING_FACE)
            return f"the credentials are refused: make new ones and set {wanted}"
        case 403:
            owner = package.name.split("/")[0]
            return f"these credentials may not write to {owner}: take its own, or another owner"
    if status is None and is_network_error(error):
        return "the hub cannot be reached from here, or the connection broke"
    text = without(credential_values(), " ".join((str(error).strip() or repr(error)).split()))
    return f"{f'the hub answered {status}, ' if status else ''}{type(error).__name__}: {text[:300]}"
