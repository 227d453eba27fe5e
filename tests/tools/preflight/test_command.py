import json
from importlib import metadata

import pytest

from nblib.__main__ import main
from nblib.tools.execution import kernel_variables
from nblib.tools.preflight import targets


@pytest.fixture(autouse=True)
def environment(monkeypatch, runs, mesh):
    """What a preflight sets for jax is put back."""
    for name in ("JAX_PLATFORMS", "TPU_ACCELERATOR_TYPE", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.setenv(name, "cpu" if name == "JAX_PLATFORMS" else "")
    for name, value in kernel_variables({}).items():  # or it would start itself again
        monkeypatch.setenv(name, value)


def test_a_run_on_this_machine_is_measured_and_told_as_json(tiny_folder, capsys):
    given = ["-p", "MODEL", str(tiny_folder), "-p", "NUM_SAMPLES", "40", "-p", "LORA_RANK", "2"]
    assert main(["preflight", "v1_sft_format", "--json", *given]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and 0 < found["hours"] < 1
    assert sum(step["times"] for step in found["steps"]) > 0
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
