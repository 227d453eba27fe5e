import numpy as np
import pytest

from nblib.tasks.expressions import nodes, parse_expression
from nblib.tasks.float_values import differences
from nblib.tasks.statements import parse_relation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a+b >= 2", (1 + 4 - 2) / (1 + 4 + 2)),
        ("a-b >= 0", (1 - 4) / (1 + 4)),
        ("(a-b)^2 >= 0", 9 / 25),  # of what is added up: (1+4)^2
        ("a/b >= sqrt(b)", (0.25 - 2) / (0.25 + 2)),
        ("b^(-1/2) >= 1", -0.5 / 1.5),
        ("a >= a", 0),
        ("3 >= 1", 0.5),
    ],
)
def test_a_difference_is_a_part_of_what_is_added_up(text, expected):
    points = np.array([[1.0, 1.0], [4.0, 4.0]])
    np.testing.assert_allclose(differences(parse_relation(text), "ab", points), [expected] * 2)


def test_what_has_no_value_is_no_number():
    points = np.array([[0.0, -1.0, 1.0]])
    for text in ("sqrt(-a^2-1) >= 0", "1/(a-a) >= 0"):
        assert not np.isfinite(differences(parse_relation(text), "a", points)).any()


def test_nodes_are_operations_letters_and_numbers():
    assert nodes(parse_expression("2a+b/c")) == 7
    assert nodes(parse_expression("sqrt(a)")) == 2
