"""What expressions are worth at a rational point, without rounding errors.

Without radicals a value is a fraction. A root that is no fraction is enclosed between two of them,
as closely as a comparison needs: `sqrt(2)` between 1.414 and 1.415, then closer. So "left < right"
is either proven or not said; two sides that are equal, but not as fractions, stay undecided.

A division by zero, a root of a negative number, and a fraction of a thousand digits have no
value. (Lean calls the first two 0.) The last bounds the cost: no text can ask for more.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from nblib.tasks.expressions import Expression
from nblib.tasks.statements import Relation

Point = dict[str, Fraction]

_PRECISIONS = (40, 100, 200, 400)  # bits of what is no fraction
_MAX_BITS = 4000  # of a fraction: numerator and denominator together
_DIGITS = (6, 9, 12, 18, 30, 60, 120)  # behind the point, of a bound as text


class NoValueError(ArithmeticError):
    """An expression has no value at a point, or none that is certain."""


@dataclass(frozen=True, slots=True)
class Interval:
    """All numbers from one fraction to another; a value is exact where both are the same."""

    low: Fraction
    high: Fraction

    @property
    def exact(self) -> bool:
        """Whether this is one number."""
        return self.low == self.high

    @property
    def sign(self) -> int | None:
        """1, 0 or -1; None where it is not known."""
        if self.low > 0:
            return 1
        if self.high < 0:
            return -1
        return 0 if self.exact else None


def value(expression: Expression, point: Point, bits: int) -> Interval:
    """Return what an expression is worth, with `bits` binary digits of what is no fraction.

    Raises NoValueError.
    """
    match expression:
        case ("number", number):
            return Interval(number, number)
        case ("variable", letter):
            return Interval(point[letter], point[letter])
        case ("sum", parts):
            found = [value(part, point, bits) for part in parts]
            low, high = sum(one.low for one in found), sum(one.high for one in found)
            return _rounded(Fraction(low), Fraction(high), bits)
        case ("product", parts):
            product = value(parts[0], point, bits)
            for part in parts[1:]:
                product = _times(product, value(part, point, bits), bits)
            return product
        case ("quotient", top, bottom):
            divisor = _inverse(value(bottom, point, bits), bits)
            return _times(value(top, point, bits), divisor, bits)
        case ("power", base, exponent):
            return _power(value(base, point, bits), exponent, bits)
    raise ValueError(f"{expression[0]!r} is no kind of expression")


def exact_difference(relation: Relation, point: Point) -> Fraction | None:
    """Return left less right where it is a fraction, else None."""
    try:
        left = value(relation.left, point, _PRECISIONS[0])
        right = value(relation.right, point, _PRECISIONS[0])
    except NoValueError:
        return None
    return left.low - right.low if left.exact and right.exact else None


def compare(relation: Relation, point: Point) -> tuple[int | None, Interval, Interval]:
    """Return the sign of left less right, None where it is not known, and both sides.

    Raises NoValueError where a side has no value.
    """
    for bits in _PRECISIONS:
        try:
            left, right = (value(one, point, bits) for one in (relation.left, relation.right))
        except NoValueError:  # perhaps a divisor is too near to zero
            if bits == _PRECISIONS[-1]:
                raise
            continue
        sign = Interval(left.low - right.high, left.high - right.low).sign
        if sign is not None:
            break
    return sign, left, right


def holds(relation: Relation, point: Point) -> bool | None:
    """Whether a relation is true at a point; None where that is not known."""
    try:
        sign = compare(relation, point)[0]
    except NoValueError:
        return None
    if sign is None:
        return None
    return {">": sign > 0, ">=": sign >= 0, "=": sign == 0, "!=": sign != 0}[relation.sign]


def as_text(left: Interval, right: Interval) -> tuple[str, str]:
    """Return both as text: fractions as they are, else decimal bounds that tell them apart."""
    for digits in _DIGITS:
        one, other = _bounds(left, digits), _bounds(right, digits)
        if one[1] < other[0] or other[1] < one[0]:
            break
    return _text(left, digits), _text(right, digits)


def integer_root(number: int, degree: int) -> int:
    """Return the whole part of a root of a number that is not negative."""
    if degree == 2 or number < 2:
        return math.isqrt(number) if degree == 2 else number
    root = 1 << -(-number.bit_length() // degree)  # not below the root
    while True:
        closer = ((degree - 1) * root + number // root ** (degree - 1)) // degree
        if closer >= root:
            return root
        root = closer


def exact_root(number: Fraction, degree: int) -> Fraction | None:
    """Return the root of a number that is not negative where it is a fraction, else None."""
    top, bottom = (integer_root(one, degree) for one in (number.numerator, number.denominator))
    exact = top**degree == number.numerator and bottom**degree == number.denominator
    return Fraction(top, bottom) if exact else None


def _size(number: Fraction) -> int:
    return number.numerator.bit_length() + number.denominator.bit_length()


def _rounded(low: Fraction, high: Fraction, bits: int) -> Interval:
    """Return an interval that holds both and is cheap to go on with; one number stays exact."""
    if max(_size(low), _size(high)) > _MAX_BITS:
        raise NoValueError("a number of too many digits")
    if low == high or max(_size(low), _size(high)) <= 2 * bits:
        return Interval(low, high)
    return Interval(_below(low, bits), -_below(-high, bits))


def _below(number: Fraction, bits: int) -> Fraction:
    """Return a number of few digits that is not above another."""
    scale = bits - number.numerator.bit_length() + number.denominator.bit_length()
    unit = Fraction(2) ** -scale
    return math.floor(number / unit) * unit


def _times(one: Interval, other: Interval, bits: int) -> Interval:
    if one.exact and other.exact:
        product = one.low * other.low
        return _rounded(product, product, bits)
    ends = [x * y for x in (one.low, one.high) for y in (other.low, other.high)]
    return _rounded(min(ends), max(ends), bits)


def _inverse(number: Interval, bits: int) -> Interval:
    if not number.sign:
        raise NoValueError("a division by zero, or by what may be zero")
    return _rounded(1 / number.high, 1 / number.low, bits)


def _power(base: Interval, exponent: Fraction, bits: int) -> Interval:
    if exponent < 0:
        return _inverse(_power(base, -exponent, bits), bits)
    degree, times = exponent.denominator, exponent.numerator
    if degree > 1 and base.low < 0:
        raise NoValueError("a root of a negative number, or of what may be negative")
    if times * max(_size(base.low), _size(base.high)) > _MAX_BITS:
        raise NoValueError("a number of too many digits")
    ends = sorted((base.low**times, base.high**times))
    if times and times % 2 == 0 and base.low < 0 < base.high:
        ends[0] = Fraction(0)
    if degree == 1:
        return _rounded(ends[0], ends[1], bits)
    low, high = _root(ends[0], degree, bits), _root(ends[1], degree, bits)
    return _rounded(low.low, high.high, bits)


def _root(number: Fraction, degree: int, bits: int) -> Interval:
    """Return bounds of a root of a number that is not negative."""
    root = exact_root(number, degree)
    if root is not None:
        return Interval(root, root)
    width = number.numerator.bit_length() - number.denominator.bit_length()
    shift = max(0, bits - width // degree)
    whole = integer_root((number.numerator << degree * shift) // number.denominator, degree)
    return Interval(Fraction(whole, 1 << shift), Fraction(whole + 1, 1 << shift))


def _bounds(number: Interval, digits: int) -> tuple[Fraction, Fraction]:
    if number.exact:
        return number.low, number.high
    unit = Fraction(1, 10**digits)
    return math.floor(number.low / unit) * unit, math.ceil(number.high / unit) * unit


def _text(number: Interval, digits: int) -> str:
    if number.exact:
        return str(number.low)
    low, high = (_decimal(one, digits) for one in _bounds(number, digits))
    return f"{low} to {high}"


def _decimal(number: Fraction, digits: int) -> str:
    whole = abs(number.numerator) * 10**digits // number.denominator
    text = str(whole).rjust(digits + 1, "0")
    return f"{'-' if number < 0 else ''}{text[:-digits]}.{text[-digits:]}"
