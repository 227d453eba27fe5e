r"""The envelope as a task: a travel assistant answers with one JSON object of seven fields.

    prompt      Plan 2 days in Lisbon for two people who like food.
    completion  {"summary": "Two days of food in Lisbon.", "assumptions": ["You walk a lot."],
                "uncertainty_notes": "Opening hours may change.", "next_steps": ["Book a hotel."],
                "verification_steps": ["Check the opening hours."], "payload_type": "itinerary",
                "payload": {"title": "Lisbon", "trip_days": [{"day": 1, "summary": "Old town",
                "items": [{"time_block": "morning", "activity": "Walk to the castle"}]}, ...]}}
    reference   {"payload_type": "itinerary"}
    group       itinerary

The payload's form depends on its type; each has a schema and a version of its own. Whether the
facts are right (opening hours, prices) is not judged. What teachers' answers need before they can
be learnt from is in `envelope_rows`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nblib.sources.rows import Row
from nblib.tasks.envelope_rows import normalise_envelopes
from nblib.tasks.envelope_schema import (
    ENVELOPE_SCHEMA,
    FIELDS,
    PAYLOAD_SCHEMAS,
    PAYLOAD_TYPES,
    WHOLE_SCHEMA,
)
from nblib.tasks.json_schema import Schema, SchemaProblem
from nblib.tasks.json_text import JsonText, read_json_text, write_json_text
from nblib.tasks.task import Example, Metric, Score, Target, Task, example_of

# The payload's type is checked last: a field of a wrong type is reported first.
_IN_TURN = sorted(ENVELOPE_SCHEMA["properties"].items(), key=lambda one: one[0] == "payload_type")
_ENVELOPE = Schema({**ENVELOPE_SCHEMA, "properties": dict(_IN_TURN)})
_PAYLOAD = {name: Schema(schema) for name, schema in PAYLOAD_SCHEMAS.items()}
# Words by which a note says that something is not sure; "May" is a month.
_UNSURE = re.compile(
    r"\b(?:(?-i:may)|may (?:be|not)|might|could|depend(?:s|ing)?|unsure"
    r"|uncertain(?:ty)?|unknown|unclear"
    r"|not (?:sure|certain|known)|likely|probably|possibly|perhaps|approximate(?:ly)?|roughly"
    r"|estimate[sd]?|var(?:y|ies)|confirm|subject to)\b",
    re.IGNORECASE,
)
_MOST_KEYS = 20  # of a wrong answer's, in a record

# Code of a failure -> what to do about it; in the order in which they are looked for.
FAILURES: Mapping[str, str] = {
    "no JSON": "train on more examples; look at the sample for where its JSON breaks",
    "truncated": "raise MAX_NEW_TOKENS; see the share of examples whose end was in the loss",
    "several values": "every example must end after one object, by the end of the turn",
    "prose around": "remove fences and prose around the object from the examples",
    "not strict JSON": "check the examples' own JSON: a key twice, NaN, half a character",
    "array root": "no example may have a list as its root; normalise them",
    "missing fields": "put the end of the envelope into the loss: raise MAX_LENGTH or NUM_EPOCHS",
    "extra fields": "normalise the examples: seven fields and nothing else",
    "wrong type": "look at the field's values among the examples: are all of one type?",
    "wrong payload type": "train on more examples of the type that was asked for",
    "payload": "train on more examples of this type; are its fields named alike in all?",
}


def score(completion: str, example: Example) -> Score:
    """Score a completion; the reference is an object with the `payload_type` that was asked for.

    `schema_valid` is judged of the strict reading alone. What is said of the fields is said of the
    object that was found, with prose around it too, so that a reader sees how far a completion is.

    Example:
        >>> score('{"summary": "Rome"}', Example(id="1", prompt="", completion="",
        ...       reference={"payload_type": "itinerary"})).failure
        'missing fields'

    Raises ValueError for a reference without a payload type.
    """
    asked = _asked_type(example.reference)
    text = read_json_text(completion)
    found = text.value if isinstance(text.value, dict) else None
    broken = _ENVELOPE.problem(found) if found is not None else None
    payload = _payload_problem(found, asked) if found is not None else None
    here = [name for name in FIELDS if found is not None and name in found]
    failure, problem = _failure(text, broken, payload)
    notes = found.get("uncertainty_notes") if found is not None else None
    return Score(
        values={
            "schema_valid": text.strict and failure is None,
            "parse_strict": text.strict,
            "json_found": text.holds_object,
            "root_is_object": found is not None,
            "envelope_valid": found is not None and broken is None,
            "payload_valid": found is not None and payload is None,
            "fields_present": len(here) / len(FIELDS),
            "field_order": found is not None and [n for n in found if n in FIELDS] == [*FIELDS],
            "uncertainty_marked": isinstance(notes, str) and bool(_UNSURE.search(notes)),
        },
        answer=found,
        failure=failure,
        details=_details(found, here, problem or text.problem) if failure else {},
    )


def notes_metrics(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `comparison_metrics.json` also holds: two stages by other tools' names of them.

    `base` and `tuned` are metrics of stages on the same prompts; `delta` is tuned less base.
    """
    names = {
        "parse_success_rate": "json_found",
        "schema_valid_rate": "schema_valid",
        "required_field_presence_rate": "fields_present",
        "uncertainty_marker_presence_rate": "uncertainty_marked",
    }
    before, after = ({new: one[old] for new, old in names.items()} for one in (base, tuned))
    return {
        "num_prompts": tuned["n"],
        "base": {**base, **before},
        "finetuned": {**tuned, **after},
        "delta": {name: after[name] - before[name] for name in names},
    }


