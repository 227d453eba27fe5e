"""The metadata files of Kaggle and the Hugging Face hub, checked strictly before anything is sent.

The clients drop unknown keys, pass wrong values on, and let the server refuse them after gigabytes.
Here each is an error. A class is a file and a field is a key of it.
Rules: https://github.com/Kaggle/kaggle-api/tree/main/docs (kernels_metadata.md,
datasets_metadata.md, models_metadata.md), https://huggingface.co/docs/hub/model-cards
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import pydantic
from pydantic import AfterValidator, StrictBool

from nblib.files import read_json, shown
from nblib.models.folders import CARD_FILE
from nblib.models.licences import GEMMA_TERMS, LICENCES

_NAME, _OWNER = r"[A-Za-z0-9][A-Za-z0-9-]*", r"[A-Za-z0-9][A-Za-z0-9-]{0,79}"
_SLUG, _SLUG_WORDS = r"[a-z0-9]+(?:-[a-z0-9]+)*", "lower-case letters, digits and single dashes"
REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_ACCELERATORS = (
    *("TpuV5E8", "TpuV6E8", "TpuV38", "Tpu1VmV38"),
    *("NvidiaTeslaP100", "NvidiaTeslaT4", "NvidiaTeslaT4Highmem", "NvidiaTeslaA100"),
    *("NvidiaL4", "NvidiaL4X1", "NvidiaH100", "NvidiaRtxPro6000"),
)
_FLAG = "true or false, without quotes"
_TYPES = {"string_type": "text", "bool_type": _FLAG, "tuple_type": "a list"}


def _must(holds: Callable[[Any], object], expected: str) -> AfterValidator:
    """Return a check whose error says what was expected."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(expected)
        return value

    return AfterValidator(check)


def _like(pattern: str, expected: str) -> AfterValidator:
    return _must(re.compile(pattern, re.DOTALL).fullmatch, expected)


def one_of(names: Iterable[str]) -> AfterValidator:
    """Return a check of a field that holds one of these names."""
    known = list(names)
    return _must(known.__contains__, f"one of {', '.join(filter(None, known))}")


_Slug = Annotated[str, _like(rf"(?=.{{3,50}}$){_SLUG}", f"a name of 3 to 50 {_SLUG_WORDS}")]
_Words = tuple[Annotated[str, _like(r"[\w -]+", "words")], ...]
_Sources = tuple[Annotated[str, _like(rf"{_NAME}/{_NAME}(/\d+)?", "owner/name[/version]")], ...]
_MODEL_WORDS = "owner/model/framework/variation/version, the version a number"
_Model = Annotated[str, _like(rf"{_NAME}/{_NAME}/\w+/[\w.-]+/\d+", _MODEL_WORDS)]
_KERNEL_WORDS = "owner/slug, a slug of 5 or more of a-z, 0-9 and -"
_DATASET_WORDS = f"owner/name, a name of 6 to 50 {_SLUG_WORDS}"
_LICENSES = [({"name": one.kaggle_dataset},) for one in LICENCES.values()]


class Metadata(pydantic.BaseModel):
    """What a metadata file says; `checked` reads one, with errors that name file and key."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    file: ClassVar[str] = ""
    refused: ClassVar[Mapping[str, str]] = {}  # key -> why it is refused
    if_missing: ClassVar[str] = ""

    @classmethod
    def checked(cls, values: Any, *, where: Path | str = "") -> Self:
        """Return a file's content as checked metadata.

        Raises ValueError naming `where` (or the file) and the key that is unknown, missing or
        wrong.
        """
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            raise ValueError(f"{where or cls.file}: {cls._reason(error)}") from error

    @classmethod
    def _reason(cls, error: pydantic.ValidationError) -> str:
        """Say in one line what is wrong first of all, and what was expected."""
        errors = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        first = errors[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        match first["type"]:
            case "extra_forbidden" if key in cls.refused:
                return f"{key} is refused: {cls.refused[key]}"
            case "extra_forbidden":
                return f"unknown key {key!r}: expected {', '.join(cls.model_fields)}"
            case "missing":
                missing = [str(one["loc"][0]) for one in errors if one["type"] == "missing"]
                return f"lacks {', '.join(missing)}{cls.if_missing}"
            case "model_type":
                return f"expected an object, got {type(first['input']).__name__}"
        own = first.get("ctx", {}).get("error")
        expected = str(own or _TYPES.get(first["type"], first["msg"]))
        return f"{key} is {shown(first['input'])}, expected {expected}" if key else expected

    @property
    def content(self) -> dict[str, Any]:
        """What stands in the file; a key with its default is left out."""
        return self.model_dump(mode="json", exclude_defaults=True)


class KernelMetadata(Metadata):
    """`kernel-metadata.json` of a Kaggle kernel."""

    file = "kernel-metadata.json"
    refused = {
        "docker_image": "beside a TPU it silently runs a CPU image; leave it out",
        "docker_image_pinning_type": "it pins an image, which may have no TPU; leave it out",
        "enable_gpu": "it is deprecated; name the accelerator in machine_shape",
        "enable_tpu": "it is deprecated; name the accelerator in machine_shape",
        "id_no": "Kaggle would prefer it to id; leave it out",
    }
    if_missing = "; Kaggle's defaults differ between versions"

    id: Annotated[str, _like(f"{_NAME}/[a-z0-9-]{{5,}}", _KERNEL_WORDS)]
    title: Annotated[str, _like(".{5,50}", "5 to 50 characters")]
    code_file: Annotated[str, _like(r".*\.ipynb", "the path of an .ipynb")]
    language: Annotated[str, one_of(["python"])]
    kernel_type: Annotated[str, one_of(["notebook"])]
    is_private: StrictBool
    enable_internet: StrictBool
    machine_shape: Annotated[str, one_of(["", *_ACCELERATORS])]  # "" is a CPU
    dataset_sources: _Sources = ()
    kernel_sources: _Sources = ()
    competition_sources: tuple[Annotated[str, _like(_NAME, "a competition's name")], ...] = ()
    model_sources: tuple[_Model, ...] = ()
    keywords: _Words = ()

    @pydantic.model_validator(mode="after")
    def _check_slug(self) -> Self:
        slug = slug_of(self.title)
        if self.slug != slug:
            words = f"{slug}, which Kaggle makes of the title"
            raise ValueError(f"id is {self.id!r}, expected {words}")
        return self

    @property
    def slug(self) -> str:
        """The kernel's name in its address, without the owner."""
        return self.id.partition("/")[2]


