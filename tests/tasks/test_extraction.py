"""Forty planted records counted by hand, and the same through a file and the command line."""

import json
from fractions import Fraction
from typing import Any, NamedTuple

import pytest

from nblib.__main__ import main
from nblib.evaluation.answers import score_answers
from nblib.evaluation.score_file import score_lines
from nblib.sources.rows import Row
from nblib.sources.shop_pages import SLOT_SPECS
from nblib.tasks.extraction import EXTRA, EXTRACTION, FAILURES, answer_schema, score
from nblib.tasks.task import Example, Score, check_task

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"compare": "number"}  # of any type: texts of many locales
ROOM = {"type": "object", "properties": {"name": TEXT, "beds": {"type": "integer"}}}
SPECS: dict[str, dict[str, Any]] = {
    "city": {**TEXT, "compare": "exact"},
    "people": {"type": "integer", "compare": "exact"},
    "parking": {"type": "boolean", "compare": "exact"},
    "name": {**TEXT, "compare": "normalized"},
    "tags": {"type": "array", "items": TEXT, "compare": "exact"},
    "rooms": {"type": "array", "items": ROOM},
    "address": {"type": "object", "properties": {"street": TEXT, "city": TEXT, "zip": TEXT}},
    "extras": {"type": "array", "items": TEXT, "compare": "set"},
    **dict.fromkeys(("price", "was", "tax"), NUMBER),
    **{name: {**TEXT, "compare": "date"} for name in ("day", "until")},
    **{name: {**TEXT, "compare": "fuzzy", "threshold": 0.9} for name in ("hotel", "guest")},
}
NEW_YORK = {"city": {**SPECS["city"], "accept": ["NYC", "New York City"]}}
CENT = {name: {**NUMBER, "tolerance": 0.01} for name in ("price", "was")}
BLUE, RED = {"name": "Blue", "beds": 2}, {"name": "Red", "beds": 1}
BONN = {"street": "Main St 1", "city": "Bonn", "zip": "53111"}

WIDE_YEN = "\uffe5\uff11\uff0c\uff12\uff13\uff14"  # ￥1,234 as wide as Japanese letters
COUNTED = ("correct", "wrong", "omitted", "invented", "true_null")
C, W, OM, INV, TN = ((*(int(one == which) for one in COUNTED),) for which in COUNTED)


class Planted(NamedTuple):
    """A record, and how its leaves are to be counted."""

    name: str
    reference: Any
    completion: Any  # a text, or a value that is written as one
    counts: dict[str, tuple[int, ...]]  # slot -> correct, wrong, omitted, invented, true null
    failure: str | None = None
    specs: dict[str, Any] | None = None  # in place of those in SPECS


