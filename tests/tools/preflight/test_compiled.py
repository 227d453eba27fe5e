import jax
import jax.numpy as jnp
import pytest

from nblib.tools.preflight.compiled import (
    Compiled,
    _refused,
    compile_cached,
    compile_lowered,
    least_seconds,
)
from nblib.tools.preflight.targets import find_target

# As libtpu says it (0.0.51), or where temporaries alone are too many (0.0.42.1).
REFUSAL = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 22.60G of 15.75G hbm. Exceeded hbm capacity by 6.85G.\n\nTotal hbm usage >= 22.85G:"
)

TEMPORARIES = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(22.60G) exceeds available HBM (15.75G)."
)


def product(size):
    matrix = jax.ShapeDtypeStruct((size, size), jnp.float32)
    return jax.jit(lambda a, b: a @ b).lower(matrix, matrix)


def test_bytes_and_operations_of_a_product(compilation_cache):
    found = compile_lowered(product(64))
    assert found.fits
    assert found.arguments_bytes == 2 * 64 * 64 * 4
    assert found.output_bytes == 64 * 64 * 4
    assert found.peak_bytes >= found.arguments_bytes + found.output_bytes
    assert found.flops == pytest.approx(2 * 64**3, rel=0.1)


def test_the_slower_of_computing_and_reading_decides():
    v5e = find_target("v5e-8")  # 197e12 operations and 819e9 bytes a second
    computing = Compiled(fits=True, flops=394e12, bytes_moved=819e9)
    reading = Compiled(fits=True, flops=197e12, bytes_moved=3 * 819e9)
    assert least_seconds(computing, v5e) == 2.0
    assert least_seconds(reading, v5e) == 3.0
    assert least_seconds(Compiled(fits=False), v5e) == 0
    assert least_seconds(computing, find_target("gpu-24")) == 0


def test_more_than_the_memory_does_not_fit(compilation_cache):
    assert compile_lowered(product(64), memory_bytes=2**20).fits
    refused = compile_lowered(product(64), memory_bytes=3 * 64 * 64 * 4 - 1)
    assert not refused.fits
    assert refused.needed_bytes > refused.limit_bytes == 3 * 64 * 64 * 4 - 1


@pytest.mark.parametrize("message", [REFUSAL, TEMPORARIES])
def test_a_refusal_says_what_it_needs_and_what_there_is(message):
    found = _refused(message, 1.0)
    assert not found.fits
    assert found.needed_bytes == round(22.60 * 2**30)
    assert found.limit_bytes == round(15.75 * 2**30)
    assert found.refusal.startswith("RESOURCE_EXHAUSTED") and "\n" not in found.refusal


def test_another_failure_is_an_error(compilation_cache):
    class Broken:
        def compile(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        compile_lowered(Broken())


def test_what_was_compiled_is_found_again_and_only_for_the_same_key(runs, compilation_cache):
    lowered = []

    def lower(size):
        lowered.append(size)
        return product(size)

    first = compile_cached({"size": 8}, lambda: lower(8))
    assert compile_cached({"size": 8}, lambda: lower(8)) == first
    compile_cached({"size": 16}, lambda: lower(16))
    assert lowered == [8, 16]


def test_another_compiler_compiles_anew(runs, compilation_cache, monkeypatch):
    lowered = []

    def lower():
        lowered.append(1)
        return product(8)

    compile_cached({"size": 8}, lower)
    monkeypatch.setattr("nblib.models.compilation._version", lambda package: "other")
    compile_cached({"size": 8}, lower)
    assert len(lowered) == 2
