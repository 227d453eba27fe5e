"""What a field of a notebook's settings takes: kinds of values, and a value that is made of them.

A kind is a type annotated with its rule. No number may be NaN or infinite, or absurdly large.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, get_type_hints

ALL = -1  # as a count: all there are
# Where a field is called otherwise than its parameter.
_RENAMED = {"levels": "DIFFICULTY_FILTER", "accumulation": "GRADIENT_ACCUMULATION"}
_MOST = 10_000_000  # of anything: what is above is a slip of the hand


@dataclass(frozen=True)
class Rule:
    """What a field takes, in words and as a check."""

    said: str
    holds: Callable[[Any], bool]


def whole(least: int = 1, most: int = _MOST, *, or_all: bool = False) -> Rule:
    """Return the rule of a whole number in these limits, or -1 where that may stand for all."""

    def holds(value: Any) -> bool:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and (least <= value <= most or (or_all and value == ALL))

    said = f"a whole number from {least:,} to {most:,}"
    return Rule(f"{said}, or {ALL} for all" if or_all else said, holds)


def one_of(names: Sequence[str]) -> Rule:
    """Return the rule of one of these texts."""
    return Rule(f"one of {', '.join(names)}", lambda value: value in tuple(names))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST


def _several(said: str, rule: Rule) -> Rule:
    return Rule(said, lambda value: isinstance(value, tuple) and all(map(rule.holds, value)))


TEXT = Rule("text", lambda value: isinstance(value, str))
Text = Annotated[str, TEXT]
Texts = Annotated[tuple[str, ...], _several("a list of texts", TEXT)]
Flag = Annotated[bool, Rule("True or False", lambda value: isinstance(value, bool))]
Number = Annotated[float, Rule(f"a number from 0 to {_MOST:,}", _number)]
Weights = Annotated[
    Mapping[str, float],
    Rule(
        'a dictionary of numbers, such as {"brevity": 0.1}',
        lambda value: isinstance(value, Mapping) and all(map(_number, value.values())),
    ),
]
Count = Annotated[int, whole()]
CountOrNone = Annotated[int, whole(0)]
CountOrAll = Annotated[int, whole(or_all=True)]
Levels = Annotated[tuple[int, ...], _several("a list of whole numbers from 1", whole())]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A value whose fields are checked when it is made, and named as the notebook's parameters."""

    _aside: ClassVar[tuple[str, ...]] = ()  # fields that are no part of `parameters`
    _built: ClassVar[tuple[str, ...]] = ()  # properties that refuse what they cannot be made from

    def __post_init__(self) -> None:
        """Refuse the first value that cannot work, by its parameter's name."""
        hints = get_type_hints(type(self), include_extras=True)
        for name, value in self._values().items():
            (rule,) = hints[name].__metadata__
            if not rule.holds(value):
                shown = list(value) if isinstance(value, tuple) else value
                raise ValueError(f"{parameter_name(name)} {shown!r}: expected {rule.said}")
        self._check()
        try:
            for name in self._built:
                getattr(self, name)
        except ValueError as error:
            raise ValueError(self._in_capitals(str(error))) from error

    @property
    def parameters(self) -> dict[str, Any]:
        """What a run is found again by: all that changes its result."""
        return {name: value for name, value in self._values().items() if name not in self._aside}

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _check(self) -> None:
        """Refuse a combination of values; each by itself is what its rule says."""

    def _in_capitals(self, message: str) -> str:
        """Return a configuration's message with its fields called as the parameters are."""
        for name, value in self._values().items():
            written = rf"\b{name} (?={re.escape(repr(value))})"
            message = re.sub(written, f"{parameter_name(name)} ", message)
        return message


def parameter_name(field: str) -> str:
    """Return what the notebooks call a field of their settings."""
    return _RENAMED.get(field, field).upper()
