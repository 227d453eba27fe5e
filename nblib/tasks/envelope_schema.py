"""The schemas of the envelope and of its four payloads, each with a version of its own."""

from collections.abc import Mapping
from typing import Any

from nblib.tasks.json_schema import list_schema, object_schema

_TEXT: Mapping[str, Any] = {"type": "string"}
_NUMBER: Mapping[str, Any] = {"type": "integer", "minimum": 1}
_SOME: Mapping[str, Any] = {"minItems": 1}

# Type -> version and schema of its payload. A change of a schema is a new version.
_PAYLOADS: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "itinerary": (
        1,
        {
            "title": _TEXT,
            "trip_days": list_schema(
                object_schema(
                    {
                        "day": _NUMBER,
                        "summary": _TEXT,
                        "items": list_schema(
                            object_schema({"time_block": _TEXT, "activity": _TEXT}), **_SOME
                        ),
                    }
                ),
                **_SOME,
            ),
        },
    ),
    "checklist": (
        1,
        {
            "title": _TEXT,
            "items": list_schema(
                object_schema({"item": _TEXT, "reason": _TEXT, "required": {"type": "boolean"}}),
                **_SOME,
            ),
        },
    ),
    "decision_tree": (
        1,
        {
            "question": _TEXT,
            "branches": list_schema(object_schema({"condition": _TEXT, "choice": _TEXT}), **_SOME),
            "otherwise": _TEXT,
        },
    ),
    "procedure": (
        1,
        {
            "title": _TEXT,
            "steps": list_schema(
                object_schema({"step": _NUMBER, "action": _TEXT, "check": _TEXT}), **_SOME
            ),
        },
    ),
}
PAYLOAD_TYPES = tuple(_PAYLOADS)
PAYLOAD_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    name: object_schema(properties, title=f"{name}, version {version}")
    for name, (version, properties) in _PAYLOADS.items()
}
_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "summary": _TEXT,
    "assumptions": list_schema(_TEXT),
    "uncertainty_notes": _TEXT,
    "next_steps": list_schema(_TEXT),
    "verification_steps": list_schema(_TEXT),
    "payload_type": {"enum": list(PAYLOAD_TYPES)},
    "payload": {"type": "object"},
}
FIELDS = tuple(_FIELDS)
ENVELOPE_SCHEMA = object_schema(_FIELDS)
# Both at once, for a grammar: an envelope of one of the types, with its payload.
WHOLE_SCHEMA: Mapping[str, Any] = {
    "anyOf": [
        object_schema(
            {
                **_FIELDS,
                "payload_type": {"const": name},
                "payload": PAYLOAD_SCHEMAS[name],
            }
        )
        for name in PAYLOAD_TYPES
    ]
}
