import numpy as np
import pytest

from nblib.training.compilations import CompilationCounter

FOUR, FIVE = np.zeros(4, np.float32), np.zeros(5, np.float32)


@pytest.fixture
def new_program(compilation_cache):
    """Make a jitted function that nothing has built yet in this process."""
    import jax

    return lambda: jax.jit(lambda x: 3 * x + 1)


@pytest.fixture
def added(compilation_cache):
    """How many programs a call adds to the count."""

    def count(function, *arguments):
        programs = CompilationCounter()
        function(*arguments)
        return programs.count

    return count


def test_a_new_function_counts_once_and_a_cached_call_not_at_all(new_program, added):
    function = new_program()
    assert [added(function, FOUR) for _ in range(3)] == [1, 0, 0]


def test_a_new_shape_or_type_counts_again(new_program, added):
    function = new_program()
    shapes = (FOUR, FIVE, FOUR, FIVE.astype(np.int32), FIVE)
    assert [added(function, shape) for shape in shapes] == [1, 1, 0, 1, 0]


def test_a_program_that_lies_in_the_disk_cache_counts(new_program, added):
    """Its trace and lowering cost a step their time as well."""
    assert [added(new_program(), FOUR) for _ in range(2)] == [1, 1]
