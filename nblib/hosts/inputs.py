"""What an earlier session left: the export of the notebook before, and a run to go on with.

An export is a folder that is given, a local run's, or a Kaggle input's, in any layout that
`models.names` loads: Hugging Face's, Kaggle's Flax checkpoint, or adapters. Inputs of Kaggle are
found by what lies in them, never by a fixed path: mount points differ between hosts and change.
Nothing is loaded here.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from nblib.files import parse_json, read_object, to_jsonable
from nblib.hosts.host import this_host
from nblib.models.folders import (
    ADAPTER_WEIGHTS_FILE,
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    is_adapter_folder,
    is_gguf_folder,
    orbax_trees,
)
from nblib.models.published import OVER, is_published
from nblib.runs import KAGGLE_INPUT, has_checkpoints, is_unfinished, runs_root
from nblib.tokens.tokenizer import TOKENIZER_FILE

# notebooks/<owner>/<slug>/runs/<notebook>/<run id>/export is the longest way that Kaggle makes.
MAX_LEVELS = 7
MAX_ENTRIES = 1000  # a folder with more holds images or data, not a run
_MAX_MANIFEST_BYTES = 2**20
_RUN_CONFIG = "config.json"  # a run's parameters, as `start_run` writes them


class ExportNotFound(FileNotFoundError):
    """No place holds the export; the message has a line for each and says how to make one."""


def find_export(notebook: str, given: str = "") -> Path:
    """Return the folder of a notebook's exported model.

    A folder that is given wins, and only it is then looked at. Else the newest finished local run,
    then the attached Kaggle inputs: of several a whole model before adapters, then the one whose
    manifest was written last, and a line names it.

    Args:
        notebook: who made it, such as "v1_sft_format".
        given: a folder of a model or adapters, or a run's folder that has `export/`; "" searches.

    Raises:
        ExportNotFound: nothing whole was found; says every place that was looked at, and why.
    """
    if given:
        return _given(Path(given).expanduser())
    looked: list[str] = []
    found = _local(notebook, looked) or _attached(notebook, looked)
    if found is None:
        lines = "\n".join(f"  {line}" for line in looked)
        raise ExportNotFound(f"no export of {notebook} was found:\n{lines}\n{_advice(notebook)}")
    return found


def find_start(notebook: str, given: str = "") -> str:
    """Return what `get_gemma_ref_model` loads: a name or file as it is, else an export's folder.

    Args:
        notebook: whose export is taken where nothing is given.
        given: a name, a folder as `find_export` takes it, or "adapters::base" of either.

    Raises ExportNotFound.
    """
    model, over, base = given.partition(OVER)
    if is_published(model) or Path(model).is_file():
        return given
    return f"{find_export(notebook, model)}{over}{find_start('', base) if base else ''}"


def bring_attached_run(notebook: str, parameters: Mapping[str, Any]) -> Path | None:
    """Copy what an attached run has trained into the folder of runs, where `start_run` finds it.

    A run is one to go on with when its parameters are these, and its training has steps left. It
    may be attached more than once, as each session leaves its own output: the furthest is taken.

    Returns:
        The copy, with the run's own id; None when there is nothing to bring, or it is here already.
    """
    if not KAGGLE_INPUT.is_dir():
        return None
    config = to_jsonable(parameters)

    def can_go_on(folder: Path) -> bool:
        return is_unfinished(folder, config) and has_checkpoints(folder)

    attached = max(_folders(KAGGLE_INPUT, can_go_on), key=_trained, default=None)
    if attached is None:
        return None
    copy = runs_root() / notebook / attached.name
    if (copy / _RUN_CONFIG).is_file():
        return None
    _copy_training(attached, copy)
    print(f"the attached run {attached} was copied to {copy}", flush=True)
    return copy


def _trained(run: Path) -> int:
    """Return a number that grows with what a run has saved: the sum of its checkpoints' steps."""
    return sum(int(seal.stem) for seal in run.glob("checkpoints/**/seals/*.json"))


