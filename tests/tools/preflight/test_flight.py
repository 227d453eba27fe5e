from dataclasses import replace
from importlib import metadata

import jax
import pytest

from nblib.tools.preflight.checks import Check
from nblib.tools.preflight.compiled import Compiled
from nblib.tools.preflight.flight import Flight, Step, compile_run, hours_of, nearest
from nblib.tools.preflight.programs import Program, programs
from nblib.tools.preflight.targets import PreflightError, find_target

GIB = 2**30
REFUSED = Compiled(fits=False, needed_bytes=22 * GIB, limit_bytes=16 * GIB)
HOPELESS = Compiled(fits=False, needed_bytes=130 * GIB, limit_bytes=16 * GIB)
FITS = Compiled(fits=True)


def step(times, seconds, **compiled):
    given = Compiled(fits=True, **compiled)
    return Step(name="update", rows=8, length=128, times=times, seconds=seconds, compiled=given)


def test_a_run_takes_each_step_as_often_as_it_comes():
    assert hours_of((step(1800, 1.5), step(900, 1.0))) == pytest.approx(1.0)
    assert hours_of((step(0, 0.0), step(3600, 1.0))) == pytest.approx(1.0)


def test_hours_are_not_known_where_seconds_are_not():
    assert hours_of((step(10, 0.0), step(3600, 1.0))) == 0
    assert hours_of(()) == 0


def test_a_flight_that_fits_tells_its_bytes_and_hours():
    flight = Flight(
        notebook="v1_sft_format",
        target="v5e-8",
        mesh={"fsdp": 8, "tp": 1},
        steps=(step(1800, 2.0, peak_bytes=3 * GIB, temporary_bytes=2 * GIB, flops=5e12),),
        hours=1.0,
        session_hours=9.0,
        tokens_per_step=1234.0,
        compiler="libtpu 0.0.42.1",
        checks=(Check(name="disk", passed=True, said="room"),),
    )
    text = str(flight)
    assert flight.fits
    assert "v1_sft_format on v5e-8 (fsdp 8, tp 1)" in text
    assert "3.00 GiB  at its peak" in text and "2.00 GiB  activations" in text
    assert "5.00 T operations" in text and "2.000 s at least" in text
    assert "compiler  libtpu 0.0.42.1" in text
    assert "1,234 a step" in text and "at least 1.00 hours of 9 a session" in text
    assert text.endswith("ok   disk: room")


def test_one_that_does_not_names_what_would():
    refused = Compiled(fits=False, needed_bytes=22 * GIB, limit_bytes=16 * GIB)
    flight = Flight(
        notebook="v1_sft_format",
        target="v5e-8",
        mesh={"fsdp": 8, "tp": 1},
        steps=(Step(name="update", rows=8, length=128, times=1, seconds=0.0, compiled=refused),),
        hours=0.0,
        session_hours=9.0,
        suggestion={"REMAT": True, "BATCH_TOKENS": 512},
    )
    text = str(flight)
    assert not flight.fits
    assert "needs 22.00 GiB a device, there are 16.00 GiB" in text
    assert "verdict   does not fit" in text
    assert "fits with -p REMAT True -p BATCH_TOKENS 512" in text
    assert "hours" not in text


def test_a_compiler_that_fails_is_named_with_its_own_words(sft, mesh, monkeypatch):
    def fail(self, target, mesh):
        raise jax.errors.JaxRuntimeError("INTERNAL: unknown version 9\nat some place")

    monkeypatch.setattr(Program, "compiled_for", fail)
    monkeypatch.setattr(metadata, "version", lambda package: "0.0.7")
    target = find_target("v5e-8")
    reason = "libtpu 0.0.7 cannot compile the update for v5e-8: INTERNAL: unknown version 9. Take"
    with pytest.raises(PreflightError, match=reason):
        compile_run(sft, target, mesh, None, search=False, say=lambda line: None)


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
