"""Two processes train what one with as many devices does, also when they are killed or stopped.

They are joined over loopback, each with one CPU device, and the run's folder is the one that a
notebook would have.
"""

import os
import signal
import time
from contextlib import suppress

import numpy as np
import pytest

from nblib.files import read_jsonl
from tests import joined
from tests.joined import LIMIT_S, by_hand, ended
from tests.training.joined_run import GRPO, main
from tests.training.killed_run import STEPS
from tests.training.test_killed_runs import MEASURED, logged_steps, rollouts

LAST = {"sft": STEPS, "grpo": GRPO["steps"]}
KILLED_AT, STOPPED_AT = {"sft": 5, "grpo": 3}, {"sft": 7, "grpo": 4}
# The devices of each process that goes on last: one process may, with as many.
LAST_DEVICES = {"sft": [1, 1], "grpo": [2]}


@pytest.fixture(scope="module", params=["sft", "grpo"])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def start(method, compilation_cache):
    """Start a process for each number of devices, below a folder."""
    started = []

    def run(devices, folder):
        started.extend(
            joined.start(main, folder, by_hand(devices, compilation_cache), method, folder)
        )
        return started[-len(devices) :]

    with pytest.MonkeyPatch.context() as patch:
        for name, value in compilation_cache.items():
            patch.setenv(name, value)
        yield run
    for process in started:
        process.kill()


def run_folder(folder):
    (only,) = folder.glob("joined/*")
    return only


def wait_for(step, processes, folder):
    deadline = time.monotonic() + LIMIT_S
    while True:
        with suppress(ValueError):  # no run yet
            if step in logged_steps(run_folder(folder)):
                return
        if not all(one.is_alive() for one in processes) or time.monotonic() > deadline:
            pytest.fail(f"never logged step {step}: {ended(processes, folder)}")
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """The run of one process with two devices."""
    folder = tmp_path_factory.mktemp("alone")
    codes, said = ended(start([2], folder), folder)
    assert codes == [0], said
    return run_folder(folder)


def test_two_processes_killed_and_stopped_train_what_one_does(start, method, alone, tmp_path):
    processes = start([1, 1], tmp_path)
    wait_for(KILLED_AT[method], processes, tmp_path)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    codes, said = ended(processes, tmp_path)
    assert codes == [-signal.SIGKILL] * 2, said

    # A signal to one of them stops both, after the same step.
    processes = start([1, 1], tmp_path)
    wait_for(STOPPED_AT[method], processes, tmp_path)
    os.kill(processes[1].pid, signal.SIGTERM)
    codes, said = ended(processes, tmp_path)
    assert codes == [1, 1], said
    stops = [text.partition("TrainingStopped: ")[2].partition(" in ")[0] for text in said]
    assert stops[0] == stops[1] and stops[0].startswith("SIGTERM: saved at step")
    stopped_at = int(stops[0].split()[4])
    run = run_folder(tmp_path)
    assert f"folder here: {run}\n" in said[0]
    assert "folder here: " in said[1] and f"folder here: {tmp_path}" not in said[1]  # a copy

    codes, said = ended(start(LAST_DEVICES[method], tmp_path), tmp_path)
    assert codes == [0] * len(LAST_DEVICES[method]), said
    assert all(f"resumed at {stopped_at}\n" in text for text in said)
    ours, expected = (read_jsonl(path / "metrics.jsonl") for path in (run, alone))
    assert logged_steps(run) == logged_steps(alone)
    assert logged_steps(run)[-1] == LAST[method]
    for record, wanted in zip(ours, expected, strict=True):
        for key in wanted.keys() - MEASURED - {"terms"}:
            assert record[key] == pytest.approx(wanted[key], abs=1e-4), f"{wanted['step']}: {key}"
    completions = [[one["completion"] for one in rollouts(path)] for path in (run, alone)]
    assert completions[0] == completions[1]
    adapters, others = (np.load(path / "adapters.npz") for path in (run, alone))
    for name in others:
        np.testing.assert_allclose(adapters[name], others[name], atol=1e-4, err_msg=name)