def _asked_type(reference: Any) -> str:
    asked = reference.get("payload_type") if isinstance(reference, Mapping) else None
    if asked not in PAYLOAD_TYPES:
        raise ValueError(
            f"the reference's payload_type is {str(asked)[:40]!r}: expected an object with one of "
            + ", ".join(PAYLOAD_TYPES)
        )
    return str(asked)


def _payload_problem(found: Mapping[str, Any], asked: str) -> SchemaProblem | None:
    """Return what is wrong with the payload, or with its type."""
    if found.get("payload_type") != asked:
        message = f"{str(found.get('payload_type'))[:40]!r}, expected {asked!r}"
        return SchemaProblem(path="payload_type", rule="asked", message=message)
    problem = _PAYLOAD[asked].problem(found.get("payload"))
    if problem is None:
        return None
    path = "payload" + (f".{problem.path}" if problem.path else "")
    return SchemaProblem(path=path, rule=problem.rule, message=problem.message)


_ROOT_RULES = {"required": "missing fields", "additionalProperties": "extra fields"}


def _failure(
    text: JsonText, broken: SchemaProblem | None, payload: SchemaProblem | None
) -> tuple[str | None, SchemaProblem | None]:
    """Return the code of the first rule that a completion breaks, and the schema's problem."""
    if text.failure:
        return text.failure, broken or payload
    if not isinstance(text.value, dict):
        return "array root" if isinstance(text.value, list) else "wrong type", None
    if broken is None:
        problem, code = payload, "payload"
        if payload is not None and payload.path == "payload_type":
            code = "wrong payload type"
        return (code, problem) if payload else (None, None)
    if not broken.path:
        return _ROOT_RULES[broken.rule], broken
    return "wrong payload type" if broken.rule == "enum" else "wrong type", broken


def _details(
    found: Mapping[str, Any] | None, here: Sequence[str], problem: SchemaProblem | str | None
) -> dict[str, Any]:
    """Return what a reader of `schema_failures_debug.jsonl` needs to know of a failure."""
    if isinstance(problem, SchemaProblem):
        message, path = problem.message, problem.path
    else:
        message, path = problem or "", ""
    return {
        "missing": [name for name in FIELDS if name not in here],
        "keys": [key[:40] for key in list(found or ())[:_MOST_KEYS]],
        "message": message,
        "path": path,
    }


def _example(row: Row) -> Example:
    missing = [name for name in ("prompt", "response", "payload_type") if name not in row.fields]
    if missing:
        raise ValueError(f"{row.named}: no {missing[0]!r} among its fields {[*row.fields]}")
    prompt, response, asked = (row.fields[n] for n in ("prompt", "response", "payload_type"))
    if not isinstance(prompt, str):
        raise ValueError(f"{row.named}: its prompt is {str(prompt)[:40]!r}, expected a text")
    reference = {"payload_type": asked}
    try:
        _asked_type(reference)
        completion = write_json_text(response)
    except ValueError as error:
        raise ValueError(f"{row.named}: {error}; correct or remove this row") from error
    return example_of(
        row, prompt=prompt, completion=completion, reference=reference, group=str(asked)
    )


ENVELOPE = Task(
    name="envelope",
    system_prompt=f"Answer with one JSON object: {', '.join(FIELDS)}.",
    metrics=(
        Metric(name="schema_valid", meaning="one JSON value that both schemas allow"),
        Metric(name="parse_strict", meaning="the whole completion is one JSON value"),
        Metric(name="json_found", meaning="there is an object in it, with or without other text"),
        Metric(name="root_is_object", meaning="it is found as a root, in no list"),
        Metric(name="envelope_valid", meaning="the object found: seven fields of the right types"),
        Metric(name="payload_valid", meaning="the object found: a payload of the type asked for"),
        Metric(name="fields_present", meaning="the object found: share of the fields", kind="mean"),
        Metric(name="field_order", meaning="the object found: all seven, in their order"),
        Metric(name="uncertainty_marked", meaning="the object found: its notes say what is unsure"),
    ),
    headline="schema_valid",
    form="schema_valid",
    fallback="json_found",
    grouped_by="payload type",
    examples=lambda rows: tuple(map(_example, rows)),
    score=score,
    normalise=lambda rows: normalise_envelopes(rows).rows,
    # What is not the headline orders the wrong ones, from prose to an envelope with one slip.
    reward_weights={
        "schema_valid": 1.0,
        "parse_strict": 0.2,
        "fields_present": 0.2,
        "envelope_valid": 0.2,
        "payload_valid": 0.2,
    },
    schema=lambda example: WHOLE_SCHEMA,
    targets=(
        Target(
            metric="schema_valid",
            limit=0.95,
            advice="train for more steps, with the end of every envelope in the loss",
        ),
        Target(
            metric="fields_present",
            limit=0.99,
            advice="raise MAX_LENGTH: the last fields are learnt only where they are in the loss",
        ),
    ),
    advice=FAILURES,
    limits=("The form is checked, not the facts: an hour or a price may be made up.",),
)
