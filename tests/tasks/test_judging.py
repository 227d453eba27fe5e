"""Which pairs a judge is asked of, and what its answers make of a slot's accepted values."""

from typing import Any

import pytest

from nblib.tasks.extraction import score
from nblib.tasks.judging import Pair, accepted_specs, gold_leaves, pairs_of
from nblib.tasks.task import Example

JUDGED: dict[str, Any] = {"type": "string", "compare": "judge"}
COLOURS = {"type": "array", "items": JUDGED}
OFFER = {"type": "object", "properties": {"colour": JUDGED, "price": {"compare": "number"}}}
SPECS: dict[str, Any] = {
    "colour": {**JUDGED, "description": "of the mug"},
    "name": {"type": "string"},
    "size": {"compare": "judge"},
    "colours": COLOURS,
    "offers": {"type": "array", "items": OFFER},
}


def record(gold, answer):
    empty = dict.fromkeys(SPECS)
    return {"reference": empty | gold, "answer": empty | answer, "slot_specs": SPECS}


def pairs(gold, answer):
    return [(one.slot, one.gold, one.answer) for one in pairs_of(record(gold, answer))]


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ({"colour": "red"}, {"colour": "crimson"}, [("colour", "red", "crimson")]),
        ({"colour": "red"}, {"colour": " RED "}, []),
        ({"colour": "red"}, {"colour": None}, []),
        ({"colour": None}, {"colour": "red"}, []),
        ({"colour": "red"}, {"colour": 3}, []),
        ({"colour": "red"}, {"colour": ["red"]}, []),
        ({"colour": "red"}, {"colour": "r" * 1001}, []),
        ({"name": "Mug"}, {"name": "Cup"}, []),  # no judge's
        ({"size": 3}, {"size": 4}, [("size", "3", "4")]),
        ({"size": True}, {"size": False}, []),
        # Of lists what is most alike: none is right, and the order says nothing.
        (
            {"colours": ["dark red", "sky blue", "gold"]},
            {"colours": ["deep sky", "gold", "red"]},
            [("colours", "dark red", "red"), ("colours", "sky blue", "deep sky")],
        ),
        (
            {"offers": [{"colour": "red", "price": 1}, {"colour": "blue", "price": 2}]},
            {"offers": [{"colour": "azure", "price": 2}, {"colour": "red", "price": 1}]},
            [("offers.colour", "blue", "azure")],
        ),
        ({"offers": [{"colour": "red", "price": 1}]}, {"offers": [{"colour": "red"}]}, []),
    ],
)
def test_asked_is_what_is_unequal_under_a_judge_on_both_sides(gold, answer, expected):
    assert sorted(pairs(gold, answer)) == expected


def test_an_answer_that_could_not_be_read_or_has_no_specs_asks_nothing():
    assert pairs_of({"reference": {"colour": "red"}, "answer": None, "slot_specs": SPECS}) == []
    assert pairs_of({"reference": "18", "answer": "17"}) == []


def test_what_a_value_accepts_already_is_not_asked():
    specs = {"colour": {**JUDGED, "accept": ["crimson"]}}
    asked = {"reference": {"colour": "red"}, "slot_specs": specs}
    assert pairs_of({**asked, "answer": {"colour": "crimson"}}) == []
    assert [one.gold for one in pairs_of({**asked, "answer": {"colour": "scarlet"}})] == ["red"]


def test_one_word_is_the_slot_answer():
    specs = {"answer": JUDGED}
    (pair,) = pairs_of({"reference": "red", "answer": "crimson", "slot_specs": specs})
    assert (pair.slot, pair.gold, pair.answer) == ("answer", "red", "crimson")


def figures(gold, answer, specs):
    import json

    example = Example(
        id="1", prompt="", completion="", reference=dict.fromkeys(SPECS) | gold, slot_specs=specs
    )
    found = score(json.dumps(dict.fromkeys(SPECS) | answer), example)
    counts = {name: one for name, one in found.slots.items() if "true_null" not in one}
    return counts, found.values["schema_valid"], found.values["grounded"]


def test_an_equivalent_value_is_accepted_for_its_own_value_alone():
    gold, answer = {"colours": ["dark red", "blue"]}, {"colours": ["red", "red"]}
    specs = accepted_specs(record(gold, answer), lambda pair: pair.gold == "dark red")
    assert figures(gold, answer, SPECS)[0] == {"colours": {"wrong": 2}}
    assert figures(gold, answer, specs)[0] == {"colours": {"correct": 1, "wrong": 1}}
    assert SPECS["colours"] == COLOURS  # what came stays as it was


def test_within_objects_too():
    gold = {"offers": [{"colour": "red", "price": 1}, {"colour": "blue", "price": 2}]}
    answer = {"offers": [{"colour": "azure", "price": 2}, {"colour": "green", "price": 1}]}
    specs = accepted_specs(record(gold, answer), lambda pair: pair.answer == "azure")
    assert figures(gold, answer, SPECS)[0] == {"offers": {"correct": 2, "wrong": 2}}
    assert figures(gold, answer, specs)[0] == {"offers": {"correct": 3, "wrong": 1}}


def test_the_form_stays_what_it_was():
    gold, answer = {"size": "three"}, {"size": "3"}
    specs = accepted_specs(record(gold, answer), lambda pair: True)
    assert specs["size"] == {"compare": "judge", "accept": ["3"]}
    before, after = figures(gold, answer, SPECS), figures(gold, answer, specs)
    assert (before[0]["size"], after[0]["size"]) == ({"wrong": 1}, {"correct": 1})
    assert before[1:] == after[1:]


def test_without_a_verdict_the_specifications_are_the_same():
    gold, answer = {"colours": ["a", "b"], "colour": "c"}, {"colours": ["b", "d"], "colour": "e"}
    assert accepted_specs(record(gold, answer), lambda pair: False) == SPECS


def test_the_texts_of_gold_that_a_judge_may_see():
    reference = {
        **{"colour": "red", "name": "Mug", "size": 3, "colours": ["a", " "]},
        "offers": [{"colour": "b", "price": 1}],
    }
    found = [(one.slot, one.gold, one.meaning) for one in gold_leaves(reference, SPECS)]
    assert found == [
        ("colour", "red", "of the mug"),
        ("colours", "a", ""),
        ("offers.colour", "b", ""),
    ]


def test_exchanged_twice_a_pair_is_itself():
    pair = Pair(slot="s", meaning="m", gold="a", answer="b")
    assert (pair.swapped.gold, pair.swapped.answer) == ("b", "a")
    assert pair.swapped.swapped == pair
