from dataclasses import replace

import pytest

from nblib.delivery.preflight.compiled import Compiled
from nblib.delivery.preflight.flight import compile_run
from nblib.delivery.preflight.search import nearest
from nblib.delivery.preflight.targets import find_target

GIB = 2**30
REFUSED = Compiled(fits=False, needed_bytes=22 * GIB, limit_bytes=16 * GIB)
HOPELESS = Compiled(fits=False, needed_bytes=130 * GIB, limit_bytes=16 * GIB)
FITS = Compiled(fits=True)


def judge(answers):
    """A compiler that gives these answers, and the (rows, remat) it was asked for."""
    asked = []

    def compile_(program):
        asked.append((program.rows, program.key["remat"]))
        return answers[len(asked) - 1]

    return compile_, asked


def test_remat_is_tried_first(sft, mesh):
    compile_, asked = judge([FITS])
    assert nearest(sft, mesh, REFUSED, compile_) == {"remat": True}
    assert asked == [(8, True)]


def test_then_half_the_batch_with_twice_the_accumulation(sft, mesh):
    compile_, asked = judge([REFUSED, REFUSED, FITS])
    found = nearest(replace(sft, accumulation=3), mesh, REFUSED, compile_)
    assert found == {"remat": True, "batch_tokens": 256, "accumulation": 12}
    assert asked == [(8, True), (4, True), (2, True)]


def test_halvings_that_cannot_suffice_are_not_compiled(sft, mesh):
    compile_, asked = judge([FITS])
    given = replace(sft, remat=True, batch_tokens=2048)
    found = nearest(given, mesh, HOPELESS, compile_)
    assert found["batch_tokens"] == 128  # 130 GiB are eight times 16 and more
    assert asked == [(1, True)]


def test_v2_gets_a_smaller_micro_batch(grpo, mesh):
    compile_, asked = judge([REFUSED, REFUSED, FITS])
    assert nearest(grpo, mesh, REFUSED, compile_) == {"remat": True, "micro_batch": 1}
    assert [rows for rows, _ in asked] == [8, 4, 2]


def test_nothing_may_fit(sft, mesh):
    compile_, _ = judge([REFUSED] * 9)
    assert nearest(sft, mesh, REFUSED, compile_) == {}


def test_more_batches_a_step_than_there_are_rows_are_not_proposed(sft, mesh):
    few = replace(sft, remat=True, num_samples=2)  # read twice: four rows
    compile_, asked = judge([REFUSED] * 9)
    assert nearest(few, mesh, REFUSED, compile_) == {}
    assert [rows for rows, _ in asked] == [4, 2]  # with accumulation 2 and 4; 8 has no step


@pytest.fixture
def small(sft, mesh, runs):
    """A machine whose memory lies between what the batch and what half of it needs."""
    from nblib.delivery.preflight.programs import programs

    cpu = find_target("cpu")
    whole, half = (
        programs(replace(sft, remat=True, batch_tokens=tokens), mesh)[0].compiled_for(cpu, mesh)
        for tokens in (1024, 512)
    )
    assert half.peak_bytes < whole.peak_bytes
    return replace(cpu, name="small", memory_bytes=(half.peak_bytes + whole.peak_bytes) // 2)


def test_what_does_not_fit_is_refused_and_a_fitting_setting_is_named(sft, mesh, small, runs):
    said = []
    settings = replace(sft, remat=True)
    steps, change = compile_run(settings, small, mesh, None, search=True, say=said.append)
    assert not steps[0].compiled.fits
    assert steps[0].compiled.needed_bytes > small.memory_bytes
    assert change == {"REMAT": True, "BATCH_TOKENS": 512, "GRADIENT_ACCUMULATION": 2}
    assert any("does not fit" in line for line in said)
