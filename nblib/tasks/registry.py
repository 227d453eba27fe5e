"""Tasks by name, as notebooks and the command line name them."""

from collections.abc import Mapping

from nblib.tasks.envelope import ENVELOPE
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.proofs import PROOFS
from nblib.tasks.task import Task
from nblib.tasks.text_proofs import TEXT_PROOFS

TASKS: Mapping[str, Task] = {
    task.name: task for task in (GSM8K, ENVELOPE, EXTRACTION, PROOFS, TEXT_PROOFS)
}
_NAMED = {one.name: one for task in TASKS.values() for one in (task, *task.variants.values())}


def get_task(name: str) -> Task:
    """Return a task, or its variant: "gsm8k", "gsm8k/hash". Raises ValueError for another name."""
    if name not in _NAMED:
        raise ValueError(f"task {name!r} is unknown: expected one of {', '.join(_NAMED)}")
    return _NAMED[name]


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks and their variants."""
    return tuple(_NAMED)