PLANTED = [
    Planted(
        "all is right",
        {"city": "Paris", "people": 2},
        {"city": "Paris", "people": 2},
        {"city": C, "people": C},
    ),
    Planted("rightly null", {"city": None}, {"city": None}, {"city": TN}),
    Planted("invented", {"city": None}, {"city": "Paris"}, {"city": INV}, "invented"),
    Planted(
        "null, though it is there",
        {"city": "Paris", "people": 2},
        {"city": None, "people": 2},
        {"city": OM, "people": C},
        "omitted",
    ),
    Planted(
        "left out",
        {"city": "Paris", "people": 2},
        {"people": 2},
        {"city": OM, "people": C},
        "missing slot",
    ),
    Planted(
        "left out, and rightly null",
        {"city": None, "people": 2},
        {"people": 2},
        {"city": TN, "people": C},
        "missing slot",
    ),
    Planted(
        "extra slot",
        {"city": "Paris"},
        {"city": "Paris", "spa": "yes"},
        {"city": C, EXTRA: INV},
        "extra slot",
    ),
    Planted("text as a number", {"people": 2}, {"people": "two"}, {"people": W}, "wrong type"),
    Planted(
        "true is not 1",
        {"people": 1, "parking": True},
        {"people": True, "parking": 1},
        {"people": W, "parking": W},
        "wrong type",
    ),
    Planted(
        "false and 0 are values",
        {"people": 0, "parking": False},
        {"people": 0, "parking": False},
        {"people": C, "parking": C},
    ),
    Planted("accepted", {"city": "New York"}, {"city": "NYC"}, {"city": C}, None, NEW_YORK),
    Planted(
        "not accepted",
        {"city": "New York"},
        {"city": "Newark"},
        {"city": W},
        "wrong value",
        NEW_YORK,
    ),
    Planted(
        "half a list",
        {"tags": ["tea", "cake", "milk", "jam"]},
        {"tags": ["jam", "cake"]},
        {"tags": (2, 0, 2, 0, 0)},
        "omitted",
    ),
    Planted(  # a tea and a cake are found; the other tea stands against the other cake
        "repeats in a list",
        {"tags": ["tea", "tea", "cake"]},
        {"tags": ["cake", "tea", "cake"]},
        {"tags": (2, 1, 0, 0, 0)},
        "wrong value",
    ),
    Planted(
        "an item too many",
        {"tags": ["tea"]},
        {"tags": ["cake", "tea"]},
        {"tags": (1, 0, 0, 1, 0)},
        "invented",
    ),
    Planted(
        "objects in another order",
        {"rooms": [BLUE, RED]},
        {"rooms": [RED, BLUE]},
        {"rooms": (4, 0, 0, 0, 0)},
    ),
    Planted(  # it is Red: its name is right, its beds are not; Blue's leaves are both left out
        "one object of two",
        {"rooms": [BLUE, RED]},
        {"rooms": [{"name": "Red", "beds": 3}]},
        {"rooms": (1, 1, 2, 0, 0)},
        "omitted",
    ),
    Planted(  # the city is right, the street is wrong, the zip is invented
        "an object in a slot",
        {"address": {**BONN, "zip": None}},
        {"address": {**BONN, "street": "Main St 2"}},
        {"address": (1, 1, 0, 1, 0)},
        "invented",
    ),
    Planted(
        "no object", {"address": BONN}, {"address": None}, {"address": (0, 0, 3, 0, 0)}, "omitted"
    ),
    Planted(
        "an empty text is null",
        {"name": "Ada", "city": None},
        {"name": "", "city": " "},
        {"name": OM, "city": TN},
        "omitted",
    ),
    Planted(
        "an empty list is null, and so is an empty object",
        {"tags": [], "address": None},
        {"tags": None, "address": {"street": None, "city": "", "zip": None}},
        {"tags": TN, "address": TN},
    ),
    Planted(
        "en-US, de-DE, fr-FR",
        {"price": 1234.5, "was": 1234.5, "tax": 1234.5},
        {"price": "$1,234.50", "was": "1.234,50 €", "tax": "1\u202f234,50"},
        {"price": C, "was": C, "tax": C},
    ),
    Planted(
        "de-CH, hi-IN, ar-EG",
        {"price": 1234.5, "was": 123456, "tax": 1234},
        {"price": "CHF 1’234.50", "was": "₹1,23,456.00", "tax": "\u0661\u066c\u0662\u0663\u0664"},
        {"price": C, "was": C, "tax": C},
    ),
    Planted(
        "pt-BR, ja-JP, sv-SE",
        {"price": 1234.5, "was": 1234, "tax": -1234.5},
        {"price": "R$ 1.234,50", "was": WIDE_YEN, "tax": "\u22121\u00a0234,50"},
        {"price": C, "was": C, "tax": C},
    ),
    Planted(
        "other numbers",
        {"price": 1234.5, "was": 12, "tax": 0.5},
        {"price": "1,234.60", "was": "12 or 13", "tax": "n/a"},
        {"price": W, "was": W, "tax": W},
        "wrong value",
    ),
    Planted(  # 0.01 is within, 0.02 is not; binary fractions would say that both are off
        "tolerance",
        {"price": 9.99, "was": 9.99},
        '{"price": 10.00, "was": 10.01}',
        {"price": C, "was": W},
        "wrong value",
        CENT,
    ),
    Planted(
        "dates",
        {"day": "2024-05-01", "until": "2024-05-03"},
        {"day": "20240501", "until": "2024-03-05"},
        {"day": C, "until": W},
        "wrong value",
    ),
    Planted(  # 20 of 21 characters are common, 0.95; "ada " and an o are 10 of 21, 0.48
        "fuzzy",
        {"hotel": "Grand Hotel", "guest": "Ada Lovelace"},
        {"hotel": "GRAND HOTL", "guest": "Ada Byron"},
        {"hotel": C, "guest": W},
        "wrong value",
    ),
    Planted(
        "a set",
        {"extras": ["spa", "bar", "gym"]},
        {"extras": ["gym", "spa", "spa", "bar"]},
        {"extras": (3, 0, 0, 0, 0)},
    ),
    Planted(
        "half a set",
        {"extras": ["spa", "bar"]},
        {"extras": ["bar", "bar", "pool"]},
        {"extras": (1, 1, 0, 0, 0)},
        "wrong value",
    ),
    Planted(
        "dashes and spaces",
        {"name": "Saint-Étienne 5–6"},
        {"name": " SAINT\u2010E\u0301TIENNE\u00a0\u20095\u20146"},
        {"name": C},
    ),
    Planted("exact keeps case", {"city": "Bonn"}, {"city": "bonn"}, {"city": W}, "wrong value"),
    Planted(
        "a key twice",
        {"city": "Paris"},
        '{"city": "Paris", "city": "Paris"}',
        {"city": OM},
        "not strict JSON",
    ),
    Planted(
        "prose behind",
        {"city": "Paris", "people": 2},
        '{"city": "Paris", "people": 2} Enjoy!',
        {"city": OM, "people": OM},
        "prose around",
    ),
    Planted(  # four leaves of the rooms; of the city, which is null, nothing can be said
        "truncated",
        {"rooms": [BLUE, RED], "city": None},
        '{"rooms": [{"name": "Blue", "be',
        {"rooms": (0, 0, 4, 0, 0)},
        "truncated",
    ),
    Planted("no number", {"price": 5}, '{"price": NaN}', {"price": OM}, "not strict JSON"),
    Planted(
        "a list",
        {"city": "Paris", "people": 2},
        '["Paris", 2]',
        {"city": OM, "people": OM},
        "not an object",
    ),
    Planted("YES", "YES", "YES\n", {"answer": C}),
    Planted("NO for YES", "YES", "NO", {"answer": W}, "wrong value"),
    Planted("a sentence for NO", "NO", "No, it leads nowhere.", {"answer": OM}, "other word"),
]

