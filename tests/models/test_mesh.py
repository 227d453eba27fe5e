import jax
import pytest

from nblib.models.mesh import device_mesh, mesh_summary


@pytest.fixture(scope="module")
def count(compilation_cache):
    return len(jax.devices())


def test_all_devices_share_the_batch(count):
    for mesh in (device_mesh(), device_mesh(count, 1)):
        assert dict(mesh.shape) == {"fsdp": count, "tp": 1}
        assert mesh.axis_types == (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Auto)


@pytest.mark.parametrize(("fsdp", "tp"), [(1, 0), (0, 1), (1, 1)])
def test_axes_that_do_not_use_every_device(fsdp, tp, count):
    asked = (fsdp * (count + 1), tp * count + 1)
    with pytest.raises(ValueError, match=rf"uses \d+ of {count} devices: choose axes"):
        device_mesh(*asked)


def test_axes_for_eight_devices(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: list(range(8)))
    for axes in ((0, 3), (2, 2), (8, 2)):
        with pytest.raises(ValueError, match="of 8 devices"):
            device_mesh(*axes)


def test_a_summary_names_idle_devices(monkeypatch, count):
    mesh = device_mesh()
    devices = jax.devices()
    assert mesh_summary(mesh) == f"mesh       fsdp {count}, tp 1: all {count} devices"
    monkeypatch.setattr(jax, "devices", lambda: [*devices, "TPU_6", "TPU_7"])
    assert f"WARNING, 2 of {count + 2} devices are idle: TPU_6, TPU_7." in mesh_summary(mesh)
