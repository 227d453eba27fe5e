import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nblib.tools.preflight import targets
from nblib.tools.preflight.targets import (
    TPUS,
    PreflightError,
    compiler_of,
    find_target,
    prepare_environment,
    target_devices,
    target_mesh,
)


def test_every_tpu_is_known_with_its_devices():
    devices = {name: find_target(name).devices for name in TPUS}
    assert devices == {
        "v3-8": 8,
        "v4-8": 4,
        "v5e-1": 1,
        "v5e-4": 4,
        "v5e-8": 8,
        "v5e-16": 16,
        "v5e-32": 32,
        "v5p-8": 4,
        "v6e-1": 1,
        "v6e-4": 4,
        "v6e-8": 8,
    }


def test_kaggles_hours_do_not_count_for_a_slice_of_a_pod():
    hours = {name: find_target(name).session_hours for name in ("v5e-8", "v5e-16", "v5e-32")}
    assert hours == {"v5e-8": 9.0, "v5e-16": 0.0, "v5e-32": 0.0}


def test_a_gpu_is_named_by_its_memory():
    gpu = find_target("gpu-24")
    assert (gpu.kind, gpu.devices, gpu.memory_bytes) == ("gpu", 1, 24 * 2**30)
    both = find_target("gpu-15x2")
    assert (both.kind, both.devices, both.memory_bytes) == ("gpu", 2, 15 * 2**30)
    assert gpu.has_bf16 and not both.has_bf16 and find_target("v5e-8").has_bf16


def test_parts_of_the_cpu_stand_for_several_gpus():
    program = (
        "from nblib.tools.preflight.targets import *\n"
        "target = find_target('gpu-15x2')\n"
        "prepare_environment(target)\n"
        "print(dict(target_mesh(target).shape))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "{'fsdp': 2, 'tp': 1}\n"


@pytest.mark.parametrize(
    "name", ["v9-8", "gpu", "gpu-0", "gpu-x", "gpu-15x0", "gpu-15x", "", "V5E-8"]
)
def test_an_unknown_target_is_told_which_there_are(name):
    with pytest.raises(PreflightError, match=r"is unknown: expected one of v3-8, .*gpu-<GiB"):
        find_target(name)


def test_the_environment_names_the_accelerator_and_keeps_jax_on_the_cpu(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "mine")
    for name in ("JAX_PLATFORMS", "TPU_ACCELERATOR_TYPE", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    prepare_environment(find_target("v5e-8"))
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    assert os.environ["TPU_ACCELERATOR_TYPE"] == "v5litepod-8"
    assert os.environ["TPU_SKIP_MDS_QUERY"] == "1"
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "mine"


def versions(monkeypatch, found):
    def version(package):
        if found is None:
            raise metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(targets.metadata, "version", version)


def test_without_libtpu_the_error_says_how_to_get_it(monkeypatch):
    versions(monkeypatch, None)
    with pytest.raises(PreflightError, match=r"libtpu is not installed.*pip install.*preflight"):
        compiler_of(find_target("v5e-8"))


def test_the_libtpu_that_is_installed_is_taken_and_named(monkeypatch):
    versions(monkeypatch, "0.0.42.1")
    assert compiler_of(find_target("v5e-8")) == "libtpu 0.0.42.1"
    assert compiler_of(find_target("gpu-24")) == "jaxlib 0.0.42.1"


@pytest.mark.parametrize(
    ("name", "host"), [("v5e-1", {"chips_per_host_bounds": [1, 1, 1]}), ("v5e-8", {})]
)
def test_a_target_of_one_chip_is_a_host_of_one_chip(monkeypatch, name, host):
    from jax.experimental import topologies

    target, asked = find_target(name), []

    def describe(**options):
        asked.append(options)
        return topologies.TopologyDescription(list(range(target.devices)))

    versions(monkeypatch, "0.0.42.1")
    monkeypatch.setattr(topologies, "get_topology_desc", describe)
    assert len(target_devices(target)) == target.devices
    assert asked == [{"platform": "tpu", "topology_name": target.topology, **host}]


def test_the_cpu_is_a_mesh_of_one(mesh):
    assert dict(target_mesh(find_target("cpu")).shape) == {"fsdp": 1, "tp": 1}
    with pytest.raises(ValueError, match=r"mesh \(fsdp 4, tp 2\) does not fit 1 devices"):
        target_mesh(find_target("cpu"), fsdp=4, tp=2)