# Added up by hand: correct, wrong, omitted, invented, true null of each slot.
BY_SLOT = {
    "city": (3, 2, 5, 1, 3),
    "people": (5, 2, 2, 0, 0),
    "parking": (1, 1, 0, 0, 0),
    "tags": (5, 1, 2, 1, 1),
    "rooms": (5, 1, 6, 0, 0),
    "address": (1, 1, 3, 1, 1),
    "name": (1, 0, 1, 0, 0),
    "price": (4, 1, 1, 0, 0),
    "was": (3, 2, 0, 0, 0),
    "tax": (3, 1, 0, 0, 0),
    "day": (1, 0, 0, 0, 0),
    "until": (0, 1, 0, 0, 0),
    "hotel": (1, 0, 0, 0, 0),
    "guest": (0, 1, 0, 0, 0),
    "extras": (4, 1, 0, 0, 0),
    "answer": (1, 1, 1, 0, 0),
    EXTRA: (0, 0, 0, 1, 0),
}
# slot -> n = correct + wrong + omitted, precision, recall, F1 = 2c / (2c + 2w + o + i)
FIGURES: dict[str, tuple] = {
    "city": (10, Fraction(3, 6), Fraction(3, 10), Fraction(6, 16)),
    "people": (9, Fraction(5, 7), Fraction(5, 9), Fraction(10, 16)),
    "parking": (2, Fraction(1, 2), Fraction(1, 2), Fraction(1, 2)),
    "tags": (8, Fraction(5, 7), Fraction(5, 8), Fraction(10, 15)),
    "rooms": (12, Fraction(5, 6), Fraction(5, 12), Fraction(10, 18)),
    "address": (5, Fraction(1, 3), Fraction(1, 5), Fraction(2, 8)),
    "name": (2, 1, Fraction(1, 2), Fraction(2, 3)),
    "price": (6, Fraction(4, 5), Fraction(4, 6), Fraction(8, 11)),
    "was": (5, Fraction(3, 5), Fraction(3, 5), Fraction(3, 5)),
    "tax": (4, Fraction(3, 4), Fraction(3, 4), Fraction(3, 4)),
    "day": (1, 1, 1, 1),
    "until": (1, 0, 0, 0),
    "hotel": (1, 1, 1, 1),
    "guest": (1, 0, 0, 0),
    "extras": (5, Fraction(4, 5), Fraction(4, 5), Fraction(4, 5)),
    "answer": (3, Fraction(1, 2), Fraction(1, 3), Fraction(2, 5)),
    EXTRA: (0, 0, None, 0),
}
# 38 right, 16 wrong, 21 omitted, 4 invented.
POOLED = {
    "slot_precision": 38 / 58,
    "slot_recall": 38 / 75,
    "slot_f1": 76 / 133,
    "schema_valid": 29 / 40,  # 6 are no object, or word; 2 lack a slot, 1 has too many, 2 types
    "parse_strict": 34 / 40,
    "perfect_record": 13 / 40,
    "list_recall": 12 / 19,  # 2 of 4, 2 of 3, 1 of 1, 2 of 2, 1 of 2, 3 of 3, 1 of 2, 0 of 2
}
FAILED = {
    **dict.fromkeys(("truncated", "prose around", "not an object", "other word", "extra slot"), 1),
    **{"not strict JSON": 2, "missing slot": 2, "wrong type": 2},
    **{"invented": 3, "omitted": 5, "wrong value": 9},
}


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


