"""The envelope's verdicts, each decided by hand; its rows, its rewards and the command line."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.__main__ import main
from nblib.files import to_jsonable
from nblib.sources.rows import Row
from nblib.sources.travel import travel_requests
from nblib.tasks.envelope import ENVELOPE, FAILURES, FIELDS, PAYLOAD_TYPES, notes_metrics, score
from nblib.tasks.rewards import reward_function, reward_weights
from nblib.tasks.task import Example, check_task

PAYLOADS = {
    "itinerary": {
        "title": "Lisbon",
        "trip_days": [
            {
                "day": 1,
                "summary": "Food",
                "items": [{"time_block": "morning", "activity": "Eat at the market"}],
            }
        ],
    },
    "checklist": {
        "title": "Packing",
        "items": [{"item": "hat", "reason": "the sun", "required": True}],
    },
    "decision_tree": {
        "question": "Train or bus?",
        "branches": [{"condition": "time is short", "choice": "train"}],
        "otherwise": "bus",
    },
    "procedure": {
        "title": "Rent a car",
        "steps": [{"step": 1, "action": "Find the office", "check": "it is open"}],
    },
}


def envelope(kind: str = "itinerary", /, **changes: object) -> dict:
    return {
        "summary": "Two days in Lisbon.",
        "assumptions": ["You walk."],
        "uncertainty_notes": "Hours may differ.",
        "next_steps": ["Book a room."],
        "verification_steps": ["Check the hours."],
        "payload_type": kind,
        "payload": PAYLOADS.get(kind),
        **changes,
    }


def text(kind: str = "itinerary", /, **changes: object) -> str:
    return json.dumps(envelope(kind, **changes), ensure_ascii=False)


def without(*names: str) -> str:
    return json.dumps({name: one for name, one in envelope().items() if name not in names})


def renamed(old: str, new: str) -> str:
    """Return an envelope in which a field has another name, at the same place."""
    return swap(IT, f'"{old}": ', f'"{new}": ')


def swap(whole: str, old: str, new: str) -> str:
    assert old in whole
    return whole.replace(old, new, 1)


def upto(whole: str, last: str) -> str:
    """Return a text cut behind the first place where `last` stands."""
    return whole[: whole.index(last) + len(last)]


IT, CL, DT, PR = map(text, PAYLOADS)
NESTED = json.dumps({"envelope": envelope()})
DEEP = "[" * 10_000 + "]" * 10_000
MEGABYTE = 1_000_000

# What the metrics say besides schema_valid, which holds where there is no failure.
VALID = dict.fromkeys((name for name in ENVELOPE.metric_names if name != "schema_valid"), 1)
NOTHING = dict.fromkeys(VALID, 0)
FOUND = VALID | {"parse_strict": 0}  # a whole envelope, in a completion that is not strict
OTHER = NOTHING | {"json_found": 1, "root_is_object": 1}  # an object that is no envelope
STRICT = NOTHING | {"parse_strict": 1}
BARE = OTHER | {"parse_strict": 1}
UNORDERED, UNMARKED = {"field_order": 0}, {"uncertainty_marked": 0}
NO_PAYLOAD, NO_ENVELOPE = {"payload_valid": 0}, {"envelope_valid": 0}
ONE_LESS = VALID | NO_ENVELOPE | UNORDERED | {"fields_present": 6 / 7}
BAD_FIELD = VALID | NO_ENVELOPE
BAD_PAYLOAD = VALID | NO_PAYLOAD
NEITHER = VALID | NO_ENVELOPE | NO_PAYLOAD

# Failure -> (completion, metrics, the type that was asked for where it is no itinerary)
CASES: dict[str | None, list[tuple]] = {
    "no JSON": [
        ("[1] [2]", NOTHING),
        ("Trams [1] and hills [2].", NOTHING),
        ("- [ ] hat\n- [ ] coat", NOTHING),  # boxes to tick
        ("", NOTHING),
        (" \n\t ", NOTHING),
        ("Book a room and take the tram.", NOTHING),
        ("- passport\n- hat", NOTHING),
        ("summary: Lisbon\npayload_type: itinerary", NOTHING),
        ("<summary>Lisbon</summary>", NOTHING),
        ("[Lisbon](https://example.org) in two days", NOTHING),
        ("{summary: Lisbon, payload: none}", NOTHING),
        ("{'summary': 'Lisbon'}", NOTHING),
        ("Sure! Here it is: {...}", NOTHING),
        ("NaN", NOTHING),
        ("x" * MEGABYTE, NOTHING),
        (IT.replace('"', r"\""), NOTHING),  # escaped, as a text in a text is
        (IT.replace('"', "“"), NOTHING),
        # Broken: what stands inside is a part, no root.
        (swap(IT, '"summary": ', '"summary" '), NOTHING),
        (swap(IT, "Lisbon", r"Lisbon\'s"), NOTHING),
        (swap(IT, '"assumptions"', '/* none */ "assumptions"'), NOTHING),
        (swap(IT, '"day": 1', '"day":\u00a01'), NOTHING),
        (swap(IT, '"day": 1', '"day": 01'), NOTHING),
        (swap(CL, "true", "True"), NOTHING, "checklist"),
        (IT[:-1] + ",}", NOTHING),
        (IT[:-1] + "]", NOTHING),
    ],
    "truncated": [
        ("{", NOTHING),
        ("[", NOTHING),
        ("{ \n", NOTHING),
        ("Sure: {", NOTHING),
        ('{"', NOTHING),
        (upto(IT, '"summary"'), NOTHING),
        (upto(IT, '"summary":'), NOTHING),
        (upto(IT, "Two days"), NOTHING),
        (upto(IT, "Two days") + " \n", NOTHING),
        (upto(IT, 'Lisbon.",'), NOTHING),
        (upto(IT, '["You'), NOTHING),
        (upto(IT, '"You walk."'), NOTHING),
        (upto(IT, '"payload": {'), NOTHING),
        (upto(IT, '"day": '), NOTHING),
        (upto(IT, '"day": 1'), NOTHING),
        (IT[:-1], NOTHING),
        (IT[:-3] + "\n", NOTHING),
        (upto(CL, "tru"), NOTHING, "checklist"),
        (upto(CL, "tru") + "\n", NOTHING, "checklist"),
        ('{"day": -', NOTHING),
        ('{"day": 1.', NOTHING),
        ('{"day": 1.5e', NOTHING),
        ('{"day": 1E+', NOTHING),
        ('{"summary": nul', NOTHING),
        ('{"summary": -Inf', NOTHING),
        ('{"summary": "a\\', NOTHING),
        ('{"summary": "a\\u', NOTHING),
        ('{"summary": "a\\u00e', NOTHING),
        ('{"summary": "\\ud83d\\ude', NOTHING),
        ("```json\n" + IT[:-9], NOTHING),
        ("[" + IT, NOTHING),
        (f"[{IT}, ", NOTHING),
        (IT + upto(IT, "Two"), FOUND),
        (f"{IT}\n[{{", FOUND),
        ("[" * 500, NOTHING),
        ("[" * 10_000, NOTHING),
        ('{"a":' * 10_000, NOTHING),
        (upto(IT, "Two") + "x" * MEGABYTE, NOTHING),
    ],
    "several values": [
        (IT + IT, FOUND),
        (f"{IT}\n{IT}\n", FOUND),
        (f"{IT},{IT}", FOUND),
        (IT + "{}", FOUND),
        ("{}" + IT, OTHER),  # the first one counts
        ("{}{}", OTHER),
        (f"{IT} {CL}", FOUND),
        (f"{CL} {IT}", FOUND | NO_PAYLOAD),
        (f"Either {IT} or {IT}.", FOUND),
        (f"```json\n{IT}\n```\n```json\n{IT}\n```", FOUND),
        (IT + '{"a": NaN}', FOUND),
        ('{"a": 1}\n{"b": 2}\n{"c": 3}', OTHER),
        ('{"a":1}' * (MEGABYTE // 7), OTHER),
        (f"[{IT}][{IT}]", NOTHING | {"json_found": 1}),
        ('{"a":' * 10_000 + "1" + "}" * 10_000 + IT, OTHER),
    ],
    "prose around": [
        ("Sure! " + IT, FOUND),
        (IT + "\nHave a good trip!", FOUND),
        (f"```json\n{IT}\n```", FOUND),
        (f"```\n{IT}\n```", FOUND),
        ("```json\n" + IT, FOUND),
        ("json\n" + IT, FOUND),
        (f"<think>food</think>{IT}", FOUND),
        (IT + "<end_of_turn>", FOUND),
        (IT + "}", FOUND),
        (f"{{{IT}}}", FOUND),
        (f"({IT})", FOUND),
        (IT + ",", FOUND),
        (IT + " tru", FOUND),
        ("null " + IT, FOUND),
        (IT + ' "done"', FOUND),
        ("\ufeff" + IT, FOUND),
        (IT + "\x00", FOUND),
        (f"It is {{so}} easy: {IT}", FOUND),
        ('Like {"summary": ...}: ' + IT, FOUND),
        (IT + " x" * (MEGABYTE // 2), FOUND),
        ("Sure! " + DT, FOUND | NO_PAYLOAD),
        ("Sure! " + without("verification_steps"), ONE_LESS | {"parse_strict": 0}),
        ("Sure! " + swap(IT, "time_block", "time_buffer"), FOUND | NO_PAYLOAD),
        (f"Sure! [{IT}]", NOTHING | {"json_found": 1}),
        ("Sure! " + NESTED, OTHER),
        (IT[1:], OTHER),  # an object is found in it: the payload
    ],
    "not strict JSON": [
        (swap(IT, '{"summary"', '{"summary": "", "summary"'), FOUND),
        (swap(IT, '{"summary"', '{"\\u0073ummary": "", "summary"'), FOUND),
        (swap(IT, '"day": 1', '"day": 1, "day": 1'), FOUND),
        (swap(IT, '"day": 1', '"day": NaN'), FOUND | NO_PAYLOAD),
        (swap(IT, '"day": 1', '"day": Infinity'), FOUND | NO_PAYLOAD),
        (swap(IT, '"day": 1', '"day": -Infinity'), FOUND | NO_PAYLOAD),
        (swap(IT, '"day": 1', '"day": 1e999'), FOUND | NO_PAYLOAD),
        (swap(IT, '"day": 1', f'"day": {"1" * 5000}'), FOUND | NO_PAYLOAD),
        (swap(IT, '"You walk."', "NaN"), FOUND | NO_ENVELOPE),
        ("[NaN]", NOTHING),
        ('{"a": -1e999}', OTHER),
        (swap(IT, "Two", r"\ud800"), FOUND),
        (swap(IT, "Two", r"\udc00"), FOUND),
        (swap(IT, "Two", r"\ude00\ud83d"), FOUND),
        (swap(IT, "Two", "\ud800"), FOUND),
        (swap(IT, '{"summary"', r'{"\udfff": 1, "summary"'), FOUND | NO_ENVELOPE),
        (swap(IT, "Two", r"\ud800" * (MEGABYTE // 6)), FOUND),
        (swap(IT, "Two days", "Two\ndays"), FOUND),  # a line break must be escaped in a text
        (swap(IT, "Two days", "Two\tdays"), FOUND),
        (swap(IT, "Two days", "Two\x00days"), FOUND),
        ("\u00a0" + IT, FOUND),  # white space, but not JSON's
        (IT + "\x0c", FOUND),
        ("[" * 65 + "]" * 65, NOTHING),
        ("[" * 65 + "1" + "]" * 65, NOTHING),
        (DEEP, NOTHING),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, OTHER),
        (swap(IT, '"title": "Lisbon"', f'"title": {"[" * 80}{"]" * 80}'), FOUND | NO_PAYLOAD),
        ("{" + "".join(f'"{n}": 1, ' for n in range(100_000)) + '"0": 1}', OTHER),
    ],
    "array root": [
        ("[]", STRICT),
        ("[1, 2]", STRICT),
        ("[null]", STRICT),
        ('["summary", "assumptions"]', STRICT),
        (f"[{IT}]", STRICT | {"json_found": 1}),
        (f" [\n{IT}\n]\n", STRICT | {"json_found": 1}),
        (f"[{IT}, {IT}]", STRICT | {"json_found": 1}),
        (f"[[1, [{IT}]]]", STRICT | {"json_found": 1}),
        (json.dumps([*envelope().values()]), STRICT | {"json_found": 1}),
        ("[" + "1, " * (MEGABYTE // 3) + "1]", STRICT),
        ("[" * 64 + "]" * 64, STRICT),
    ],
    "missing fields": [
        ("{}", BARE),
        (NESTED, BARE),
        ('{"Summary": "Lisbon"}', BARE),
        ('{"": null}', BARE),
        (json.dumps(PAYLOADS["itinerary"]), BARE),
        ('{"summary": "Lisbon"}', BARE | {"fields_present": 1 / 7}),
        (without("summary"), ONE_LESS),
        (without("assumptions"), ONE_LESS),
        (without("uncertainty_notes"), ONE_LESS | UNMARKED),
        (without("next_steps"), ONE_LESS),
        (without("verification_steps"), ONE_LESS),
        (without("payload_type"), ONE_LESS | NO_PAYLOAD),
        (without("payload"), ONE_LESS | NO_PAYLOAD),
        (
            without("verification_steps", "payload_type"),
            ONE_LESS | NO_PAYLOAD | {"fields_present": 5 / 7},
        ),
        # A field by another name is missing first, then one too many.
        (renamed("next_steps", "Next_Steps"), ONE_LESS),
        (renamed("next_steps", "next steps"), ONE_LESS),
        (renamed("next_steps", "next_\u0455teps"), ONE_LESS),  # a Cyrillic letter
        (renamed("assumptions", "assumption"), ONE_LESS),
        (renamed("payload", "itinerary"), ONE_LESS | NO_PAYLOAD),
        (swap(without("next_steps"), '["You walk."]', '"You walk."'), ONE_LESS),
    ],
    "extra fields": [
        (text(notes=""), BAD_FIELD),
        (text(version=1), BAD_FIELD),
        (text(envelope=envelope()), BAD_FIELD),
        (text(日本="Tokyo"), BAD_FIELD),
        (text(**{"": None}), BAD_FIELD),
        (text(**{"payload ": {}}), BAD_FIELD),
        (text(**{"$schema": "x", "__proto__": {}}), BAD_FIELD),
        (text(**{f"field{n}": n for n in range(1000)}), BAD_FIELD),
        (swap(IT, '{"summary"', '{"language": "en", "summary"'), BAD_FIELD),
        (text(notes="", summary=None), BAD_FIELD),  # before the wrong type
        (text("checklist", notes=""), NEITHER),
    ],
    "wrong type": [
        ("5", STRICT),
        ("null", STRICT),
        ("true", STRICT),
        ('"Two days in Lisbon."', STRICT),
        (json.dumps(IT), STRICT),  # an envelope as a text
        (text(summary=None), BAD_FIELD),
        (text(summary=5), BAD_FIELD),
        (text(summary=True), BAD_FIELD),
        (text(summary=["Two days in Lisbon."]), BAD_FIELD),
        (text(assumptions="You walk."), BAD_FIELD),
        (text(assumptions=None), BAD_FIELD),
        (text(assumptions=[1]), BAD_FIELD),
        (text(assumptions=[["You walk."]]), BAD_FIELD),
        (text(assumptions={"1": "You walk."}), BAD_FIELD),
        (text(uncertainty_notes=["Hours may differ."]), BAD_FIELD | UNMARKED),
        (text(uncertainty_notes=None), BAD_FIELD | UNMARKED),
        (text(next_steps="Book a room."), BAD_FIELD),
        (text(next_steps=[{"step": "Book a room."}]), BAD_FIELD),
        (text(verification_steps=["Check the hours.", None]), BAD_FIELD),
        (text(verification_steps=["a"] * 20_000 + [0]), BAD_FIELD),
        (text(payload=None), NEITHER),
        (text(payload=[PAYLOADS["itinerary"]]), NEITHER),
        (text(payload=json.dumps(PAYLOADS["itinerary"])), NEITHER),
        # Before a wrong type of payload, whether it is a known one or not.
        (text("checklist", payload=[]), NEITHER),
        (text("trip", payload=[]), NEITHER),
        (text(summary=0, payload={}), NEITHER),
    ],
    "wrong payload type": [
        (CL, BAD_PAYLOAD),
        (DT, BAD_PAYLOAD),
        (PR, BAD_PAYLOAD),
        (IT, BAD_PAYLOAD, "checklist"),
        (IT, BAD_PAYLOAD, "decision_tree"),
        (DT, BAD_PAYLOAD, "procedure"),
        (text(payload_type="checklist"), BAD_PAYLOAD),  # with the right payload
        (text("procedure", payload={}), BAD_PAYLOAD),  # before a wrong payload
        (text(payload_type="trip"), NEITHER),
        (text(payload_type="Itinerary"), NEITHER),
        (text(payload_type="itinerary "), NEITHER),
        (text(payload_type=""), NEITHER),
        (text(payload_type=None), NEITHER),
        (text(payload_type=["itinerary"]), NEITHER),
        (text(payload_type="x" * MEGABYTE), NEITHER),
        (text("trip", payload={}), NEITHER),
    ],
    "payload": [
        (swap(IT, "time_block", "time_buffer"), BAD_PAYLOAD),
        (swap(IT, '"time_block": "morning", ', ""), BAD_PAYLOAD),
        (swap(IT, '"time_block": "morning"', '"time_block": 9'), BAD_PAYLOAD),
        (swap(IT, ', "activity": "Eat at the market"', ""), BAD_PAYLOAD),
        (swap(IT, '"activity": ', '"price": 5, "activity": '), BAD_PAYLOAD),
        (swap(IT, '"day": 1', '"day": 0'), BAD_PAYLOAD),
        (swap(IT, '"day": 1', '"day": -1'), BAD_PAYLOAD),
        (swap(IT, '"day": 1', '"day": 1.5'), BAD_PAYLOAD),
        (swap(IT, '"day": 1', '"day": "1"'), BAD_PAYLOAD),
        (swap(IT, '"day": 1', '"day": true'), BAD_PAYLOAD),
        (swap(IT, '"day": 1, ', ""), BAD_PAYLOAD),
        (swap(IT, '"summary": "Food"', '"summary": null'), BAD_PAYLOAD),
        (swap(IT, "trip_days", "days"), BAD_PAYLOAD),
        (swap(IT, '"title": "Lisbon", ', ""), BAD_PAYLOAD),
        (swap(IT, '"title": "Lisbon"', '"title": 5'), BAD_PAYLOAD),
        (text(payload={}), BAD_PAYLOAD),
        (text(payload={"title": "Lisbon", "trip_days": []}), BAD_PAYLOAD),
        (text(payload={"title": "Lisbon", "trip_days": "one"}), BAD_PAYLOAD),
        (text(payload={"title": "Lisbon", "trip_days": [None]}), BAD_PAYLOAD),
        (text(payload={**PAYLOADS["itinerary"], "notes": ""}), BAD_PAYLOAD),
        (text(payload={"itinerary": PAYLOADS["itinerary"]}), BAD_PAYLOAD),
        (text(payload=PAYLOADS["checklist"]), BAD_PAYLOAD),
        (re.sub(r'"items": \[.*?\]', '"items": []', IT), BAD_PAYLOAD),
        (re.sub(r'"items": \[(.*?)\]', r'"items": \1', IT), BAD_PAYLOAD),
        (swap(CL, "true", '"true"'), BAD_PAYLOAD, "checklist"),
        (swap(CL, "true", '"yes"'), BAD_PAYLOAD, "checklist"),
        (swap(CL, "true", "1"), BAD_PAYLOAD, "checklist"),
        (swap(CL, "true", "null"), BAD_PAYLOAD, "checklist"),
        (swap(CL, ', "required": true', ""), BAD_PAYLOAD, "checklist"),
        (swap(CL, '"reason": "the sun", ', ""), BAD_PAYLOAD, "checklist"),
        (swap(CL, '"hat"', '["hat"]'), BAD_PAYLOAD, "checklist"),
        (swap(CL, '"title": "Packing", ', ""), BAD_PAYLOAD, "checklist"),
        (swap(CL, '"item": "hat"', '"item": "hat", "count": 1'), BAD_PAYLOAD, "checklist"),
        (text("checklist", payload={"title": "", "items": []}), BAD_PAYLOAD, "checklist"),
        (text("checklist", payload={"title": "", "items": ["hat"]}), BAD_PAYLOAD, "checklist"),
        (swap(DT, ', "otherwise": "bus"', ""), BAD_PAYLOAD, "decision_tree"),
        (swap(DT, '"bus"', "null"), BAD_PAYLOAD, "decision_tree"),
        (swap(DT, '"choice"', '"then"'), BAD_PAYLOAD, "decision_tree"),
        (swap(DT, '"train"', "3"), BAD_PAYLOAD, "decision_tree"),
        (swap(DT, '"condition"', '"if"'), BAD_PAYLOAD, "decision_tree"),
        (swap(DT, '"question"', '"title"'), BAD_PAYLOAD, "decision_tree"),
        (swap(DT, '"question": ', '"title": "", "question": '), BAD_PAYLOAD, "decision_tree"),
        (re.sub(r'"branches": \[.*?\]', '"branches": []', DT), BAD_PAYLOAD, "decision_tree"),
        (swap(PR, '"step": 1', '"step": 0'), BAD_PAYLOAD, "procedure"),
        (swap(PR, '"step": 1', '"step": "1"'), BAD_PAYLOAD, "procedure"),
        (swap(PR, '"step": 1', '"number": 1'), BAD_PAYLOAD, "procedure"),
        (swap(PR, ', "check": "it is open"', ""), BAD_PAYLOAD, "procedure"),
        (swap(PR, '"it is open"', "true"), BAD_PAYLOAD, "procedure"),
        (swap(PR, '"Find the office"', "[]"), BAD_PAYLOAD, "procedure"),
        (swap(PR, '"check"', '"note": "", "check"'), BAD_PAYLOAD, "procedure"),
        (text("procedure", payload={"title": "", "steps": {}}), BAD_PAYLOAD, "procedure"),
        (text("procedure", payload={"title": "", "steps": []}), BAD_PAYLOAD, "procedure"),
    ],
    None: [
        (IT, VALID),
        (CL, VALID, "checklist"),
        (DT, VALID, "decision_tree"),
        (PR, VALID, "procedure"),
        (f" \n{IT}\r\n\t", VALID),
        ("\n" * MEGABYTE + IT, VALID),
        (json.dumps(envelope(), indent=4), VALID),
        (json.dumps(envelope(), separators=(",", ":")), VALID),
        (json.dumps(dict(reversed(envelope().items()))), VALID | UNORDERED),
        (json.dumps(envelope(), sort_keys=True), VALID | UNORDERED),
        (text(payload=dict(reversed(PAYLOADS["itinerary"].items()))), VALID),
        (swap(IT, '"summary"', r'"\u0073ummary"'), VALID),
        (swap(IT, "Two", r"\ud83d\ude00"), VALID),  # a whole pair
        (text(summary="São Tomé 日本 😀 \u2028 \ufeff \x7f"), VALID),
        (text(summary='```json\n{"a": NaN}\n``` }{ <end_of_turn>'), VALID),
        (text(summary="x" * MEGABYTE), VALID),
        (text(summary=""), VALID),
        (text(assumptions=[], next_steps=[], verification_steps=[]), VALID),
        (text(uncertainty_notes=""), VALID | UNMARKED),
        (text(uncertainty_notes="All is fixed."), VALID | UNMARKED),
        (swap(IT, '"day": 1', '"day": 1.0'), VALID),  # JSON knows one number 1
        (swap(IT, '"day": 1', '"day": 12'), VALID),  # that days count up is not checked
        (swap(CL, "true", "false"), VALID, "checklist"),
    ],
}
# Counted by hand, so that no case gets lost.
COUNTS = {
    "no JSON": 25,
    "truncated": 38,
    "several values": 15,
    "prose around": 26,
    "not strict JSON": 28,
    "array root": 11,
    "missing fields": 20,
    "extra fields": 11,
    "wrong type": 26,
    "wrong payload type": 16,
    "payload": 52,
}
VALID_ONES = 23
ALL = [
    (completion, failure, metrics, *(asked or ["itinerary"]))
    for failure, cases in CASES.items()
    for completion, metrics, *asked in cases
]
NAMES = [f"{failure or 'valid'} {n}" for failure, cases in CASES.items() for n in range(len(cases))]


def asking(payload_type: str = "itinerary") -> Example:
    reference = {"payload_type": payload_type}
    return Example(id="1", prompt="", completion="", reference=reference)


@pytest.mark.parametrize(("completion", "failure", "metrics", "asked"), ALL, ids=NAMES)
def test_a_verdict(completion, failure, metrics, asked):
    one = score(completion, asking(asked))
    assert one.failure == failure
    assert one.values == {"schema_valid": failure is None, **metrics}
    assert (one.answer is None) == (not metrics["root_is_object"])
    assert (one.details == {}) == (failure is None)


def test_every_failure_has_cases_and_the_order_is_that_of_the_rules():
    assert [*COUNTS] == [*FAILURES] and [*CASES] == [*FAILURES, None]


@pytest.mark.parametrize(
    ("notes", "marked"),
    [
        ("Hours may differ.", True),
        ("Hours MIGHT differ.", True),
        ("May be closed on Mondays.", True),
        ("It depends on the weather.", True),
        ("Prices are approximate.", True),
        ("The price is an estimate.", True),
        ("The hours are not known.", True),
        ("Prices vary.", True),
        ("Confirm the price.", True),
        ("Prices are subject to tax.", True),
        ("", False),
        ("None.", False),
        ("All is certain.", False),
        ("All is fixed in May.", False),  # a month
        ("Mayor Maybury is known.", False),
        ("Various shops are open.", False),
    ],
)
def test_a_note_of_doubt_has_a_word_for_it(notes, marked):
    one = score(text(uncertainty_notes=notes), asking())
    assert (one.failure, one.values["uncertainty_marked"]) == (None, marked)


@pytest.mark.parametrize(
    ("completion", "missing", "keys", "path", "said"),
    [
        (
            without("next_steps"),
            ["next_steps"],
            [name for name in FIELDS if name != "next_steps"],
            "",
            "'next_steps' is a required property",
        ),
        (NESTED, [*FIELDS], ["envelope"], "", "required"),
        (text(**{"n" * 50: 1}), [], [*FIELDS, "n" * 40], "", "n' was unexpected"),
        (text(summary=5), [], [*FIELDS], "summary", "5 is not of type 'string'"),
        (text(assumptions=["", 5]), [], [*FIELDS], "assumptions[1]", "5 is not of type"),
        (CL, [], [*FIELDS], "payload_type", "'checklist', expected 'itinerary'"),
        (text(payload={}), [], [*FIELDS], "payload", "'title' is a required property"),
        (
            swap(IT, '"day": 1', '"day": 0'),
            [],
            [*FIELDS],
            "payload.trip_days[0].day",
            "0 is less than the minimum of 1",
        ),
        (
            "Sure! " + without("summary"),
            ["summary"],
            [*FIELDS[1:]],
            "",
            "'summary' is a required property",
        ),
        ("Sure! " + IT, [], [*FIELDS], "", "Expecting value"),
        ('{"a": 1, "a": 2}', [*FIELDS], ["a"], "", "required"),
        (swap(IT, '"day"', '"day": 2, "day"'), [], [*FIELDS], "", "'day' is given twice"),
        ("", [*FIELDS], [], "", "Expecting value"),
    ],
)
def test_details_say_what_is_wrong_and_where(completion, missing, keys, path, said):
    details = score(completion, asking()).details
    assert (details["missing"], details["keys"], details["path"]) == (missing, keys, path)
    assert said in details["message"]


def test_details_of_a_long_completion_are_short():
    for completion in (
        text(**{f"{n}" * 1000: n for n in range(1000)}),
        text(summary=["x"] * 100_000),
        text(payload_type="x" * MEGABYTE),
        "x" * MEGABYTE,
    ):
        assert len(json.dumps(score(completion, asking()).details)) < 2000


def test_a_reference_may_be_a_whole_envelope():
    whole = Example(id="1", prompt="", completion="", reference=envelope("checklist"))
    assert score(CL, whole).failure is None
    assert score(IT, whole).failure == "wrong payload type"


@pytest.mark.parametrize(
    "reference",
    [
        *(None, "itinerary", ["itinerary"], 5, {}),
        *({"payload_type": one} for one in (None, "trip", "Itinerary", ["itinerary"], {}, 1)),
    ],
)
def test_a_reference_without_a_known_type_is_an_error(reference):
    broken = Example(id="1", prompt="", completion="", reference=reference)
    for completion in (IT, ""):
        with pytest.raises(ValueError, match=r"payload_type is .*: expected an object with"):
            score(completion, broken)


PIECES = [*'{}[]",:\\', "true", "1", "NaN", " ", "\n", "{}", '"a": ', '{"a": 1}', "\ud800", "1e"]
WHOLES = [text(name) for name in PAYLOADS]
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Return an envelope of which a part is left out, or that has something put in."""
    whole = draw(st.sampled_from(WHOLES))
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 40)))
    return whole[:start] + draw(st.lists(st.sampled_from(PIECES)).map("".join)) + whole[end:]