class DatasetMetadata(Metadata):
    """`dataset-metadata.json` of a Kaggle dataset."""

    file = "dataset-metadata.json"

    id: Annotated[str, _like(rf"{_OWNER}/(?=.{{6,50}}$){_SLUG}", _DATASET_WORDS)]
    title: Annotated[str, _like(".{6,50}", "6 to 50 characters")]
    licenses: Annotated[
        tuple[dict[str, str], ...],
        _must(_LICENSES.__contains__, f"one of {', '.join(json.dumps(x) for x in _LICENSES)}"),
    ]
    description: str
    subtitle: Annotated[str, _like("|.{20,80}", "20 to 80 characters")] = ""
    keywords: _Words = ()

    @pydantic.field_validator("description")
    @classmethod
    def _check_terms(cls, description: str, info: pydantic.ValidationInfo) -> str:
        # The licence "other" means: specified in the description.
        if info.data.get("licenses") == ({"name": "other"},) and GEMMA_TERMS not in description:
            raise ValueError(f"Gemma's terms, {GEMMA_TERMS}")
        return description


class VariationMetadata(Metadata):
    """`model-instance-metadata.json` of one variation of a Kaggle model."""

    file = "model-instance-metadata.json"

    ownerSlug: Annotated[str, _like(_OWNER, "a name of letters, digits and dashes")]
    modelSlug: _Slug
    instanceSlug: _Slug
    framework: Annotated[str, one_of(["transformers", "flax"])]
    licenseName: Annotated[str, one_of(one.kaggle_model for one in LICENCES.values())]


class CardMetadata(Metadata):
    """The YAML head of the `README.md` of a Hugging Face repository."""

    file = CARD_FILE

    license: Annotated[str, one_of(LICENCES)]
    library_name: Annotated[str, one_of(["transformers", "peft"])]
    pipeline_tag: Annotated[str, one_of(["text-generation"])]
    base_model: Annotated[str, pydantic.Field(validate_default=True)] = ""
    language: str | tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    @pydantic.field_validator("base_model")
    @classmethod
    def _check_base(cls, base: str, info: pydantic.ValidationInfo) -> str:
        # A fine-tune of Gemma has to name its base.
        optional = "" if info.data.get("license") == "gemma" else "|"
        if not re.fullmatch(optional + REPOSITORY, base):
            raise ValueError("the base's repository, owner/name")
        return base


def slug_of(title: str) -> str:
    """Return the slug that Kaggle makes of a title.

    >>> slug_of("nblib v1 SFT format")
    'nblib-v1-sft-format'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def read_kernel_metadata(folder: Path) -> KernelMetadata:
    """Read and check a kernel's folder.

    Raises ValueError naming the file and what is wrong: a key, a value, a notebook not there.
    """
    path = folder / KernelMetadata.file
    if not path.is_file():
        raise ValueError(f"{path}: not there; `python -m nblib kernels build` makes it")
    metadata = KernelMetadata.checked(read_json(path), where=path)
    code = (folder / metadata.code_file).resolve()
    if not (code.is_file() and code.is_relative_to(folder.resolve())):
        raise ValueError(f"{path}: code_file {metadata.code_file!r} is not in {folder.absolute()}")
    return metadata
