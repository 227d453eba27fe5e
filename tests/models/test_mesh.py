import jax
import pytest
from tunix.models.gemma3.model import ModelConfig

from nblib.models.mesh import (
    check_model_divides,
    check_rows_divide,
    device_mesh,
    mesh_summary,
)


@pytest.fixture(scope="module")
def count(compilation_cache):
    return len(jax.devices())


def test_all_devices_share_the_batch(count):
    for mesh in (device_mesh(), device_mesh(count, 1)):
        assert dict(mesh.shape) == {"fsdp": count, "tp": 1}
        assert mesh.axis_types == (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Auto)


@pytest.mark.parametrize("axes", [(9, 1), (1, 9), (0, 9), (3, 3), (1, 0), (0, 0), (-2, -2)])
def test_more_axes_than_devices_are_refused(axes):
    with pytest.raises(ValueError, match=r"does not fit 8 devices: choose .* is at most 8"):
        device_mesh(*axes, devices=range(8))


@pytest.mark.parametrize(
    ("devices", "axes", "expected"),
    [
        (3, (0, 1), (2, 1)),
        (6, (0, 1), (4, 1)),
        (8, (0, 1), (8, 1)),
        (8, (0, 3), (2, 3)),
        (8, (2, 2), (2, 2)),
        (12, (0, 2), (4, 2)),
    ],
)
def test_a_mesh_takes_what_it_can_and_the_axes_that_are_named(devices, axes, expected):
    mesh = device_mesh(*axes, devices=range(devices))
    assert tuple(mesh.shape.values()) == expected


@pytest.fixture
def gemma_1b():
    return ModelConfig.gemma3_1b_it()  # width 1152, 4 heads, hidden 6912, heads of 256


@pytest.mark.parametrize("axes", [(1, 1), (8, 1), (2, 4), (6, 1), (9, 2)])
def test_a_mesh_that_divides_the_model(gemma_1b, axes):
    check_model_divides(gemma_1b, device_mesh(*axes, devices=range(18)))


@pytest.mark.parametrize(
    ("axes", "best"), [((5, 1), (4, 1)), ((1, 8), (8, 1)), ((7, 2), (12, 1)), ((1, 3), (3, 1))]
)
def test_one_that_does_not_names_one_that_does(gemma_1b, axes, best):
    with pytest.raises(ValueError) as error:
        check_model_divides(gemma_1b, device_mesh(*axes, devices=range(14)))
    assert str(error.value) == (
        f"mesh (fsdp {axes[0]}, tp {axes[1]}) does not divide the model: fsdp has to divide 1152, "
        "its width, and tp 4, which divides its vocabulary, heads and widths: take "
        f"device_mesh{best}"
    )


def test_rows_are_split_evenly():
    mesh = device_mesh(8, 1, devices=range(8))
    check_rows_divide(24, mesh)
    with pytest.raises(ValueError, match=r"12 rows .* over fsdp 8: .* device_mesh\(4, 1\)"):
        check_rows_divide(12, mesh)


def test_a_summary_names_idle_devices(monkeypatch, count):
    mesh = device_mesh()
    devices = jax.devices()
    assert mesh_summary(mesh) == f"fsdp {count}, tp 1: all {count} devices"
    monkeypatch.setattr(jax, "devices", lambda: [*devices, "TPU_6", "TPU_7"])
    assert f"WARNING, 2 of {count + 2} devices are idle: TPU_6, TPU_7." in mesh_summary(mesh)
