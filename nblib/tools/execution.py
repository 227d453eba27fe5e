"""Run a notebook headless and strictly: what is wrong is an error, and the exit code says so.

papermill executes it, in a kernel that is this interpreter. This module checks the parameters
before anything starts, passes signals on so that the notebook can save, and keeps the executed
notebook, without secrets, beside the run's results.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from click import ClickException
from click.exceptions import Exit
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets import Dict, Float

from nblib.files import parse_json, write_text
from nblib.hosts.launch import Launch, this_launch
from nblib.hosts.secrets import redacted, redacted_notebook
from nblib.runs import POINTER_VARIABLE, runs_root
from nblib.tools.notebooks import declared_parameters, find_notebook, parse_values, read_notebook
from nblib.tools.run_log import followed

_DEFAULT_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA's C++ log is no news to a reader
    "PYTHONWARNINGS": "ignore:IProgress not found",  # no widgets, on purpose
    "TQDM_MININTERVAL": "30",  # a log file is no terminal: one line in 30 s
}
# XLA's CPU client allocates its temporaries in each step and gives them back after it; the page
# faults of fresh memory cost about half the step time. Kept in huge pages and never given back,
# training goes from 3,700 to 5,400 tokens/s on 2 cores. What a phase does not need any more is
# given back at its end, by `models.memory`.
_MALLOC_TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=8589934592:"
    "glibc.malloc.mmap_max=0:glibc.malloc.top_pad=268435456"
)


def run_notebook(name_or_path: str, parameters: Mapping[str, str]) -> Path | None:
    """Execute a notebook and return the folder of its run.

    The executed notebook becomes `notebook.ipynb` in the run's folder, or `failed.ipynb` in the
    folder of the notebook's runs until one succeeds. What cells print reaches stdout and stderr as
    it comes. The parameters are text as typed. NBLIB_TRACKER names a tracker that follows the run.
    Of several processes (`hosts.launch`) the first does all this; the others return None.

    Raises ValueError: the notebook, a parameter or NBLIB_TRACKER is wrong. Raises ClickException: a
    cell failed, the kernel died, a folder cannot be written. Raises Exit after a signal.
    """
    source = find_notebook(name_or_path)
    notebook = read_notebook(source)
    try:
        values = parse_values(declared_parameters(notebook.cells), parameters)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    try:
        with tempfile.TemporaryDirectory(prefix="nblib-") as scratch:
            return _execute(source.stem, notebook, values, Path(scratch), this_launch())
    except OSError as error:  # of the scratch folder: a cell's own is the cell's failure
        raise ClickException(f"{source.stem}: {error}") from error


def _execute(
    name: str, notebook: Any, values: Mapping[str, Any], scratch: Path, launch: Launch
) -> Path | None:
    import jupytext

    jupytext.write(notebook, scratch / "source.ipynb")
    output, pointer = scratch / f"{name}.ipynb", scratch / "run"
    kernel = KernelProcess(
        kernel_name="python3",
        transport="ipc",  # its sockets are files of a private folder, no ports
        connection_file=str(scratch / "kernel.json"),
        variables={**kernel_variables(os.environ), POINTER_VARIABLE: str(pointer)},
    )
    following = followed(pointer) if launch.is_first else nullcontext()
    with following, forwarded_signals(kernel) as received, _streams(launch) as streams:
        failure = _failure_of(scratch / "source.ipynb", output, values, kernel, *streams)
    kept = runs_root() / name / "failed.ipynb"
    if received or failure:
        where = _keep_failed(output, kept) if launch.is_first else "process 0 keeps its own"
        who = name if launch.is_first else f"process {launch.number}: {name}"
        if not received:
            raise ClickException(f"{who}: {failure}\nthe executed notebook: {where}")
        print(f"nblib: {who} was stopped; run the same command again: it resumes", file=sys.stderr)
        raise Exit(128 + received[0])
    if not launch.is_first:
        return None
    run = Path(pointer.read_text(encoding="utf-8")) if pointer.exists() else kept.parent
    _keep(output, run / "notebook.ipynb")
    kept.unlink(missing_ok=True)  # of an earlier try: what it shows is no longer so
    return run


def _failure_of(
    source: Path,
    output: Path,
    values: Mapping[str, Any],
    kernel: "KernelProcess",
    stdout: TextIO,
    stderr: TextIO,
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
            stdout_file=stdout,
            stderr_file=stderr,
            km=kernel,
        )
    except PapermillExecutionError as error:  # the traceback stays in the notebook
        first_line = next(iter(error.source.strip().splitlines()), "")
        message = " ".join(redacted(error.evalue)[0].split())
        return (
            f"cell In [{error.exec_count}] failed: {error.ename}: {_shortened(message, 400)}\n"
            f"the cell begins: {_shortened(first_line, 90)}"
        )
    except (RuntimeError, KeyboardInterrupt) as error:
        # nbclient's own errors are RuntimeErrors; the other is a signal before there was a kernel.
        return f"{_running_cell(output)}: {error}; was it killed, or out of memory?"
    finally:
        if kernel.has_kernel:
            run_sync(kernel.shutdown_kernel)()
    return None


def _running_cell(executed: Path) -> str:
    """Name the cell that never ended; papermill saves the notebook when a cell begins."""
    import nbformat

    cells = nbformat.read(executed, as_version=4).cells if executed.exists() else []
    begun = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    number = sum(cell.cell_type == "code" for cell in begun)
    return f"cell In [{number}]" if number else "before the first cell"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _keep_failed(executed: Path, destination: Path) -> str:
    """Keep a notebook that failed, and say where; the first error is not lost by a second one."""
    try:
        _keep(executed, destination)
    except OSError as error:
        return f"could not be kept: {error}"
    return str(destination)


@contextmanager
def _streams(launch: Launch) -> Iterator[tuple[TextIO, TextIO]]:
    """Yield where the cells' output goes: of several processes only the first one's is shown."""
    if launch.is_first:
        yield sys.stdout, sys.stderr
        return
    with open(os.devnull, "w") as nothing:
        yield nothing, nothing


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


class KernelProcess(AsyncKernelManager):
    """A kernel that is the running interpreter, with variables added to its environment.

    Which kernels are installed does not matter: one named `python3` may be another environment's.
    """

    variables = Dict()
    # A busy machine takes seconds to end a kernel; after half of this, a notebook's handler of
    # SIGTERM would run once more, in the midst of its end.
    shutdown_wait_time = Float(40.0)

    @property
    def kernel_spec(self) -> KernelSpec:
        """What to start; ipykernel ends by itself when this process, its parent, is gone."""
        command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher"]
        return KernelSpec(
            # A kernel is interrupted before it is shut down, and may log that as an error.
            argv=[*command, "-f", "{connection_file}", "--log-level=CRITICAL"],
            env=dict(self.variables),
            display_name="Python 3",
            language="python",
        )


@contextmanager
def forwarded_signals(kernel: KernelProcess) -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on to the kernel as SIGTERM, so that it can save; yield those seen.

    It reaches the kernel alone: its own workers must live while it saves. The second signal kills
    the kernel, which may never end. Without a kernel a signal is a KeyboardInterrupt.
    """
    received: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        process = getattr(kernel.provisioner, "process", None)
        if process is None:
            raise KeyboardInterrupt
        process.send_signal(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kernel_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a kernel gets on top of `environment`; what the user has set stays."""
    tunables = {"GLIBC_TUNABLES": _MALLOC_TUNABLES} if sys.platform == "linux" else {}
    wanted = _DEFAULT_ENVIRONMENT | tunables
    return {name: value for name, value in wanted.items() if name not in environment}


def in_the_kernels_environment(package: str) -> int | None:
    """Run this command, `python -m package`, again as a kernel runs, and return its exit code.

    glibc reads how to allocate when a process starts. None: this is that process already.
    """
    variables = kernel_variables(os.environ)
    if not variables:
        return None
    command = [sys.executable, "-m", package, *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode
