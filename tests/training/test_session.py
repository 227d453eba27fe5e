import json
import os
import signal
from types import SimpleNamespace

import pytest

from nblib.runs import read_jsonl, write_jsonl
from nblib.training import session as module
from nblib.training.session import Session, TrainingStopped, forget_metrics_after


@pytest.fixture
def received():
    """Signals that reached the handler that was set before the session."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(signum))
    yield seen
    signal.signal(signal.SIGTERM, before)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_the_session_and_not_the_process(received):
    with Session() as session:
        assert (session.over, session.stopped_by) == (False, "")
        terminate()
        assert (session.over, session.stopped_by) == (True, "SIGTERM")
    assert received == []
    assert session.stopped_by == "SIGTERM"  # asked when the block has ended


def test_the_old_handler_is_back_after_the_block(received):
    with Session() as session:
        pass
    terminate()
    assert received == [signal.SIGTERM] and session.stopped_by == ""


def test_the_old_handler_is_back_after_an_error(received):
    with pytest.raises(ZeroDivisionError), Session():
        raise ZeroDivisionError
    terminate()
    assert received == [signal.SIGTERM]


def test_the_deadline_ends_the_session_but_is_no_stop(monkeypatch, tmp_path):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    with Session(deadline_s=30.0) as session:
        clock.now = 130.0
        assert not session.over
        clock.now = 130.1
        assert session.over and session.stopped_by == ""
        session.raise_if_stopped(3, 9, tmp_path)


def test_without_a_deadline_a_session_has_no_end(monkeypatch):
    monkeypatch.setattr(module.time, "perf_counter", lambda: 1e12)
    assert not Session().over


def test_a_stop_says_where_it_is_saved_and_how_to_go_on(received, tmp_path):
    with Session() as session:
        session.raise_if_stopped(3, 9, tmp_path)  # nothing has come yet
        terminate()
    with pytest.raises(TrainingStopped) as error:
        session.raise_if_stopped(3, 9, tmp_path)
    assert str(error.value) == (
        f"SIGTERM: saved at step 3 of 9 in {tmp_path}. Run the same command again to go on."
    )


def test_what_was_logged_after_the_checkpoint_is_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = [
        {"step": 0, "val_loss": 3.0},
        {"step": 0, "probe_accuracy": 0.1},
        {"step": 1, "loss": 2.0},
        {"step": 1, "probe_accuracy": 0.2},
        {"step": 2, "loss": 1.5},
    ]
    gone = [
        {"step": 2, "val_loss": 1.9},
        {"step": 2, "probe_accuracy": 0.3},
        {"step": 3, "loss": 1.0},
        {"step": 4, "val_loss": 0.9},
    ]
    write_jsonl(path, [*gone[2:], *kept, *gone[:2]])  # by their steps, not by their places
    forget_metrics_after(path, 2)
    assert read_jsonl(path) == kept
    forget_metrics_after(path, 2)
    assert read_jsonl(path) == kept


def test_from_the_start_everything_is_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_jsonl(path, [{"step": 0, "val_loss": 3.0}, {"step": 1, "loss": 2.0}])
    forget_metrics_after(path, 0)
    assert path.read_text() == ""


def test_a_log_that_is_not_there_is_fine(tmp_path):
    forget_metrics_after(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_log_is_not_thrown_away(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "loss": 2.0}) + "\nhalf a li")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2"):
        forget_metrics_after(path, 0)
    assert path.read_bytes() == before
