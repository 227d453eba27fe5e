"""Run a notebook headless and strictly: what is wrong is an error, and the exit code says so.

papermill executes; this module finds the notebook, checks its parameters before anything starts,
keeps the executed notebook, without secrets, beside the run's results, and passes signals on. What
a notebook does it says in its own metadata, under "nblib": see `NotebookInfo`.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.files import COUNT, OBJECT, Kind, field, parse_json, read_object, write_text
from nblib.hosts.secrets import redacted, redacted_notebook
from nblib.runs import POINTER_VARIABLE, runs_root
from nblib.tools.parameters import ParameterError, declared_parameters, parse_values

if TYPE_CHECKING:
    from nblib.tools.kernel_process import KernelProcess

_CELLS = Kind(
    "a list of cells, each with cell_type, metadata and source",
    lambda value: isinstance(value, list) and all(map(_is_cell, value)),
)
KINDS = ("foundation", "sft", "grpo", "eval")
RESUME_HINT = "run the same command again: it resumes"


def _is_cell(value: object) -> bool:
    match value:
        case {"cell_type": str(), "metadata": dict(), "source": str() | list() as source}:
            return all(isinstance(line, str) for line in source)
    return False


class NotebookError(Exception):
    """A run that cannot start or has failed; the message is all that a person needs."""

    exit_code = 1


class Interrupted(NotebookError):
    """A run stopped by a signal."""

    def __init__(self, message: str, *, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


@dataclass(frozen=True, kw_only=True)
class NotebookInfo:
    """What a notebook is, as the header of its `.py` says; a ValueError names field and value.

    Example:
        # jupyter:
        #   nblib:
        #     kind: grpo
        #     task: envelope
        #     reads: [envelope]
    """

    kind: str
    task: str = ""
    reads: tuple[str, ...] = ()  # notebooks whose exports it starts from, or compares

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not isinstance(self.task, str):
            raise ValueError(f"task is {self.task!r}, expected a task's name")

    @property
    def is_tuned(self) -> bool:
        """Whether its export is a model made from another one."""
        return self.kind in ("sft", "grpo")


def notebooks_folder() -> Path:
    """Return `notebooks/` here, else that of the checkout which holds this file."""
    here = Path("notebooks")
    return here if here.is_dir() else Path(__file__).parents[2] / "notebooks"


def list_notebooks() -> dict[str, str]:
    """Return name -> title (the first heading) of the notebooks there, in order of name."""
    return {path.stem: _title(path) for path in sorted(notebooks_folder().glob("*.py"))}


def notebook_infos() -> dict[str, NotebookInfo]:
    """Return name -> what it is, of the notebooks there that say so, in order of name.

    Raises ValueError naming a notebook whose metadata has another form.
    """
    sources = sorted(notebooks_folder().glob("*.py"))
    names = [path.stem for path in sources]
    found = {}
    for path in sources:
        content = read_notebook(path).metadata.get("nblib")
        if content is not None:
            found[path.stem] = _info(path, content, names)
    return found


def _info(path: Path, content: Any, names: list[str]) -> NotebookInfo:
    known = [field.name for field in fields(NotebookInfo)]
    if not isinstance(content, dict) or "kind" not in content or set(content) - set(known):
        raise ValueError(f"{path}: metadata.nblib is {content!r}, expected {', '.join(known)}")
    reads = content.get("reads", [])
    missing = not isinstance(reads, list) or [name for name in reads if name not in names]
    if missing:
        raise ValueError(f"{path}: reads is {reads!r}, expected a list of {', '.join(names)}")
    try:
        return NotebookInfo(**{**content, "reads": tuple(reads)})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def run_notebook(name_or_path: str, parameters: Mapping[str, str]) -> Path:
    """Execute a notebook and return the folder of its run.

    The executed notebook becomes `notebook.ipynb` in the run's folder, or `failed.ipynb` in the
    folder of the notebook's runs until one succeeds. What cells print reaches stdout and stderr as
    it comes.

    Args:
        name_or_path: a name in `notebooks/`, where `.py` and `.ipynb` must agree, or a path to a
            `.py` (percent format) or `.ipynb`, which is then run as it is.
        parameters: name -> text as typed; its type is the notebook's.

    Raises:
        NotebookError: unknown notebook or parameter, wrong type, no parameters cell, a cell that
            failed, a kernel that died, a folder that cannot be written. `Interrupted` after SIGINT
            or SIGTERM.
    """
    try:
        source = _find(name_or_path)
        notebook = read_notebook(source)
    except ValueError as error:
        raise NotebookError(str(error)) from error
    try:
        values = parse_values(declared_parameters(notebook.cells), parameters)
    except ParameterError as error:
        raise NotebookError(f"{source}: {error}") from error
    try:
        with tempfile.TemporaryDirectory(prefix="nblib-") as scratch:
            return _execute(source.stem, notebook, values, Path(scratch))
    except OSError as error:  # of the scratch folder: a cell's own is the cell's failure
        raise NotebookError(f"{source.stem}: {error}") from error


def check_pair(notebook: Path) -> None:
    """Raise ValueError where an `.ipynb` and the `.py` beside it hold other cells.

    Either may be the one that was edited: neither is taken silently.
    """
    both = (read_notebook(notebook), read_notebook(notebook.with_suffix(".py")))
    edited, source = ([cell.source for cell in one.cells] for one in both)
    if edited != source:
        raise ValueError(
            f"{notebook} is not what its .py says: run `make sync` first, which takes the .py's "
            f"cells; `python -m jupytext --to py:percent {notebook}` takes those of the .ipynb"
        )


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".py", ".ipynb") and path.is_file():
        return path
    for suffix in (".py", ".ipynb"):  # the .py is the source, the .ipynb its pair
        candidate = notebooks_folder() / (path.name + suffix)
        if candidate.is_file() and path.name == name_or_path:
            pair = candidate.with_suffix(".ipynb")
            if suffix == ".py" and pair.is_file():
                check_pair(pair)
            return candidate
    there = ", ".join(list_notebooks()) or "none"
    raise NotebookError(f"unknown notebook {name_or_path!r}; in {notebooks_folder()}: {there}")


def read_notebook(source: Path) -> Any:
    """Return a notebook; its kernel's name is only a name here, see `KernelProcess`.

    Raises ValueError naming a file that is none.
    """
    import jupytext
    import nbformat

    try:
        if source.suffix == ".ipynb":  # jupytext and nbformat take any JSON for one
            content = read_object(source)
            for name, kind in (("nbformat", COUNT), ("metadata", OBJECT), ("cells", _CELLS)):
                field(content, name, kind, source)
        notebook = jupytext.read(source)
    except (ValueError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{source} is no notebook: {reason}") from error
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = kernel
    return notebook


def _execute(name: str, notebook: Any, values: Mapping[str, Any], scratch: Path) -> Path:
    import jupytext

    from nblib.tools.kernel_process import KernelProcess, forwarded_signals, kernel_variables

    jupytext.write(notebook, scratch / "source.ipynb")
    output, pointer = scratch / f"{name}.ipynb", scratch / "run"
    kernel = KernelProcess.in_folder(
        scratch, kernel_variables(os.environ) | {POINTER_VARIABLE: str(pointer)}
    )
    with forwarded_signals(kernel) as received:
        failure = _failure_of(scratch / "source.ipynb", output, values, kernel)
    kept = runs_root() / name / "failed.ipynb"
    if received or failure:
        where = _kept(output, kept)
        if received:
            raise Interrupted(f"{name} was stopped; {RESUME_HINT}", signum=received[0])
        raise NotebookError(f"{name}: {failure}\nthe executed notebook: {where}")
    run = Path(pointer.read_text(encoding="utf-8")) if pointer.exists() else kept.parent
    _keep(output, run / "notebook.ipynb")
    kept.unlink(missing_ok=True)  # of an earlier try: what it shows is no longer so
    return run


def _failure_of(
    source: Path, output: Path, values: Mapping[str, Any], kernel: "KernelProcess"
) -> str | None:
    """Run the notebook to its end, end the kernel, and say what failed, if something did."""
    import papermill
    from nbclient.util import run_sync
    from papermill.exceptions import PapermillExecutionError

    # Its warnings on parameters are errors here, and were judged before.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        papermill.execute_notebook(
            source,
            output,
            parameters=dict(values),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            km=kernel,
        )
    except PapermillExecutionError as error:
        return _cell_failure(error)
    except (RuntimeError, KeyboardInterrupt) as error:
        # nbclient's own errors are RuntimeErrors; the other is a signal before there was a kernel.
        return f"{_running_cell(output)}: {error}; was it killed, or out of memory?"
    finally:
        if kernel.has_kernel:
            run_sync(kernel.shutdown_kernel)()
    return None


def _cell_failure(error: Any) -> str:
    """Say in two lines which cell failed and why; the traceback stays in the notebook."""
    first_line = next(iter(error.source.strip().splitlines()), "")
    message = " ".join(redacted(error.evalue)[0].split())
    return (
        f"cell In [{error.exec_count}] failed: {error.ename}: {_shortened(message, 400)}\n"
        f"the cell begins: {_shortened(first_line, 90)}"
    )


def _running_cell(executed: Path) -> str:
    """Name the cell that never ended; papermill saves the notebook when a cell begins."""
    import nbformat

    cells = nbformat.read(executed, as_version=4).cells if executed.exists() else []
    code = [cell for cell in cells if cell.cell_type == "code"]
    begun = [cell for cell in code if cell.metadata.get("papermill", {}).get("start_time")]
    return f"cell In [{len(begun)}]" if begun else "before the first cell"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _kept(executed: Path, destination: Path) -> str:
    """Keep a failed notebook, and say where; where that fails too, the first error is not lost."""
    try:
        _keep(executed, destination)
    except OSError as error:
        return f"could not be kept: {error}"
    return str(destination)


def _keep(executed: Path, destination: Path) -> None:
    """Copy the executed notebook out of the scratch folder; a run that never began has none.

    A secret that a cell has shown is taken out, and a line says so.
    """
    if not executed.exists():
        return
    text = executed.read_text(encoding="utf-8")
    content, found = redacted_notebook(parse_json(text))
    if found:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(found.items()))
        print(f"nblib: removed from {destination}: {kinds}", file=sys.stderr)
    write_text(destination, text)


def _title(source: Path) -> str:
    lines = (line.removeprefix("#").strip() for line in source.read_text("utf-8").splitlines())
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")
