"""The process that executes a notebook: this interpreter as a kernel, its environment, its end.

Which kernels are installed on the machine does not matter: a kernel named `python3` may belong to
another environment than the one that runs this.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets import Dict, Float

# XLA's CPU client allocates its temporaries in each step and gives them back after it; the page
# faults of fresh memory cost about half the step time. Kept in huge pages and never given back,
# training goes from 3,700 to 5,400 tokens/s on 2 cores.
MALLOC_TUNABLES = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.arena_max=1",
        "glibc.malloc.trim_threshold=8589934592",
        "glibc.malloc.mmap_max=0",
        "glibc.malloc.top_pad=268435456",
    )
)
DEFAULT_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA's C++ log is no news to a reader
    "PYTHONWARNINGS": "ignore:IProgress not found",  # no widgets, on purpose
    "TQDM_MININTERVAL": "30",  # a log file is no terminal: one line in 30 s
}


class KernelProcess(AsyncKernelManager):
    """A kernel that is the running interpreter, with variables added to its environment."""

    variables = Dict()
    # A busy machine takes seconds to end a kernel; after half of this, a notebook's handler of
    # SIGTERM would run once more, in the midst of its end.
    shutdown_wait_time = Float(40.0)

    @classmethod
    def in_folder(cls, folder: Path, variables: Mapping[str, str]) -> Self:
        """Make a kernel, not started yet, whose sockets are files of a private folder, no ports."""
        return cls(
            kernel_name="python3",
            transport="ipc",
            connection_file=str(folder / "kernel.json"),
            variables=dict(variables),
        )

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

    def send(self, signum: int) -> None:
        """Send a signal to the kernel alone: its own workers must live while it saves.

        Raises:
            KeyboardInterrupt: there is no kernel yet, or no more.
        """
        process = getattr(self.provisioner, "process", None)
        if process is None:
            raise KeyboardInterrupt
        process.send_signal(signum)


def kernel_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a kernel gets on top of `environment`; what the user has set stays."""
    wanted = dict(DEFAULT_ENVIRONMENT)
    if sys.platform == "linux":
        wanted["GLIBC_TUNABLES"] = MALLOC_TUNABLES
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


@contextmanager
def forwarded_signals(kernel: KernelProcess) -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on to the kernel as SIGTERM, so that it can save; yield those seen.

    The second signal kills the kernel: it does not wait for what may never end.
    """
    received: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        kernel.send(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    before: dict[int, Any] = {
        number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
