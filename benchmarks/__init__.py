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

import numpy as np
from jaxtyping import Float

_CHECKOUT = Path(__file__).parents[1]
# Columns of what a piece of work took: peak in bytes, so far; then figures of its own.
SECONDS, CPU_SECONDS, PEAK, FIGURES = range(4)

Work = tuple[int, ...]


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a bench's own process: jax on the CPU, this package importable."""
    path = os.pathsep.join(filter(None, (str(_CHECKOUT), environment.get("PYTHONPATH"))))
    return {**environment, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}


def in_turns(
    module: str,
    works: Mapping[str, Sequence[Work]],
    *arguments: str,
    turns: int,
    kernels: Collection[str],
) -> dict[str, dict[Work, Float[np.ndarray, "1+turns figures"]]]:
    """Have each way do its pieces of work in a process of its own, and return what each took.

    The ways take turns, so that other load on the machine meets all alike. The first row is of the
    turn that compiles. `kernels`: the ways that have a notebook's environment.
    """
    taken: dict[str, dict[Work, list[tuple[float, ...]]]] = {way: {} for way in works}
    with ExitStack() as processes:
        workers = {
            way: processes.enter_context(
                worker(module, way, *arguments, as_a_kernel=way in kernels)
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
    module: str, way: str, *arguments: str, as_a_kernel: bool
) -> Iterator[Callable[..., tuple[float, ...]]]:
    """Yield what has `python -m MODULE WAY ARGUMENTS` do a piece of work, named by numbers.

    It returns what `answer` prints. `as_a_kernel`: with a notebook's environment, else with none.
    """
    from nblib.tools.execution import kernel_variables

    environment = worker_environment(os.environ)
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


def answer(work: Callable[..., Iterable[float]]) -> None:
    """Do each piece of work that stdin asks for, and print what it took.

    That is seconds, seconds of all cores together, peak bytes so far, and the figures of `work`.
    """
    for line in sys.stdin:
        began, cpu_began = perf_counter(), process_time()
        figures = work(*map(int, line.split()))
        seconds, cpu_seconds = perf_counter() - began, process_time() - cpu_began
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(seconds, cpu_seconds, peak, *figures, flush=True)
