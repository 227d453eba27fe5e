"""Run a notebook headless and strictly: what is wrong is an error, and the exit code says so.

papermill executes; this module finds the notebook, checks its parameters before anything starts,
keeps the executed notebook, without secrets, beside the run's results, and passes signals on. It
knows nothing of what a notebook does, but that it names its run by `nblib.runs.start_run`.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nblib.delivery.parameters import ParameterError, declared_parameters, parse_values
from nblib.delivery.secrets import redacted, redacted_notebook
from nblib.files import write_text
from nblib.runs import POINTER_VARIABLE, runs_root

if TYPE_CHECKING:
    from nblib.delivery.kernel_process import KernelProcess

RESUME_HINT = "run the same command again: it resumes"


class NotebookError(Exception):
    """A run that cannot start or has failed; the message is all that a person needs."""

    exit_code = 1


class Interrupted(NotebookError):
    """A run stopped by a signal."""

    def __init__(self, message: str, *, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


def notebooks_folder() -> Path:
    """Return `notebooks/` here, else that of the checkout which holds this file."""
    here = Path("notebooks")
    return here if here.is_dir() else Path(__file__).parents[2] / "notebooks"


def list_notebooks() -> dict[str, str]:
    """Return name -> title (the first heading) of the notebooks there, in order of name."""
    return {path.stem: _title(path) for path in sorted(notebooks_folder().glob("*.py"))}


def run_notebook(name_or_path: str, parameters: Mapping[str, str]) -> Path:
    """Execute a notebook and return the folder of its run.

    The executed notebook becomes `notebook.ipynb` in the run's folder, or `failed.ipynb` in the
    folder of the notebook's runs until one succeeds. What cells print reaches stdout and stderr as
    it comes.

    Args:
        name_or_path: a name in `notebooks/`, or a path to a `.py` (percent format) or `.ipynb`.
        parameters: name -> text as typed; its type is the notebook's.

    Raises:
        NotebookError: unknown notebook or parameter, wrong type, no parameters cell, a cell that
            failed, a kernel that died. `Interrupted` after SIGINT or SIGTERM.
    """
    source = _find(name_or_path)
    notebook = _read(source)
    try:
        values = parse_values(declared_parameters(notebook.cells), parameters)
    except ParameterError as error:
        raise NotebookError(f"{source}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="nblib-") as scratch:
        return _execute(source.stem, notebook, values, Path(scratch))


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".py", ".ipynb") and path.is_file():
        return path
    for suffix in (".py", ".ipynb"):  # the .py is the source, the .ipynb its pair
        candidate = notebooks_folder() / (path.name + suffix)
        if candidate.is_file() and path.name == name_or_path:
            return candidate
    there = ", ".join(list_notebooks()) or "none"
    raise NotebookError(f"unknown notebook {name_or_path!r}; in {notebooks_folder()}: {there}")


def _read(source: Path) -> Any:
    """Return the notebook; its kernel's name is only a name here, see `KernelProcess`."""
    import jupytext
    from nbformat.reader import NotJSONError

    try:
        notebook = jupytext.read(source)
    except NotJSONError as error:
        raise NotebookError(f"{source} is no notebook: {error}") from error
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = kernel
    return notebook


def _execute(name: str, notebook: Any, values: Mapping[str, Any], scratch: Path) -> Path:
    import jupytext

    from nblib.delivery.kernel_process import KernelProcess, forwarded_signals, kernel_variables

    jupytext.write(notebook, scratch / "source.ipynb")
    output, pointer = scratch / f"{name}.ipynb", scratch / "run"
    kernel = KernelProcess.in_folder(
        scratch, kernel_variables(os.environ) | {POINTER_VARIABLE: str(pointer)}
    )
    with forwarded_signals(kernel) as received:
        failure = _failure_of(scratch / "source.ipynb", output, values, kernel)
    kept = runs_root() / name / "failed.ipynb"
    if received:
        _keep(output, kept)
        raise Interrupted(f"{name} was stopped; {RESUME_HINT}", signum=received[0])
    if failure:
        _keep(output, kept)
        raise NotebookError(f"{name}: {failure}\nthe executed notebook: {kept}")
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


def _keep(executed: Path, destination: Path) -> None:
    """Copy the executed notebook out of the scratch folder; a run that never began has none.

    A secret that a cell has shown is taken out, and a line says so.
    """
    if not executed.exists():
        return
    text = executed.read_text(encoding="utf-8")
    content, found = redacted_notebook(json.loads(text))
    if found:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(found.items()))
        print(f"nblib: removed from {destination}: {kinds}", file=sys.stderr)
    write_text(destination, text)


def _title(source: Path) -> str:
    lines = (line.removeprefix("#").strip() for line in source.read_text("utf-8").splitlines())
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")
