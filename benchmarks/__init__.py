"""Speed and memory side by side with others: `python -m benchmarks`, from a checkout.

Not part of nblib's wheel; nblib imports nothing of it.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter, process_time
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

_CHECKOUT = Path(__file__).parents[1]
# Columns of what a piece of work took: peak in bytes, so far; then figures of its own.
SECONDS, CPU_SECONDS, PEAK, FIGURES = range(4)

Work = tuple[int, ...]


def worker_environment(environment: Mapping[str, str], *, first: str = "") -> dict[str, str]:
    """Return the environment of a bench's own process: jax on the CPU, this package importable.

    Packages in the folder `first` are taken before all others.
    """
    path = os.pathsep.join(filter(None, (first, str(_CHECKOUT), environment.get("PYTHONPATH"))))
    return {**environment, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}


def in_turns(
    module: str,
    works: Mapping[str, Sequence[Work]],
    *arguments: str,
    turns: int,
    kernels: Collection[str],
    first: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[Work, Float[np.ndarray, "1+turns figures"]]]:
    """Have each way do its pieces of work in a process of its own, and return what each took.

    The ways take turns, so that other load on the machine meets all alike. The first row is of the
    turn that compiles. `kernels`: the ways that have a notebook's environment. `first`: way -> a
    folder whose packages are taken before all others.
    """
    taken: dict[str, dict[Work, list[tuple[float, ...]]]] = {way: {} for way in works}
    with ExitStack() as processes:
        workers = {
            way: processes.enter_context(
                worker(
                    module,
                    way,
                    *arguments,
                    as_a_kernel=way in kernels,
                    first=first.get(way, ""),
                )
            )
            for way in works
        }
        for _ in range(1 + turns):
            for way, ask in workers.items():
                for work in works[way]:
                    taken[way].setdefault(work, []).append(ask(*work))
    return {
        way: {work: np.array(rows) for work, rows in found.items()} for way, found in taken.items()
    }


@contextmanager
def worker(
    module: str, way: str, *arguments: str, as_a_kernel: bool, first: str = ""
) -> Iterator[Callable[..., tuple[float, ...]]]:
    """Yield what has `python -m MODULE WAY ARGUMENTS` do a piece of work, named by numbers.

    It returns what `Requests.answer` prints. `as_a_kernel`: a notebook's environment, else none.
    """
    from nblib.tools.execution import kernel_variables

    environment = worker_environment(os.environ, first=first)
    for name in kernel_variables({}):
        environment.pop(name, None)
    if as_a_kernel:
        environment |= kernel_variables(environment)
    command = [sys.executable, "-m", module, way, *arguments]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        requests, answers = process.stdin, process.stdout

        def ask(*numbers: int) -> tuple[float, ...]:
            print(*numbers, file=requests, flush=True)
            found = answers.readline().split()
            if not found:
                raise RuntimeError(
                    f"the bench's process {way} ended at {numbers}: see its messages"
                )
            return tuple(map(float, found))

        yield ask
        requests.close()  # the process ends


class Requests:
    """The pieces of work that a bench's process is asked for on stdin, one after another.

    For work that runs by itself, as a whole training does: its steps ask when they have ended. What
    the work prints goes to stderr, as stdout is for the answers.
    """

    def __init__(self) -> None:
        self._answers, sys.stdout = sys.stdout, sys.stderr

    def next(self) -> Work | None:
        """Wait for the next piece of work and return its numbers; None: there is no more."""
        line = sys.stdin.readline()
        self._began, self._cpu_began = perf_counter(), process_time()
        return tuple(map(int, line.split())) if line else None

    def answer(self, *figures: float) -> None:
        """Say what the piece of work took: seconds, seconds of all cores, peak bytes, `figures`."""
        seconds, cpu_seconds = perf_counter() - self._began, process_time() - self._cpu_began
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(seconds, cpu_seconds, peak, *figures, file=self._answers, flush=True)


def answer(work: Callable[..., Iterable[float]]) -> None:
    """Do each piece of work that stdin asks for, and say what it took and what `work` returned."""
    requests = Requests()
    while (numbers := requests.next()) is not None:
        requests.answer(*work(*numbers))
