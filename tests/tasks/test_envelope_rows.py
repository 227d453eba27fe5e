import json

import pytest

from nblib.sources.rows import Row
from nblib.sources.travel import travel_requests
from nblib.tasks.envelope import ENVELOPE
from nblib.tasks.envelope_rows import normalise_envelopes
from nblib.tasks.task import check_task, choose_examples

GOOD = travel_requests(4, seed=0, split="train")
TRIP = GOOD[0].fields["response"]
TEXT = json.dumps(TRIP)


def row(response, **fields):
    given = {"prompt": "Plan it.", "response": response, "payload_type": "itinerary", **fields}
    return Row(id="x/train/6", place="x.jsonl line 7", fields=given)


def without(name):
    return {key: value for key, value in TRIP.items() if key != name}


def renamed(old, new, text=TEXT):
    return text.replace(json.dumps(old), json.dumps(new))


def with_payload(**payload):
    return {**TRIP, "payload": {**TRIP["payload"], **payload}}


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        (TEXT, []),
        (f"```json\n{TEXT}\n```", ["text around the object removed"]),
        (f"Here it is: {TEXT} Enjoy!", ["text around the object removed"]),
        ([TRIP], ["list around the object removed"]),
        ({"envelope": TRIP}, ["object around the envelope removed"]),
        (renamed("time_block", "time_buffer"), ["field renamed"]),
        (renamed("trip_days", "tripDays"), ["field renamed"]),
        (renamed("verification_steps", "Verification Steps"), ["field renamed"]),
        (without("next_steps"), ["missing field filled"]),
        ({**TRIP, "uncertainty_notes": None}, ["null field filled"]),
        ({**TRIP, "confidence": 0.9}, ["extra field removed"]),
        ({**TRIP, "assumptions": "They walk."}, ["single value made a list"]),
        ({**TRIP, "assumptions": ["They walk.", None]}, ["null removed from a list"]),
        ({**TRIP, "next_steps": [{"step": "Book"}]}, ["object made a text"]),
        ({**TRIP, "summary": ["Two days.", "In Rome."]}, ["list made a text"]),
        ({**TRIP, "summary": 2}, ["number made a text"]),
        ({**TRIP, "payload_type": "Itinerary"}, ["word respelled"]),
        (without("payload_type"), ["payload type taken from the row"]),
        (dict(reversed(TRIP.items())), ["fields put in order"]),
        (renamed(1, "Day 1"), ["text made a number"]),
    ],
)
def test_what_a_rule_can_mend_is_mended_and_counted(given, rules):
    found = normalise_envelopes([row(given)])
    assert found.dropped == ()
    assert {*rules} <= {*found.rules} and len(found.rules) <= max(1, len(rules)) + 1
    check_task(ENVELOPE, ENVELOPE.examples(found.rows))


def test_days_are_numbered_by_their_place():
    days = [{key: day[key] for key in ("summary", "items")} for day in TRIP["payload"]["trip_days"]]
    (kept,) = normalise_envelopes([row(with_payload(trip_days=days))]).rows
    assert [day["day"] for day in kept.fields["response"]["payload"]["trip_days"]] == [1, 2, 3]


def test_words_for_true_and_false_are_read():
    listed = GOOD[1].fields["response"]
    items = [{**item, "required": "Yes"} for item in listed["payload"]["items"]]
    given = {**listed, "payload": {**listed["payload"], "items": items}}
    (kept,) = normalise_envelopes([row(given, payload_type="checklist")]).rows
    assert all(one["required"] is True for one in kept.fields["response"]["payload"]["items"])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (TEXT[:-9], "the response is cut"),
        (TEXT + TEXT, "the response holds 2 JSON values"),
        ("I cannot help.", "the response holds no JSON values"),
        ([TRIP, TRIP], "the response is a list, expected an object"),
        ({**TRIP, "summary": None}, "summary is null"),
        (without("payload"), "payload is missing"),
        (with_payload(trip_days=[]), "payload.trip_days is an empty list"),
        (
            with_payload(title={"a": 1, "b": 2}),
            "payload.title is {'a': 1, 'b': 2}, expected a text",
        ),
        ({**TRIP, "payload_type": "poem"}, "payload_type is 'poem', expected one of itinerary, "),
        ({**TRIP, "payload_type": "checklist"}, "its payload_type is checklist, the row says"),
        (renamed(1, "first"), "payload.trip_days[0].day is 'first', expected a whole number"),
        (None, "the response is a NoneType"),
    ],
)
def test_what_no_rule_can_mend_is_dropped_by_file_and_line(given, problem):
    found = normalise_envelopes([GOOD[0], row(given)])
    assert found.rows == GOOD[:1]
    (dropped,) = found.dropped
    assert dropped.startswith("x.jsonl line 7 (x/train/6): ") and problem in dropped
    assert f"1 rows kept, 1 dropped; mended: nothing\n  dropped: {dropped}" == str(found)


def test_what_is_in_form_stays_as_it_is():
    found = normalise_envelopes(GOOD)
    assert found.rows == GOOD and found.rules == {} and found.dropped == ()
    assert normalise_envelopes(found.rows).rows == GOOD


def test_rows_are_drawn_from_those_that_can_be_mended():
    examples, left_out = choose_examples(ENVELOPE, [*GOOD, row("no"), row([TRIP])], -1, seed=0)
    assert len(examples) == 5 and left_out == 1
