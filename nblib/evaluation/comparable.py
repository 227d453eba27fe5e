"""Whether stages may be compared: the same items, prompts and limit, or refused.

Models asked here and now differ in their prompts on purpose, and the report says how. A file's
prompts were chosen somewhere else, so they must be those of every stage beside it.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from nblib.evaluation.answers import Stage, stage_of
from nblib.evaluation.statistics import by_id
from nblib.tasks.task import Task

_ITEM = ("question", "reference")


def comparable(
    stages: Sequence[Stage], task: Task, *, from_files: Collection[str], allow_mismatch: bool
) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """Return the stages on the items that all of them have, and what is not the same, in words.

    Args:
        stages: What is to be compared.
        task: Its metrics are counted again where items are left out.
        from_files: Names of the stages that were read from files.
        allow_mismatch: Compare all the same, on the items that all stages have.

    Raises:
        ValueError: something differs and `allow_mismatch` is not set; or no item is in all stages.
    """
    problems = [
        f"{first.name} and {second.name}: {problem}"
        for first, second in itertools.combinations(stages, 2)
        for problem in _problems(first, second, prompts={first.name, second.name} & {*from_files})
    ]
    if problems and not allow_mismatch:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(
            f"these stages cannot be compared:\n{lines}\nAsk the same questions with the same "
            "settings, or allow the mismatch (--allow-mismatch, ALLOW_MISMATCH): the items in all "
            "stages are then compared, and the report says so."
        )
    return tuple(_narrowed(stages, task)), tuple(problems)


def _problems(first: Stage, second: Stage, *, prompts: Collection[str]) -> Iterator[str]:
    before, after = by_id(first.records, first.name), by_id(second.records, second.name)
    both = [id_ for id_ in before if id_ in after]
    alone = len(before) + len(after) - 2 * len(both)
    if alone:
        yield f"{alone} items are in one of them only ({len(both)} in both)"
    other = [i for i in both if not _same(before[i], after[i], _ITEM)]
    if other:
        yield f"{len(other)} items have another question or reference, such as {other[0]!r}"
    limits = [sorted({str(r.get("max_new_tokens")) for r in s.records}) for s in (first, second)]
    if limits[0] != limits[1] or len(limits[0]) > 1:
        yield f"max_new_tokens is {' and '.join(limits[0])}, and {' and '.join(limits[1])}"
    if prompts:
        changed = [i for i in both if not _same(before[i], after[i], ("prompt",))]
        if changed:
            yield f"{len(changed)} items have another prompt, such as {changed[0]!r}"


def _narrowed(stages: Sequence[Stage], task: Task) -> Iterator[Stage]:
    """Yield the stages with the items alone that are the same in all of them."""
    found = [by_id(stage.records, stage.name) for stage in stages]
    common = {
        id_
        for id_, record in found[0].items()
        if all(id_ in there and _same(record, there[id_], _ITEM) for there in found[1:])
    }
    if not common:
        names = ", ".join(stage.name for stage in stages)
        raise ValueError(f"no item is in all of {names}: there is nothing to compare")
    for stage in stages:
        kept = [record for record in stage.records if record["id"] in common]
        yield stage if len(kept) == len(stage.records) else stage_of(stage.name, kept, task)


def _same(first: Mapping[str, Any], second: Mapping[str, Any], names: Sequence[str]) -> bool:
    return all(first.get(name) == second.get(name) for name in names)
