"""The metadata files of Kaggle and the Hugging Face hub, checked strictly before anything is sent.

The clients leave out what they do not know and let the server refuse the rest, after gigabytes. A
class is a file, a field is a key of it, under the file's own name.
Rules: https://github.com/Kaggle/kaggle-api/tree/main/docs (datasets_metadata.md,
models_metadata.md), https://huggingface.co/docs/hub/model-cards
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, TypeVar

from nblib.models.folders import CARD_FILE
from nblib.models.published import GEMMA_TERMS, LICENCES

_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,79}")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FRAMEWORKS = ("transformers", "flax")  # Kaggle's names of the layouts that are written here
_Metadata = TypeVar("_Metadata", "DatasetMetadata", "VariationMetadata", "CardMetadata")


@dataclass(frozen=True, kw_only=True)
class DatasetMetadata:
    """`dataset-metadata.json` of a Kaggle dataset."""

    file: ClassVar = "dataset-metadata.json"

    id: str
    title: str
    licenses: Sequence[Mapping[str, str]]
    description: str
    subtitle: str = ""
    keywords: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what Kaggle would refuse, and a licence that is not said in full."""
        owner, _, slug = self.id.partition("/")
        _check(self, "id", self.id, bool(_OWNER.fullmatch(owner)), "owner/name")
        _check_slug(self, "id", slug, 6, 50)
        _check_length(self, "title", self.title, 6, 50)
        if self.subtitle:
            _check_length(self, "subtitle", self.subtitle, 20, 80)
        names = {licence.kaggle_dataset for licence in LICENCES.values()}
        one = len(self.licenses) == 1 and set(self.licenses[0]) == {"name"}
        known = one and self.licenses[0]["name"] in names
        _check(self, "licenses", self.licenses, known, f'[{{"name": ...}}], of {_listed(names)}')
        # "other" means: specified in the description.
        said = self.licenses[0]["name"] != "other" or GEMMA_TERMS in self.description
        _check(self, "description", self.description[:60], said, f"Gemma's terms, {GEMMA_TERMS}")
        words = not isinstance(self.keywords, str) and all(map(_is_text, self.keywords))
        _check(self, "keywords", self.keywords, words, "a list of words")


@dataclass(frozen=True, kw_only=True)
class VariationMetadata:
    """`model-instance-metadata.json` of one variation of a Kaggle model."""

    file: ClassVar = "model-instance-metadata.json"

    ownerSlug: str
    modelSlug: str
    instanceSlug: str
    framework: str
    licenseName: str

    def __post_init__(self) -> None:
        """Refuse what Kaggle would refuse, and a licence that `models.licence` does not know."""
        owner = bool(_OWNER.fullmatch(self.ownerSlug))
        _check(self, "ownerSlug", self.ownerSlug, owner, "a name of letters, digits and dashes")
        _check_slug(self, "modelSlug", self.modelSlug, 3, 50)
        _check_slug(self, "instanceSlug", self.instanceSlug, 3, 50)
        framework = self.framework in FRAMEWORKS
        _check(self, "framework", self.framework, framework, _listed(FRAMEWORKS))
        names = {licence.kaggle_model for licence in LICENCES.values()}
        _check(self, "licenseName", self.licenseName, self.licenseName in names, _listed(names))

    @property
    def handle(self) -> str:
        """What `kagglehub` calls the variation."""
        return f"{self.ownerSlug}/{self.modelSlug}/{self.framework}/{self.instanceSlug}"


@dataclass(frozen=True, kw_only=True)
class CardMetadata:
    """The YAML head of the `README.md` of a Hugging Face repository."""

    file: ClassVar = CARD_FILE

    license: str
    library_name: str
    pipeline_tag: str
    base_model: str = ""
    language: Sequence[str] | str = ()
    tags: Sequence[str] = ()
    datasets: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse an unknown licence, and a fine-tune of Gemma that does not name it."""
        _check(self, "license", self.license, self.license in LICENCES, _listed(LICENCES))
        libraries = ("transformers", "peft")
        known = self.library_name in libraries
        _check(self, "library_name", self.library_name, known, _listed(libraries))
        task = self.pipeline_tag == "text-generation"
        _check(self, "pipeline_tag", self.pipeline_tag, task, "text-generation")
        form = not self.base_model or bool(_REPOSITORY.fullmatch(self.base_model))
        named = form and (self.license != "gemma" or bool(self.base_model))
        _check(self, "base_model", self.base_model, named, "the base's repository, owner/name")


def checked(kind: type[_Metadata], values: Mapping[str, Any]) -> _Metadata:
    """Return a file's content as checked metadata.

    Raises ValueError naming the key: one that is unknown, missing, of another type or wrong.
    """
    keys = {field.name: field for field in fields(kind)}
    for key, value in values.items():
        if key not in keys:
            raise ValueError(f"{kind.file}: unknown key {key!r}, the keys are {_listed(keys)}")
        wanted = str if keys[key].type is str else (str, list, tuple)
        _check(kind, key, value, isinstance(value, wanted), "text" if wanted is str else "a list")
    missing = [key for key in keys if key not in values and keys[key].default is MISSING]
    if missing:
        raise ValueError(f"{kind.file} lacks {missing[0]!r}")
    return kind(**values)


def check_repository(name: str) -> None:
    """Raise ValueError when a name cannot be that of a Hugging Face repository."""
    if not _REPOSITORY.fullmatch(name) or len(name) > 96:
        raise ValueError(f"repository is {name!r}, expected owner/name of at most 96 characters")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _check_slug(metadata: object, key: str, value: str, least: int, most: int) -> None:
    good = bool(_SLUG.fullmatch(value)) and least <= len(value) <= most
    expected = f"a name of {least} to {most} lower-case letters, digits and single dashes"
    _check(metadata, key, value, good, expected)


def _check_length(metadata: object, key: str, value: str, least: int, most: int) -> None:
    _check(metadata, key, value, least <= len(value) <= most, f"{least} to {most} characters")


def _check(metadata: Any, key: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f"{metadata.file}: {key} is {value!r}, expected {expected}")


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
