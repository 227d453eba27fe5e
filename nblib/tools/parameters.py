"""A notebook's parameters: what its tagged cell declares, and values given on a command line.

papermill only warns of an unknown parameter or a wrong type and goes on (2.7.0), and its inspection
misses lines with two equals signs or a `str | None`. Here the cell is read as Python, and what does
not fit is an error.
"""

import ast
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TAG = "parameters"
_PLAIN_TYPES = {t.__name__: t for t in (bool, int, float, str, list, dict, tuple)}


class ParameterError(ValueError):
    """A parameter that the notebook cannot take; the message says what it takes."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One assignment of the parameters cell.

    `types` are those declared by its annotation, else its default's; empty when neither tells: a
    default of None, or one that is no literal.
    """

    name: str
    default: str
    types: tuple[type, ...]


def declared_parameters(cells: Sequence[Mapping[str, Any]]) -> dict[str, Parameter]:
    """Read the assignments of the cell tagged `parameters`.

    Raises:
        ParameterError: no cell has the tag, or the cell is no Python.
    """
    tagged = [cell for cell in cells if TAG in cell["metadata"].get("tags", ())]
    if not tagged:
        raise ParameterError(
            f"no cell is tagged '{TAG}', so nothing can be set; tag the one with the defaults"
        )
    try:
        statements = ast.parse(tagged[0]["source"]).body
    except SyntaxError as error:
        raise ParameterError(f"the parameters cell is no plain Python: {error}") from error
    found = [parameter for node in statements if (parameter := _parameter(node))]
    return {parameter.name: parameter for parameter in found}


def parse_values(declared: Mapping[str, Parameter], given: Mapping[str, str]) -> dict[str, Any]:
    """Turn the text given for each parameter into a value of its type.

    A text parameter keeps the text as it is; for any other type it is read as a Python literal.

    Raises:
        ParameterError: an unknown name (with the nearest and all known ones) or a wrong type.

    Example:
        >>> cell = {"metadata": {"tags": ["parameters"]}, "source": "EPOCHS = 1"}
        >>> parse_values(declared_parameters([cell]), {"EPOCHS": "3"})
        {'EPOCHS': 3}
    """
    for name in given:
        if name not in declared:
            raise ParameterError(_unknown(name, declared))
    return {name: _parse_value(declared[name], text) for name, text in given.items()}


def _unknown(name: str, declared: Mapping[str, Parameter]) -> str:
    nearest = difflib.get_close_matches(name.upper(), declared, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"unknown parameter {name}{hint}\nit takes: {', '.join(declared) or 'none'}"


def _parse_value(parameter: Parameter, text: str) -> Any:
    types = parameter.types
    value = _literal(text)
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and float in types
        and int not in types
    ):
        value = float(value)
    if type(value) in types and not isinstance(value, str):
        return value
    if str in types:
        return text
    if not types:
        return text if value is _NO_LITERAL else value
    came = "text" if value is _NO_LITERAL else type(value).__name__
    expected = " or ".join(t.__name__ for t in types).replace("NoneType", "None")
    raise ParameterError(
        f"parameter {parameter.name} takes {expected} (default {parameter.default}), "
        f"got {came}: {text}"
    )


_NO_LITERAL = object()


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # as its manual says
        return _NO_LITERAL


def _parameter(statement: ast.stmt) -> Parameter | None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            types: tuple[type, ...] = ()
        case ast.AnnAssign(
            target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value
        ):
            types = _annotated_types(annotation)
        case _:
            return None
    default = ast.unparse(value)
    return Parameter(name=name, default=default, types=types or _default_types(default))


def _default_types(default: str) -> tuple[type, ...]:
    value = _literal(default)
    return () if value is None or value is _NO_LITERAL else (type(value),)


def _annotated_types(annotation: ast.expr) -> tuple[type, ...]:
    """The plain types of `int`, `list[int]`, `int | None`; empty for anything else."""
    match annotation:
        case ast.Name(id=name) if name in _PLAIN_TYPES:
            return (_PLAIN_TYPES[name],)
        case ast.Constant(value=None):
            return (type(None),)
        case ast.Subscript(value=container):
            return _annotated_types(container)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _annotated_types(left) + _annotated_types(right)
        case _:
            return ()
