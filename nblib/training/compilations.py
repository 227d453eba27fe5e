"""How many programs jax has built: what a step of fixed shapes must not add to."""

import functools

import jax

# Lowering: it happens for each program, also where a disk cache then holds what XLA would make.
_EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"


def compilations() -> int:
    """Return the number of programs built since this was first asked, in this process."""
    return len(_seen())


@functools.cache
def _seen() -> list[float]:
    seen: list[float] = []

    def listen(event: str, seconds: float, **details: object) -> None:
        if event == _EVENT:
            seen.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seen
