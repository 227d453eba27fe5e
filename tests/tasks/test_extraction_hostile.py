"""Hostile completions: any text, long lists and loops, a megabyte."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.evaluation.score_file import score_lines
from nblib.files import to_jsonable
from nblib.tasks.extraction import EXTRA, EXTRACTION, FAILURES, score
from nblib.tasks.slots import COMPARATORS
from nblib.tasks.task import Example, Score

TEXT = {"type": "string"}
NUMBER = {"compare": "number"}
PAGE = "Mug  ROSA \u2013 now 12,50 EUR.\nHand made in Faenza."


def scored(
    completion: Any, reference: Any, specs: dict[str, Any] | None = None, question: str = ""
) -> Score:
    text = completion if isinstance(completion, str) else json.dumps(completion)
    example = Example(
        id="1", prompt=question, completion="", reference=reference, slot_specs=specs or {}
    )
    return score(text, example)


ANY_TEXT = st.text(st.characters(exclude_categories=()))
LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT
JSON = st.recursive(
    LEAF | st.sampled_from(["1.234,5", "2024-05-01", "a", "A", 1, 1.0, 1e300, -0.0]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=12,
)
COMPARE = {"compare": st.sampled_from((*COMPARATORS, None)), "verbatim": st.booleans()}
LIMITS = {"tolerance": st.sampled_from([0, 0.5]), "threshold": st.floats(0, 1)}
KNOWN = {"accept": st.lists(JSON, max_size=2), "nullable": st.booleans()}
TYPED = {"type": st.sampled_from([None, "string", "number", "integer", "boolean", "array"])}
SPEC = st.fixed_dictionaries({}, optional=COMPARE | LIMITS | KNOWN | TYPED)
ALL_SPECS = st.dictionaries(st.sampled_from("abcd"), SPEC, max_size=4)
OBJECT = st.dictionaries(st.sampled_from([*"abcd", "", "\u00e4.[0]"]), JSON, max_size=4)
PIECES = [*'{}[]",:', "null", "1", "NaN", '"a": ', '{"a": 1}', "YES", "\ud800", " ", "1e"]


@settings(deadline=None)
@given(
    ANY_TEXT | st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | OBJECT | JSON,
    OBJECT | st.sampled_from(["YES", "NO", "shop"]),
    ALL_SPECS,
)
def test_any_text_has_a_score_that_a_record_can_hold(completion, reference, specs):
    one = scored(completion, reference, specs, question="a page with a and 1.234,5")
    assert {*one.values} == {*EXTRACTION.metric_names}
    assert all(0 <= value <= 1 for value in one.values.values())
    assert all(weight >= 0 for weight in one.weights.values())
    assert one.failure is None or one.failure in FAILURES
    assert (one.failure is None) <= one.values["schema_valid"]
    record = {"values": one.values, "answer": one.answer, "details": one.details}
    json.dumps(to_jsonable(record), ensure_ascii=False).encode()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), JSON.map(to_jsonable), max_size=4), ALL_SPECS)
def test_gold_itself_has_no_errors(reference, specs):
    text = json.dumps(reference, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # half a character, which is no strict JSON
    for one in (scored(text, reference, specs), scored(text, reference)):
        assert one.values["perfect_record"]
        assert (one.values["slot_f1"], one.values["slot_precision"]) == (1, 1)
    assert one.failure is None  # where nothing is said of a slot, its own type is right


@settings(deadline=None)
@given(OBJECT, OBJECT)
def test_white_space_around_changes_no_score(answer, reference):
    bare, blank = (scored(f"{s}{json.dumps(answer)}{s}", reference) for s in ("", " \n\t"))
    assert repr(bare) == repr(blank)


LISTED = {"a": {"type": "array", "items": TEXT}}
HOSTILE: dict[str, tuple[Callable[[int], str], dict[str, Any]]] = {
    "deep lists": (lambda n: '{"a":' + "[" * n + "]" * n + "}", {}),
    "deep objects": (lambda n: '{"a":' * n + "1" + "}" * n, {}),
    "deep and cut": (lambda n: '{"a":[' * n, {}),
    "a long list": (lambda n: json.dumps({"a": [*range(n)]}), {}),
    "a long list of a wrong type": (lambda n: json.dumps({"a": [*range(n)]}), LISTED),
    "a long list of one text": (lambda n: json.dumps({"a": ["x"] * n}), LISTED),
    "a long set": (lambda n: json.dumps({"a": [*range(n)]}), {"a": {"compare": "set"}}),
    "a long list of objects": (lambda n: json.dumps({"a": [{"b": i} for i in range(n)]}), {}),
    "a list of lists": (lambda n: json.dumps({"a": [[i, i + 1] for i in range(n)]}), {}),
    "a loop in a list": (
        lambda n: json.dumps({"a": [{"b": [{"c": 1, "d": 2}] * 20}] * (n // 20)}),
        {},
    ),
    "many keys": (lambda n: json.dumps({f"k{i}": i for i in range(n)}), {}),
    "many keys in a slot": (lambda n: json.dumps({"a": {f"k{i}": i for i in range(n)}}), {}),
    "one key many times": (lambda n: "{" + '"a": 1, ' * n + '"a": 1}', {}),
    "a long text": (lambda n: json.dumps({"a": "x y" * n}), {}),
    "a long fuzzy text": (
        lambda n: json.dumps({"a": "x y" * n}),
        {"a": {"compare": "fuzzy", "threshold": 0}},
    ),
    "a long number": (lambda n: json.dumps({"a": "1" * n}), {"a": NUMBER}),
    "many numbers": (lambda n: json.dumps({"a": "1,2 " * n}), {"a": NUMBER}),
    "spaces": (lambda n: json.dumps({"a": " " * n + "x" + " " * n}), {"a": NUMBER}),
    "digits and signs": (lambda n: json.dumps({"a": "1'" * n}), {"a": NUMBER}),
    "a long date": (lambda n: json.dumps({"a": "2024-05-01" * n}), {"a": {"compare": "date"}}),
    "prose": (lambda n: "word " * n, {}),
}


@pytest.mark.parametrize("name", [*HOSTILE])
def test_a_megabyte_is_scored(name):
    write, specs = HOSTILE[name]
    text = write(1_000_000 * 1000 // len(write(1000)))
    one = scored(text, {"a": ["x", "y"]}, specs, PAGE)
    assert (len(text) > 900_000) and one.failure in FAILURES
    assert len(json.dumps([one.details, one.slots])) < 3000


@pytest.mark.parametrize(
    ("item", "leaves"),
    [
        (lambda i: f"item {i}", 1),
        (lambda i: {"name": f"item {i}", "price": i}, 2),
        (lambda i: [f"item {i}"], 1),
        (lambda i: i, 1),
    ],
    ids=["texts", "objects", "lists", "numbers"],
)
def test_five_thousand_items_in_gold_and_answer(item, leaves):
    gold = [*map(item, range(5000))]
    loud = json.loads(json.dumps(gold).replace("item", "ITEM"))
    for answer in (gold[::-1], loud[::-1]):
        one = scored({"a": answer}, {"a": gold})
        assert one.slots == {"a": {"correct": 5000 * leaves}}
        assert one.values["list_recall"] == 1
    half = scored({"a": loud[::-2]}, {"a": gold})
    assert half.slots == {"a": {"correct": 2500 * leaves, "omitted": 2500 * leaves}}
    assert half.values["list_recall"] == 0.5
    other = scored({"a": [f"other {i}" for i in range(5000)]}, {"a": gold}).slots["a"]
    assert other["wrong"] + other["omitted"] == 5000 * leaves
    assert other["wrong"] + other["invented"] == 5000


def test_a_file_with_thousands_of_invented_keys_has_a_short_table():
    record = {"reference": {"a": 1}, "completion": json.dumps({f"k{i}": i for i in range(20_000)})}
    lines = [json.dumps(record).encode()] * 3
    metrics = score_lines(lines, name="a.jsonl", task=EXTRACTION)
    assert {*metrics["slots"]} == {"a", EXTRA}
    assert metrics["slots"][EXTRA]["invented"] == 60_000
    assert metrics["slot_precision"] == 0
