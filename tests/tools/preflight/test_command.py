import json
from dataclasses import replace
from importlib import metadata

import jax
import pytest

from nblib.__main__ import main
from nblib.tools.execution import kernel_variables
from nblib.tools.preflight import targets
from nblib.tools.preflight.command import compile_run, compiler_for
from nblib.tools.preflight.compiled import Compiled
from nblib.tools.preflight.programs import Program, programs
from nblib.tools.preflight.search import fastest_first, nearest
from nblib.tools.preflight.targets import PreflightError, find_target

GIB = 2**30
REFUSED = Compiled(fits=False, needed_bytes=22 * GIB, limit_bytes=16 * GIB)
HOPELESS = Compiled(fits=False, needed_bytes=130 * GIB, limit_bytes=16 * GIB)
FITS = Compiled(fits=True)


@pytest.fixture(autouse=True)
def environment(monkeypatch, runs, mesh):
    """Restores what a preflight sets for jax."""
    for name in ("JAX_PLATFORMS", "TPU_ACCELERATOR_TYPE", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.setenv(name, "cpu" if name == "JAX_PLATFORMS" else "")
    for name, value in kernel_variables({}).items():  # or it would start itself again
        monkeypatch.setenv(name, value)


def test_a_run_on_this_machine_is_measured_and_printed_as_json(tiny_folder, capsys):
    given = ["-p", "MODEL", str(tiny_folder), "-p", "NUM_SAMPLES", "40", "-p", "LORA_RANK", "2"]
    given += ["-p", "MAX_LENGTH", "256"]
    assert main(["preflight", "v1_sft_format", "--json", *given]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and 0 < found["hours"] < 1
    shapes = {(step["rows"], step["length"]): step["times"] for step in found["steps"]}
    assert len(shapes) > 1 and sum(shapes.values()) > 1
    assert all(step["seconds"] > 0 for step in found["steps"])
    steps_s = sum(step["times"] * step["seconds"] for step in found["steps"])
    assert 3600 * found["hours"] > steps_s  # compiling counts
    checks = {check["name"]: check["passed"] for check in found["checks"]}
    assert checks == {
        "mesh": True,
        "batch": True,
        "one BOS": True,
        "stop token": True,
        "trained weights": True,
        "they move": True,
        "disk": True,
        "licence": True,
    }


def test_without_libtpu_everything_else_still_runs(tiny_folder, capsys, monkeypatch):
    real = metadata.version

    def version(package):
        if package == "libtpu":
            raise metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(targets.metadata, "version", version)
    given = ["-p", "MODEL", str(tiny_folder), "-p", "DATA", "builtin", "-p", "NUM_SAMPLES", "40"]
    assert main(["preflight", "v1_sft_format", "--target", "v5e-8", *given]) == 0
    said = capsys.readouterr().out
    assert "verdict   not compiled" in said
    assert "nothing was compiled: libtpu is not installed" in said
    assert "ok   one BOS" in said and "ok   stop token" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["v1_sft_format", "--target", "v9-8"], "target 'v9-8' is unknown: expected one of v3-8"),
        (["eval"], "notebook 'eval' has no preflight"),
        (["v1_sft_format", "-p", "REMATT", "True"], "did you mean REMAT"),
        (["v1_sft_format", "-p", "REMAT", "True", "-p", "REMAT", "True"], "is given twice"),
        (["v1_sft_format", "--target", "gpu-24", "--fastest"], "speed of gpu-24 is not known"),
        (["v1_sft_format", "--tp", "3"], "tp 3) does not fit 1 devices: choose axes"),
        (["v1_sft_format", "--target", "v5e-8", "--tp", "8"], "tp 4, which divides its vocabulary"),
    ],
)
def test_what_cannot_be_done_says_why_and_exits_with_2(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(targets, "target_devices", lambda target: range(target.devices))
    assert main(["preflight", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err


def test_a_compiler_that_fails_is_named_with_its_own_words(sft, mesh, monkeypatch):
    def fail(self, target, mesh):
        raise jax.errors.JaxRuntimeError("INTERNAL: unknown version 9\nat some place")

    monkeypatch.setattr(Program, "compiled_for", fail)
    monkeypatch.setattr(metadata, "version", lambda package: "0.0.7")
    target = find_target("v5e-8")
    reason = "libtpu 0.0.7 cannot compile the update for v5e-8: INTERNAL: unknown version 9. Take"
    with pytest.raises(PreflightError, match=reason):
        compile_run(sft, target, mesh, None, compiler_for(target, mesh, print), search=False)


def fake_compiler(answers):
    """A compiler that gives these answers, and the (rows, remat) it was asked for."""
    asked = []

    def compile_(program):
        asked.append((program.rows, program.key["remat"]))
        return answers[len(asked) - 1]

    return compile_, asked


def test_remat_is_tried_first(sft, mesh):
    compile_, asked = fake_compiler([FITS])
    assert nearest(sft, mesh, REFUSED, compile_) == {"remat": True}
    assert asked == [(8, True)]


def test_then_half_the_batch_with_twice_the_accumulation(sft, mesh):
    compile_, asked = fake_compiler([REFUSED, REFUSED, FITS])
    found = nearest(replace(sft, accumulation=3), mesh, REFUSED, compile_)
    assert found == {"remat": True, "batch_tokens": 256, "accumulation": 12}
    assert asked == [(8, True), (4, True), (2, True)]


def test_halvings_that_cannot_suffice_are_not_compiled(sft, mesh):
    compile_, asked = fake_compiler([FITS])
    given = replace(sft, remat=True, batch_tokens=2048)
    found = nearest(given, mesh, HOPELESS, compile_)
    assert found["batch_tokens"] == 128  # 130 GiB are eight times 16 and more
    assert asked == [(1, True)]


def test_v2_gets_smaller_batches(grpo, mesh):
    compile_, asked = fake_compiler([REFUSED, REFUSED, FITS])
    assert nearest(grpo, mesh, REFUSED, compile_) == {"remat": True, "batch_tokens": 64}
    assert [rows for rows, _ in asked] == [8, 4, 2]


def test_nothing_may_fit(sft, mesh):
    compile_, _ = fake_compiler([REFUSED] * 9)
    assert nearest(sft, mesh, REFUSED, compile_) == {}


def test_more_batches_a_step_than_there_are_rows_are_not_proposed(sft, mesh):
    few = replace(sft, remat=True, num_samples=2)  # read twice: four rows
    compile_, asked = fake_compiler([REFUSED] * 9)
    assert nearest(few, mesh, REFUSED, compile_) == {}
    assert [rows for rows, _ in asked] == [4, 2]  # with accumulation 2 and 4; 8 has no step


@pytest.fixture
def small(sft, mesh, runs):
    """A machine with one byte less than the batch needs."""
    cpu = find_target("cpu")
    whole = programs(replace(sft, remat=True), mesh)[0].compiled_for(cpu, mesh)
    return replace(cpu, name="small", memory_bytes=whole.peak_bytes - 1)


def test_what_does_not_fit_is_refused_and_a_fitting_setting_is_named(sft, mesh, small, runs):
    said = []
    settings = replace(sft, remat=True)
    compile_ = compiler_for(small, mesh, said.append)
    steps, change = compile_run(settings, small, mesh, None, compile_, search=True)
    assert not steps[0].compiled.fits
    assert steps[0].compiled.needed_bytes > small.memory_bytes
    assert change == {"REMAT": True, "BATCH_TOKENS": 512, "GRADIENT_ACCUMULATION": 2}
    assert any("does not fit" in line for line in said)


def counted(flops):
    """What fits and takes a device of `FAST` so many seconds."""
    return Compiled(fits=True, flops=flops, bytes_moved=1.0)


FAST = replace(find_target("v5e-1"), flops_per_s=1.0, bytes_per_s=1.0)


def test_the_fastest_batch_is_sought_upwards_then_with_remat(sft, mesh):
    compile_, asked = fake_compiler([counted(1024), counted(1024), REFUSED, counted(8192), REFUSED])
    found = fastest_first(sft, FAST, mesh, compile_)
    assert asked == [(8, False), (16, False), (32, False), (32, True), (64, True)]
    assert [str(one) for one in found] == [
        "-p BATCH_TOKENS 2048 -p REMAT False: 500000.00 us a token",
        "-p BATCH_TOKENS 1024 -p REMAT False: 1000000.00 us a token",
        "-p BATCH_TOKENS 4096 -p REMAT True: 2000000.00 us a token",
        "-p BATCH_TOKENS 4096 -p REMAT False: does not fit",
        "-p BATCH_TOKENS 8192 -p REMAT True: does not fit",
    ]


def test_an_update_of_v2_has_no_more_rows_than_a_step_has_completions(grpo, mesh):
    compile_, asked = fake_compiler([counted(16), counted(16), counted(8)])
    length = grpo.grpo.row_length
    found = fastest_first(replace(grpo, batch_tokens=2 * length), FAST, mesh, compile_)
    assert [rows for rows, _ in asked] == [2, 4, 8]
    assert found[0].parameters == {"BATCH_TOKENS": 8 * length, "REMAT": False}


def test_remat_that_is_set_stays(sft, mesh):
    compile_, asked = fake_compiler([counted(1), REFUSED])
    fastest_first(replace(sft, remat=True), FAST, mesh, compile_)
    assert asked == [(8, True), (16, True)]


def test_a_small_gpu_is_one_without_bf16(tiny_folder, capsys, monkeypatch):
    given = ["-p", "MODEL", str(tiny_folder), "-p", "DATA", "builtin", "-p", "NUM_SAMPLES", "40"]
    monkeypatch.setattr(Program, "compiled_for", lambda self, *where: counted(self.rows))
    for target, dtype in (("gpu-15", "float32"), ("gpu-24", "bfloat16")):
        assert main(["preflight", "v1_sft_format", "--target", target, *given]) == 0
        said = capsys.readouterr().out
        assert ("taken for a GPU without bf16 units: DTYPE float32" in said) == (dtype == "float32")
