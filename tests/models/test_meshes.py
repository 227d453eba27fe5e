"""Eight simulated devices, what a TPU v5e-8 has, and odd numbers; each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from nblib.models.gemma3 import save_model

PARTS = {"8x1": (4, 64), "2x4": (16, 16), "1x1": (32, 64)}  # of a kernel [32, 64]
SIZES = {"num_layers": 1, "embed_dim": 32, "hidden_dim": 64, "num_heads": 4, "head_dim": 8}


def on_devices(count, script, *arguments, **variables):
    """Run a script beside this one with so many simulated devices; return what it prints."""
    flags = f"{variables.pop('XLA_FLAGS')} --xla_force_host_platform_device_count={count}"
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name(script), *arguments],
        env={**os.environ, **variables, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory, new_model, tokenizer, compilation_cache):
    """What each mesh found, and the folder with the exports."""
    folder = tmp_path_factory.mktemp("meshes")
    save_model(new_model(**SIZES), tokenizer, folder / "base", manifest={})
    on_devices(8, "mesh_run.py", folder / "base", folder, **compilation_cache)
    return folder, {name: json.loads((folder / f"{name}.json").read_text()) for name in PARTS}


@pytest.mark.parametrize("mesh", PARTS)
def test_the_weights_are_split_over_the_mesh(mesh, runs):
    found = runs[1][mesh]
    assert tuple(found["shard"]) == PARTS[mesh]
    assert found["devices"] == (1 if mesh == "1x1" else 8)
    assert found["constraints"] > 0  # Tunix's own sharding of the activations was asked for


@pytest.mark.parametrize("mesh", PARTS)
def test_a_step_changes_the_model_and_the_export_answers_as_it_does(mesh, runs):
    found = runs[1][mesh]
    assert found["moved"] > 0.01
    assert found["export"] == 0
    assert found["adapters"] < 1e-4


@pytest.mark.parametrize("mesh", ["8x1", "2x4"])
def test_every_mesh_trains_the_same_model(mesh, runs):
    folder, found = runs
    assert found[mesh]["losses"] == pytest.approx(found["1x1"]["losses"], abs=1e-4)
    assert found[mesh]["tokens"] == found["1x1"]["tokens"]
    for file in ("export/model.safetensors", "adapters/adapter_model.safetensors"):
        tensors, expected = (load_file(folder / name / file) for name in (mesh, "1x1"))
        assert tensors.keys() == expected.keys()
        for name, tensor in tensors.items():
            np.testing.assert_allclose(tensor, expected[name], atol=1e-3, err_msg=name)


def test_odd_numbers_of_devices_train_or_name_a_mesh_that_does(
    tmp_path, new_model, tokenizer, compilation_cache
):
    width_40 = {**SIZES, "embed_dim": 40}  # which 5 divides, but neither 3, 6 nor 7; tp at most 4
    save_model(new_model(**width_40), tokenizer, tmp_path / "model", manifest={})
    said = on_devices(7, "odd_mesh_run.py", tmp_path / "model", **compilation_cache)
    found = json.loads(said.splitlines()[-1])
    for count, used, best in ((3, 2, (2, 1)), (5, 4, (5, 1)), (6, 4, (5, 1)), (7, 4, (5, 1))):
        one = found[str(count)]
        assert one["mesh"].startswith(f"fsdp {used}, tp 1: WARNING, {count - used} of")
        for name, axes in (("fsdp", (count, 1)), ("tp", (1, count))):
            if axes != best:
                mesh = f"mesh (fsdp {axes[0]}, tp {axes[1]}) does not divide the model: "
                assert one[name].startswith(mesh) and one[name].endswith(f"take device_mesh{best}")
    for count in ("3", "7"):
        assert found[count]["losses"] == pytest.approx(found["one"], abs=1e-4)
    assert found["5"]["fsdp"] == (
        "a batch of 8 rows cannot be split over fsdp 5: give it a multiple of 5, or take "
        "device_mesh(1, 1)"
    )
