import json
import math
import os
import signal
from types import SimpleNamespace

import pytest

from nblib.files import read_jsonl, write_jsonl
from nblib.training import session as module
from nblib.training.session import (
    Session,
    Trained,
    TrainingStopped,
    duration,
    forget_metrics_after,
    plan_line,
)


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
        assert (session.begin_step(), session.stopped_by) == (True, "")
        terminate()
        assert (session.begin_step(), session.stopped_by) == (False, "SIGTERM")
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


@pytest.fixture
def clock(monkeypatch):
    """The session's clock, at 100 s."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    return clock


def test_the_deadline_ends_the_session_but_is_no_error(clock, tmp_path, capsys):
    with Session(deadline_s=30.0) as session:
        assert session.begin_step()
        clock.now = 130.0
        assert session.begin_step()
        clock.now = 130.1
        assert not session.begin_step() and session.stopped_by == ""
        session.end(3, 9, tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("the session's time is over: saved at step 3 of 9, 6 are left.")
    assert "here or with its output attached as an input" in said


def test_a_session_makes_one_step_however_late_it_begins(clock):
    with Session(deadline_s=30.0) as session:
        clock.now = 200.0
        assert [session.begin_step(), session.begin_step()] == [True, False]


def test_a_signal_before_the_first_step_lets_none_begin(received):
    with Session(deadline_s=30.0) as session:
        terminate()
        assert not session.begin_step()


def test_without_a_deadline_a_session_has_no_end(clock, tmp_path, capsys):
    session = Session()
    assert session.begin_step()
    clock.now = 1e12
    assert session.begin_step()
    session.end(9, 9, tmp_path)
    assert capsys.readouterr().out == ""


def test_a_stop_says_where_it_is_saved_and_how_to_go_on(received, tmp_path):
    with Session() as session:
        session.end(3, 9, tmp_path)  # nothing has come yet
        terminate()
    with pytest.raises(TrainingStopped) as error:
        session.end(3, 9, tmp_path)
    assert str(error.value) == (
        f"SIGTERM: saved at step 3 of 9 in {tmp_path}. Run the same command again to go on."
    )


def test_the_plan_is_told_once_from_steps_that_compiled_nothing(clock, capsys):
    session = Session(deadline_s=3600.0)
    clock.now = 160.0
    measured = [(9.0, 2), (1.0, 0), (1.2, 0), (7.0, 1), (30.0, 0), (1.4, 0), (1.1, 0), (1.1, 0)]
    for step, (seconds, compilations) in enumerate(measured, start=1):
        record = {"step": step, "seconds": seconds, "compilations": compilations}
        session.end_step(record, 107)
    # The median of 1.0, 1.2, 30, 1.4, 1.1; 3,540 s are left of the hour.
    assert capsys.readouterr().out == "plan: 100 steps at 1.20 s: 2 min of 59 min\n"


def test_no_plan_is_told_for_a_training_that_has_ended(clock, capsys):
    session = Session(math.inf)
    for step in range(1, 6):
        session.end_step({"step": step, "seconds": 1.0, "compilations": 0}, planned=5)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("left_s", "said"),
    [
        (32_400.0, "plan: 3,738 steps at 1.40 s: 1 h 27 min of 9 h 00 min"),
        (float("inf"), "plan: 3,738 steps at 1.40 s: 1 h 27 min"),
        (
            1400.0,
            "plan: 3,738 steps at 1.40 s: 1 h 27 min, but 23 min are there for training: "
            "about 2,738 steps are left to another session",
        ),
        (
            -5.0,
            "plan: 3,738 steps at 1.40 s: 1 h 27 min, but 0 s are there for training: "
            "about 3,738 steps are left to another session",
        ),
    ],
)
def test_a_plan_says_whether_the_steps_fit(left_s, said):
    assert plan_line(5, 3743, 1.4, left_s) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0 s"), (40.4, "40 s"), (720, "12 min"), (3599, "1 h 00 min"), (5233, "1 h 27 min")],
)
def test_a_time_in_words(seconds, said):
    assert duration(seconds) == said


def test_what_is_left_of_a_training():
    cut = Trained(steps=40, planned=94, resumed_at=10)
    assert (cut.left, str(cut)) == (54, "40 of 94 steps (the session was over)")
    assert str(Trained(steps=94, planned=94, resumed_at=0)) == "94 steps"


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
