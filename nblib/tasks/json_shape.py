"""A JSON value brought into the form of a schema, by rules that are named and counted.

For what is learnt, such as a teacher's answers: what is wrong in them would be learnt too. Never
for what is judged: a model's own completion counts as it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_DIGITS = re.compile(r"\d{1,9}")
_NO_LETTER = re.compile(r"[^a-z0-9]")
_TRUTH = {"yes": True, "true": True, "no": False, "false": False}


class Unusable(ValueError):
    """A value that no rule brings into form; the message says what and where."""


@dataclass(kw_only=True)
class Shaper:
    """Brings values into the form of schemas made of objects, lists, texts, numbers and truth.

    Attributes:
        aliases: property -> other names by which teachers call it. Letters' case and signs do not
            count: `timeBlock` is `time_block` without being named here.
        defaults: property -> what stands for it where it is missing or null.
        numbered: properties that say an item's place in its list, from 1.
        applied: Names of the rules that have changed something, each once.
    """

    aliases: Mapping[str, Sequence[str]]
    defaults: Mapping[str, Any]
    numbered: Sequence[str] = ()
    applied: dict[str, None] = field(default_factory=dict)

    def shape(
        self, value: Any, schema: Mapping[str, Any], *, path: str = "", place: int = 1
    ) -> Any:
        """Return the value in the schema's form; `place` is that among its list's items.

        Raises Unusable.
        """
        if "enum" in schema:
            return self._word(value, schema["enum"], path)
        match schema["type"]:
            case "object":
                return self._object(value, schema, path, place) if "properties" in schema else value
            case "array":
                return self._list(value, schema, path)
            case "string":
                return self._text(value, path)
            case "integer":
                return self._number(value, schema, path)
            case "boolean":
                return self._truth(value, path)
        raise ValueError(f"{path}: no rule for the type {schema['type']!r}")

    def note(self, rule: str) -> None:
        """Note that a rule has changed something."""
        self.applied[rule] = None

    def _object(self, value: Any, schema: Mapping[str, Any], path: str, place: int) -> Any:
        if not isinstance(value, dict):
            raise Unusable(f"{path or 'the root'} is {_shown(value)}, expected an object")
        properties, named = schema["properties"], self._renamed(value, schema["properties"])
        if named.keys() - properties.keys():
            self.note("extra field removed")
        kept = [name for name in named if name in properties]
        if kept != [name for name in properties if name in kept]:
            self.note("fields put in order")
        shaped = {}
        for name, inner in properties.items():
            where = f"{path}.{name}" if path else name
            found = named.get(name)
            if found is None:
                found = self._default(name, where, place, missing=name not in named)
            shaped[name] = self.shape(found, inner, path=where, place=place)
        return shaped

    def _renamed(self, value: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value's fields by their right names; a right name wins over an alias."""
        called = {
            _squeezed(alias): name
            for name in properties
            for alias in (*self.aliases.get(name, ()), name)
        }
        named: dict[str, Any] = {}
        for name, one in value.items():
            right = name if name in properties else called.get(_squeezed(name), name)
            if right != name and (right in value or right in named):
                right = name
            if right != name:
                self.note("field renamed")
            named[right] = one
        return named

    def _default(self, name: str, where: str, place: int, *, missing: bool) -> Any:
        if name in self.numbered:
            self.note("number filled in by its place")
            return place
        if name not in self.defaults:
            raise Unusable(f"{where} is {'missing' if missing else 'null'}")
        self.note(f"{'missing' if missing else 'null'} field filled")
        return self.defaults[name]

    def _list(self, value: Any, schema: Mapping[str, Any], path: str) -> list[Any]:
        if not isinstance(value, list):
            self.note("single value made a list")
            value = [value]
        items = [one for one in value if one is not None]
        if len(items) < len(value):
            self.note("null removed from a list")
        if len(items) < schema.get("minItems", 0):
            raise Unusable(f"{path} is an empty list")
        return [
            self.shape(one, schema["items"], path=f"{path}[{index}]", place=index + 1)
            for index, one in enumerate(items)
        ]

    def _text(self, value: Any, path: str) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            self.note("list made a text")
            return " ".join(value)
        if isinstance(value, dict) and len(value) == 1:
            self.note("object made a text")
            (inner,) = value.values()
            return self._text(inner, path)
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.note("number made a text")
            return str(value)
        raise Unusable(f"{path} is {_shown(value)}, expected a text")

    def _number(self, value: Any, schema: Mapping[str, Any], path: str) -> int:
        number = value
        if isinstance(value, str) and len(digits := _DIGITS.findall(value)) == 1:
            self.note("text made a number")
            number = int(digits[0])
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        is_whole = isinstance(number, int) and not isinstance(number, bool)
        if not is_whole or number < schema.get("minimum", number):
            raise Unusable(f"{path} is {_shown(value)}, expected a whole number")
        return number

    def _truth(self, value: Any, path: str) -> bool:
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in _TRUTH:
            raise Unusable(f"{path} is {_shown(value)}, expected true or false")
        self.note("text made true or false")
        return _TRUTH[word]

    def _word(self, value: Any, words: Sequence[str], path: str) -> str:
        if value in words:
            return str(value)
        squeezed = _squeezed(value) if isinstance(value, str) else None
        for word in words:
            if squeezed == _squeezed(word):
                self.note("word respelled")
                return word
        raise Unusable(f"{path} is {_shown(value)}, expected one of {', '.join(words)}")


def _squeezed(name: str) -> str:
    """Return a name's letters and digits alone: `timeBlock`, `Time Block` -> timeblock."""
    return _NO_LETTER.sub("", name.lower())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