UNREAD = [*FAILURES][:7]  # of these a completion has no slots


def specs_of(reference: Any) -> dict[str, Any]:
    """Return the specification of a reference's slots; of a word there is none."""
    return {name: SPECS[name] for name in reference} if isinstance(reference, dict) else {}


RECORDS = [
    {
        "id": one.name,
        "reference": one.reference,
        "completion": written(one.completion),
        "slot_specs": specs_of(one.reference) | (one.specs or {}),
    }
    for one in PLANTED
]
NAMES = [one.name for one in PLANTED]


def scored(
    completion: Any, reference: Any, specs: dict[str, Any] | None = None, question: str = ""
) -> Score:
    return score(written(completion), example(reference, specs, question))


def example(reference: Any, specs: dict[str, Any] | None = None, question: str = "") -> Example:
    return Example(
        id="1", prompt=question, completion="", reference=reference, slot_specs=specs or {}
    )


def encoded(records: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(record).encode() for record in records]


@pytest.mark.parametrize(("place", "planted"), [*enumerate(PLANTED)], ids=NAMES)
def test_a_planted_record(place, planted):
    record, counts, failure = RECORDS[place], planted.counts, planted.failure
    one = scored(record["completion"], record["reference"], record["slot_specs"])
    assert {s: tuple(n.get(k, 0) for k in COUNTED) for s, n in one.slots.items()} == counts
    assert one.failure == failure
    correct, wrong, omitted, invented, _ = map(sum, zip(*counts.values(), strict=True))
    parts = {
        "slot_precision": (correct, correct + wrong + invented),
        "slot_recall": (correct, correct + wrong + omitted),
        "slot_f1": (2 * correct, 2 * correct + 2 * wrong + omitted + invented),
    }
    for name, (share, of) in parts.items():
        assert one.weights[name] == of
        assert not of or one.values[name] == pytest.approx(share / of)
    is_read = failure not in UNREAD
    assert one.values["parse_strict"] == is_read
    assert one.values["perfect_record"] == (is_read and not wrong + omitted + invented)
    assert one.values["schema_valid"] == (
        is_read and failure not in ("missing slot", "extra slot", "wrong type")
    )
    assert (one.details == {}) == one.values["schema_valid"]
    assert (one.answer is None) == (not is_read)


def test_the_table_adds_up():
    assert len(PLANTED) == 40
    for slot, counts in BY_SLOT.items():
        rows = [one.counts[slot] for one in PLANTED if slot in one.counts]
        assert tuple(map(sum, zip(*rows, strict=True))) == counts
        correct, wrong, omitted, _, _ = counts
        assert FIGURES[slot][0] == correct + wrong + omitted
    assert [sum(column) for column in zip(*BY_SLOT.values(), strict=True)] == [38, 16, 21, 4, 5]


