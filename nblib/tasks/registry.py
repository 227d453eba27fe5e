"""Tasks by name, as notebooks and the command line name them."""

from collections.abc import Mapping

from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Task

TASKS: Mapping[str, Task] = {task.name: task for task in (GSM8K,)}


def get_task(name: str) -> Task:
    """Return a task, or its variant: "gsm8k", "gsm8k/hash". Raises ValueError for another name."""
    whole, _, variant = name.partition("/")
    task = TASKS.get(whole)
    found = task.variants.get(variant) if task and variant else task
    if found is None:
        raise ValueError(f"task {name!r} is unknown: expected one of {', '.join(task_names())}")
    return found


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks and their variants."""
    return tuple(
        name
        for task in TASKS.values()
        for name in (task.name, *(v.name for v in task.variants.values()))
    )
