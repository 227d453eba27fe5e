"""Memory of the host, between one phase of a run and the next."""

import ctypes
import sys


def give_back_memory() -> None:
    """Give memory that is free, but kept by glibc's malloc, back to the system; elsewhere nothing.

    Within a phase what a step frees is what the next one needs, and keeping it is much faster (see
    `tools.execution`). The next phase (evaluation, training, export) has pieces of other sizes,
    gigabytes with Gemma's vocabulary, which fit nowhere where the last one's were.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