def test_figures_of_the_forty_are_pooled_over_leaves():
    metrics = score_lines(encoded(RECORDS), name="planted.jsonl", task=EXTRACTION)
    assert {name: metrics[name] for name in POOLED} == pytest.approx(POOLED)
    assert (metrics["n"], metrics["failures"]) == (40, FAILED)
    assert {*metrics["slots"]} == {*FIGURES}
    for slot, expected in FIGURES.items():
        found = [metrics["slots"][slot][name] for name in ("n", "precision", "recall", "f1")]
        right = [None if one is None else float(one) for one in expected]
        assert found == [None if one is None else pytest.approx(one) for one in right], slot
        low, high = metrics["slots"][slot]["f1_ci95"]
        assert 0 <= low <= right[3] <= high <= 1
    assert json.loads(json.dumps(metrics)) == metrics


def test_the_mean_of_the_records_is_another_figure():
    each = [scored(one["completion"], one["reference"], one["slot_specs"]) for one in RECORDS]
    mean = sum(one.values["slot_f1"] for one in each) / 40
    assert abs(mean - POOLED["slot_f1"]) > 0.01


def test_the_command_line_says_the_same(tmp_path, capsys):
    path = tmp_path / "planted.jsonl"
    path.write_bytes(b"\n".join(encoded(RECORDS)))
    assert main(["score", str(path), "--task", "extraction"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == score_lines(encoded(RECORDS), name="planted.jsonl", task=EXTRACTION)
    assert main(["score", str(path)]) == 1  # no answer of theirs is a number


def test_a_stage_of_the_same_records_has_the_same_figures():
    # The last one is null and cannot be read: it counts in no share, and in every rate.
    records = [*RECORDS, {"id": "41", "reference": {"city": None}, "completion": "Nowhere."}]
    stage = score_answers("tuned", [one | {"group": "hotels"} for one in records], EXTRACTION)
    lines = score_lines(encoded(records), name="planted.jsonl", task=EXTRACTION)
    for name in (*EXTRACTION.metric_names, "slots"):
        assert stage.metrics[name] == lines[name] == stage.by_group["hotels"][name], name
    assert lines["slot_f1"] == pytest.approx(POOLED["slot_f1"])
    assert lines["parse_strict"] == pytest.approx(34 / 41)


def test_other_orders_of_records_slots_and_items_change_nothing():
    turned = [one | {"completion": flipped(one["completion"])} for one in RECORDS[::-1]]
    before, after = (
        score_lines(encoded(records), name="planted.jsonl", task=EXTRACTION)
        for records in (RECORDS, turned)
    )
    assert before["slots"].keys() == after["slots"].keys()
    assert all(before["slots"][slot] == after["slots"][slot] for slot in FIGURES)
    assert {**before, "slots": 0} == {**after, "slots": 0}


def flipped(completion: str) -> str:
    """Return an object's keys, and its lists' items, in the opposite order; other text as it is."""
    try:
        value = json.loads(completion)
    except ValueError:
        return completion
    twice = isinstance(value, dict) and completion.count('"city": ') > 1
    return json.dumps(turned_round(value)) if isinstance(value, dict) and not twice else completion


def turned_round(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: turned_round(value[name]) for name in [*value][::-1]}
    return [*map(turned_round, value[::-1])] if isinstance(value, list) else value


# Records without a specification, or with a part of one.


def test_without_a_specification_texts_are_compared_normalized_and_all_else_exactly():
    reference = {"name": "Café Noir", "people": 2, "parking": True, "tags": ["a"], "spa": None}
    one = scored({**reference, "name": "CAFÉ  NOIR"}, reference)
    assert (one.failure, one.values["perfect_record"]) == (None, True)
    one = scored({"name": 5, "people": 3, "parking": "yes", "tags": ["b"], "spa": 1}, reference)
    assert one.failure == "wrong type"
    assert sum(counts.get("wrong", 0) for counts in one.slots.values()) == 4
    assert one.slots["spa"] == {"invented": 1}


def test_a_slot_that_the_specification_leaves_out_is_a_slot_all_the_same():
    reference = {"city": "Paris", "price": 5}
    one = scored(reference, reference, {"price": NUMBER})
    assert (one.failure, one.values["slot_f1"], [*one.slots]) == (None, 1, ["price", "city"])
    assert scored({"price": 5}, reference, {"price": NUMBER}).failure == "missing slot"


def test_a_slot_that_the_reference_leaves_out_is_null():
    specs = {"city": TEXT, "price": NUMBER}
    assert scored({"city": "Paris", "price": None}, {"city": "Paris"}, specs).failure is None
    one = scored({"city": "Paris", "price": 5}, {"city": "Paris"}, specs)
    assert (one.failure, one.slots["price"]) == ("invented", {"invented": 1})


def test_a_long_text_of_which_nothing_is_said_is_valid():
    reference = {"text": "x " * 5000}
    assert scored(reference, reference).failure is None


def test_nothing_asked_for_and_nothing_answered_is_perfect():
    for reference in ({}, {"city": None}):
        one = scored(reference, reference)
        assert (one.failure, one.values["perfect_record"]) == (None, True)
        assert one.values["slot_f1"] == 1 and one.weights["slot_f1"] == 0
        unread = scored("Nothing.", reference)
        assert (unread.values["perfect_record"], unread.values["slot_f1"]) == (False, 0)


@pytest.mark.parametrize("accept", [[None], [""], [[]], [["a"]], ["a"]])
def test_of_a_text_that_cannot_be_read_every_leaf_of_gold_is_omitted(accept):
    specs = {"tags": {"accept": accept}}
    one = scored("oops", {"tags": ["a", "b", "c"]}, specs)
    assert one.slots == {"tags": {"omitted": 3}}
    assert (one.values["perfect_record"], one.weights["list_recall"]) == (False, 3)


def test_slots_that_nobody_asked_for_stand_together():
    one = scored({"city": "Paris", "a": 1, "b": {"c": [2, 3]}, "d": None}, {"city": "Paris"})
    assert one.slots["city"] == {"correct": 1}
    assert {*one.slots} == {"city", EXTRA}
    assert one.slots[EXTRA]["invented"] == 3
    assert one.values["slot_precision"] == pytest.approx(1 / 4)


# Grounding: the share of leaves declared verbatim that stand in the page.

PAGE = "Mug  ROSA \u2013 now 12,50 EUR.\nHand made in Faenza."
VERBATIM = {**TEXT, "verbatim": True}


@pytest.mark.parametrize(
    ("answer", "specs", "grounded", "weight"),
    [
        ({"name": "Mug Rosa"}, {"name": VERBATIM}, 1, 1),
        ({"name": "rosa - now"}, {"name": VERBATIM}, 1, 1),  # another dash, another case
        ({"name": "Mug Blue"}, {"name": VERBATIM}, 0, 1),
        ({"name": "Mug Blue"}, {"name": TEXT}, None, 0),
        ({"name": None}, {"name": VERBATIM}, None, 0),
        ({"name": ""}, {"name": VERBATIM}, None, 0),
        ({"name": "Mug", "city": "Bonn"}, {"name": VERBATIM, "city": VERBATIM}, 1 / 2, 2),
        ({"tags": ["mug", "rosa", "cup"]}, {"tags": {"type": "array", "verbatim": True}}, 2 / 3, 3),
        ({"tags": ["mug", "cup"]}, {"tags": {"type": "array", "items": VERBATIM}}, 1 / 2, 2),
        (  # of an object's own slots the declared ones alone count
            {"maker": {"city": "Faenza", "name": "Ita"}},
            {"maker": {"type": "object", "properties": {"city": VERBATIM, "name": TEXT}}},
            *(1, 1),
        ),
        (
            {"rooms": [{"name": "Mug"}, {"name": "Cup"}]},
            {
                "rooms": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"name": VERBATIM}},
                }
            },
            *(1 / 2, 2),
        ),
    ],
)
def test_grounding(answer, specs, grounded, weight):
    one = scored(answer, dict.fromkeys(answer), specs, PAGE)
    assert one.weights["grounded"] == weight
    assert grounded is None or one.values["grounded"] == pytest.approx(grounded)
    without_page = scored(answer, dict.fromkeys(answer), specs)
    assert without_page.weights["grounded"] == 0


