import os
import platform
import sys
from types import ModuleType, SimpleNamespace

import pytest

from nblib.delivery.place import Place, where_am_i


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)


def test_one_line_for_a_notebook():
    place = Place(
        host="kaggle", python="3.12.1", backend="tpu", devices=("TPU v5 lite",) * 8, cores=96
    )
    assert str(place) == "kaggle, Python 3.12.1, tpu: 8 x TPU v5 lite, 96 CPU cores"


def test_here_with_the_devices_that_jax_names(monkeypatch):
    import jax

    chip = SimpleNamespace(device_kind="NVIDIA L4")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [chip, chip])
    assert where_am_i() == Place(
        host="local",
        python=platform.python_version(),
        backend="gpu",
        devices=("NVIDIA L4", "NVIDIA L4"),
        cores=os.cpu_count(),
    )


@pytest.mark.parametrize("kind", ["Batch", "Interactive"])
def test_kaggle_is_known_by_its_variable(monkeypatch, kind):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kind)
    assert where_am_i().host == "kaggle"


def test_colab_is_known_by_its_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    assert where_am_i().host == "colab"
