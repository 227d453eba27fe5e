"""Specifications of slots: what they say, what is refused, what is passed on, and the schema."""

import json

import pytest

from nblib.tasks.json_schema import Schema
from nblib.tasks.slots import COMPARATORS, SlotSpec, read_slots, slots_schema


@pytest.mark.parametrize("compare", COMPARATORS)
def test_every_comparator_can_be_named(compare):
    assert read_slots({"a": {"compare": compare}})["a"].compare == compare


def test_a_whole_specification():
    specs = {
        "name": {"type": "string", "verbatim": True, "nullable": False, "max_length": 20},
        "price": {"type": "number", "compare": "number", "tolerance": 0.005, "accept": [5, "5"]},
        "sizes": {"type": "array", "items": {"type": "string", "enum": ["S"]}, "max_items": 4},
        "maker": {"type": "object", "properties": {"city": {"compare": "fuzzy", "threshold": 1}}},
        "kind": {"enum": ["mug", "cup"], "description": "What it is."},
        "open": {},
    }
    slots = read_slots(specs)
    assert [*slots] == [*specs]
    assert (slots["name"].verbatim, slots["name"].nullable) == (True, False)
    assert (slots["price"].tolerance, slots["price"].accept) == (0.005, [5, "5"])
    assert slots["sizes"].items == SlotSpec(type="string", enum=["S"])
    assert slots["open"] == SlotSpec() and slots["open"].nullable
    assert read_slots({}) == {}


@pytest.mark.parametrize("compare", COMPARATORS)
def test_what_is_not_specified_is_compared_as_its_slot_is(compare):
    slot = SlotSpec(compare=compare, tolerance=1, threshold=0.5, accept=["a"], max_items=1)
    passed_on = None if compare == "set" else compare  # which says nothing of the items
    inner = SlotSpec(compare=passed_on, tolerance=1, threshold=0.5)
    assert slot.within() == slot.within("a") == inner


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([], r"slot_specs is \[\], expected an object"),
        ("name", "slot_specs is .name., expected an object"),
        (None, "slot_specs is null, expected an object"),
        ({"a": "string"}, "slot a: should be a valid dictionary"),
        ({"a": None}, "slot a: should be"),
        ({"a": {"compare": "alike"}}, "slot a.compare: should be 'exact', 'normalized', 'number'"),
        ({"a": {"compare": ["exact"]}}, "slot a.compare: should be"),
        ({"a": {"type": "text"}}, "slot a.type: should be"),
        ({"a": {"type": ["string", "null"]}}, "slot a.type: should be"),
        ({"a": {"accept": "NYC"}}, "slot a.accept: should be a valid list"),
        ({"a": {"verbatim": "yes"}}, "slot a.verbatim: should be a valid boolean"),
        ({"a": {"nullable": 1}}, "slot a.nullable: should be a valid boolean"),
        ({"a": {"tolerance": -1}}, "slot a.tolerance: should be greater than or equal to 0"),
        ({"a": {"tolerance": "1"}}, "slot a.tolerance: should be a valid number"),
        ({"a": {"threshold": 90}}, "slot a.threshold: should be less than or equal to 1"),
        ({"a": {"max_length": 0}}, "slot a.max_length: should be greater"),
        ({"a": {"max_items": 1.5}}, "slot a.max_items: should be a valid integer"),
        ({"a": {"enum": []}}, "slot a.enum: .*at least 1"),
        ({"a": {"pattern": "x"}}, "slot a.pattern: neither a validator nor a grammar .* nullable"),
        ({"a": {"items": {}}}, "slot a: 'items' belongs to the type 'array', not to None"),
        ({"a": {"type": "array", "properties": {}}}, "slot a: 'properties' belongs to .*'object'"),
        (
            {"a": {"type": "array", "items": {"compare": "alike"}}},
            "slot a.items.compare: should be",
        ),
        (
            {"a": {"type": "object", "properties": {"b": {"minimum": 1}}}},
            "slot a.properties.b.minimum: neither",
        ),
    ],
)
def test_what_cannot_be_read_is_named(specs, said):
    with pytest.raises(ValueError, match=said):
        read_slots(specs)