def test_grounding_of_a_file_comes_from_its_questions():
    records = [
        {"reference": {"name": "Rosa"}, "completion": json.dumps({"name": name})}
        | {"slot_specs": {"name": VERBATIM}, "question": PAGE}
        for name in ("Rosa", "mug rosa", "Blue", None)
    ]
    metrics = score_lines(encoded(records), name="a.jsonl", task=EXTRACTION)
    assert metrics["grounded"] == pytest.approx(2 / 3)
    for record in records:
        del record["question"]
    for unknown in (records, [one | {"question": None} for one in records]):
        metrics = score_lines(encoded(unknown), name="a.jsonl", task=EXTRACTION)
        assert (metrics["grounded"], metrics["grounded_ci95"]) == (None, None)


# Words.


@pytest.mark.parametrize(
    ("completion", "reference", "specs", "failure"),
    [
        ("YES", "YES", {}, None),
        (" NO \n", "NO", {}, None),
        ("yes", "YES", {}, "other word"),
        ("YES.", "YES", {}, "other word"),
        ("YES NO", "YES", {}, "other word"),
        ('"YES"', "YES", {}, "other word"),
        ('{"answer": "YES"}', "YES", {}, "other word"),
        ("", "NO", {}, "other word"),
        ("Bologna", "bologna", {}, None),  # any text
        ("Rome", "Bologna", {}, "wrong value"),
        (" ", "Bologna", {}, "other word"),
        ("shop", "shop", {"answer": {"enum": ["shop", "blog"]}}, None),
        ("blog", "shop", {"answer": {"enum": ["shop", "blog"]}}, "wrong value"),
        ("wiki", "shop", {"answer": {"enum": ["shop", "blog"]}}, "other word"),
        ("store", "shop", {"answer": {"accept": ["store"]}}, None),
    ],
)
def test_a_word(completion, reference, specs, failure):
    one = scored(completion, reference, specs)
    assert one.failure == failure
    assert one.values["schema_valid"] == (failure != "other word")
    assert one.answer == (None if failure == "other word" else completion.strip())
    assert one.weights["slot_recall"] == 1