HOSTILE = ANY_TEXT | st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | damaged()


@given(HOSTILE, st.sampled_from(PAYLOAD_TYPES))
def test_any_text_has_a_score_that_a_record_can_hold(completion: str, asked: str):
    one = score(completion, asking(asked))
    assert {*one.values} == {*ENVELOPE.metric_names}
    assert all(0 <= value <= 1 for value in one.values.values())
    assert one.failure is None or one.failure in FAILURES
    assert (one.failure is None) == one.values["schema_valid"]
    record = {"values": one.values, "answer": one.answer, "details": one.details}
    json.dumps(to_jsonable(record), ensure_ascii=False).encode()


BLANK = st.text(" \t\r\n", max_size=4)


@given(HOSTILE, BLANK, BLANK)
def test_white_space_around_changes_no_score(completion: str, before: str, after: str):
    bare, blank = (score(one, asking()) for one in (completion, f"{before}{completion}{after}"))
    assert (blank.values, blank.failure) == (bare.values, bare.failure)
    assert repr(blank.answer) == repr(bare.answer)  # NaN is not itself


def test_a_wrong_completion_never_earns_what_a_valid_one_does():
    reward = reward_function(ENVELOPE, reward_weights(ENVELOPE), max_new_tokens=1)
    earned: dict[bool, list[float]] = {True: [], False: []}
    for completion, failure, _, asked in ALL:
        earned[failure is None].append(reward(asking(asked), completion, 1, False).reward)
    assert max(earned[False]) < min(earned[True])
    assert min(earned[False]) == 0 and len({*earned[False]}) > 6  # the wrong ones are ordered


