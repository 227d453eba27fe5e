"""Whether two values of a slot are the same, by the slot's own comparator.

    exact       12 = 12.0, but not "12"; texts letter by letter
    normalized  "Café  Noir" = "CAFÉ NOIR": NFKC, letters' case, white space and dashes do not count
    number      "1.299,00 €" = 1299: a sign that may part thousands or decimals counts either way
    date        "2026-11-27" = "2026-11-27T00:00": ISO 8601; a time counts where both have one
    fuzzy       indel ratio of the normalized texts, at least the threshold
    judge       as normalized; what is left unequal is for a judge

"set" and lists are for `tasks.leaves`, which compares their items.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from nblib.tasks.slots import SlotSpec

_DASHES = dict.fromkeys(map(ord, "\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
_ARABIC_SIGNS = {0x066B: ".", 0x066C: "'"}  # for decimals, and for nothing but thousands
# Digits, points and commas among them, and thousands parted by an apostrophe or one space.
_NUMBER = re.compile(r"[-+]?[.,]?\d(?:\d|[.,]\d|['’_ ]\d{3}(?!\d)){0,63}")
_SCIENTIFIC = re.compile(r"[-+]?\d{1,30}(?:\.\d{1,30})?[eE][-+]?\d{1,3}")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")  # such as Arabic and Hindi ones
_PARTING = re.compile(r"['’_ ]")
# 1,234,567 or 12,34,567
_THOUSANDS = re.compile(r"[-+]?(?:[1-9]\d{0,2}(?:[.,]\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})")


def same(gold: Any, answer: Any, spec: SlotSpec) -> bool:
    """Return whether an answer's value, no list and no object, is the right one."""
    compare = spec.compare or ("normalized" if isinstance(gold, str) else "exact")
    return _COMPARE[compare](gold, answer, spec)


def same_key(value: Any, spec: SlotSpec) -> str:
    """Return a text that two values share only where they are the same, whichever is right.

    Values without a common one may be the same too: by a tolerance, or a threshold.
    """
    if spec.compare == "number" and len(readings := number_readings(value)) == 1:
        (number,) = readings
        digits = f"{number:f}"
        return f"#{digits.rstrip('0').rstrip('.') if '.' in digits else digits}"
    if spec.compare is None and isinstance(value, str):
        return f"'{normalized(value)}"  # which a number is not
    return json.dumps(_plain(value)) if spec.compare in (None, "exact") else normalized(value)


def normalized(value: Any) -> str:
    """Return a value as text without what does not count: case, white space, kinds of dashes.

    >>> normalized(" Caf\u00e9\u00a0NOIR \u2013 12")
    'caf\u00e9 noir - 12'
    """
    text = value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)
    folded = unicodedata.normalize("NFKC", text).translate(_DASHES).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def number_readings(value: Any) -> frozenset[Decimal]:
    """Return the numbers that a value can be read as; none where it holds not exactly one.

    "1.234,56", "1,234.56", "1 234,56" and "1'234.56" are one number each. "1.234" is two: 1234
    where the point parts thousands, 1.234 where it parts decimals.
    """
    if isinstance(value, bool) or value is None:
        return frozenset()
    if isinstance(value, int | float):
        return frozenset({Decimal(str(value))} if math.isfinite(value) else ())
    text = unicodedata.normalize("NFKC", value).translate(_DASHES | _ARABIC_SIGNS).strip()
    text = _OTHER_DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), text)
    if _SCIENTIFIC.fullmatch(text):
        return frozenset({Decimal(text)})
    found = _NUMBER.findall(text)
    return frozenset(map(Decimal, _readings(found[0]))) if len(found) == 1 else frozenset()


def _readings(digits: str) -> set[str]:
    plain = _PARTING.sub("", digits)
    points, commas = plain.count("."), plain.count(",")
    if points and commas:
        decimal = "." if plain.rfind(".") > plain.rfind(",") else ","
        if plain.count(decimal) > 1:
            return set()
        return {plain.replace("," if decimal == "." else ".", "").replace(",", ".")}
    readings = set()
    if _THOUSANDS.fullmatch(plain):
        readings.add(plain.replace(".", "").replace(",", ""))
    if points + commas <= 1:
        readings.add(plain.replace(",", "."))
    return readings


def _plain(value: Any) -> Any:
    """Return a whole number without a point, as JSON knows one number 12."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _exact(gold: Any, answer: Any, spec: SlotSpec) -> bool:
    return isinstance(gold, bool) == isinstance(answer, bool) and bool(gold == answer)


def _normalized(gold: Any, answer: Any, spec: SlotSpec) -> bool:
    return normalized(gold) == normalized(answer)


def _number(gold: Any, answer: Any, spec: SlotSpec) -> bool:
    right, found = number_readings(gold), number_readings(answer)
    if not right or not found:
        return _normalized(gold, answer, spec)
    tolerance = Decimal(str(spec.tolerance))
    return any(abs(one - other) <= tolerance for one in right for other in found)


def _date(gold: Any, answer: Any, spec: SlotSpec) -> bool:
    right, found = (_moment(value) for value in (gold, answer))
    if right is None or found is None:
        return _normalized(gold, answer, spec)
    if right[1] and found[1]:
        return right[0] == found[0]
    return right[0].date() == found[0].date()


def _moment(value: Any) -> tuple[datetime, bool] | None:
    """Return an ISO date and whether it has a time; None for what is none."""
    text = str(value).strip()
    try:
        return datetime.fromisoformat(text), len(text) > len("2026-11-27")
    except ValueError:
        return None


def _fuzzy(gold: Any, answer: Any, spec: SlotSpec) -> bool:
    from rapidfuzz.distance import Indel  # insertions and deletions alone

    one, other = normalized(gold), normalized(answer)
    # Both characters of a pair count. A ratio in binary fractions can fall below its threshold.
    least = math.ceil(Decimal(str(spec.threshold)) * (len(one) + len(other)))
    return bool(Indel.similarity(one, other, score_cutoff=least) >= least)


_COMPARE: Mapping[str, Callable[[Any, Any, SlotSpec], bool]] = {
    "exact": _exact,
    "normalized": _normalized,
    "number": _number,
    "date": _date,
    "set": _normalized,
    "fuzzy": _fuzzy,
    "judge": _normalized,
}
