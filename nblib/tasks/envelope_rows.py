"""Teachers' envelopes made fit to be learnt from: brought into form by named rules, or dropped.

The validator stays as strict as it is (`envelope`): it is the data that is mended. A row has a
`prompt`, a `response` (an object, or the text in which one stands) and a `payload_type`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nblib.sources.rows import Row
from nblib.tasks.envelope_schema import ENVELOPE_SCHEMA, FIELDS, PAYLOAD_SCHEMAS, PAYLOAD_TYPES
from nblib.tasks.json_shape import Shaper, Unusable
from nblib.tasks.json_text import read_json_text

_ALIASES: Mapping[str, Sequence[str]] = {
    "summary": ("overview", "answer"),
    "assumptions": ("assumption", "assumed"),
    "uncertainty_notes": ("uncertainty", "uncertainties", "uncertainty_note", "caveats"),
    "next_steps": ("next_step", "next_actions", "actions"),
    "verification_steps": ("verification", "verify", "checks"),
    "payload_type": ("type",),
    "payload": ("data", "content"),
    "trip_days": ("days",),
    "time_block": ("time_buffer", "time", "time_slot", "slot"),
    "activity": ("description", "name", "what"),
    "item": ("name", "thing"),
    "reason": ("why",),
    "required": ("needed", "mandatory"),
    "branches": ("options",),
    "condition": ("if", "when"),
    "choice": ("then", "recommendation"),
    "otherwise": ("else", "default"),
    "action": ("description", "instruction", "what"),
    "check": ("verify", "verification"),
}
_DEFAULTS: Mapping[str, Any] = {
    "assumptions": [],
    "uncertainty_notes": "",
    "next_steps": [],
    "verification_steps": [],
}
_NUMBERED = ("day", "step")
_MOST_SHOWN = 50  # of the rows that were dropped


@dataclass(frozen=True, kw_only=True)
class NormalisedRows:
    """Rows that are valid examples, and what was done to make them so.

    Attributes:
        rows: in their order.
        rules: rule -> how many rows it has changed, the commonest first.
        dropped: for each row that no rule could mend, where it stands and what is wrong.
    """

    rows: tuple[Row, ...]
    rules: Mapping[str, int]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        """How many rows are left, what was mended, and the first rows that were dropped."""
        mended = ", ".join(f"{rule} {count}" for rule, count in self.rules.items()) or "nothing"
        more = len(self.dropped) - _MOST_SHOWN
        lines = [*self.dropped[:_MOST_SHOWN], *[f"and {more} more"] * (more > 0)]
        head = f"{len(self.rows)} rows kept, {len(self.dropped)} dropped; mended: {mended}"
        return "\n  dropped: ".join((head, *lines))


def normalise_envelopes(rows: Sequence[Row]) -> NormalisedRows:
    """Bring each row's response into the form of a valid envelope; drop what cannot be."""
    kept, rules, dropped = list[Row](), Counter[str](), list[str]()
    for row in rows:
        shaper = Shaper(aliases=_ALIASES, defaults=_DEFAULTS, numbered=_NUMBERED)
        try:
            response = _normalised(row, shaper)
        except Unusable as error:
            dropped.append(f"{row.named}: {error}")
            continue
        rules.update([*shaper.applied])
        named = {"response": response, "payload_type": response["payload_type"]}
        kept.append(replace(row, fields={**row.fields, **named}, group=response["payload_type"]))
    return NormalisedRows(rows=tuple(kept), rules=dict(rules.most_common()), dropped=tuple(dropped))


def _normalised(row: Row, shaper: Shaper) -> dict[str, Any]:
    prompt = row.fields.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise Unusable("the prompt is no text")
    root = _root(_value(row.fields.get("response"), shaper), shaper)
    asked = row.fields.get("payload_type")
    if asked is not None:
        asked = shaper.shape(asked, {"enum": PAYLOAD_TYPES}, path="the row's payload_type")
        if root.get("payload_type") is None and "type" not in root:
            shaper.note("payload type taken from the row")
            root = {**root, "payload_type": asked}
    envelope: dict[str, Any] = shaper.shape(root, ENVELOPE_SCHEMA)
    found = envelope["payload_type"]
    if asked not in (None, found):
        raise Unusable(f"its payload_type is {found}, the row says {asked}")
    envelope["payload"] = shaper.shape(envelope["payload"], PAYLOAD_SCHEMAS[found], path="payload")
    return envelope


def _value(response: Any, shaper: Shaper) -> Any:
    """Return the value of a response that may be a text in which an object stands."""
    if not isinstance(response, str):
        return response
    text = read_json_text(response)
    if text.cut:
        raise Unusable("the response is cut")
    if text.count != 1:
        raise Unusable(f"the response holds {text.count or 'no'} JSON values")
    if not text.strict:
        shaper.note("text around the object removed" if not text.alone else "JSON made strict")
    return text.value


def _root(value: Any, shaper: Shaper) -> dict[str, Any]:
    """Return the envelope out of a list of one, or out of an object around it."""
    if isinstance(value, list) and len(value) == 1:
        shaper.note("list around the object removed")
        value = value[0]
    if not isinstance(value, dict):
        raise Unusable(f"the response is a {type(value).__name__}, expected an object")
    if len(value) == 1:
        (inner,) = value.values()
        if isinstance(inner, dict) and len(inner.keys() & {*FIELDS}) > 1:
            shaper.note("object around the envelope removed")
            return inner
    return value