@pytest.mark.parametrize(
    ("completion", "earned"),
    [
        (IT, 1.8),  # 1 + 4 x 0.2
        ("Sure! " + IT, 0.6),
        (swap(IT, "time_block", "time_buffer"), 0.6),
        (without("summary"), 0.2 + 0.2 * 6 / 7 + 0.2),
        ("{}", 0.2),
        ("Sure!", 0.0),
    ],
)
def test_a_reward_by_hand(completion, earned):
    reward = reward_function(ENVELOPE, reward_weights(ENVELOPE), max_new_tokens=1)
    assert reward(asking(), completion, 1, False).reward == pytest.approx(earned)


def test_weights_by_which_a_wrong_completion_could_win_are_refused():
    with pytest.raises(ValueError, match="a wrong answer could earn"):
        reward_weights(ENVELOPE, {"fields_present": 0.5})


def test_other_tools_names_of_two_stages():
    base = {"n": 20, "json_found": 0.5, "schema_valid": 0.0, "fields_present": 0.25}
    tuned = {"n": 20, "json_found": 1.0, "schema_valid": 0.75, "fields_present": 1.0}
    base["uncertainty_marked"], tuned["uncertainty_marked"] = 0.5, 0.25
    metrics = notes_metrics(base, tuned)
    assert metrics["num_prompts"] == 20
    assert metrics["base"] == {
        **base,
        "parse_success_rate": 0.5,
        "schema_valid_rate": 0.0,
        "required_field_presence_rate": 0.25,
        "uncertainty_marker_presence_rate": 0.5,
    }
    assert metrics["finetuned"]["schema_valid_rate"] == metrics["finetuned"]["schema_valid"] == 0.75
    assert metrics["delta"] == {
        "parse_success_rate": 0.5,
        "schema_valid_rate": 0.75,
        "required_field_presence_rate": 0.75,
        "uncertainty_marker_presence_rate": -0.25,
    }


