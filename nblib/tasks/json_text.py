r"""JSON in a model's completion: read strictly as a whole, or found among other text.

The strict reading decides what counts as valid. The lenient one says what a completion that is not
valid holds all the same, and is never mixed with the strict one:

    {"a": 1}                       strict: {"a": 1}
    Sure! ```json {"a": 1} ```     not strict; found: {"a": 1}
    [1] {"a": 1} {"b": 2}          not strict; found: {"a": 1}, the first of two objects
    {"a": {"b": 1}                 not strict, cut; nothing found: {"b": 1} is a part
    {"a" 1, "c": {"b": 1}}         not strict; nothing found, for the same reason

Both take time linear in the text and never raise on one. Strict JSON is RFC 8259, without a key
given twice, numbers that are not finite, text that UTF-8 cannot hold, and nesting over 64 levels.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from nblib.files import object_without_repeated_keys

DEEPEST = 64  # levels; readers written in C give up at a few hundred, each at its own
_MOST_DIGITS = 4300  # of a whole number: Python reads no longer one
_MOST_BROKEN = 64  # beginnings of a value that is none; each costs a look at the text before it
_BEGINNING = re.compile(r'\{(?=\s*+["}]|\Z)|\[(?=\s*+[\[\]{"\-\dtfnNI]|\Z)')
_TEXT_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
_INSIDE = re.compile(r'(?:[,\]}"]|"\s*+:)\Z')  # what a value inside of another one comes after
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_CUT_ESCAPE = re.compile(r"\\?u?[0-9a-fA-F]{0,4}")
_CUT_NUMBER = re.compile(r"\.|[eE][-+]?")  # what follows its last whole part


@dataclass(frozen=True, kw_only=True)
class JsonText:
    """What a text holds.

    Attributes:
        strict: Whether the whole text is one JSON value.
        value: That value, or else the first object in the text, or else its first array; None where
            there is none. What is nested too deep is left out of it.
        problem: Why the text is not strict; None where it is.
        count: How many objects stand beside each other; arrays, where there is no object.
        alone: Whether nothing but white space stands around the one value.
        cut: Whether the text ends inside a value.
        holds_object: Whether there is an object anywhere, in an array too.
    """

    strict: bool
    value: Any = None
    problem: str | None = None
    count: int = 0
    alone: bool = False
    cut: bool = False
    holds_object: bool = False

    @property
    def failure(self) -> str | None:
        """The first rule of strict JSON that the text breaks, as its code; None for none."""
        if self.strict:
            return None
        if self.cut:
            return "truncated"
        if self.value is None:
            return "no JSON"
        if self.count > 1:
            return "several values"
        return "not strict JSON" if self.alone else "prose around"


def write_json_text(value: Any) -> str:
    """Return a value as the text that a model learns to write, and a grammar allows: one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read_json_text(text: str) -> JsonText:
    """Read a completion strictly, and where that fails leniently."""
    try:
        value = _strict_value(text)
    except ValueError as error:
        return _found(text, str(error))
    return JsonText(
        strict=True, value=value, count=1, alone=True, holds_object=_holds_object(value)
    )


def _strict_value(text: str) -> Any:
    """Return the value of a text that is strict JSON; ValueError says why it is not."""
    try:
        value = _STRICT.decode(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if _is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    if _recordable(value) != value:
        raise ValueError("half of a surrogate pair, which is no character")
    return value


def _found(text: str, problem: str) -> JsonText:
    values, cut, around = _values_in(text.strip())
    alone = len(values) == 1 and not around.strip()
    objects = [one for one in values if isinstance(one, dict)]
    # "[1]" and "- [ ]" among words are a note and a box to tick.
    kept = objects or [one for one in values if alone or _holds_object(one)]
    return JsonText(
        strict=False,
        value=kept[0] if kept else None,
        problem=problem,
        count=len(kept),
        alone=alone,
        cut=cut,
        holds_object=any(map(_holds_object, values)),
    )


def _values_in(text: str) -> tuple[list[Any], bool, str]:
    """Return the objects and arrays beside each other, whether one is cut, and what is around."""
    values, around, at, broken = list[Any](), list[str](), 0, 0
    end: int | None = 0  # of the last broken value; None: not closed, nor need the next one be
    is_part = False  # of a broken value, whose brackets closed too early
    while broken < _MOST_BROKEN and (begun := _BEGINNING.search(text, at)):
        start = begun.start()
        around.append(text[at:start])
        before = around[-1].rstrip()
        is_part = is_part and (bool(_INSIDE.search(before)) if before else end is None)
        try:
            value, at = _LENIENT.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if _is_cut(text, error):
                return values, True, "".join((*around, text[start:]))
            end = None if end is None else _end(text, start)  # a part of it is no value
            at, broken = end or max(error.pos, begun.end()), broken + 1
            around.append(text[start:at])
            is_part = True
            continue
        except RecursionError:
            after = _end(text, start)
            if after is None:
                return values, True, "".join((*around, text[start:]))
            value, at = {} if text[start] == "{" else [], after
        if not is_part:
            values.append(_recordable(value))
    return values, False, "".join((*around, text[at:]))


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    """Return whether a value is broken because the text ends: inside a text, a word, a list."""
    if error.msg.startswith("Unterminated string"):
        return True
    rest = text[error.pos : error.pos + 16]
    if error.msg.startswith(r"Invalid \uXXXX"):
        return bool(_CUT_ESCAPE.fullmatch(rest))
    if _CUT_NUMBER.fullmatch(rest):
        return True
    return any(word.startswith(rest) for word in _WORDS)  # of no rest too


def _end(text: str, start: int) -> int | None:
    """Return where the bracket at `start` is closed, also in broken JSON; None where it is not.

    Brackets of both kinds count alike, and none inside of a text.
    """
    open_brackets = 0
    for piece in _TEXT_OR_BRACKET.finditer(text, start):
        open_brackets += {"[": 1, "{": 1, "]": -1, "}": -1}.get(piece[0], 0)
        if not open_brackets:
            return piece.end()
    return None


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = list(chain.from_iterable(map(_inside, level)))
    return any(isinstance(one, dict | list) for one in level)


def _recordable(value: Any, levels: int = DEEPEST) -> Any:
    """Return the value as a record can hold it.

    Half surrogate pairs are replaced; what is nested too deep is None.
    """
    if isinstance(value, dict | list) and not levels:
        return None
    if isinstance(value, dict):
        return {_recordable(n): _recordable(one, levels - 1) for n, one in value.items()}
    if isinstance(value, list):
        return [_recordable(one, levels - 1) for one in value]
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _holds_object(value: Any) -> bool:
    level = [value]
    while level:
        if any(isinstance(one, dict) for one in level):
            return True
        level = list(chain.from_iterable(map(_inside, level)))
    return False


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refused(digits[:20])


def _whole(digits: str) -> int:
    return int(digits) if len(digits) <= _MOST_DIGITS else int(_refused(f"{digits[:20]}..."))


def _any_whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


_TOO_DEEP = f"brackets are nested over {DEEPEST} levels"
_STRICT = json.JSONDecoder(
    object_pairs_hook=object_without_repeated_keys,
    parse_constant=_refused,
    parse_float=_finite,
    parse_int=_whole,
)
_LENIENT = json.JSONDecoder(parse_int=_any_whole, strict=False)  # a text may have line breaks
