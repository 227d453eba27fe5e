"""What a judge is asked of a slot's values, and what follows from its answers.

A slot whose comparator is "judge" is compared as texts are. What is left unequal are pairs:

    reference  {"colour": "navy blue"}     answer  {"colour": "dark blue"}
    pair       colour: "navy blue", "dark blue"

Where a judge finds a pair equivalent, the right value with the answer's leaf in its place becomes
one of the slot's accepted values, and the task scores the answer again. Nothing is scored here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nblib.tasks.extraction_rows import ANSWER
from nblib.tasks.leaves import compare_slot, is_empty, pair_items
from nblib.tasks.slots import SlotSpec, read_slots

_LONGEST = 1000  # characters of a value; a longer one is no value of a slot to be judged


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two unequal values of a slot, as texts: the right one, and an answer's."""

    slot: str  # within objects "offer.colour"
    meaning: str  # what the slot's specification says of it
    gold: str
    answer: str

    @property
    def swapped(self) -> "Pair":
        """The pair with its values exchanged."""
        return Pair(slot=self.slot, meaning=self.meaning, gold=self.answer, answer=self.gold)


Equivalent = Callable[[Pair], bool]


def pairs_of(record: Mapping[str, Any]) -> list[Pair]:
    """Return what a judge is to be asked of a scored record: `reference`, `answer`, `slot_specs`.

    Asked are leaves under the comparator "judge" that are there on both sides, unequal, both texts
    or both numbers, and no longer than 1,000 characters.
    """
    found: list[Pair] = []

    def note(pair: Pair) -> bool:
        found.append(pair)
        return False

    accepted_specs(record, note)
    return list(dict.fromkeys(found))


def accepted_specs(record: Mapping[str, Any], equivalent: Equivalent) -> dict[str, Any]:
    """Return a record's `slot_specs` that also accept what is equivalent to the right values."""
    specs = dict(record.get("slot_specs") or {})
    gold, answer = (_by_slot(record[name]) for name in ("reference", "answer"))
    for name, spec in read_slots(specs).items():
        right, given = gold.get(name), answer.get(name)
        bridged = _bridged(name, right, given, spec, equivalent)
        if bridged != right:
            specs[name] = {**specs[name], "accept": [*spec.accept, bridged]}
    return specs


def gold_leaves(reference: Any, slot_specs: Mapping[str, Any]) -> Iterator[Pair]:
    """Yield each text of a reference that a judge would be asked of, as a pair with itself."""
    gold = _by_slot(reference)
    for name, spec in read_slots(slot_specs).items():
        yield from _leaves(name, gold.get(name), spec)


def _by_slot(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {ANSWER: value} if isinstance(value, str) else {}


def _leaves(name: str, value: Any, spec: SlotSpec) -> Iterator[Pair]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves(f"{name}.{key}", one, spec.within(key))
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(name, one, spec.within())
    elif spec.compare == "judge" and isinstance(value, str) and not is_empty(value):
        yield Pair(slot=name, meaning=spec.description, gold=value, answer=value)


def _bridged(name: str, gold: Any, answer: Any, spec: SlotSpec, equivalent: Equivalent) -> Any:
    """Return the right value, with the answer's leaves in place of equivalent ones.

    A list is returned as it is where none of its leaves is equivalent.
    """
    if is_empty(gold) or is_empty(answer) or not compare_slot(gold, answer, spec).errors:
        return gold
    if isinstance(gold, dict) and isinstance(answer, dict):
        return {
            key: _bridged(f"{name}.{key}", one, answer.get(key), spec.within(key), equivalent)
            for key, one in gold.items()
        }
    if isinstance(gold, list) and isinstance(answer, list):
        paired, inner = pair_items(gold, answer, spec), spec.within()
        near = [
            (one, _bridged(name, one, other, inner, equivalent)) for one, other, _ in paired.near
        ]
        if all(one == now for one, now in near):
            return gold
        equal = [one for one, _ in paired.equal]
        return [*equal, *(now for _, now in near), *paired.omitted]
    pair = _pair(name, gold, answer, spec)
    return answer if pair is not None and equivalent(pair) else gold


def _pair(name: str, gold: Any, answer: Any, spec: SlotSpec) -> Pair | None:
    kinds = {_kind(gold), _kind(answer)}
    if spec.compare != "judge" or None in kinds or len(kinds) > 1:
        return None
    texts = [one if isinstance(one, str) else json.dumps(one) for one in (gold, answer)]
    if max(map(len, texts)) > _LONGEST:
        return None
    return Pair(slot=name, meaning=spec.description, gold=texts[0], answer=texts[1])


def _kind(value: Any) -> str | None:
    """Return "text" or "number"; another type breaks the schema, so no judge is asked."""
    if isinstance(value, str):
        return "text"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else None