def test_items_and_properties_are_compared_as_their_slot_says():
    slot = SlotSpec(type="array", compare="number", tolerance=0.5, verbatim=True)
    assert slot.within() == SlotSpec(compare="number", tolerance=0.5, verbatim=True)
    typed = SlotSpec(
        type="array", compare="number", tolerance=0.5, items=SlotSpec(type="number", accept=[1])
    )
    inner = typed.within()
    assert (inner.type, inner.accept) == ("number", [1])  # what it says itself is kept
    assert (inner.compare, inner.tolerance, inner.verbatim) == ("number", 0.5, False)
    fuzzy = SlotSpec(
        type="object",
        compare="fuzzy",
        threshold=0.5,
        verbatim=True,
        properties={
            "a": SlotSpec(type="string"),
            "b": SlotSpec(compare="exact"),
            "c": SlotSpec(type="array", items=SlotSpec(type="string")),
            "d": SlotSpec(threshold=0.8),
        },
    )
    inners = {name: fuzzy.within(name) for name in "abcde"}
    assert [one.compare for one in inners.values()] == ["fuzzy", "exact", "fuzzy", "fuzzy", "fuzzy"]
    assert [one.threshold for one in inners.values()] == [0.5, 0.9, 0.5, 0.8, 0.5]
    assert all(one.verbatim for one in inners.values())
    assert inners["c"].within().threshold == 0.5  # through a list too


@pytest.mark.parametrize(
    ("spec", "right", "wrong"),
    [
        ({"type": "string"}, ["", "a", "x" * 1000, None], [1, True, [], {}, "x" * 1001]),
        ({"type": "string", "nullable": False}, [""], [None, 1]),
        ({"type": "string", "max_length": 2}, ["ab", None], ["abc"]),
        ({"type": "number"}, [1, 1.5, None], ["1", True]),
        ({"type": "integer"}, [1, 1.0, None], [1.5, "1", True]),
        ({"type": "boolean"}, [True, None], [1, "true"]),
        ({"type": "array"}, [[], ["a", 1, True], None], ["a", [None], [[]], [1] * 101]),
        ({"type": "array", "max_items": 1}, [[], [1]], [[1, 2]]),
        ({"type": "array", "items": {"type": "string"}}, [["a", None]], [[1]]),
        ({"type": "array", "items": {"type": "string", "nullable": False}}, [["a"]], [[None]]),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}},
            *([{"a": "x"}, {"a": None}, None], [{}, {"a": 1}, {"a": "x", "b": 1}, [], "a"]),
        ),
        ({"enum": ["S", "M"]}, ["S", None], ["L", "s", 1]),
        ({"enum": ["S", "M"], "nullable": False}, ["S"], [None]),
        ({"enum": ["S"], "type": "string"}, ["S", None], ["M"]),
        ({}, [None, 1, "a", [], {"a": [1]}, "x" * 5000], []),
        ({"compare": "number"}, [None, 1, "a"], []),
    ],
)
def test_the_schema_of_a_slot(spec, right, wrong):
    schema = Schema(slots_schema(read_slots({"a": spec})))
    for value in right:
        assert schema.problem({"a": value}) is None, value
    for value in wrong:
        problem = schema.problem({"a": value})
        assert problem is not None and problem.path.startswith("a"), value
    assert schema.problem({}).rule == "required"
    assert schema.problem({"a": None, "b": 1}).rule == "additionalProperties"


def test_the_schema_keeps_the_slots_order_and_is_plain_json():
    schema = slots_schema(read_slots({name: {"type": "string"} for name in "zay"}))
    assert [*schema["properties"]] == schema["required"] == [*"zay"]
    assert json.loads(json.dumps(schema)) == schema


def test_the_first_wrong_item_is_named():
    schema = Schema(slots_schema(read_slots({"a": {"type": "array", "items": {"type": "string"}}})))
    problem = schema.problem({"a": ["x", "y", 5, 6]})
    assert (problem.path, problem.rule) == ("a[2]", "type")
