"""A run that is killed again and again ends as one that never was, bit for bit.

Each start is a process of its own, as after a real kill; it is forked from one that has imported
jax and Tunix, and used neither.
"""

import os
import random
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from nblib.files import read_jsonl
from nblib.training.rollouts import read_rollouts
from tests.joined import LIMIT_S, PROCESSES
from tests.training.killed_run import main

STEPS, SAVE_EVERY = 18, 3
# What a start of its own may change: times, and what it had to compile again.
MEASURED = {
    *("seconds", "waiting_seconds", "tokens_per_second", "rollout_seconds", "compilations"),
    "alarms",
}


@pytest.fixture(scope="module", params=["sft", "grpo"])
def start(request, compilation_cache):
    """Start the training in a folder, in a new process."""
    PROCESSES.set_forkserver_preload([main.__module__])

    def run(folder, *moment):
        folder.mkdir(exist_ok=True)
        arguments = (request.param, folder, folder / "output", *moment)
        process = PROCESSES.Process(target=main, args=arguments)
        process.start()
        return process

    with pytest.MonkeyPatch.context() as patch:
        for name, value in compilation_cache.items():
            patch.setenv(name, value)
        yield run


def ended(process, folder):
    """Wait for the end of a process; return its exit code and what it printed."""
    process.join(LIMIT_S)
    return process.exitcode, (folder / "output").read_text()


def logged_steps(folder):
    path = folder / "metrics.jsonl"
    return [record["step"] for record in read_jsonl(path)] if path.is_file() else []


def rollouts(folder):
    return read_rollouts(SimpleNamespace(path=folder))


def checked_steps(folder):
    return sorted(int(path.stem) for path in (folder / "checkpoints" / "seals").glob("*.json"))


def signal_at(process, folder, step, number):
    """Send a signal when `step` is logged; the process must still be at it."""
    deadline = time.monotonic() + LIMIT_S
    while step not in logged_steps(folder):
        if not process.is_alive() or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"never logged step {step}: {ended(process, folder)}")
        time.sleep(0.01)
    os.kill(process.pid, number)
    return ended(process, folder)


@pytest.fixture(scope="module")
def never_killed(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("never_killed")
    process = start(folder)
    code, output = ended(process, folder)
    assert code == 0, output
    return folder


def test_killed_run_goes_on_to_the_same_adapters(start, never_killed, tmp_path):
    rng = random.Random(0)

    # Killed at some step between the first checkpoint and the second-next.
    process = start(tmp_path)
    code, output = signal_at(process, tmp_path, rng.randint(4, 8), signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert checked_steps(tmp_path)

    # Killed right after its checksums were written: the next start goes on from this very one.
    process = start(tmp_path, "checked", 9)
    code, output = ended(process, tmp_path)
    assert code == -signal.SIGKILL, output
    assert checked_steps(tmp_path)[-1] == 9

    # Killed when a checkpoint was committed and had no checksums yet: it is set aside.
    process = start(tmp_path, "committed", 12)
    code, output = ended(process, tmp_path)
    assert code == -signal.SIGKILL, output
    assert "damaged" not in output
    assert checked_steps(tmp_path)[-1] == 9

    # SIGTERM: it saves where it is, says so, and fails.
    process = start(tmp_path)
    code, output = signal_at(process, tmp_path, rng.randint(13, 14), signal.SIGTERM)
    assert code == 1, output
    assert "checkpoint 12" in output and "no checksums" in output
    assert "TrainingStopped: SIGTERM: saved at step" in output
    stopped_at = checked_steps(tmp_path)[-1]
    assert stopped_at == logged_steps(tmp_path)[-1] >= 13

    process = start(tmp_path)
    code, output = ended(process, tmp_path)
    assert code == 0, output
    assert f"resumed at {stopped_at}" in output
    assert logged_steps(tmp_path) == list(range(1, STEPS + 1))
    ours = np.load(tmp_path / "adapters.npz")
    expected = np.load(never_killed / "adapters.npz")
    assert set(ours) == set(expected) and len(expected) == 12  # a and b of six projections
    for name in expected:
        np.testing.assert_array_equal(ours[name], expected[name], err_msg=name)
    for record, wanted in zip(
        read_jsonl(tmp_path / "metrics.jsonl"),
        read_jsonl(never_killed / "metrics.jsonl"),
        strict=True,
    ):
        for key in wanted.keys() - MEASURED:
            assert record[key] == wanted[key], f"step {wanted['step']}: {key}"
    assert rollouts(tmp_path) == rollouts(never_killed)


def test_run_never_killed_is_whole(never_killed):
    """What the other is compared with."""
    assert logged_steps(never_killed) == list(range(1, STEPS + 1))
    assert checked_steps(never_killed) == [STEPS - 2 * SAVE_EVERY, STEPS - SAVE_EVERY, STEPS]
