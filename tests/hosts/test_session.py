"""Hours and disk space: hand-worked figures, with a clock and a disk of the test's own."""

import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nblib.hosts import session as module
from nblib.hosts.session import NotEnoughSpace, begin, check_disk_space
from nblib.hosts.settings import EvalSettings, SftSettings
from nblib.runs import start_run


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))


def session(hours=0.0, **parameters):
    return begin(SftSettings, {"PROFILE": "cpu", "SESSION_HOURS": hours, **parameters})


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
def test_hours_of_a_session(monkeypatch, host, backend, hours, expected):
    here = replace(module.where_am_i("cpu"), name=host, backend=backend)
    monkeypatch.setattr(module, "where_am_i", lambda profile: here)
    assert session(hours).limit_s == 3600 * expected


def test_the_session_is_counted_from_the_start_of_the_process():
    import psutil

    assert session(1.0).began == psutil.Process().create_time()


@pytest.mark.parametrize("hours", [-1.0, math.nan])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(ValueError, match=r"SESSION_HOURS (-1\.0|nan): should be"):
        session(hours)


def test_a_wrong_parameter_is_refused_before_tokens_are_looked_for(monkeypatch):
    monkeypatch.setattr(module, "provide_tokens", pytest.fail)
    with pytest.raises(ValueError, match="LEARNING_RATE -1"):
        session(LEARNING_RATE=-1.0)


def test_a_session_shows_where_it_runs_and_never_a_tokens_value(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    shown = []
    monkeypatch.setattr(module, "display", shown.append)
    begin(EvalSettings, {"PROFILE": "cpu"})
    facts = dict(shown[0].rows)
    assert facts["mesh"].startswith("fsdp ") and facts["hours"].startswith("no limit")
    assert facts["credentials"] == "HF_TOKEN (environment)"


def test_an_unfinished_run_of_the_same_settings_is_continued():
    first = session(SEED=3).start_run("v1_sft_format", model_sha256="a")
    again = session(SEED=3).start_run("v1_sft_format", model_sha256="a")
    assert again.resumed and again.path == first.path
    assert first.parameters == {**session(SEED=3).settings.parameters, "model_sha256": "a"}
    assert first.devices and not start_run("v1_sft_format", {}).resumed


def test_what_comes_after_training_is_kept_back(monkeypatch, capsys):
    monkeypatch.setattr(module, "display", lambda shown: None)
    nine = replace(session(9.0), began=10_000.0 - 1800)
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 10_000.0))
    # 1.5 x 600 s; 60 s and 1e9 x 4 B at 25 MB/s; 2 % of nine hours.
    left = nine.training_s(evaluation_s=600.0, exported=10**9)
    assert left == 32_400 - 1800 - 900 - (60 + 160) - 648
    assert capsys.readouterr().out == (
        "session: 30 min of 9 h 00 min are used; kept back are 15 min to evaluate (1.5 times the "
        "10 min before training), 4 min to export 1,000,000,000 weights, 11 min to spare: "
        "8 h 01 min to train\n"
    )


def test_a_session_that_is_over_leaves_no_time_and_one_without_end_all():
    late = replace(session(1 / 60), began=time.time() - 3600)
    assert late.training_s(evaluation_s=0.0, exported=1) == 0.0
    assert session().training_s(evaluation_s=1e9, exported=10**12) == math.inf


@pytest.fixture
def disk(monkeypatch):
    disk = SimpleNamespace(free=5 * 10**9)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: disk)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    return disk


def test_disk_space_for_one_more_checkpoint_than_are_kept(disk, tmp_path):
    # 4 x 50 M x 12 B = 2.4 GB; (1,000 M + 50 M) x 4 B = 4.2 GB; logs 0.1 GB.
    disk.free = 6_700_000_001
    line = check_disk_space(tmp_path, trained=50_000_000, exported=1_000_000_000)
    assert line == (
        "6.7 GB are needed (4 checkpoints of 0.6 GB, export and adapters 4.2 GB, logs), "
        "6.7 GB are free"
    )
    disk.free = 6_600_000_000
    with pytest.raises(NotEnoughSpace, match=r"6\.7 GB are needed .* Delete older runs beside it"):
        check_disk_space(tmp_path, trained=50_000_000, exported=1_000_000_000)


def test_checkpoints_that_are_there_are_not_needed_again(disk, tmp_path):
    (tmp_path / "checkpoints" / "actor" / "3").mkdir(parents=True)
    with (tmp_path / "checkpoints" / "actor" / "3" / "d").open("wb") as file:
        file.truncate(200_000_000)
    line = check_disk_space(tmp_path, trained=50_000_000, exported=1_000_000)
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
    with pytest.raises(NotEnoughSpace, match=r"0\.1 GB are free"):
        check_disk_space(run, trained=1, exported=1)
    disk.free = 7
    assert module.free_bytes(run) == 7