@pytest.mark.parametrize("reference", [None, 5, True, ["YES"], 1.5])
def test_a_reference_that_is_neither_an_object_nor_a_word_is_an_error(reference):
    with pytest.raises(ValueError, match="expected an object or a text"):
        scored("{}", reference)


# Where a completion breaks its schema.


@pytest.mark.parametrize(
    ("completion", "failure", "path", "said"),
    [
        ({}, "missing slot", "", "'city' is a required property"),
        ({**dict.fromkeys(SPECS), "spa": 1}, "extra slot", "", "'spa' was unexpected"),
        ({**dict.fromkeys(SPECS), "city": 5}, "wrong type", "city", "5 is not of type 'string'"),
        ({**dict.fromkeys(SPECS), "people": 1.5}, "wrong type", "people", "1.5 is not of type"),
        ({**dict.fromkeys(SPECS), "tags": "a"}, "wrong type", "tags", "'a' is not of type 'array'"),
        ({**dict.fromkeys(SPECS), "tags": ["a", 5]}, "wrong type", "tags[1]", "5 is not of type"),
        (
            {**dict.fromkeys(SPECS), "address": {}},
            "wrong type",
            "address",
            "'street' is a required",
        ),
        (
            {**dict.fromkeys(SPECS), "rooms": [{"name": "Red", "beds": "2"}]},
            *("wrong type", "rooms[0].beds", "'2' is not of type 'integer'"),
        ),
        ({**dict.fromkeys(SPECS), "city": "x" * 1001}, "wrong type", "city", "is too long"),
        ({**dict.fromkeys(SPECS), "tags": ["x"] * 101}, "wrong type", "tags", "is too long"),
    ],
)
def test_details_say_what_is_wrong_and_where(completion, failure, path, said):
    one = scored(completion, dict.fromkeys(SPECS), SPECS)
    assert (one.failure, one.details["path"]) == (failure, path)
    assert said in one.details["message"]


