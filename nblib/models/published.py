"""Where a Gemma 3 is: the embedded model, a folder, or Google's weights from where a user has them.

Google's models come from an attached Kaggle input, from Kaggle through `kagglehub` (the weights for
transformers, or the Flax checkpoint), or from the Hugging Face hub; each that fails is one line of
the error, with what is missing and the page to visit. There is never a login prompt: credentials
come from the environment or the host's secrets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nblib.models.credentials import has_credentials, hub_token, variables
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
OVER = "::"  # "adapters::base": adapters over a base that lies elsewhere than where they say
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
SEAL = "weights_sha256"  # in its manifest, where the weights travel apart from the package
KAGGLE_PAGE = "https://www.kaggle.com/models/google/gemma-3"


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


def embedded_dataset(sha256: str) -> str:
    """Return the name, without its owner, of the Kaggle dataset with these embedded weights."""
    return f"nblib-embedded-{sha256[:10]}"


def _embedded() -> Path:
    """Find the embedded model in this package, or, in a built kernel, among the attached inputs.

    There it is the folder, at any depth, whose manifest names the same weights, and that has them.
    """
    if any(EMBEDDED_FOLDER.glob("*.safetensors")):
        return EMBEDDED_FOLDER
    sha256 = read_manifest(EMBEDDED_FOLDER).get(SEAL, "")
    sealed = f'"{SEAL}": "{sha256}"'.encode()  # anybody's manifest.json may be no JSON
    damaged = ""
    for path in sorted(KAGGLE_INPUT.rglob(MANIFEST_FILE)):
        if sealed not in path.read_bytes():
            continue
        if weights_sha256(path.parent) == sha256:
            return path.parent
        damaged = f" ({path.parent} has other weights than its manifest says)"
    raise ModelNotFound(
        f"the weights of {EMBEDDED!r} are neither in this nblib nor under {KAGGLE_INPUT}{damaged}: "
        f"attach your dataset {embedded_dataset(sha256)}, which `python -m nblib kernels push` "
        "makes (elsewhere than at Kaggle: NBLIB_KAGGLE_INPUT names a folder that holds it), or set "
        "MODEL to another, such as gemma3-1b-it"
    )


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


def _from_kaggle(name: str) -> Path:
    import kagglehub

    return Path(kagglehub.model_download(GEMMA[name].kaggle))


def _from_kaggle_flax(name: str) -> Path:
    import kagglehub

    return Path(kagglehub.model_download(GEMMA[name].kaggle_flax))


def _from_hugging_face(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", TOKENIZER_FILE]
    return Path(
        snapshot_download(GEMMA[name].repository, allow_patterns=patterns, token=hub_token())
    )


SOURCES: Mapping[str, Callable[[str], Path]] = {
    "attached": _attached,
    "kaggle": _from_kaggle,
    "kaggle-flax": _from_kaggle_flax,
    "huggingface": _from_hugging_face,
}


def _reason(source: str, name: str, error: Exception) -> str:
    """Return one line: what is missing, and what to do or which page to visit."""
    hub = source == "huggingface"
    page = f"https://huggingface.co/{GEMMA[name].repository}" if hub else KAGGLE_PAGE
    status = http_status(error)
    if status in (401, 403) and not has_credentials(hub=hub):
        return f"no credentials: accept the licence on {page} and set {variables(hub=hub)}"
    match status:
        case 401:
            return f"the credentials are refused: make new ones and set {variables(hub=hub)}"
        case 403:
            return f"the licence is not accepted: accept it on {page}"
        case 404:
            return f"no such variation: {page} lists those there are"
    if status is None and is_network_error(error):
        return f"no network: nothing at {page} can be reached from here"
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return f"{type(error).__name__}: {text[:200]}"
