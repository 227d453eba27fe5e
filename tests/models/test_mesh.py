import jax
import pytest

from nblib.models.mesh import device_mesh

COUNT = len(jax.devices())


def test_all_devices_share_the_batch():
    mesh = device_mesh()
    assert dict(mesh.shape) == {"fsdp": COUNT, "tp": 1}
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(("fsdp", "tp"), [(COUNT + 1, 1), (0, COUNT + 1), (COUNT, 2)])
def test_axes_that_do_not_use_every_device(fsdp, tp):
    with pytest.raises(ValueError, match=rf"uses \d+ of {COUNT} devices: choose axes"):
        device_mesh(fsdp, tp)


def test_eight_devices(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: list(range(8)))
    for axes in ((0, 3), (2, 2), (8, 2)):
        with pytest.raises(ValueError, match="of 8 devices"):
            device_mesh(*axes)
