r"""Read one number from a text that should hold exactly one, and write it in one canonical way.

This is not an expression parser: "3 + 4 = 7", "12:30", "5%" and "five" are not numbers here.
Public graders read the first digits that they find and so take 3, 12 and 5; a text that says
more than one thing is no answer, and None says so.

Thousands are groups of exactly three digits after one to three, parted by commas or by one space
(ISO 80000-1): "9 500" and "5 600 700" are one number each. What is grouped otherwise ("2019 300",
"9 50", "1 200,300") is no number; nor is "1 100/200", which a reader takes for a mixed number.

TeX's way to write a plain number is read as plain text is, in completions and in references:
"\$1{,}200", "118\,000", "46^\circ", "18\text{ apples}". TeX is not evaluated: "\frac{1}{2}" is no
number. A letter that touches the digits is no unit: "6x" and "-668i" are algebra, "$5m" millions.
"""

import re
from fractions import Fraction

MAX_DIGITS = 64  # for each of whole part, decimals and denominator: 10**400 is refused unread

_DIGITS = f"[0-9]{{1,{MAX_DIGITS}}}"  # not \d, which takes the digits of every script
_GROUPS = f"{{1,{MAX_DIGITS // 3 - 1}}}"
_GROUPED = f"[1-9][0-9]{{0,2}}(?:(?:,[0-9]{{3}}){_GROUPS}|(?: [0-9]{{3}}){_GROUPS})"
_SIGN = "[-+\N{MINUS SIGN}]?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})(?:[$€£] ?)?(?P<inner_sign>{_SIGN})"
    rf"(?P<whole>{_GROUPED}|{_DIGITS}|(?=\.[0-9]))"
    rf"(?:\.(?P<decimals>{_DIGITS})| ?/ ?(?P<denominator>{_DIGITS}))?"
)
# No-break, figure, thin and narrow no-break space: how " " is typeset beside numbers.
TYPESET_SPACES = "\u00a0\u2007\u2009\u202f"
_AS_SPACE = dict.fromkeys(map(ord, TYPESET_SPACES), " ")
# "\$18", "5\%", "1,\!200", "1{,}200", "118\,000", "46^{\circ}", "18\text{ apples}". The first group
# is what stays: of "\\$" the second backslash escapes nothing, and the brace of "\{" opens nothing.
_TEX = re.compile(
    r"(\\[\\{}])|\\([$%])|(,)\\!|\{(,)\}|(?P<space>\\[,:; ])|(?P<degrees>\^(?:\\circ|\{\\circ\}))"
    r"|\\(?:text|textbf|mathrm|mathbf)\{(?P<words>[^{}\\]*+)\}"
)
_CURRENCY_AFTER = frozenset("$€£¢")
_UNIT_MARKS = frozenset(" .-/()'°²³\N{RIGHT SINGLE QUOTATION MARK}")  # "km/h", "m²", "girls' hats"
_UNIT_LETTERS = frozenset("CFJLNVWghlmst")  # "5 m", "18 g"; any other letter is a variable
# A Latin, Greek or mathematical letter that is a word: one of another script is a whole word there.
_LONE_LETTER = re.compile(r"[A-Za-z\u0370-\u03ff\U0001d400-\U0001d7ff](?![^\W\d_])")
# "5 thousand" is not 5: a word that changes the value of the number before it is not a unit.
_NOT_UNITS = re.compile(
    r"\b(?:per ?cent|percentage|k|bn|hundred|thousand|million|billion|trillion|dozen"
    r"|half|third|tenth|hundredth|thousandth|or|plus|minus|times|pi|[xyz]{1,3})s?\b",
    re.IGNORECASE,
)


def parse_number(text: str) -> Fraction | None:
    """The value of a text that is one number as a whole, else None; linear in the text.

    Read are a sign (a hyphen or the real minus sign), a currency sign, thousands, decimals, a
    trailing point, a fraction a/b, unit words after the number, and TeX's spelling of all these.
    None for a percentage (5% is neither 5 nor certainly 0.05), for words before the number, any
    second number, digits of other scripts and more than `MAX_DIGITS` digits in a row.

    Example:
        >>> parse_number("$1,200.50"), parse_number("18 apples"), parse_number("3 + 4 = 7")
        (Fraction(2401, 2), Fraction(18, 1), None)
    """
    text = _TEX.sub(_plain, text).translate(_AS_SPACE).strip().removesuffix(".")
    match = _NUMBER.match(text)
    if match is None or not _leaves_value_alone(text[match.end() :]):
        return None
    signs = match["sign"] + match["inner_sign"]  # -$5 or $-5, not both
    denominator = int(match["denominator"] or 1)
    mixed = match["denominator"] and " " in match["whole"]
    if len(signs) > 1 or denominator == 0 or mixed:
        return None
    decimals = match["decimals"] or ""
    digits = int(re.sub("[, ]", "", match["whole"]) + decimals)
    return Fraction(digits if signs in ("", "+") else -digits, denominator * 10 ** len(decimals))


def _plain(tex: re.Match[str]) -> str:
    match tex.lastgroup:
        case "space":
            return " "
        case "degrees":
            return "°"
        case "words" if tex["words"][:1].isalpha():  # "18\text{m}" has a unit, "18m" has none
            return f" {tex['words']}"
    return tex[tex.lastindex or 0]


def _leaves_value_alone(tail: str) -> bool:
    """Whether what follows a number does not change it: nothing, a currency sign or unit words."""
    unit = tail.strip(" ")
    if not unit or unit in _CURRENCY_AFTER:
        return True
    if _LONE_LETTER.match(unit):
        in_words = unit[1:2] == " "  # "$18 a day"
        if not tail.startswith(" ") or not (in_words or unit[0] in _UNIT_LETTERS):
            return False
    starts_well = unit[0].isalpha() or unit[0] == "°"
    return starts_well and all(map(_is_unit_character, unit)) and not _NOT_UNITS.search(unit)


def _is_unit_character(character: str) -> bool:
    # isnumeric: "三" is a letter to Python, and yet a number.
    return character in _UNIT_MARKS or (character.isalpha() and not character.isnumeric())


def number_text(value: Fraction) -> str:
    """The canonical text of a number: "18", "-2.5" or "1/3".

    `parse_number` reads it back as the same value for every value that it can itself give.
    """
    places = next((n for n in range(MAX_DIGITS + 1) if 10**n % value.denominator == 0), None)
    if places is None:  # no `MAX_DIGITS` decimals write it in full
        return f"{value.numerator}/{value.denominator}"
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
