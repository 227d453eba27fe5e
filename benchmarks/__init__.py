"""Speed and memory side by side with others: `python -m benchmarks`, from a checkout.

Not part of nblib's wheel; nblib imports nothing of it.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

_CHECKOUT = Path(__file__).parents[1]


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a bench's own process: jax on the CPU, this package importable."""
    path = os.pathsep.join(filter(None, (str(_CHECKOUT), environment.get("PYTHONPATH"))))
    return {**environment, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}


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
