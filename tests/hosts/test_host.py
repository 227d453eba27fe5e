import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from nblib.hosts import host as module
from nblib.hosts.host import AcceleratorMissing, Host, clean_tpu_variables, where_am_i

POISON = "WARNING: could not determine TPU worker hostnames or IP addresses, please set ..."


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "ISTPUVM", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ADDRS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(module, "_has_internet", lambda: False)


@pytest.fixture
def devices(monkeypatch):
    """Let jax have `count` devices of a platform."""
    import jax

    def give(platform, kind, count, **stats):
        chip = SimpleNamespace(device_kind=kind, platform=platform, memory_stats=lambda: stats)
        monkeypatch.setattr(jax, "devices", lambda: [chip] * count)

    return give


def test_what_a_notebook_shows_of_its_host(devices, monkeypatch):
    devices("tpu", "TPU v5 lite", 8, bytes_limit=16_909_336_576)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.delenv("NBLIB_RUNS_DIR")
    monkeypatch.setattr(module.os, "cpu_count", lambda: 96)
    kept = []
    monkeypatch.setattr(
        "nblib.models.compilation.keep_compiled",
        lambda *given: kept.append(given) or "kept, as it was asked",
    )
    assert where_am_i("tpu").facts == {
        "host": "kaggle Batch",
        "Python": platform.python_version(),
        "devices": "8 x TPU v5 lite (tpu), 15.7 GiB each",
        "CPU cores": "96",
        "runs": "/kaggle/working/runs, kept",
        "scratch": "/kaggle/temp",
        "compiled programs": "kept, as it was asked",
        "internet": "no",
    }
    assert kept == [(Path("/kaggle/temp"), "tpu")]


def test_here_with_the_devices_that_jax_names(devices, tmp_path):
    devices("gpu", "NVIDIA L4", 2)
    here = where_am_i()
    assert isinstance(here, Host)
    assert (here.name, here.run_type, here.backend) == ("local", "", "gpu")
    assert here.devices == ("NVIDIA L4", "NVIDIA L4") and here.device_bytes is None
    assert here.working == tmp_path / "runs" and here.scratch.is_dir()
    assert here.internet is None and "internet" not in here.facts


@pytest.mark.parametrize("kind", ["Batch", "Interactive"])
def test_kaggle_is_known_by_its_variable(monkeypatch, devices, kind):
    devices("cpu", "cpu", 1)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kind)
    assert (where_am_i().name, where_am_i().run_type) == ("kaggle", kind)


def test_colab_is_known_by_its_module(monkeypatch, devices):
    devices("cpu", "cpu", 1)
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    assert where_am_i().name == "colab"


def test_a_tpu_that_was_asked_for_and_is_not_there_stops(devices):
    devices("cpu", "cpu", 1)
    with pytest.raises(AcceleratorMissing) as error:
        where_am_i("tpu")
    said = str(error.value)
    assert said.startswith('PROFILE = "tpu" asks for a TPU, jax found 1 x cpu (cpu). ')
    assert 'pip install "jax[tpu]"' in said and said.endswith('Or set PROFILE = "cpu".')
    assert where_am_i("cpu").backend == "cpu"
    devices("tpu", "TPU v5 lite", 8)
    assert where_am_i("tpu").backend == "tpu"


def test_kaggles_cpu_image_on_a_tpu_machine_is_noticed_without_being_asked(devices, monkeypatch):
    devices("cpu", "cpu", 1)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert where_am_i().backend == "cpu"
    monkeypatch.setenv("ISTPUVM", "1")
    with pytest.raises(AcceleratorMissing, match=r"this host's image asks .* no docker_image"):
        where_am_i()
    assert where_am_i("cpu").backend == "cpu"  # meant so


def test_a_real_jax_without_a_tpu_says_so_in_seconds():
    """Its own error where the platform was fixed; jax is imported before the clock runs."""
    code = (
        "import jax, time; from nblib.hosts.host import *; began = time.process_time()\n"
        "try: where_am_i('tpu')\n"
        "except AcceleratorMissing as error: print(time.process_time() - began, error)"
    )
    environment = {"JAX_PLATFORMS": "tpu", "PATH": "/usr/bin", "HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, said = done.stdout.split(" ", 1)
    assert float(seconds) < 10
    assert "Unable to initialize backend 'tpu'" in said and "jax[tpu]" in said


def test_poisoned_variables_are_cleaned_and_good_ones_stay():
    environment = {
        "TPU_WORKER_HOSTNAMES": POISON,
        "TPU_WORKER_ADDRS": "10.0.0.1:8470,[fe80::1]:8470,worker-1.local",
        "OTHER": POISON,
    }
    lines = clean_tpu_variables(environment)
    assert lines == [f"TPU_WORKER_HOSTNAMES was no list of hosts, now localhost: {POISON!r}"]
    assert environment["TPU_WORKER_HOSTNAMES"] == "localhost"
    assert environment["TPU_WORKER_ADDRS"].startswith("10.0.0.1") and environment["OTHER"] == POISON
    assert clean_tpu_variables(environment) == []
    assert clean_tpu_variables({"TPU_WORKER_HOSTNAMES": ""}) != []


def test_they_are_clean_before_jax_is_asked(monkeypatch, devices, capsys):
    import os

    import jax

    devices("cpu", "cpu", 1)
    seen, ask = [], jax.devices
    monkeypatch.setattr(
        jax, "devices", lambda: seen.append(os.environ["TPU_WORKER_HOSTNAMES"]) or ask()
    )
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", POISON)
    where_am_i()
    assert seen == ["localhost"]
    assert "TPU_WORKER_HOSTNAMES was no list of hosts" in capsys.readouterr().out


def test_internet_is_what_answers(monkeypatch):
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(module, "_INTERNET", server.getsockname())
        assert module._has_internet()
    began = time.monotonic()
    assert not module._has_internet()
    assert time.monotonic() - began < 10
