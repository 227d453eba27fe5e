"""Slots: what an answer must hold, how each value is compared, and the JSON Schema of all of them.

    {"name":  {"type": "string", "verbatim": true},
     "price": {"type": "number", "compare": "number", "tolerance": 0.005},
     "sizes": {"type": "array", "items": {"type": "string"}, "max_items": 20}}

A slot can be null unless it says `"nullable": false`: a slot that must be filled makes a model
invent. What a specification cannot say, neither the validator nor a grammar enforces: an unknown
key is refused by its name.
"""

import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nblib.tasks.json_schema import Schema, list_schema, object_schema

Comparator = Literal["exact", "normalized", "number", "date", "set", "fuzzy", "judge"]
COMPARATORS: tuple[str, ...] = get_args(Comparator)
LARGEST = 10**15  # up to which a float holds every whole number
_SHOWN = 60  # characters of a value in a message


class SlotSpec(BaseModel):
    """How one slot is filled and compared.

    Attributes:
        type: JSON type of its value; None leaves it open (scored, but in no schema of a grammar).
        nullable: Whether it may be null, because the text does not say it.
        enum: The only values there are.
        compare: One of `COMPARATORS`; None compares texts "normalized" and all else "exact".
        accept: Other values that are right as well.
        counted: Whether it is scored; false where a review found its gold wrong.
        verbatim: Whether its texts stand in the source word for word.
        tolerance: Of "number": how far a value may be off, absolute.
        threshold: Of "fuzzy": the least indel ratio, 0 to 1.
        max_length: Characters of a text at most.
        max_items: Items of a list at most.
        items: Of an array: what each item is.
        properties: Of an object: its own slots.
        description: For people, and in a judge's prompt; no other prompt has it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["string", "number", "integer", "boolean", "array", "object"] | None = None
    nullable: bool = True
    enum: list[Any] | None = Field(default=None, min_length=1)
    compare: Comparator | None = None
    accept: list[Any] = []
    counted: bool = True
    verbatim: bool = False
    tolerance: float = Field(default=0, ge=0)
    threshold: float = Field(default=0.9, ge=0, le=1)
    max_length: int = Field(default=1000, ge=1)
    max_items: int = Field(default=100, ge=1)
    items: "SlotSpec | None" = None
    properties: "dict[str, SlotSpec] | None" = None
    description: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, kind in (("items", "array"), ("properties", "object")):
            if (getattr(self, name) is not None) and self.type != kind:
                raise ValueError(f"{name!r} belongs to the type {kind!r}, not to {self.type!r}")
        return self

    def within(self, name: str | None = None) -> "SlotSpec":
        """Return what an item, or a property, is compared by: its own, else as its slot is.

        "set" says how a list is compared, and nothing of its items.
        """
        compare = None if self.compare == "set" else self.compare
        known = self._inner.get(name)
        return known or _inherited(compare, self.verbatim, self.tolerance, self.threshold)

    @cached_property
    def _inner(self) -> "Mapping[str | None, SlotSpec]":
        """Items, or properties, with what their slot says where they say nothing."""
        own: dict[str | None, SlotSpec] = {None: self.items} if self.items else {}
        own.update(self.properties or {})
        return {name: SlotSpec(**dict(one) | self._passed_on(one)) for name, one in own.items()}

    def _passed_on(self, inner: "SlotSpec") -> dict[str, Any]:
        more: dict[str, Any] = {"verbatim": self.verbatim or inner.verbatim}
        if inner.compare is not None or self.compare in (None, "set"):
            return more
        limits = {"tolerance", "threshold"} - inner.model_fields_set
        return more | {name: getattr(self, name) for name in ("compare", *limits)}

    def value_schema(self) -> dict[str, Any]:
        """Return its JSON Schema, bounded in length, so that a grammar ends."""
        if self.enum is not None:
            nulls = [None] if self.nullable and None not in self.enum else []
            return {"enum": [*self.enum, *nulls]}
        match self.type:
            case None:
                return {}
            case "array":
                inner = self.items.value_schema() if self.items else _SCALAR
                made = list_schema(inner, maxItems=self.max_items)
            case "object":
                made = slots_schema(self.properties or {})
            case "string":
                made = {"type": "string", "maxLength": self.max_length}
            case "boolean":
                made = {"type": "boolean"}
            case _:  # bounds, or a grammar would allow 1e999, which no reader can hold
                made = {"type": self.type, "minimum": -LARGEST, "maximum": LARGEST}
        # No "anyOf": it looks for every error of a long list, and does not say where one is.
        return made | {"type": [made["type"], "null"]} if self.nullable else made


_SCALAR: Mapping[str, Any] = {"type": ["string", "number", "boolean"]}


class Slots(dict[str, SlotSpec]):
    """The slots of an answer by name, in the order in which they are written."""

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of an object with exactly these slots."""
        return slots_schema(self)

    @cached_property
    def validator(self) -> Schema:
        """What finds the first problem of an answer."""
        return _validator(json.dumps(self.schema))


def read_slots(specs: Any) -> Slots:
    """Return the slots of a record's `slot_specs`.

    Raises ValueError naming the slot, for a specification of another form.
    """
    return _read(json.dumps(specs))


def slots_schema(slots: Mapping[str, SlotSpec]) -> dict[str, Any]:
    """Return the JSON Schema of an object with exactly these slots, in their order."""
    return object_schema({name: slot.value_schema() for name, slot in slots.items()})


@lru_cache(maxsize=256)  # a schema is itself checked, which takes milliseconds
def _validator(schema: str) -> Schema:
    return Schema(json.loads(schema))


@lru_cache(maxsize=4096)  # rows of one task share their specification
def _read(text: str) -> Slots:
    specs = json.loads(text)
    if not isinstance(specs, dict):
        raise ValueError(f"slot_specs is {text[:_SHOWN]}, expected an object: slot -> how it is")
    return Slots({name: _slot(name, spec) for name, spec in specs.items()})


def _slot(name: str, spec: Any) -> SlotSpec:
    try:
        return SlotSpec.model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        words = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        if first["type"] == "extra_forbidden":
            known = ", ".join(SlotSpec.model_fields)
            words = f"neither a validator nor a grammar here can enforce it; known are {known}"
        raise ValueError(f"slot {where}: {words}") from error


@lru_cache
def _inherited(compare: Any, verbatim: bool, tolerance: float, threshold: float) -> SlotSpec:
    return SlotSpec(compare=compare, verbatim=verbatim, tolerance=tolerance, threshold=threshold)
