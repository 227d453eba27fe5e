"""Eight simulated devices: what a TPU v5e-8 has, in a process of its own."""

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


@pytest.fixture(scope="module")
def runs(tmp_path_factory, new_model, tokenizer, compilation_cache):
    """What each mesh found, and the folder with the exports."""
    folder = tmp_path_factory.mktemp("meshes")
    sizes = {"num_layers": 1, "embed_dim": 32, "hidden_dim": 64, "num_heads": 4, "head_dim": 8}
    save_model(new_model(**sizes), tokenizer, folder / "base", manifest={})
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name("mesh_run.py"), folder / "base", folder],
        env={**os.environ, **compilation_cache, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
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
