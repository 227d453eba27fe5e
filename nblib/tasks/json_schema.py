"""Validation of a JSON value by a JSON Schema, with one short problem for a record of failures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

_SHOWN = 160  # characters of a message: it repeats the value


@dataclass(frozen=True, kw_only=True)
class SchemaProblem:
    """The first place where a value breaks a schema.

    Attributes:
        path: Where in the value: `payload.trip_days[0].items`; "" is the root.
        rule: The schema's keyword, such as "required" or "type".
        message: What is wrong, in the validator's words.
    """

    path: str
    rule: str
    message: str


class Schema:
    """A JSON Schema, draft 2020-12; ValueError where it is none."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"no JSON Schema: {error.message}") from error
        self._validator = Draft202012Validator(schema)

    def problem(self, value: Any) -> SchemaProblem | None:
        """Return the first problem of a value, None for a valid one."""
        error = next(self._validator.iter_errors(value), None)
        if error is None:
            return None
        message = error.message
        if len(message) > _SHOWN:  # the end says what is wrong
            message = f"{message[: _SHOWN // 2]}...{message[-_SHOWN // 2 :]}"
        path = error.json_path.removeprefix("$").removeprefix(".")
        return SchemaProblem(path=path, rule=str(error.validator), message=message)


def object_schema(properties: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the schema of an object with exactly these properties.

    What is missing is found first, then what is too much, then what is wrong in a property.
    """
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": dict(properties),
        **more,
    }


def list_schema(items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the schema of a list of such items."""
    return {"type": "array", "items": dict(items), **more}
