"""A baseline without a model: each slot gets the longest known value that stands in the page.

Known are the values of the training examples. A slot that is not verbatim gets what is commonest
among them, null too. What a model reads better than this it has not learnt by heart.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nblib.tasks.comparators import normalized
from nblib.tasks.json_text import write_json_text
from nblib.tasks.slots import read_slots
from nblib.tasks.task import Example


class Lexicon:
    """Values by kind of page and slot; called with an example it returns a completion."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._words: dict[str, Counter[str]] = {}
        self._values: dict[tuple[str, str], Counter[str]] = {}
        for one in examples:
            if isinstance(one.reference, str):
                self._words.setdefault(one.group, Counter())[one.reference] += 1
                continue
            for slot, value in one.reference.items():
                self._values.setdefault((one.group, slot), Counter())[json.dumps(value)] += 1
        self._texts = {key: _longest_first(counts) for key, counts in self._values.items()}

    def __call__(self, example: Example) -> str:
        """Return the completion for an example, whose reference is only looked at for its kind."""
        if isinstance(example.reference, str):
            words = self._words.get(example.group)
            return words.most_common(1)[0][0] if words else ""
        page = normalized(example.prompt.partition("\n\n")[2] or example.prompt)
        slots = read_slots(example.slot_specs)
        return write_json_text(
            {
                name: self._text_in(page, (example.group, name))
                if slot.verbatim
                else self._commonest((example.group, name))
                for name, slot in slots.items()
            }
        )

    def _text_in(self, page: str, key: tuple[str, str]) -> str | None:
        found = self._texts.get(key, ())
        return next((value for folded, value in found if _stands_in(folded, page)), None)

    def _commonest(self, key: tuple[str, str]) -> Any:
        counts = self._values.get(key)
        return json.loads(counts.most_common(1)[0][0]) if counts else None


def _longest_first(counts: Counter[str]) -> list[tuple[str, str]]:
    """Return (normalized, as it is most often) of all texts among the values, longest first."""
    rarest_first = [json.loads(value) for value, _ in reversed(counts.most_common())]
    texts = {normalized(value): value for value in rarest_first if _is_text(value)}
    return sorted(texts.items(), key=lambda one: (-len(one[0]), one[0]))


def _stands_in(words: str, page: str) -> bool:
    """Return whether words stand in a page, and not as a part of other words."""
    if words not in page:
        return False
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", page) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
