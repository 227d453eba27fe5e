"""The metadata of a Kaggle kernel: a strict schema of `kernel-metadata.json`.

Kaggle's client (2.2) ignores unknown keys, sends any accelerator as it is, and lets a title that
does not fit its slug pass with a remark; the kernel then runs elsewhere or under another name. Here
each is an error. Source: docs/kernels_metadata.md and docs/kernels.md of Kaggle/kaggle-cli.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from nblib.files import read_json

METADATA_FILE = "kernel-metadata.json"
ACCELERATORS = (
    *("TpuV5E8", "TpuV6E8", "TpuV38", "Tpu1VmV38"),
    *("NvidiaTeslaP100", "NvidiaTeslaT4", "NvidiaTeslaT4Highmem", "NvidiaTeslaA100"),
    *("NvidiaL4", "NvidiaL4X1", "NvidiaH100", "NvidiaRtxPro6000"),
)
_REFUSED = {
    "docker_image": "beside a TPU it silently runs a CPU image; leave it out",
    "docker_image_pinning_type": "it pins an image, which may have no TPU; leave it out",
    "enable_gpu": "it is deprecated; name the accelerator in machine_shape",
    "enable_tpu": "it is deprecated; name the accelerator in machine_shape",
    "id_no": "Kaggle would prefer it to id; leave it out",
}
_NAME = r"[A-Za-z0-9][A-Za-z0-9-]*"
_SOURCES = {
    "dataset_sources": (rf"{_NAME}/{_NAME}(/\d+)?", "owner/dataset[/version]"),
    "kernel_sources": (rf"{_NAME}/{_NAME}(/\d+)?", "owner/kernel[/version]"),
    "competition_sources": (_NAME, "a competition's name"),
    "model_sources": (
        rf"{_NAME}/{_NAME}/\w+/[\w.-]+/\d+",
        "owner/model/framework/variation/version, the version a number",
    ),
    "keywords": (r"[\w -]+", "words"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelMetadata:
    """One kernel's `kernel-metadata.json`; a ValueError names the field and the value."""

    id: str
    title: str
    code_file: str
    language: str
    kernel_type: str
    is_private: bool
    enable_internet: bool
    machine_shape: str  # "" is a CPU
    dataset_sources: tuple[str, ...] = ()
    kernel_sources: tuple[str, ...] = ()
    competition_sources: tuple[str, ...] = ()
    model_sources: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_name()
        _expect("language", self.language, self.language == "python", "python")
        _expect("kernel_type", self.kernel_type, self.kernel_type == "notebook", "notebook")
        is_notebook = isinstance(self.code_file, str) and self.code_file.endswith(".ipynb")
        _expect("code_file", self.code_file, is_notebook, "the path of an .ipynb")
        for name in ("is_private", "enable_internet"):
            value = getattr(self, name)
            _expect(name, value, isinstance(value, bool), "true or false, without quotes")
        known = self.machine_shape in ("", *ACCELERATORS)
        _expect("machine_shape", self.machine_shape, known, f"one of {', '.join(ACCELERATORS)}")
        for name, (pattern, form) in _SOURCES.items():
            _check_list(name, getattr(self, name), pattern, form)

    @property
    def slug(self) -> str:
        """The kernel's name in its address, without the owner."""
        return self.id.partition("/")[2]

    def _check_name(self) -> None:
        titled = isinstance(self.title, str) and 5 <= len(self.title) <= 50
        _expect("title", self.title, titled, "5 to 50 characters")
        named = isinstance(self.id, str) and re.fullmatch(rf"{_NAME}/[a-z0-9-]{{5,}}", self.id)
        _expect("id", self.id, bool(named), "owner/slug, a slug of 5 or more of a-z, 0-9 and -")
        slug = slug_of(self.title)
        _expect("id", self.id, self.slug == slug, f"{slug}, which Kaggle makes of the title")


def slug_of(title: str) -> str:
    """Return the slug that Kaggle makes of a title.

    >>> slug_of("nblib v1 SFT format")
    'nblib-v1-sft-format'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def read_metadata(folder: Path) -> KernelMetadata:
    """Read and check a kernel's folder.

    Raises:
        ValueError: the file and what is wrong: a key, a value, a notebook that is not there.
    """
    path = folder / METADATA_FILE
    if not path.is_file():
        raise ValueError(f"{path}: not there; `python -m nblib kernels build` makes it")
    try:
        metadata = _from_json(read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    code = (folder / metadata.code_file).resolve()
    if not (code.is_file() and code.is_relative_to(folder.resolve())):
        raise ValueError(f"{path}: code_file {metadata.code_file!r} is not in {folder.absolute()}")
    return metadata


def _from_json(content: Any) -> KernelMetadata:
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, got {type(content).__name__}")
    fields = {field.name: field for field in dataclasses.fields(KernelMetadata)}
    for key in content:
        if key in _REFUSED:
            raise ValueError(f"{key} is refused: {_REFUSED[key]}")
        if key not in fields:
            raise ValueError(f"unknown key {key!r}: expected {', '.join(fields)}")
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in content]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}; Kaggle's defaults differ between versions")
    lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return KernelMetadata(**{**content, **lists})


def _check_list(name: str, values: Any, pattern: str, form: str) -> None:
    _expect(name, values, isinstance(values, tuple), "a list")
    for value in values:
        fits = isinstance(value, str) and re.fullmatch(pattern, value)
        _expect(name, value, bool(fits), form)


def _expect(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}, expected {expected}")
