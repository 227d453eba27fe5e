"""The library that the notebooks are made of: from raw rows to a Gemma 3 that shows its work.

Importing `nblib` imports nothing else: no jax, no device, no logging set-up. Each room hands out
its public names: `nblib.sources`, `tasks`, `tokens`, `models`, `training`, `evaluation`, `report`,
`hosts`, and `tools` in a checkout. A run's folder is `nblib.runs`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__version__ = "0.1.0"
# Owner and name at GitHub; `make sync` brings the notebooks' badges and install cells up to it.
REPOSITORY = "nblib-suite/nblib"


def public_names(
    room: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], list[str], Callable[[], list[str]]]:
    """Return a room's `__getattr__`, `__all__` and `__dir__`: a name is imported when first used.

    So a room can be imported where jax is not installed yet. Python's PEP 562 is the mechanism.

    Args:
        room: `__name__` of the room.
        modules: module -> its public names, separated by spaces.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(f"{room}.{homes[name]}"), name)

    return get, sorted(homes), lambda: sorted(homes)
