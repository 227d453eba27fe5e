"""Self-contained Kaggle kernels: each notebook in a folder of its own, with nblib's wheel inside.

`kaggle kernels push` uploads the text of one notebook and nothing beside it. So the wheel travels
in a cell before the install cell, which is the same everywhere and takes nblib from where that cell
puts it. The embedded model's weights are too large for that and travel as a private dataset that
the kernels attach. Its name holds a hash of the weights: other weights are another dataset, and one
that is there already never changes. Nothing is sent here: see `push`.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import nblib
from nblib import REPOSITORY, __version__
from nblib.files import write_json, write_text
from nblib.models.folders import MANIFEST_FILE, read_manifest, weights_sha256
from nblib.models.licences import LICENCES
from nblib.models.published import EMBEDDED_FOLDER, WEIGHTS_KEY, embedded_dataset
from nblib.tools.metadata import DatasetMetadata, KernelMetadata, read_kernel_metadata, slug_of
from nblib.tools.notebooks import NotebookInfo, check_pair, notebook_infos, notebooks_folder

KERNELS_FOLDER = Path("build/kernels")
WHEEL_TAG = "wheel"  # of the cell that holds it
# Kaggle: "The kernel source must be less than 1 megabytes in size", of 1,000,000 bytes.
MAX_NOTEBOOK_BYTES = 950_000
# A link to the repository in a notebook or the README, and a version; `make sync` brings them up.
_PAGE = re.compile(r"(github(?:\.com)?/)[\w.-]+/[\w.-]+(?=/blob/main/|@v\d)")
_VERSION = re.compile(r'(?<=@v)[\d.]+(?=")|(?<=install_packages\(")[\d.]+(?="\))')
_DESCRIPTION = (
    "The small Gemma 3 that ships with nblib, for kernels that its `kernels build` made: attached "
    "to one, it is found by its manifest, which also says what it was trained on. Apache-2.0."
)
_EPOCH = "315532800"  # 1980, where zip files begin: the same sources give the same wheel
_CELL = '''\
# nblib {version} as a wheel, put here by `python -m nblib kernels build`.
import base64
import os
import tempfile
from pathlib import Path

wheel = Path(tempfile.mkdtemp(), "{name}")
wheel.write_bytes(base64.b85decode("".join("""
{content}
""".split())))
os.environ["NBLIB_WHEEL"] = str(wheel)
'''


def build_kernels(names: Sequence[str] = (), *, owner: str = "") -> list[Path]:
    """Write `build/kernels/<notebook>/` for each notebook and return the folders.

    Beside them lies the folder of the dataset that they attach. No names are all notebooks that
    say what they are; no owner is that of the root's metadata.

    Raises ValueError: no checkout here, or a notebook that is unknown, does not say what it is, is
    too large or out of step with its source.
    """
    checkout = Path(nblib.__file__).parents[1]
    if not (checkout / KernelMetadata.file).is_file():
        raise ValueError(f"{checkout} is no checkout: kernels are built where nblib's source is")
    infos = notebook_infos()
    for name in names:
        if name not in infos:
            raise ValueError(
                f"unknown notebook {name!r}: expected {', '.join(infos)}, or one whose .py says "
                "what it is: kind, task, reads"
            )
    template = read_kernel_metadata(checkout)
    owner = owner or template.id.partition("/")[0]
    wheel_cell = _wheel_cell(*_wheel(checkout))
    dataset = _write_model_dataset(KERNELS_FOLDER, owner=owner)
    folders = []
    for name in names or infos:
        text = _with_cell(notebooks_folder() / f"{name}.ipynb", wheel_cell)
        metadata = kernel_metadata(name, infos[name], template, owner=owner, dataset=dataset)
        folders.append(_write_kernel(KERNELS_FOLDER / name, metadata, text))
    return folders


def built_kernels(names: Sequence[str] = ()) -> list[Path]:
    """Return the folders of built kernels, each after those whose output it reads.

    Raises ValueError: nothing is built, or not one that is named.
    """
    built = {
        path.parent.name: path.parent for path in KERNELS_FOLDER.glob(f"*/{KernelMetadata.file}")
    }
    missing = [name for name in names if name not in built]
    if missing or not built:
        wanted = ", ".join(missing) or "any kernel"
        raise ValueError(f"{KERNELS_FOLDER} lacks {wanted}: run `python -m nblib kernels build`")
    metadata = {name: read_kernel_metadata(built[name]) for name in sorted(names or built)}
    order = TopologicalSorter({one.id: () for one in metadata.values()})
    for one in metadata.values():
        order.add(one.id, *one.kernel_sources)
    folders = {one.id: built[name] for name, one in metadata.items()}
    return [folders[kernel] for kernel in order.static_order() if kernel in folders]


def kernel_metadata(
    name: str, info: NotebookInfo, template: KernelMetadata, *, owner: str, dataset: str
) -> KernelMetadata:
    """Return the metadata of a notebook's kernel: the template's, with what is the notebook's own.

    All but a foundation, which begins with no model on a CPU, attach the embedded model's
    `dataset`: PROFILE or MODEL may ask for it on any machine, and it is small. What starts from
    another notebook's export needs no published model.
    """
    titles = {Path(template.code_file).stem: template.title}

    def title_of(notebook: str) -> str:
        return titles.get(notebook, f"nblib {notebook.replace('_', ' ')}")

    changes: dict[str, Any] = {
        "id": f"{owner}/{slug_of(title_of(name))}",
        "title": title_of(name),
        "code_file": f"{name}.ipynb",
        "dataset_sources": [*template.dataset_sources, dataset],
        "kernel_sources": [f"{owner}/{slug_of(title_of(read))}" for read in info.reads],
    }
    if info.kind == "foundation":
        changes |= {"machine_shape": "", "dataset_sources": (), "model_sources": ()}
    if info.is_tuned and info.reads:
        changes["model_sources"] = ()
    return KernelMetadata.checked(template.model_dump() | changes)


def _sealed_manifest() -> dict[str, Any]:
    """Return the embedded model's manifest with the hash of its weights.

    It travels in the wheel and in the dataset, and is how the one finds the other.
    """
    return {**read_manifest(EMBEDDED_FOLDER), WEIGHTS_KEY: weights_sha256(EMBEDDED_FOLDER)}


def _write_model_dataset(parent: Path, *, owner: str) -> str:
    """Write the dataset's folder, as `kaggle datasets create -p` takes it; return its handle."""
    manifest = _sealed_manifest()
    slug = embedded_dataset(manifest[WEIGHTS_KEY])
    values = {
        "id": f"{owner}/{slug}",
        "title": slug.replace("-", " "),
        "licenses": [{"name": LICENCES["apache-2.0"].kaggle_dataset}],
        "description": _DESCRIPTION,
    }
    metadata = DatasetMetadata.checked(values)
    folder = parent / slug
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EMBEDDED_FOLDER, folder)
    write_json(folder / MANIFEST_FILE, manifest)
    write_json(folder / metadata.file, metadata.content)
    return metadata.id


