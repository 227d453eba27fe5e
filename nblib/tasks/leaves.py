"""An answer against what it should be, leaf by leaf: each value by itself, lists by assignment.

    gold    {"name": "Mug",  "price": 12.5, "colour": null, "brand": null,  "sizes": ["S", "M"]}
    answer  {"name": "Mugs", "price": null, "colour": null, "brand": "Ita", "sizes": ["M"]}
             wrong           omitted        true null       invented        1 correct, 1 omitted

Empty texts, lists and objects say nothing, as null does. Items of lists are assigned to each other
so that as much as possible is right; their order does not count. Every rule here holds for what a
record needs: precision is correct / (correct + wrong + invented), recall is
correct / (correct + wrong + omitted).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from nblib.tasks.comparators import normalized, same, same_key
from nblib.tasks.slots import SlotSpec

_MOST_ASSIGNED = 200  # items of a longer list are assigned to each other; equal ones come before
_FOUND = 0.5  # of an item's leaves: so many are right where it counts as found
_TIE = 1e-6  # less than any share of an item's leaves


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """How the leaves of a value came out.

    Attributes:
        correct: Leaves whose value is right.
        wrong: Leaves that have another value.
        omitted: Leaves of the right value that the answer leaves out.
        invented: Leaves of the answer where there is nothing.
        true_null: Values that are rightly null.
        items: Items of lists that there are to find.
        items_found: Those of them that were found.
        verbatim: Texts of the answer that should stand in the source.
        grounded: Those of them that do.
    """

    correct: int = 0
    wrong: int = 0
    omitted: int = 0
    invented: int = 0
    true_null: int = 0
    items: int = 0
    items_found: int = 0
    verbatim: int = 0
    grounded: int = 0

    def __add__(self, other: "Leaves") -> "Leaves":
        """Add two counts."""
        return Leaves(**{one: getattr(self, one) + getattr(other, one) for one in _COUNTS})

    @property
    def answered(self) -> int:
        """Leaves that the answer has: what precision is a share of."""
        return self.correct + self.wrong + self.invented

    @property
    def expected(self) -> int:
        """Leaves that there are: what recall is a share of."""
        return self.correct + self.wrong + self.omitted

    @property
    def errors(self) -> int:
        """Leaves that are not right."""
        return self.wrong + self.omitted + self.invented


_COUNTS = tuple(one.name for one in fields(Leaves))


def compare_slot(gold: Any, answer: Any, spec: SlotSpec, *, source: str = "") -> Leaves:
    """Return how an answer's value of a slot compares with the right one, or an accepted one.

    `source` is the normalized text that verbatim values stand in; "" looks for none. Raises
    nothing on an answer.
    """
    found = _compared(gold, answer, spec)
    texts = _verbatim(answer, spec) if source else ()
    if not texts:
        return found
    return found + Leaves(verbatim=len(texts), grounded=sum(one in source for one in texts))


def left_out(gold: Any, spec: SlotSpec) -> Leaves:
    """Return the leaves of a value where there is no answer at all; nothing else is accepted."""
    return Leaves(omitted=_leaf_count(gold, spec), items=_item_count(gold, spec))


def is_empty(value: Any) -> bool:
    """Return whether a value says nothing: null, or a text, list or object without any content."""
    if isinstance(value, dict | list):
        return all(map(is_empty, value.values() if isinstance(value, dict) else value))
    return not value.strip() if isinstance(value, str) else value is None


def _compared(gold: Any, answer: Any, spec: SlotSpec) -> Leaves:
    found = _compared_with(gold, answer, spec)
    for right in spec.accept:
        other = _compared_with(right, answer, spec)
        if _share(other) > _share(found):
            found = other
    return found


def _compared_with(gold: Any, answer: Any, spec: SlotSpec) -> Leaves:
    if is_empty(answer):
        return Leaves(true_null=1) if is_empty(gold) else left_out(gold, spec)
    if is_empty(gold):
        return Leaves(invented=_leaf_count(answer, spec))
    if isinstance(gold, dict) and isinstance(answer, dict):
        parts = [
            _compared(gold.get(name), answer.get(name), spec.within(name))
            for name in dict.fromkeys((*gold, *answer))
        ]
        return sum(parts, Leaves())
    if isinstance(gold, list) and isinstance(answer, list):
        return _compared_lists(gold, answer, spec)
    if isinstance(gold, list | dict) or isinstance(answer, list | dict):
        wanted, given = _leaf_count(gold, spec), _leaf_count(answer, spec)
        wrong, items = min(wanted, given), _item_count(gold, spec)
        return Leaves(wrong=wrong, omitted=wanted - wrong, invented=given - wrong, items=items)
    right = same(gold, answer, spec)
    return Leaves(correct=1) if right else Leaves(wrong=1)


def _compared_lists(gold: Sequence[Any], answer: Sequence[Any], spec: SlotSpec) -> Leaves:
    inner, paired = spec.within(), pair_items(gold, answer, spec)
    total = Leaves(items=len(_items(gold, spec)))
    for one, other in paired.equal:
        total += _compared(one, other, inner) + Leaves(items_found=1)
    for _, _, part in paired.near:
        total += part + Leaves(items_found=int(_share(part) >= _FOUND))
    omitted = [left_out(one, inner) for one in paired.omitted]
    invented = sum(_leaf_count(one, inner) for one in paired.invented)
    return sum(omitted, total) + Leaves(invented=invented)


class PairedItems(NamedTuple):
    """Items of two lists, the right one's and the answer's, assigned to each other."""

    equal: list[tuple[Any, Any]]  # alike
    near: list[tuple[Any, Any, Leaves]]  # as much is right as can be, with how they compare
    omitted: list[Any]
    invented: list[Any]


def pair_items(gold: Sequence[Any], answer: Sequence[Any], spec: SlotSpec) -> PairedItems:
    """Return which items of two lists are compared with each other."""
    inner = spec.within()
    wanted, given = _items(gold, spec), _items(answer, spec)
    is_long = max(len(wanted), len(given)) > _MOST_ASSIGNED
    equal, here, there = _equal_items(wanted, given, inner, most=is_long or not _is_near(inner))
    wanted, few = _first_ones(here, len(given) - len(equal))
    given, many = _first_ones(there, len(wanted))
    pairs = _assigned(wanted[:few], given[:many], inner)
    rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
    return PairedItems(
        equal=equal,
        near=[(wanted[row], given[column], part) for (row, column), part in pairs.items()],
        omitted=[one for row, one in enumerate(wanted) if row not in rows],
        invented=[one for column, one in enumerate(given) if column not in columns],
    )


def _items(values: Sequence[Any], spec: SlotSpec) -> list[Any]:
    """Return the items of a list that count: no empty ones, and of a set none twice."""
    full = [one for one in values if not is_empty(one)]
    if spec.compare != "set":
        return full
    inner = spec.within()
    return list({_key(one, inner): one for one in reversed(full)}.values())


def _is_near(spec: SlotSpec) -> bool:
    """Return whether values may be the same that are not alike: then equal ones may be parted."""
    own = spec.compare == "fuzzy" or (spec.compare == "number" and spec.tolerance > 0)
    inner = [spec.within()] if spec.items else map(spec.within, spec.properties or ())
    return own or any(map(_is_near, inner))


def _equal_items(
    wanted: Sequence[Any], given: Sequence[Any], spec: SlotSpec, *, most: bool
) -> tuple[list[tuple[Any, Any]], list[list[Any]], list[list[Any]]]:
    """Return pairs of items that are alike, if `most` are to be, and what is left, by its keys."""
    here, there = _by_key(wanted, spec), _by_key(given, spec)
    equal = list[tuple[Any, Any]]()
    left: tuple[list[list[Any]], list[list[Any]]] = ([], [])
    for key in sorted(here.keys() | there.keys()):
        ones, others = here.get(key, []), there.get(key, [])
        count = min(len(ones), len(others)) if most else 0
        equal += zip(ones[:count], others[:count], strict=True)
        left[0].append(ones[count:])
        left[1].append(others[count:])
    return equal, *left


def _first_ones(alike: Sequence[Sequence[Any]], most: int) -> tuple[list[Any], int]:
    """Return items, and how many of them, which come first, may be assigned to `most` others.

    Of items that are alike no more are needed: a model that repeats itself takes no more time.
    """
    first = [one for ones in alike for one in ones[:most]]
    rest = [one for ones in alike for one in ones[most:]]
    return first + rest, min(len(first), _MOST_ASSIGNED)


def _by_key(values: Sequence[Any], spec: SlotSpec) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in values:
        found.setdefault(_key(one, spec), []).append(one)
    return found


def _key(value: Any, spec: SlotSpec) -> str:
    """Return a text that values share only where they are the same in any order.

    A length follows each part: quotes would have to be escaped once more on every level.
    """
    if isinstance(value, dict):
        named = {name: _key(one, spec.within(name)) for name, one in value.items()}
        parts = [f"{name}:{len(name)}={named[name]}" for name in named if not is_empty(value[name])]
    elif isinstance(value, list):
        inner = spec.within()
        parts = [_key(one, inner) for one in _items(value, spec)]
    else:
        return f"={same_key(value, spec)}"
    return type(value).__name__ + "".join(f"{part}:{len(part)}," for part in sorted(parts))


def _assigned(
    wanted: Sequence[Any], given: Sequence[Any], spec: SlotSpec
) -> dict[tuple[int, int], Leaves]:
    """Return the pairs of items by which most is right: index and index -> how they compare."""
    if not wanted or not given:
        return {}
    from scipy.optimize import linear_sum_assignment

    table = [[_compared(one, other, spec) for other in given] for one in wanted]
    shares = [[_share(cell) for cell in row] for row in table]
    if spec.compare == "judge":  # where none is right a judge is asked of what is most alike
        for one, row in zip(wanted, shares, strict=True):
            row[:] = [x + _TIE * _likeness(one, other) for x, other in zip(row, given, strict=True)]
    rows, columns = linear_sum_assignment(shares, maximize=True)
    return {
        (row, column): table[row][column]
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    }


def _likeness(one: Any, other: Any) -> float:
    from rapidfuzz.distance import Indel

    texts = isinstance(one, str) and isinstance(other, str)
    return Indel.normalized_similarity(normalized(one), normalized(other)) if texts else 0.0


def _share(part: Leaves) -> float:
    """Return the mean score of a pair's leaves: right ones, of all that either has."""
    return part.correct / (part.correct + part.errors) if part.errors else 1.0


def _leaf_count(value: Any, spec: SlotSpec) -> int:
    if isinstance(value, dict):
        return sum(_leaf_count(one, spec.within(name)) for name, one in value.items())
    if isinstance(value, list):
        inner = spec.within()
        return sum(_leaf_count(one, inner) for one in _items(value, spec))
    return int(not is_empty(value))


def _item_count(value: Any, spec: SlotSpec) -> int:
    """Return how many items there are in a value's lists, and in the lists in them."""
    if isinstance(value, dict):
        return sum(_item_count(one, spec.within(name)) for name, one in value.items())
    if not isinstance(value, list):
        return 0
    items, inner = _items(value, spec), spec.within()
    return len(items) + sum(_item_count(one, inner) for one in items)


def _verbatim(value: Any, spec: SlotSpec) -> list[str]:
    """Return the leaves of a value that should stand in the source, as normalized texts."""
    if isinstance(value, dict):
        return [text for n, one in value.items() for text in _verbatim(one, spec.within(n))]
    if isinstance(value, list):
        inner = spec.within()
        return [text for one in value for text in _verbatim(one, inner)]
    return [normalized(value)] if spec.verbatim and not is_empty(value) else []
