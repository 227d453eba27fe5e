import pytest

from nblib.tools.preflight.checks import Check
from nblib.tools.preflight.compiled import Compiled
from nblib.tools.preflight.report import PreflightReport, Step, hours_of

GIB = 2**30


def step(times, seconds, **compiled):
    given = Compiled(fits=True, **compiled)
    return Step(name="update", rows=8, length=128, times=times, seconds=seconds, compiled=given)


def test_a_run_takes_each_step_as_often_as_it_comes():
    assert hours_of((step(1800, 1.5), step(900, 1.0))) == pytest.approx(1.0)
    assert hours_of((step(0, 0.0), step(3600, 1.0))) == pytest.approx(1.0)


def test_hours_are_not_known_where_seconds_are_not():
    assert hours_of((step(10, 0.0), step(3600, 1.0))) == 0
    assert hours_of(()) == 0


def test_a_report_that_fits_names_its_bytes_and_hours():
    report = PreflightReport(
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
    text = str(report)
    assert report.fits
    assert "v1_sft_format on v5e-8 (fsdp 8, tp 1)" in text
    assert "3.00 GiB  at its peak" in text and "2.00 GiB  activations" in text
    assert "5.00 T operations" in text and "2.000 s at least" in text
    assert "compiler  libtpu 0.0.42.1" in text
    assert "1,234 a step" in text and "at least 1.00 hours of 9 a session" in text
    assert text.endswith("ok   disk: room")


def test_one_that_does_not_names_what_would():
    refused = Compiled(fits=False, needed_bytes=22 * GIB, limit_bytes=16 * GIB)
    report = PreflightReport(
        notebook="v1_sft_format",
        target="v5e-8",
        mesh={"fsdp": 8, "tp": 1},
        steps=(Step(name="update", rows=8, length=128, times=1, seconds=0.0, compiled=refused),),
        hours=0.0,
        session_hours=9.0,
        suggestion={"REMAT": True, "BATCH_TOKENS": 512},
    )
    text = str(report)
    assert not report.fits
    assert "needs 22.00 GiB a device, there are 16.00 GiB" in text
    assert "verdict   does not fit" in text
    assert "fits with -p REMAT True -p BATCH_TOKENS 512" in text
    assert "hours" not in text
