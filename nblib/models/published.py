"""Models by name: the embedded one, a folder, or a Gemma 3 of Google's; credentials and licences.

Google's weights are looked for in an attached Kaggle input, at Kaggle (in the layout of
transformers, or the Flax checkpoint) and on the Hugging Face hub. Each source that fails is a line
of the error, with what is missing and the page to visit. There is never a login prompt: credentials
come from the environment or the host's secrets.
"""

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nblib.models.folders import (
    CONFIG_FILE,
    MANIFEST_FILE,
    orbax_trees,
    read_manifest,
    weights_sha256,
)
from nblib.runs import KAGGLE_INPUT
from nblib.sources.hubs import http_status, is_network_error, kaggle_errors
from nblib.tokens.tokenizer import TOKENIZER_FILE

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
WEIGHTS_KEY = "weights_sha256"  # in its manifest, where the weights travel apart from the package
OVER = "::"  # "adapters::base": adapters over a base that lies elsewhere than where they say
KAGGLE_PAGE = "https://www.kaggle.com/models/google/gemma-3"
GEMMA_TERMS = "https://ai.google.dev/gemma/terms"
# What a download may need: the Hugging Face hub's token, Kaggle's old pair and its new token.
TOKENS = ("HF_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model of Google's: Kaggle handles of both kinds, and the Hugging Face repository."""

    kaggle: str
    kaggle_flax: str
    repository: str


def _published(size: str, kind: str) -> Published:
    # Kaggle's Flax names differ between the sizes; the hub says -pt for the 1b's base alone.
    flax = "gemma3-1b" if size == "1b" else f"gemma-3-{size}"
    base = "-pt" if size == "1b" and not kind else ""
    return Published(
        kaggle=f"google/gemma-3/transformers/gemma-3-{size}{kind}",
        kaggle_flax=f"google/gemma-3/flax/{flax}{kind}",
        repository=f"google/gemma-3-{size}{kind}{base}",
    )


GEMMA: Mapping[str, Published] = {
    f"gemma3-{size}{kind}": _published(size, kind)
    for size in ("270m", "1b")
    for kind in ("", "-it")
}


class ModelNotFound(FileNotFoundError):
    """No source has the model; the message has a line for each and says what to do."""


def find_model(name: str) -> Path:
    """Return the folder of a model by name or path, downloading it if it must.

    A published name is looked for at every source of `SOURCES` in turn. Sources before a colon fix
    which are asked, and in which order: "huggingface:gemma3-1b-it", "kaggle-flax,kaggle:gemma3-1b".
    Raises ModelNotFound saying what was tried, ValueError for an unknown source.
    """
    check_name(name)
    if name == EMBEDDED:
        return _embedded()
    if Path(name).is_dir():
        return Path(name)
    sources, _, model = name.rpartition(":")
    return _first_that_works(model, tuple(sources.split(",")) if sources else tuple(SOURCES))


def check_name(name: str) -> None:
    """Refuse what `find_model` would refuse without looking for it; nothing is downloaded.

    Raises ModelNotFound for a text that is no folder and no published name, ValueError for an
    unknown source.
    """
    if name == EMBEDDED or Path(name).is_dir():
        return
    sources, _, model = name.rpartition(":")
    if model not in GEMMA:
        known = ", ".join((EMBEDDED, *GEMMA))
        raise ModelNotFound(f"model {name!r} is no folder and no known name ({known})")
    unknown = [source for source in sources.split(",") if sources and source not in SOURCES]
    if unknown:
        raise ValueError(f"{name}: source {unknown[0]!r} is none of {', '.join(SOURCES)}")


def is_published(name: str) -> bool:
    """Return whether a text names a model, of Google's or the embedded one, and is no folder."""
    return name == EMBEDDED or (not Path(name).is_dir() and name.rpartition(":")[2] in GEMMA)


def repository_of(name: str) -> str:
    """Return the Hugging Face repository of a published name; any other name as it is."""
    published = GEMMA.get(name.rpartition(":")[2])
    return published.repository if published else name


def name_of(repository: str) -> str:
    """Return the published name of a Hugging Face repository; any other name as it is."""
    names = {published.repository: name for name, published in GEMMA.items()}
    return names.get(repository, repository)


def embedded_dataset(sha256: str) -> str:
    """Return the name, without its owner, of the Kaggle dataset with these embedded weights."""
    return f"nblib-embedded-{sha256[:10]}"


def _embedded() -> Path:
    """Find the embedded model in this package, or, in a built kernel, among the attached inputs.

    There it is the folder, at any depth, whose manifest names the same weights, and that has them.
    """
    if any(EMBEDDED_FOLDER.glob("*.safetensors")):
        return EMBEDDED_FOLDER
    sha256 = read_manifest(EMBEDDED_FOLDER).get(WEIGHTS_KEY, "")
    named = f'"{WEIGHTS_KEY}": "{sha256}"'.encode()  # anybody's manifest.json may be no JSON
    damaged = ""
    for path in sorted(KAGGLE_INPUT.rglob(MANIFEST_FILE)):
        if named in path.read_bytes():
            if weights_sha256(path.parent) == sha256:
                return path.parent
            damaged = f" ({path.parent} has other weights than its manifest says)"
    raise ModelNotFound(
        f"the weights of {EMBEDDED!r} are neither in this nblib nor under {KAGGLE_INPUT}{damaged}: "
        f"attach your dataset {embedded_dataset(sha256)}, which `python -m nblib kernels push` "
        "makes (elsewhere than at Kaggle: NBLIB_KAGGLE_INPUT names a folder that holds it), or set "
        "MODEL to another, such as gemma3-1b-it"
    )


def _first_that_works(name: str, order: tuple[str, ...]) -> Path:
    out_of_reach: tuple[type[Exception], ...] = (*kaggle_errors(), ImportError)
    lines = []
    for source in order:
        try:
            return SOURCES[source](name)
        except out_of_reach as error:
            lines.append(f"  {source}: {_reason(source, name, error)}")
    raise ModelNotFound(
        f"{name} was not found:\n"
        + "\n".join(lines)
        + f"\nAttach the Kaggle model {GEMMA[name].kaggle}, or accept the licence on its page and "
        f"set {variables(hub=False)} (or {variables(hub=True)}), or give a folder as MODEL."
    )


def _attached(name: str) -> Path:
    """Find the model among the attached inputs by its files; mount points differ between hosts."""
    wanted = {Path(handle).name for handle in (GEMMA[name].kaggle, GEMMA[name].kaggle_flax)}
    for config in sorted(KAGGLE_INPUT.rglob(CONFIG_FILE)):
        if wanted & {*config.parts} and any(config.parent.glob("*.safetensors")):
            return config.parent
    for tokenizer in sorted(KAGGLE_INPUT.rglob(TOKENIZER_FILE)):
        if wanted & {*tokenizer.parts} and orbax_trees(tokenizer.parent):
            return tokenizer.parent
    raise FileNotFoundError(f"no folder of {' or '.join(sorted(wanted))} under {KAGGLE_INPUT}")


def _from_kaggle(name: str, *, flax: bool) -> Path:
    import kagglehub

    handle = GEMMA[name].kaggle_flax if flax else GEMMA[name].kaggle
    return Path(kagglehub.model_download(handle))


def _from_hugging_face(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", TOKENIZER_FILE]
    repository = GEMMA[name].repository
    return Path(snapshot_download(repository, allow_patterns=patterns, token=hub_token()))


SOURCES: Mapping[str, Callable[[str], Path]] = {
    "attached": _attached,
    "kaggle": partial(_from_kaggle, flax=False),
    "kaggle-flax": partial(_from_kaggle, flax=True),
    "huggingface": _from_hugging_face,
}


def _reason(source: str, name: str, error: Exception) -> str:
    """Return one line: what is missing, and what to do or which page to visit."""
    hub = source == "huggingface"
    page = f"https://huggingface.co/{GEMMA[name].repository}" if hub else KAGGLE_PAGE
    status, needed = http_status(error), variables(hub=hub)
    if status in (401, 403) and not has_credentials(hub=hub):
        return f"no credentials: accept the licence on {page} and set {needed}"
    reasons = {
        401: f"the credentials are refused: make new ones and set {needed}",
        403: f"the licence is not accepted: accept it on {page}",
        404: f"no such variation: {page} lists those there are",
    }
    if status in reasons:
        return reasons[status]
    if status is None and is_network_error(error):
        return f"no network: nothing at {page} can be reached from here"
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return f"{type(error).__name__}: {text[:200]}"


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
    if kaggle := get_kaggle_credentials():
        basic = base64.b64encode(f"{kaggle.username}:{kaggle.key}".encode()).decode()
        found += [kaggle.key, kaggle.api_key, basic]
    return tuple({secret for secret in found if secret})


@dataclass(frozen=True, kw_only=True)
class Licence:
    """A licence, under the name that each hub has for it.

    `notice` is what must travel with every copy, in a file of that name; "" where nothing must.
    """

    name: str
    kaggle_dataset: str
    kaggle_model: str
    sentence: str
    notice: str = ""


# By the Hugging Face hub's names.
LICENCES: Mapping[str, Licence] = {
    "apache-2.0": Licence(
        name="apache-2.0",
        kaggle_dataset="apache-2.0",
        kaggle_model="Apache 2.0",
        sentence="Apache-2.0, as the model that it was made from.",
    ),
    "gemma": Licence(
        name="gemma",
        kaggle_dataset="other",  # Kaggle: "specified in description"
        kaggle_model="Gemma",  # as Kaggle names that of google/gemma-3
        sentence=f"A derivative of Gemma: use is subject to Gemma's terms, {GEMMA_TERMS}.",
        # The sentence that section 3.1 of the terms asks for.
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at "
        f"{GEMMA_TERMS}\n",
    ),
}


def root_of(manifest: Mapping[str, Any]) -> str:
    """Return the name of what all training began with, without the sources it was asked from."""
    return str(manifest.get("base", {}).get("root", "")).rpartition(":")[2]


def licence_of(manifest: Mapping[str, Any]) -> Licence | None:
    """Return the licence of an export, that of its root; None where the root is not known here."""
    root = root_of(manifest)
    if root in GEMMA:
        return LICENCES["gemma"]
    return LICENCES["apache-2.0"] if root == EMBEDDED else None