def test_of_a_completion_that_breaks_its_schema_the_leaves_are_compared_all_the_same():
    one = scored({"price": "5", "more": 1}, {"price": 5}, {"price": {**NUMBER, "type": "number"}})
    assert one.values["schema_valid"] is False
    assert one.slots["price"] == {"correct": 1}


# Rows, schemas and the task itself.


def row(**changes: Any) -> Row:
    reference = {"name": "Mug", "price": 12.5}
    specs = {"name": VERBATIM, "price": {"type": "number"}}
    fields = {"prompt": "Mug, 12,50 EUR", "response": reference, "slot_specs": specs, **changes}
    kept = {name: value for name, value in fields.items() if value != "left out"}
    return Row(id="shop/train/7", fields=kept, place="train.jsonl line 8", group="shop")


def test_a_row_becomes_an_example():
    (made,) = EXTRACTION.examples([row(response={"price": 12.5, "name": "Mug"})])
    assert made.completion == '{"name": "Mug", "price": 12.5}'  # in the specification's order
    assert (made.reference, made.group) == ({"name": "Mug", "price": 12.5}, "shop")
    check_task(EXTRACTION, [made])
    (word,) = EXTRACTION.examples([row(response="YES", slot_specs={})])
    assert (word.completion, word.reference) == ("YES", "YES")
    check_task(EXTRACTION, [word])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "left out"}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"response": None}, "response"),
        ({"response": {"name": "Mug"}}, "slot price: missing"),
        ({"response": {"name": "Mug", "price": 1, "more": 2}}, "slot more: in the response"),
        ({"response": {"name": "Mug", "price": "1"}}, "slot price: '1' is not"),
        ({"slot_specs": {}}, "slot_specs is empty"),
        ({"slot_specs": {"name": {"compare": "alike"}, "price": {}}}, "slot name.compare"),
        ({"slot_specs": {"name": {"pattern": "M.*"}, "price": {}}}, "slot name.pattern"),
    ],
)
def test_a_row_that_is_no_example_is_named(changes, said):
    with pytest.raises(ValueError, match=rf"^train.jsonl line 8 \(shop/train/7\): .*{said}"):
        EXTRACTION.examples([row(**changes)])
    assert EXTRACTION.normalise([row(**changes), row()]) == (row(),)


def test_the_schema_of_a_completion():
    schema = answer_schema(example({"name": "Mug"}, dict(SLOT_SPECS)))
    assert isinstance(schema, dict)
    assert [*schema["properties"]] == schema["required"] == [*SLOT_SPECS]
    assert schema["additionalProperties"] is False
    assert answer_schema(example("YES")) == ("YES", "NO")
    assert answer_schema(example("shop", {"answer": {"enum": ["shop", "blog"]}})) == (
        *("shop", "blog"),
    )
    with pytest.raises(ValueError, match="slot price has no type"):
        answer_schema(example({"price": 1}, {"price": NUMBER}))
    with pytest.raises(ValueError, match="name its words as an enum"):
        answer_schema(example("Bologna"))


@pytest.mark.parametrize(
    ("reference", "completion", "spec", "valid"),
    [
        ("12", 12, {"compare": "exact"}, False),
        ("red", ["red"], {"compare": "normalized"}, False),
        (True, "true", {}, False),
        (["S"], "S", {}, False),
        (["S"], ["S", ["M"]], {}, False),
        (5, 5.5, {"compare": "exact"}, True),
        (12.5, "12,50", {"compare": "number"}, True),  # the comparator takes texts
        (12.5, "12,50", {"compare": "number", "type": "number"}, False),
        ("12", 12, {"accept": [12]}, True),
        (None, 3, {}, True),  # nothing is known of its type
        ({"a": 1}, "x", {}, True),
        ("red", None, {}, True),
        ("red", None, {"nullable": False}, False),
    ],
)
def test_a_slot_without_a_type_has_that_of_its_right_values(reference, completion, spec, valid):
    example = Example(
        id="1", prompt="", completion="", reference={"a": reference}, slot_specs={"a": spec}
    )
    assert EXTRACTION.score(json.dumps({"a": completion}), example).values["schema_valid"] is valid