def _wheel(checkout: Path) -> tuple[str, bytes]:
    """Return nblib's wheel, name and content, with the embedded model's manifest for its weights.

    It is built of a copy, where no earlier build left a module.
    """
    with tempfile.TemporaryDirectory(prefix="nblib-wheel-") as scratch:
        source = Path(scratch, "source")
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(checkout / "nblib", source / "nblib", ignore=skipped)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(checkout / name, source)
        embedded = source / "nblib" / "models" / "embedded"
        for weights in embedded.glob("*.safetensors"):
            weights.unlink()
        write_json(embedded / MANIFEST_FILE, _sealed_manifest())
        options = ["-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "wheel", *options, "-w", scratch, str(source)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"nblib's wheel cannot be built: {done.stderr.strip()}")
        (wheel,) = Path(scratch).glob("nblib-*.whl")
        return wheel.name, wheel.read_bytes()


def _wheel_cell(name: str, content: bytes) -> Any:
    from nbformat.v4 import new_code_cell

    text = base64.b85encode(content).decode()  # a sixteenth shorter than in base 64
    lines = [text[begin : begin + 1000] for begin in range(0, len(text), 1000)]
    source = _CELL.format(version=__version__, name=name, content="\n".join(lines))
    hidden = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}, "cellView": "form"}
    return new_code_cell(source.strip(), id="nblib-wheel", metadata={"tags": [WHEEL_TAG], **hidden})


def _with_cell(path: Path, cell: Any) -> str:
    """Return the notebook's text with a cell put before the install cell, right after the title."""
    import nbformat

    check_pair(path)
    notebook = nbformat.read(path, as_version=4)
    if any(c.get("outputs") for c in notebook.cells):
        raise ValueError(f"{path} holds outputs, which may hold anything: run `make sync` first")
    pulled = notebook.metadata.pop("kaggle", None)
    if pulled:  # an image in it would be taken in place of the accelerator's
        print(f"{path}: left out metadata.kaggle, as a pull leaves it: {json.dumps(pulled)}")
    notebook.cells.insert(1, cell)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def check_size(notebook: Path, size_bytes: int) -> None:
    """Raise ValueError for a notebook that Kaggle would find too large."""
    if size_bytes > MAX_NOTEBOOK_BYTES:
        raise ValueError(
            f"{notebook} has {size_bytes:,} bytes, at most {MAX_NOTEBOOK_BYTES:,} are sent, as "
            "Kaggle refuses 1,000,000: attach images and data as a dataset, and keep files that "
            "are no code out of nblib, whose wheel is in it"
        )


def _write_kernel(folder: Path, metadata: KernelMetadata, text: str) -> Path:
    check_size(folder / metadata.code_file, len(text.encode()))
    shutil.rmtree(folder, ignore_errors=True)
    write_text(folder / metadata.code_file, text)
    write_json(folder / KernelMetadata.file, metadata.model_dump(mode="json"))
    return folder


def stamp(text: str) -> str:
    """Return the text with each link and install cell naming this repository and version.

    >>> stamp("https://github.com/owner/fork/blob/main/notebooks/eval.ipynb")
    'https://github.com/nblib-suite/nblib/blob/main/notebooks/eval.ipynb'
    """
    return _VERSION.sub(__version__, _PAGE.sub(rf"\1{REPOSITORY}", text))


def stamp_files(paths: Sequence[Path]) -> list[Path]:
    """Stamp the files that need it, and return those."""
    changed = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if stamp(text) != text:
            write_text(path, stamp(text))
            changed.append(path)
    return changed