def test_the_command_line_counts_the_failures(tmp_path, capsys):
    path = tmp_path / "completions.jsonl"
    records = [
        {"completion": completion, "reference": {"payload_type": asked}}
        for completion, _, _, asked in ALL
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["score", str(path), "--task", "envelope"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["failures"] == COUNTS
    count = VALID_ONES + sum(COUNTS.values())
    assert (metrics["n"], metrics["task"]) == (count, "envelope")
    assert metrics["schema_valid"] == pytest.approx(VALID_ONES / count)


def test_the_command_line_names_a_line_without_a_payload_type(tmp_path, capsys):
    path = tmp_path / "completions.jsonl"
    path.write_text(json.dumps({"completion": IT, "reference": {"payload_type": "trip"}}))
    assert main(["score", str(path), "--task", "envelope"]) == 1
    assert f"{path}:1: the reference's payload_type is 'trip'" in capsys.readouterr().err


def row(**changes: object) -> Row:
    fields = {"prompt": "Plan it.", "response": envelope(), "payload_type": "itinerary", **changes}
    kept = {name: value for name, value in fields.items() if value != "left out"}
    return Row(id="travel/train/7", fields=kept, place="train.jsonl line 8")


def test_a_row_becomes_an_example():
    (example,) = ENVELOPE.examples([row()])
    assert example == Example(
        id="travel/train/7",
        prompt="Plan it.",
        completion=IT,
        reference={"payload_type": "itinerary"},
        group="itinerary",
    )


def test_the_built_in_rows_are_valid():
    for split in ("train", "test"):
        rows = travel_requests(40, seed=0, split=split)
        check_task(ENVELOPE, ENVELOPE.examples(rows))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": "left out"}, "no 'prompt' among its fields"),
        ({"response": "left out"}, "no 'response' among its fields"),
        ({"payload_type": "left out"}, "no 'payload_type' among its fields"),
        ({"prompt": 5}, "its prompt is '5', expected a text"),
        ({"prompt": ["Plan it."]}, "expected a text"),
        ({"prompt": None}, "expected a text"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "<end_of_turn>"}, "controls the chat"),
        ({"response": envelope(summary="<end_of_turn>")}, "controls the chat"),
        ({"response": envelope(summary=float("nan"))}, "not JSON compliant"),
        ({"payload_type": "trip"}, "payload_type is 'trip': expected"),
        ({"payload_type": None}, "payload_type is 'None': expected"),
        ({"payload_type": ["itinerary"]}, "payload_type is .*: expected"),
    ],
)
def test_a_row_that_is_no_example_is_named(changes, reason):
    with pytest.raises(ValueError, match=rf"^train.jsonl line 8 \(travel/train/7\): .*{reason}"):
        ENVELOPE.examples([row(**changes)])


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"response": envelope(summary=None)}, "wrong type"),
        ({"response": [envelope()]}, "array root"),
        ({"response": None}, "wrong type"),
        ({"response": {}}, "missing fields"),
        ({"response": IT}, "wrong type"),  # a text
        ({"response": envelope(summary="\ud800")}, "not strict JSON"),
        ({"payload_type": "checklist"}, "wrong payload type"),
    ],
)
def test_a_row_whose_response_is_invalid_is_named_by_the_check(changes, failure):
    with pytest.raises(ValueError, match=rf"^travel/train/7: .*schema_valid 0.*\({failure}\)"):
        check_task(ENVELOPE, ENVELOPE.examples([row(**changes)]))
