import jax
import jax.numpy as jnp
import pytest

from benchmarks import device
from benchmarks.traces import DeviceTime, _span, own_times, read_trace, traced
from nblib.hosts.settings import SftSettings
from nblib.training.sft import build_trainer


def test_a_real_trace_names_what_ran(tmp_path):
    @jax.jit
    def work(x):
        return jnp.sort(jnp.tanh(x @ x), axis=0)

    x = jnp.ones((400, 400))
    work(x).block_until_ready()
    found = traced(lambda: [work(x).block_until_ready() for _ in range(3)], tmp_path)
    assert 0 < found.busy <= found.traced
    assert 0 <= found.idle_share < 1
    assert any("sort" in name for name in found.kernels)
    assert sum(found.kernels.values()) >= 0.99 * found.busy
    assert read_trace(tmp_path) == found


def test_a_folder_without_a_trace_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.xplane\.pb"):
        read_trace(tmp_path)


def test_what_runs_within_another_counts_for_itself():
    events = [
        (0, 10, "while.1"),
        (1, 4, "call.2"),
        (2, 3, "dot.7"),
        (4, 6, "dot.8"),
        (12, 13, "x_1"),
    ]
    assert own_times(reversed(events)) == {"while": 5, "call": 2, "dot": 3, "x": 1}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([[(0, 4, "a"), (6, 10, "b")]], (10, 8)),
        ([[(0, 4, "a")], [(2, 7, "b"), (9, 10, "c")]], (10, 8)),
        ([[(5, 9, "a"), (6, 7, "b")]], (4, 4)),
    ],
)
def test_a_device_is_busy_while_one_of_its_lines_is(lines, expected):
    assert _span(lines) == expected


def test_the_table_has_the_largest_ten_and_what_is_idle():
    kernels = {f"kernel{number}": float(number) for number in range(1, 15)}
    lines = str(DeviceTime(traced=210.0, busy=105.0, kernels=kernels)).splitlines()
    assert [line.split() for line in lines[:2]] == [["13.3%", "kernel14"], ["12.4%", "kernel13"]]
    assert len(lines) == 11 and lines[-1].split() == ["50.0%", "of", "the", "time", "idle"]


def test_a_step_is_timed_and_traced(monkeypatch, new_model, mesh, tmp_path, capsys):
    model = new_model(num_layers=1)
    monkeypatch.setattr(device, "_STEPS", 1)
    training = SftSettings.of({"PROFILE": "cpu"}).training
    with mesh:
        trainer = build_trainer(model, training, steps=10)
        found = device.measure(model, trainer, 2, 16, tmp_path / "trace-nblib")
    assert found.seconds > 0 and found.utilised is None and found.time.busy > 0
    assert "trace-nblib" in (out := capsys.readouterr().out) and "an unknown share" in out
    assert device._shares("device", found) == {"device_idle_share": found.time.idle_share}
