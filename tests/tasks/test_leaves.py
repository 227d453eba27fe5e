"""Leaves counted by hand, lists assigned by hand, and what holds for any two values."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.tasks.comparators import normalized
from nblib.tasks.leaves import Leaves, compare_slot, is_empty
from nblib.tasks.slots import COMPARATORS, SlotSpec, read_slots

COUNTED = ("correct", "wrong", "omitted", "invented", "true_null")


def spec_of(**spec: Any) -> SlotSpec:
    return read_slots({"a": spec})["a"]


def counts(gold: Any, answer: Any, **spec: Any) -> tuple[int, ...]:
    found = compare_slot(gold, answer, spec_of(**spec))
    return tuple(getattr(found, name) for name in COUNTED)


EMPTY: list[Any] = [None, "", " \n\u00a0", [], {}, [None], [""], [[], {}], {"a": None}]
EMPTY += [{"a": {"b": [""]}}]
FULL: list[Any] = [0, False, 0.0, "a", "-", [0], [None, "a"], {"a": False}, {"a": [{"b": 0}]}]


def test_what_says_nothing():
    assert all(map(is_empty, EMPTY)) and not any(map(is_empty, FULL))
    for gold, answer in itertools.product(EMPTY, EMPTY):
        assert counts(gold, answer) == (0, 0, 0, 0, 1)
    for nothing, something in itertools.product(EMPTY, FULL):
        assert counts(nothing, something) == (0, 0, 0, 1, 0)
        assert counts(something, nothing) == (0, 0, 1, 0, 0)


# gold, answer, (correct, wrong, omitted, invented, true null), specification
CASES: list[tuple] = [
    ("a", "a", (1, 0, 0, 0, 0)),
    ("a", "b", (0, 1, 0, 0, 0)),
    (1, True, (0, 1, 0, 0, 0)),
    (False, 0, (0, 1, 0, 0, 0)),
    # Several right values.
    ("a", "b", (1, 0, 0, 0, 0), {"accept": ["b", "c"]}),
    ("a", "B", (1, 0, 0, 0, 0), {"accept": ["b", "c"]}),
    ("a", "B", (0, 1, 0, 0, 0), {"accept": ["b", "c"], "compare": "exact"}),
    ("a", "d", (0, 1, 0, 0, 0), {"accept": ["b", "c"]}),
    ("a", None, (0, 0, 1, 0, 0), {"accept": ["b", "c"]}),
    ("a", None, (0, 0, 0, 0, 1), {"accept": [None]}),
    (None, "b", (1, 0, 0, 0, 0), {"accept": ["b"]}),
    (None, None, (0, 0, 0, 0, 1), {"accept": ["b"]}),
    (None, "c", (0, 0, 0, 1, 0), {"accept": ["b"]}),
    (12, 13, (1, 0, 0, 0, 0), {"accept": [14], "compare": "number", "tolerance": 1}),
    (["a", "b"], ["c"], (1, 0, 0, 0, 0), {"accept": [["c"]]}),
    (["a", "b", "c"], ["a", "b"], (2, 0, 1, 0, 0), {"accept": [["a"]]}),
    # Of an answer without anything right, and of none, gold's leaves count.
    (["a", "b", "c"], None, (0, 0, 3, 0, 0), {"accept": [["d"]]}),
    (["a", "b", "c"], ["e"], (0, 1, 2, 0, 0), {"accept": [["d"]]}),
    # Objects: by their keys.
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, (2, 0, 0, 0, 0)),
    ({"a": 1, "b": 2}, {"a": 1}, (1, 0, 1, 0, 0)),
    ({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}, (1, 1, 0, 1, 0)),
    ({"a": 1, "b": None}, {"a": 1, "b": None}, (1, 0, 0, 0, 1)),
    ({"a": 1, "b": None}, {"a": 1}, (1, 0, 0, 0, 1)),
    ({"a": {"b": {"c": "x", "d": "y"}}}, {"a": {"b": {"c": "X", "d": "z"}}}, (1, 1, 0, 0, 0)),
    ({"a": 1, "b": 2}, None, (0, 0, 2, 0, 0)),
    (None, {"a": 1, "b": [2, 3]}, (0, 0, 0, 3, 0)),
    # Another shape: one value stands against one, the others are left out, or too many.
    ({"a": 1, "b": 2}, "x", (0, 1, 1, 0, 0)),
    ("x", {"a": 1, "b": 2}, (0, 1, 0, 1, 0)),
    (["x", "y"], "x", (0, 1, 1, 0, 0)),
    ("x", ["x"], (0, 1, 0, 0, 0)),
    ({"a": 1}, [1, 2], (0, 1, 0, 1, 0)),
    # Lists of values: as multisets.
    ([1, 2, 3], [3, 1, 2], (3, 0, 0, 0, 0)),
    ([1, 2, 3], [2], (1, 0, 2, 0, 0)),
    ([2], [1, 2, 3], (1, 0, 0, 2, 0)),
    ([1, 1, 2], [1, 2, 2], (2, 1, 0, 0, 0)),
    ([1, 1], [1], (1, 0, 1, 0, 0)),
    ([1], [1, 1], (1, 0, 0, 1, 0)),
    ([1, 2], [3, 4], (0, 2, 0, 0, 0)),
    ([1, None, ""], [1], (1, 0, 0, 0, 0)),
    (["A", "b"], ["B", "a"], (2, 0, 0, 0, 0)),
    (["A", "b"], ["B", "a"], (0, 2, 0, 0, 0), {"compare": "exact"}),
    ([1, True], [True, 1.0], (2, 0, 0, 0, 0)),
    ([1, 1], [1, True], (1, 1, 0, 0, 0)),
    (["1.234,5", 7], [7.0, 1234.5], (2, 0, 0, 0, 0), {"compare": "number"}),
    (["2024-05-01", "x"], ["x", "20240501"], (2, 0, 0, 0, 0), {"compare": "date"}),
    (["abcd", "x"], ["x", "abc"], (2, 0, 0, 0, 0), {"compare": "fuzzy", "threshold": 0.8}),
    (["abcd", "x"], ["x", "abc"], (1, 1, 0, 0, 0), {"compare": "fuzzy", "threshold": 0.9}),
    # 1 with 2 and 2 with 3: two are right. 2 with 2 alone would be one.
    ([1, 2], [2, 3], (2, 0, 0, 0, 0), {"compare": "number", "tolerance": 1}),
    # A slot's comparator holds for its items, whose own type says nothing of it.
    (
        *([1, 5], [5.25, 1.25], (2, 0, 0, 0, 0)),
        {
            **{"type": "array", "items": {"type": "number"}},
            **{"compare": "number", "tolerance": 0.25},
        },
    ),
    (  # several right values of an item
        *(["tea", "milk"], ["milk", "chai"], (2, 0, 0, 0, 0)),
        {"type": "array", "items": {"type": "string", "accept": ["chai"]}},
    ),
    # Sets: repeats do not count.
    (["a", "b", "c"], ["c", "a", "a", "b"], (3, 0, 0, 0, 0), {"compare": "set"}),
    (["a", "b", "a"], ["a"], (1, 0, 1, 0, 0), {"compare": "set"}),
    (["a", "b"], ["b", "x"], (1, 1, 0, 0, 0), {"compare": "set"}),
    (["a", "b"], ["B", "b", "A"], (2, 0, 0, 0, 0), {"compare": "set"}),
    ([1, 2], [2.0, 1.0, 1], (2, 0, 0, 0, 0), {"compare": "set"}),
    (["a", "a", "b"], None, (0, 0, 2, 0, 0), {"compare": "set"}),
    (None, ["a", "a", "b"], (0, 0, 0, 2, 0), {"compare": "set"}),
    (  # what repeats is for the items' own comparator to say
        *(["a", "A"], ["A", "a", "a"], (2, 0, 0, 0, 0)),
        {"type": "array", "compare": "set", "items": {"compare": "exact"}},
    ),
    ([{"a": 1}, {"a": 2}], [{"a": 2}, {"a": 2}, {"a": 1}], (2, 0, 0, 0, 0), {"compare": "set"}),
    # Lists of objects: by assignment.
    ([{"a": 1, "b": 2}, {"a": 3}], [{"a": 3}, {"b": 2, "a": 1}], (3, 0, 0, 0, 0)),
    ([{"a": 1, "b": 2}, {"a": 3, "b": 4}], [{"a": 3, "b": 2}], (1, 1, 2, 0, 0)),
    (  # the first item shares a leaf with each of them; the other one shares one with the second
        *([{"a": 1, "b": 1}, {"a": 2, "b": 2}], [{"a": 1, "b": 2}, {"a": 1, "b": 3}]),
        (2, 2, 0, 0, 0),
    ),
    ([{"a": 1, "b": "x"}], [{"a": 1, "b": "X"}], (2, 0, 0, 0, 0)),
    ([{"a": [1, 2]}, {"a": [3, 4]}], [{"a": [4, 3]}, {"a": [1]}], (3, 0, 1, 0, 0)),
    ([[1, 2], [3]], [[3], [2, 1]], (3, 0, 0, 0, 0)),
    ([{"a": 1}, "x"], ["x", {"a": 1}], (2, 0, 0, 0, 0)),
    ([{"a": 1, "b": None}], [{"a": 1}], (1, 0, 0, 0, 1)),
    # The properties' own comparators, and several right values of one.
    (
        *({"a": "x", "b": 5}, {"a": "y", "b": "5.00"}, (2, 0, 0, 0, 0)),
        {"type": "object", "properties": {"a": {"accept": ["y"]}, "b": {"compare": "number"}}},
    ),
    (
        *([{"a": "New York"}], [{"a": "NYC"}], (1, 0, 0, 0, 0)),
        {
            "type": "array",
            "items": {"type": "object", "properties": {"a": {"accept": ["NYC"]}}},
        },
    ),
]


@pytest.mark.parametrize(
    ("gold", "answer", "expected", "spec"), [(*case, {})[:4] for case in CASES]
)
def test_leaves_by_hand(gold, answer, expected, spec):
    assert counts(gold, answer, **spec) == expected


@pytest.mark.parametrize(
    ("gold", "answer", "items", "found"),
    [
        (["a", "b"], ["b"], 2, 1),
        (["a", "b"], ["b", "a", "c"], 2, 2),
        (["a", "b"], None, 2, 0),
        (["a", "b"], "a", 2, 0),
        (["a", None, ""], None, 1, 0),
        (["a", None, ""], ["a"], 1, 1),
        (["a", None, ""], "x", 1, 0),
        (None, ["a"], 0, 0),
        ("a", "a", 0, 0),
        ({"a": 1}, {"a": 1}, 0, 0),
        # An object is found where half of its leaves are right.
        ([{"a": 1, "b": 2}], [{"a": 1, "b": 3}], 1, 1),
        ([{"a": 1, "b": 2, "c": 3}], [{"a": 1, "b": 3, "c": 4}], 1, 0),
        ([{"a": 1, "b": 2}], [{"a": 1}], 1, 1),
        # A list that is lost together with what it is in is lost all the same.
        ({"a": ["x", "y"]}, {"a": ["x"]}, 2, 1),
        ({"a": ["x", "y"]}, {"a": None}, 2, 0),
        ({"a": ["x", "y"]}, None, 2, 0),
        ({"a": ["x", "y"]}, "x", 2, 0),
        ([{"a": ["x", "y"]}], [{"a": ["x", "y"]}], 3, 3),
        ([{"a": ["x", "y"]}], [], 3, 0),
        ([{"a": ["x", "y"]}, {"a": ["z"]}], [{"a": ["z"]}], 5, 2),
    ],
)
def test_list_recall(gold, answer, items, found):
    leaves = compare_slot(gold, answer, SlotSpec())
    assert (leaves.items, leaves.items_found) == (items, found)


def test_lists_can_be_half_lost_while_every_scalar_is_right():
    gold = {"name": "Mug", "city": "Faenza", "sizes": [*range(100)]}
    found = compare_slot(gold, {**gold, "sizes": [*range(50)]}, SlotSpec())
    assert (found.correct, found.wrong, found.omitted) == (52, 0, 50)
    assert (found.items, found.items_found) == (100, 50)


def test_leaves_are_added_and_shared():
    one = Leaves(correct=1, wrong=2, omitted=3, invented=4, true_null=5)
    assert (one.answered, one.expected, one.errors) == (7, 6, 9)
    both = one + Leaves(correct=10, items=2, items_found=1, verbatim=3, grounded=2)
    assert both == Leaves(
        correct=11,
        wrong=2,
        omitted=3,
        invented=4,
        true_null=5,
        items=2,
        items_found=1,
        verbatim=3,
        grounded=2,
    )


@pytest.mark.parametrize(
    ("answer", "spec", "verbatim", "grounded"),
    [
        ("Mug Rosa", {"verbatim": True}, 1, 1),
        ("mug rosa", {"verbatim": True}, 1, 1),
        ("rug", {"verbatim": True}, 1, 0),
        ("Mug Rosa", {}, 0, 0),
        (None, {"verbatim": True}, 0, 0),
        (["mug", "rug", ""], {"verbatim": True}, 2, 1),
        (["mug", "rug"], {"type": "array", "items": {"verbatim": True}}, 2, 1),
        ({"a": "mug", "b": "rug"}, {"verbatim": True}, 2, 1),
        (
            {"a": "mug", "b": "rug"},
            {"type": "object", "properties": {"a": {"verbatim": True}}},
            *(1, 1),
        ),
    ],
)
def test_grounding(answer, spec, verbatim, grounded):
    source = normalized("A MUG \u2013 Mug Rosa")
    found = compare_slot("x", answer, spec_of(**spec), source=source)
    assert (found.verbatim, found.grounded) == (verbatim, grounded)
    unknown = compare_slot("x", answer, spec_of(**spec))
    assert (unknown.verbatim, unknown.grounded) == (0, 0)


TEXT = st.sampled_from(["a", "A", "b", "ab", "abc", "", " ", "1.234", "1234", "2024-05-01"])
LEAF = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([1.0, 2.5]) | TEXT
VALUE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=10,
)
PARTS = {
    "compare": st.sampled_from((*COMPARATORS, None)),
    "tolerance": st.sampled_from([0, 1]),
    "threshold": st.sampled_from([0.5, 0.9, 1]),
}
SPEC = st.fixed_dictionaries({}, optional=PARTS)
ACCEPTING = st.fixed_dictionaries({}, optional={**PARTS, "accept": st.lists(VALUE, max_size=2)})


def leaf_count(value: Any) -> int:
    if isinstance(value, dict | list):
        return sum(map(leaf_count, value.values() if isinstance(value, dict) else value))
    return int(value is not None and str(value).strip() != "")


def shuffled(value: Any, rng: random.Random) -> Any:
    """Return a value with the items of its lists, and the keys of its objects, in another order."""
    if isinstance(value, dict):
        names = rng.sample([*value], len(value))
        return {name: shuffled(value[name], rng) for name in names}
    if isinstance(value, list):
        return [shuffled(one, rng) for one in rng.sample(value, len(value))]
    return value


@settings(deadline=None)
@given(VALUE, VALUE, SPEC)
def test_every_leaf_is_counted_once(gold, answer, spec):
    found = compare_slot(gold, answer, spec_of(**spec))
    if spec.get("compare") != "set":
        assert found.correct + found.wrong + found.omitted == leaf_count(gold)
        assert found.correct + found.wrong + found.invented == leaf_count(answer)
    assert 0 <= found.items_found <= found.items


@settings(deadline=None)
@given(VALUE, ACCEPTING)
def test_a_value_is_itself(value, spec):
    found = compare_slot(value, value, spec_of(**spec))
    assert found.errors == 0 and found.items_found == found.items
    if spec.get("compare") != "set":
        assert found.correct == leaf_count(value)


@settings(deadline=None)
@given(VALUE, VALUE, ACCEPTING, st.randoms(use_true_random=False))
def test_another_order_changes_nothing(gold, answer, spec, rng):
    slot = spec_of(**spec)
    assert compare_slot(shuffled(gold, rng), shuffled(answer, rng), slot) == compare_slot(
        gold, answer, slot
    )


@settings(deadline=None)
@given(VALUE, VALUE, SPEC.filter(lambda spec: spec.get("compare")))
def test_what_is_omitted_one_way_is_invented_the_other_way(gold, answer, spec):
    there, back = (
        compare_slot(*pair, spec_of(**spec)) for pair in ((gold, answer), (answer, gold))
    )
    assert there.correct == back.correct
    assert there.omitted + there.wrong == back.invented + back.wrong


@settings(deadline=None)
@given(VALUE, VALUE, st.lists(VALUE, max_size=2), SPEC)
def test_an_accepted_value_is_right_and_one_more_makes_nothing_worse(gold, answer, accept, spec):
    few, more = (spec_of(**spec, accept=ones) for ones in (accept, [*accept, answer]))
    assert compare_slot(gold, answer, more).errors == 0
    before, after = (compare_slot(gold, answer, one) for one in (spec_of(**spec), few))
    assert share(after) >= share(before)


def share(leaves: Leaves) -> float:
    """Return the mean score of the leaves; 1 where there are none."""
    return leaves.correct / (leaves.correct + leaves.errors) if leaves.errors else 1.0


SMALL = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), min_size=1, max_size=3), max_size=4
)


@settings(deadline=None, max_examples=300)
@given(SMALL, SMALL)
def test_objects_are_assigned_by_the_best_mean_leaf_score(gold, answer):
    few, many = sorted((gold, answer), key=len)
    found = [
        [compare_slot(*pair, SlotSpec()) for pair in zip(few, order, strict=True)]
        for order in itertools.permutations(many, len(few))
    ]
    scores = [sum(map(share, pairs)) for pairs in found]
    best = [
        sum(pair.correct for pair in pairs)
        for pairs, score in zip(found, scores, strict=True)
        if score > max(scores) - 1e-9
    ]
    assert compare_slot(gold, answer, SlotSpec()).correct in best


@settings(deadline=None, max_examples=300)
@given(*(st.lists(st.integers(0, 6), max_size=4) for _ in range(2)), st.sampled_from([0, 1, 2]))
def test_of_numbers_with_a_tolerance_as_many_as_possible_are_right(gold, answer, tolerance):
    found = compare_slot(gold, answer, SlotSpec(compare="number", tolerance=tolerance))
    few, many = sorted((gold, answer), key=len)
    best = max(
        sum(abs(a - b) <= tolerance for a, b in zip(few, order, strict=True))
        for order in itertools.permutations(many, len(few))
    )
    assert found.correct == best


def test_of_many_different_items_the_order_does_not_count_either():
    gold = [{"a": f"gold {i}", "b": i} for i in range(500)]
    answer = [{"a": f"answer {i}", "b": i} for i in range(600)]
    found = compare_slot(gold, answer, SlotSpec())
    assert found == compare_slot(gold[::-1], answer[7:] + answer[:7], SlotSpec())
    assert found.correct + found.wrong + found.omitted == 1000
    assert found.correct + found.wrong + found.invented == 1200
