"""Hours and room: hand-worked figures, with a clock and a disk of the test's own."""

import math
import time
from types import SimpleNamespace

import pytest

from nblib.hosts import budget as module
from nblib.hosts.budget import NotEnoughRoom, SessionBudget, check_room, session_budget


def at(host, backend):
    return SimpleNamespace(host=host, backend=backend)


@pytest.mark.parametrize(
    ("host", "backend", "hours", "expected"),
    [
        ("kaggle", "tpu", 0.0, 9),
        ("kaggle", "gpu", 0.0, 12),
        ("kaggle", "cpu", 0.0, 12),
        ("kaggle", "tpu", 2.5, 2.5),
        ("colab", "tpu", 0.0, math.inf),
        ("colab", "tpu", 3.0, 3),
        ("local", "cpu", 0.0, math.inf),
        ("local", "cpu", 0.5, 0.5),
    ],
)
def test_hours_of_a_session(host, backend, hours, expected):
    assert session_budget(at(host, backend), hours).limit_s == 3600 * expected


def test_the_session_is_counted_from_the_start_of_the_process():
    import psutil

    assert session_budget(at("local", "cpu"), 1.0).began == psutil.Process().create_time()


@pytest.mark.parametrize("hours", [-1.0, math.nan])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(ValueError, match=r"SESSION_HOURS (-1|nan) must be above 0"):
        session_budget(at("local", "cpu"), hours)


def test_what_comes_after_training_is_kept_back(monkeypatch, capsys):
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 10_000.0))
    session = SessionBudget(limit_s=9 * 3600, began=10_000.0 - 1800)
    # 1.5 x 600 s; 60 s and 1e9 x 4 B at 25 MB/s; 2 % of nine hours.
    left = session.training_s(evaluation_s=600.0, exported=10**9)
    assert left == 32_400 - 1800 - 900 - (60 + 160) - 648
    assert capsys.readouterr().out == (
        "session: 30 min of 9 h 00 min are used; kept back are 15 min to evaluate (1.5 times the "
        "10 min before training), 4 min to export 1,000,000,000 weights, 11 min to spare: "
        "8 h 01 min to train\n"
    )


def test_a_session_that_is_over_leaves_no_time_and_one_without_end_all():
    late = SessionBudget(limit_s=60.0, began=time.time() - 3600)
    assert late.training_s(evaluation_s=0.0, exported=1) == 0.0
    endless = SessionBudget(limit_s=math.inf, began=0.0)
    assert endless.training_s(evaluation_s=1e9, exported=10**12) == math.inf
    assert "no limit" in str(endless)


@pytest.fixture
def disk(monkeypatch):
    disk = SimpleNamespace(free=5 * 10**9)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: disk)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    return disk


def test_room_for_one_more_checkpoint_than_are_kept(disk, tmp_path):
    # 4 x 50 M x 12 B = 2.4 GB; (1,000 M + 50 M) x 4 B = 4.2 GB; logs 0.1 GB.
    disk.free = 6_700_000_001
    line = check_room(tmp_path, trained=50_000_000, exported=1_000_000_000)
    assert line == (
        "6.7 GB are needed (4 checkpoints of 0.6 GB, export and adapters 4.2 GB, logs), "
        "6.7 GB are free"
    )
    disk.free = 6_600_000_000
    with pytest.raises(NotEnoughRoom, match=r"6\.7 GB are needed .* Delete older runs beside it"):
        check_room(tmp_path, trained=50_000_000, exported=1_000_000_000)


def test_checkpoints_that_are_there_are_not_needed_again(disk, tmp_path):
    (tmp_path / "checkpoints" / "actor" / "3").mkdir(parents=True)
    with (tmp_path / "checkpoints" / "actor" / "3" / "d").open("wb") as file:
        file.truncate(200_000_000)
    line = check_room(tmp_path, trained=50_000_000, exported=1_000_000)
    assert line.startswith("2.5 GB are needed")  # 2.4 - 0.2 + 0.204 + 0.1


def test_on_kaggle_only_twenty_gigabytes_are_kept(disk, tmp_path, monkeypatch):
    disk.free = 10**13
    kept = tmp_path / "working"
    run = kept / "runs" / "v1" / "1"
    run.mkdir(parents=True)
    with (kept / "model").open("wb") as file:
        file.truncate(19_950_000_000)  # sparse: it takes no room here
    assert module.free_bytes(run) == 10**13
    monkeypatch.setattr(module, "KAGGLE_KEPT", kept)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert module.free_bytes(run) == 50_000_000
    assert module.free_bytes(tmp_path) == 10**13
    with pytest.raises(NotEnoughRoom, match=r"0\.1 GB are free"):
        check_room(run, trained=1, exported=1)
    disk.free = 7
    assert module.free_bytes(run) == 7