def _copy_training(source: Path, destination: Path) -> None:
    """Copy checkpoints and logs, writable; the parameters last: without them it is no run yet."""
    shutil.rmtree(destination, ignore_errors=True)  # a copy that was cut off
    damaged = shutil.ignore_patterns("damaged-*")
    checkpoints = destination / "checkpoints"
    shutil.copytree(
        source / "checkpoints", checkpoints, ignore=damaged, copy_function=shutil.copyfile
    )
    for folder in (checkpoints, *(path for path in checkpoints.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # a folder's copy is as read-only as the input
    for name in (*(log.name for log in sorted(source.glob("*.jsonl"))), _RUN_CONFIG):
        shutil.copyfile(source / name, destination / name)


def _given(folder: Path) -> Path:
    if not folder.is_dir():
        raise ExportNotFound(
            f"{folder} is no folder and no name of a model: give an export, or a run with export/"
        )
    # First: a run has a config.json as well, that of its parameters.
    export = folder / "export" if (folder / "export").is_dir() else folder
    missing = _missing(export)
    if missing:
        raise ExportNotFound(f"{export} is no whole export, it lacks {missing}: give another")
    return export


def _local(notebook: str, looked: list[str]) -> Path | None:
    """Return the export of the run that `latest` names: `finish_run` moves it, nothing else."""
    folder = runs_root() / notebook
    run = _latest(folder)
    if run is None:
        looked.append(f"{folder.absolute()}: no finished run (no latest, no latest.txt)")
    elif not (run / "result.json").is_file():
        looked.append(f"{run.absolute()}: has no result.json, so it is no finished run")
    elif missing := _missing(run / "export"):
        looked.append(f"{(run / 'export').absolute()}: lacks {missing}")
    else:
        left = read_object(run / "result.json").get("steps_left", 0)
        if left:
            print(f"{run}: its training has {left:,} steps left; run {notebook} again to go on")
        return (run / "export").resolve()
    return None


def _latest(folder: Path) -> Path | None:
    link, text = folder / "latest", folder / "latest.txt"
    if text.is_file() and not link.is_symlink():
        # No symbolic links here, or a copied folder stood in the way.
        return folder / text.read_text(encoding="utf-8").strip()
    return link if link.is_dir() or link.is_symlink() else None


def _attached(notebook: str, looked: list[str]) -> Path | None:
    if not KAGGLE_INPUT.is_dir():
        looked.append(f"{KAGGLE_INPUT}: not there, this is not Kaggle")
        return None

    def is_export(folder: Path) -> bool:
        return _made_by(folder) == notebook and _is_model(folder)

    found = {folder: _missing(folder) for folder in _folders(KAGGLE_INPUT, is_export)}
    looked += [f"{folder}: lacks {missing}" for folder, missing in found.items() if missing]
    whole = [folder for folder, missing in found.items() if not missing]
    if not whole:
        looked.append(
            f"{KAGGLE_INPUT}: no whole export, a folder of a model with a {MANIFEST_FILE} whose "
            f"notebook is {notebook!r}, at most {MAX_LEVELS} levels deep"
        )
        return None
    # A whole model before adapters, then the newest.
    best = max(whole, key=lambda f: (not is_adapter_folder(f), (f / MANIFEST_FILE).stat().st_mtime))
    if len(whole) > 1:
        print(f"{len(whole)} attached exports of {notebook}; the newest is {best}", flush=True)
    return best


def _folders(
    folder: Path, wanted: Callable[[Path], bool], levels: int = MAX_LEVELS
) -> Iterator[Path]:
    """Yield the wanted folders below a folder, in the order of their paths, not what is in them."""
    if wanted(folder):
        yield folder
        return
    if levels == 0:
        return
    with os.scandir(folder) as entries:
        listed = list(islice(entries, MAX_ENTRIES + 1))
    if len(listed) > MAX_ENTRIES:
        return
    # Links are not followed: `latest` leads to a run that is found by itself, others in circles.
    for name in sorted(e.name for e in listed if e.is_dir(follow_symlinks=False)):
        yield from _folders(folder / name, wanted, levels - 1)


def _made_by(folder: Path) -> Any:
    """Return the notebook that a folder's manifest names; None for other programs' folders."""
    path = folder / MANIFEST_FILE
    if not path.is_file() or path.stat().st_size > _MAX_MANIFEST_BYTES:
        return None
    try:
        content = parse_json(path.read_bytes())
    except ValueError:  # some other tool's manifest
        return None
    return content.get("notebook") if isinstance(content, dict) else None


def _is_model(folder: Path) -> bool:
    whole = (folder / CONFIG_FILE).is_file() or bool(orbax_trees(folder))
    return whole or is_adapter_folder(folder)


def _missing(folder: Path) -> str:
    """Return what the folder lacks of a model or adapters, in words; "" when it is whole."""
    if not folder.is_dir():
        return "the folder itself"
    if is_adapter_folder(folder):
        needed = [ADAPTER_WEIGHTS_FILE]
    elif is_gguf_folder(folder):
        needed = []
    elif orbax_trees(folder):
        needed = [TOKENIZER_FILE]  # a Flax checkpoint may have no config.json
    else:
        weights = [] if any(folder.glob("*.safetensors")) else [WEIGHTS_FILE]
        needed = [*weights, CONFIG_FILE, TOKENIZER_FILE]
    return ", ".join(name for name in needed if not (folder / name).is_file())


def _advice(notebook: str) -> str:
    if this_host() == "kaggle":
        return (
            f"Attach the output of the notebook {notebook} as an input (Add Input, Notebook Output "
            "Files), or give its folder."
        )
    return f"Make one with `python -m nblib run {notebook}`, or give its folder."
