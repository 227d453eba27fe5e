"""How many programs jax has built: what a step of fixed shapes must not add to."""

import jax

# Lowering: it happens for each program, also where a disk cache then holds what XLA would make.
_EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"


class CompilationCounter:
    """Counts the programs built since it was made, in this process.

    A Tunix trainer that is closed clears all of jax's listeners, this one as well: make one for
    each training.
    """

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **details: object) -> None:
        self.count += event == _EVENT
