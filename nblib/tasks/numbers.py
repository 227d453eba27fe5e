"""Read one number from a text that should hold exactly one, and write it in one canonical way.

This is not an expression parser: "3 + 4 = 7", "12:30", "5%" and "five" are not numbers here.
Public graders read the first digits that they find and so take 3, 12 and 5; a text that says
more than one thing is no answer, and None says so.
"""

import re
from fractions import Fraction

MAX_DIGITS = 64  # for each of whole part, decimals and denominator: 10**400 is refused unread

_DIGITS = f"[0-9]{{1,{MAX_DIGITS}}}"  # not \d, which takes the digits of every script
_GROUPED = f"[1-9][0-9]{{0,2}}(?:,[0-9]{{3}}){{1,{MAX_DIGITS // 3 - 1}}}"
_SIGN = "[-+\N{MINUS SIGN}]?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})[$€£]?(?P<inner_sign>{_SIGN})"
    rf"(?P<whole>{_GROUPED}|{_DIGITS}|(?=\.[0-9]))"
    rf"(?:\.(?P<decimals>{_DIGITS})| ?/ ?(?P<denominator>{_DIGITS}))?"
)
_CURRENCY_AFTER = frozenset("$€£¢")
_UNIT_MARKS = frozenset(" .-/()'°²³\N{RIGHT SINGLE QUOTATION MARK}")  # "km/h", "m²", "girls' hats"
# "5 thousand" is not 5: a word that changes the value of the number before it is not a unit.
_NOT_UNITS = re.compile(
    r"\b(?:per ?cent|percentage|k|bn|hundred|thousand|million|billion|trillion|dozen"
    r"|half|third|tenth|hundredth|thousandth|or|plus|minus|times)s?\b",
    re.IGNORECASE,
)


def parse_number(text: str) -> Fraction | None:
    """The value of a text that is one number as a whole, else None; it never raises.

    Read are a sign (a hyphen or the real minus sign), a currency sign, thousands commas where
    they group well, decimals, a trailing point, a fraction a/b, and unit words after the number.
    None for a percentage (5% is neither 5 nor certainly 0.05), for words before the number, for
    any second number, for digits of other scripts and for more than `MAX_DIGITS` digits in a
    row. Time is linear in the text.

    Example:
        >>> parse_number("$1,200.50"), parse_number("18 apples"), parse_number("3 + 4 = 7")
        (Fraction(2401, 2), Fraction(18, 1), None)
    """
    text = text.strip().removesuffix(".")
    match = _NUMBER.match(text)
    if match is None or not _leaves_value_alone(text[match.end() :].strip(" ")):
        return None
    signs = match["sign"] + match["inner_sign"]  # -$5 or $-5, not both
    denominator = int(match["denominator"] or 1)
    if len(signs) > 1 or denominator == 0:
        return None
    decimals = match["decimals"] or ""
    digits = int(match["whole"].replace(",", "") + decimals)
    return Fraction(digits if signs in ("", "+") else -digits, denominator * 10 ** len(decimals))


def _leaves_value_alone(tail: str) -> bool:
    """Whether what follows a number does not change it: nothing, a currency sign or unit words."""
    if not tail or tail in _CURRENCY_AFTER:
        return True
    starts_well = tail[0].isalpha() or tail[0] == "°"
    return starts_well and all(map(_is_unit_character, tail)) and not _NOT_UNITS.search(tail)


def _is_unit_character(character: str) -> bool:
    # isnumeric: "三" is a letter to Python, and yet a number.
    return character in _UNIT_MARKS or (character.isalpha() and not character.isnumeric())


def number_text(value: Fraction) -> str:
    """The canonical text of a number: "18", "-2.5" or "1/3".

    `parse_number` reads it back as the same value for every value that it can itself give.
    """
    places = _decimal_places(value.denominator)
    if places is None:
        return f"{value.numerator}/{value.denominator}"
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _decimal_places(denominator: int) -> int | None:
    """How many decimals write x/denominator in full; None where no `MAX_DIGITS` of them do."""
    return next((n for n in range(MAX_DIGITS + 1) if 10**n % denominator == 0), None)
