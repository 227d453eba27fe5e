"""Another arithmetic than the library's, to compare values with: `decimal`."""

from decimal import Decimal

import pytest


@pytest.fixture(scope="session")
def decimal_value():
    """What an expression is worth at a point, to the digits of decimal's context."""

    def find(expression, point):
        match expression:
            case ("number", number):
                return Decimal(number.numerator) / number.denominator
            case ("variable", letter):
                return Decimal(point[letter].numerator) / point[letter].denominator
            case ("sum", parts):
                return sum(find(part, point) for part in parts)
            case ("product", (first, *rest)):
                return (
                    find(first, point) * find(("product", rest), point)
                    if rest
                    else find(first, point)
                )
            case ("quotient", top, bottom):
                return find(top, point) / find(bottom, point)
        _, base, exponent = expression
        if exponent.denominator == 1:
            return find(base, point) ** int(exponent)
        return find(base, point) ** (Decimal(exponent.numerator) / exponent.denominator)

    return find
