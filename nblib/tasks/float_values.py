"""What expressions are worth at many points at once, in floating point, for a search.

For a value that is certain see `exact_values`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nblib.tasks.expressions import Expression
from nblib.tasks.statements import Relation


def differences(
    relation: Relation, letters: Sequence[str], points: Float[np.ndarray, "V N"]
) -> Float[np.ndarray, " N"]:
    """Return left less right, as a part of the size of what both sides add up: within -1..1."""
    columns = dict(zip(letters, points, strict=True))
    with np.errstate(all="ignore"):
        left, left_size = _value_and_size(relation.left, columns)
        right, right_size = _value_and_size(relation.right, columns)
        found = (left - right) / (left_size + right_size)
        found = np.where(left == right, 0.0, found)
    return np.broadcast_to(found, points.shape[1:])


def _value_and_size(
    expression: Expression, columns: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return values, and how large what is added up in them is: rounding errors are a part of it.

    What takes differences before it divides has larger errors; that is for the exact check.
    """
    match expression:
        case ("number", number):
            return np.array(float(number)), np.array(abs(float(number)))
        case ("variable", letter):
            return columns[letter], np.abs(columns[letter])
        case ("sum", parts):
            value, size = _value_and_size(parts[0], columns)
            for part in parts[1:]:
                term, term_size = _value_and_size(part, columns)
                value, size = value + term, size + term_size
            return value, size
        case ("product", parts):
            value, size = _value_and_size(parts[0], columns)
            for part in parts[1:]:
                factor, factor_size = _value_and_size(part, columns)
                value, size = value * factor, size * factor_size
            return value, size
        case ("quotient", top, bottom):
            divisor = _value_and_size(bottom, columns)[0]
            value, size = _value_and_size(top, columns)
            return value / divisor, size / np.abs(divisor)
        case ("power", base, exponent):
            value, size = _value_and_size(base, columns)
            power = int(exponent) if exponent.denominator == 1 else float(exponent)
            raised = value ** np.float64(power)
            return raised, size ** np.float64(power) if exponent > 0 else np.abs(raised)
    raise ValueError(f"{expression[0]!r} is no kind of expression")
