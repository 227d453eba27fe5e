"""Run the cells of a sweep: each a `python -m nblib run` of its own, its output in its log.

The log is also what is known of a cell afterwards. `run` says last where its run lies, and a run
is finished once its `result.json` says so. A cell that is finished is not run again; `run` itself
goes on with one that was stopped, since it finds an unfinished run by its parameters.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from nblib.files import write_text
from nblib.report.tables import shorten
from nblib.runs import is_finished, runs_root
from nblib.tools.run_table import RunRow, rows_table, run_row
from nblib.tools.sweep_grid import Cell, Sweep

_DONE, _ERROR = "done: ", "nblib: "  # how `run` begins its last line, and a line of what is wrong
_BEGAN = "\n$ "  # before the command that an attempt begins with
_TAIL_BYTES = 2**16
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the log of a cell says: the run that its last attempt left, or what was wrong."""

    run: Path | None = None
    error: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to run."""
        return self.run is not None and is_finished(self.run)

    @property
    def row(self) -> RunRow:
        """The row of a table over runs."""
        return run_row(self.run) if self.run else RunRow(notebook="", run="-", state=self.error)


def read_outcome(log: Path) -> Outcome:
    """Return what a cell's log says of its last attempt."""
    if not log.is_file():
        return Outcome(error="not run")
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    attempt = text.rpartition(_BEGAN)[2].split("\n")[1:]  # without its command
    lines = [line for line in attempt if line.strip()]
    for line in reversed(lines):
        if line.startswith(_DONE) and Path(line.removeprefix(_DONE)).is_dir():
            return Outcome(run=Path(line.removeprefix(_DONE)))
        if line.startswith(_ERROR):
            return Outcome(error=line.removeprefix(_ERROR))
    return Outcome(error=f"no end; its last line: {shorten(lines[-1]) if lines else 'none'}")


def write_table(sweep: Sweep) -> str:
    """Write `table.md`, a row a cell, and return it."""
    rows = []
    for cell in sweep.cells:
        values = {name: cell.parameters[name] for name in sweep.varied}
        row = read_outcome(sweep.log(cell)).row
        rows.append(replace(row, parameters={"cell": str(cell.number), **values}))
    text = rows_table(rows, title=f"Sweep of {sweep.notebook}").section() + "\n"
    write_text(sweep.folder / "table.md", text)
    return text


@dataclass(frozen=True, kw_only=True)
class _Child:
    cell: Cell
    gpu: str
    process: subprocess.Popen[bytes]
    began: float


def run_cells(
    sweep: Sweep, cells: Sequence[Cell], *, gpus: Sequence[str], say: Callable[[str], None]
) -> int:
    """Run the cells that are not finished, one on each GPU at a time; return the exit code.

    `gpus` are values of CUDA_VISIBLE_DEVICES; without one, cells run one after another as the
    environment is. A cell that fails does not stop the others. The first SIGINT or SIGTERM is
    passed on as SIGTERM, so that runs save; a second one too, and `run` then ends without saving.
    """
    waiting = deque(cell for cell in cells if not read_outcome(sweep.log(cell)).is_finished)
    free, running, failed = [*gpus] or [""], list[_Child](), 0
    with _noted_signals() as received, _ended(running):
        passed_on = 0
        while running or (waiting and not received):
            while waiting and free and not received:
                child = _started(sweep, waiting.popleft(), free[0], say)
                failed += child is None
                if child is not None:
                    running.append(child)
                    del free[0]
            if passed_on < len(received):
                passed_on = len(received)
                for child in running:
                    child.process.terminate()
            for child in [one for one in running if one.process.poll() is not None]:
                running.remove(child)
                free.append(child.gpu)
                failed += not _succeeded(sweep, child, say)
            time.sleep(_POLL_S)
    return 128 + received[0] if received else int(failed > 0)


def _started(sweep: Sweep, cell: Cell, gpu: str, say: Callable[[str], None]) -> _Child | None:
    """Start a cell; None where another process runs it: the child holds its log locked."""
    command = [sys.executable, "-m", "nblib", *cell.arguments(sweep.notebook)]
    variables = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
    path = sweep.log(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{sweep.described(cell)}: left alone, another process runs it: {path}")
            return None
        log.write(f"{_BEGAN}{shlex.join(command)}\n".encode())
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,  # a terminal's Ctrl-C reaches it once, through this process
        )
    say(f"{sweep.described(cell)}: started{f' on GPU {gpu}' * bool(gpu)}, log {path}")
    return _Child(cell=cell, gpu=gpu, process=process, began=time.monotonic())


def _succeeded(sweep: Sweep, child: _Child, say: Callable[[str], None]) -> bool:
    """Say how a cell ended, and keep the notebook that failed: the next run may take it away."""
    path, code = sweep.log(child.cell), child.process.returncode
    outcome, took = read_outcome(path), f"{time.monotonic() - child.began:.0f} s"
    kept = path.with_suffix(".failed.ipynb")
    if code == 0:
        kept.unlink(missing_ok=True)
        say(f"{sweep.described(child.cell)}: {outcome.row.state} after {took}: {outcome.run}")
        return True
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(runs_root() / sweep.folder.parents[1].name / "failed.ipynb", kept)
    say(
        f"{sweep.described(child.cell)}: exit code {code} after {took}: {outcome.error}; log {path}"
    )
    return False


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    before = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def _ended(running: list[_Child]) -> Iterator[None]:
    """Leave no child behind where the block is left by an error, such as a closed output."""
    try:
        yield
    finally:
        for child in running:
            child.process.terminate()
        for child in running:
            child.process.wait()
