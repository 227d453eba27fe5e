import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx

from nblib.files import read_jsonl, write_jsonl
from nblib.training import session as module
from nblib.training.checkpoints import latest_step, write_checksums
from nblib.training.optimizers import TrainerConfig
from nblib.training.session import (
    CompilationCounter,
    Trained,
    TrainingDiverged,
    TrainingSession,
    TrainingStopped,
    duration,
    plan_line,
    weights_norm,
)

FOUR, FIVE = np.zeros(4, np.float32), np.zeros(5, np.float32)
STEP = {"loss": 1.0, "grad_norm": 1.0}


@pytest.fixture
def begin(tmp_path):
    """Begin a session in the run of this test: `begin(planned, deadline_s=...)`."""

    def begin(planned=9, **options):
        run = SimpleNamespace(path=tmp_path, checkpoints=tmp_path / "checkpoints", parameters={})
        return TrainingSession(
            run, TrainerConfig(learning_rate=0.02), planned, hashes={}, **options
        )

    return begin


@pytest.fixture
def received():
    """Signals that reached the handler that was set before the session."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(signum))
    yield seen
    signal.signal(signal.SIGTERM, before)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_the_session_and_not_the_process(received, begin):
    with begin() as session:
        assert (session.begin_step(), session.stopped_by) == (True, "")
        terminate()
        assert (session.begin_step(), session.stopped_by) == (False, "SIGTERM")
    assert received == []
    assert session.stopped_by == "SIGTERM"  # asked when the block has ended


def test_the_old_handler_is_back_after_the_block(received, begin):
    with begin() as session:
        pass
    terminate()
    assert received == [signal.SIGTERM] and session.stopped_by == ""


def test_the_old_handler_is_back_after_an_error(received, begin):
    with pytest.raises(ZeroDivisionError), begin():
        raise ZeroDivisionError
    terminate()
    assert received == [signal.SIGTERM]


@pytest.fixture
def clock(monkeypatch):
    """The session's clock, at 100 s."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    return clock


def test_the_deadline_ends_the_session_but_is_no_error(clock, begin, capsys):
    with begin(deadline_s=30.0) as session:
        assert session.begin_step()
        clock.now = 130.0
        assert session.begin_step()
        clock.now = 130.1
        assert not session.begin_step() and session.stopped_by == ""
        session.end(3, None)
    said = capsys.readouterr().out
    first, over, *_ = said.splitlines()
    assert first == "the first step: compiled, or read from what earlier runs compiled"
    assert over.startswith("the session's time is over: saved at step 3 of 9, 6 are left.")
    assert "here or with its output attached as an input" in said


def test_a_session_makes_one_step_however_late_it_begins(clock, begin):
    with begin(deadline_s=30.0) as session:
        clock.now = 200.0
        assert [session.begin_step(), session.begin_step()] == [True, False]


def test_a_signal_before_the_first_step_lets_none_begin(received, begin):
    with begin(deadline_s=30.0) as session:
        terminate()
        assert not session.begin_step()


def test_without_a_deadline_a_session_has_no_end(clock, begin, capsys):
    session = begin()
    assert session.begin_step()
    clock.now = 1e12
    assert session.begin_step()
    session.end(9, None)
    assert "the session's time is over" not in capsys.readouterr().out


def test_a_stop_says_where_it_is_saved_and_how_to_go_on(received, begin):
    with begin() as session:
        session.end(3, None)  # nothing has come yet
        terminate()
    with pytest.raises(TrainingStopped) as error:
        session.end(3, None)
    assert str(error.value) == (
        f"SIGTERM: saved at step 3 of 9 in {session.folder}. Run the same command again to go on."
    )


def test_the_plan_is_printed_once_from_steps_that_compiled_nothing(clock, begin, capsys):
    session = begin(107, deadline_s=3600.0)
    clock.now = 160.0
    measured = [(9.0, 2), (1.0, 0), (1.2, 0), (7.0, 1), (30.0, 0), (1.4, 0), (1.1, 0), (1.1, 0)]
    for step, (seconds, compilations) in enumerate(measured, start=1):
        record = {**STEP, "step": step, "seconds": seconds, "compilations": compilations}
        session.log_step(record, "a line", last_good=0)
    # The median of 1.0, 1.2, 30, 1.4, 1.1; 3,540 s are left of the hour.
    assert capsys.readouterr().out.splitlines() == [
        *("step     1 of 107  a line", "plan: 100 steps at 1.20 s: 2 min of 59 min")
    ]


def test_no_plan_is_printed_for_a_training_that_has_ended(clock, begin, capsys):
    session = begin(5)
    for step in range(1, 6):
        record = {**STEP, "step": step, "seconds": 1.0, "compilations": 0}
        session.log_step(record, "a line", last_good=0)
    assert "plan" not in capsys.readouterr().out


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
    assert module._kept_records(path, 2) == kept
    assert read_jsonl(path) == kept
    module._kept_records(path, 2)
    assert read_jsonl(path) == kept


def test_from_the_start_everything_is_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_jsonl(path, [{"step": 0, "val_loss": 3.0}, {"step": 1, "loss": 2.0}])
    assert module._kept_records(path, 0) == []
    assert path.read_text() == ""


def test_a_log_that_is_not_there_is_fine(tmp_path):
    assert module._kept_records(tmp_path / "metrics.jsonl", 3) == []
    assert list(tmp_path.iterdir()) == []


def test_a_broken_log_is_not_thrown_away(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "loss": 2.0}) + "\nhalf a li")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2"):
        module._kept_records(path, 0)
    assert path.read_bytes() == before


@pytest.fixture
def saved(begin):
    """A session that has saved steps 3 and 6; the notebook has RESUME_FROM."""
    session = begin(resume_from="")
    for step in ("3", "6"):
        (session.steps_folder / step).mkdir()
        (session.steps_folder / step / "data").write_text(step)
    write_checksums(session.folder)
    return session


def test_finite_figures_change_nothing(saved):
    saved.check_finite(7, last_good=0, loss=1e30, gradient_norm=0.0)
    assert latest_step(saved.folder) == 6


@pytest.mark.parametrize(("last_good", "kept"), [(6, 6), (5, 3), (2, 0)])
def test_later_checkpoints_are_deleted_and_the_newest_that_is_left_is_named(saved, last_good, kept):
    said = f"last good checkpoint is {kept} " if kept else "There is no checkpoint from before"
    with pytest.raises(TrainingDiverged, match=rf"step 7: loss nan, weights norm inf\. .*{said}"):
        saved.check_finite(7, last_good=last_good, loss=np.nan, val_loss=1.0, weights_norm=np.inf)
    assert latest_step(saved.folder) == kept
    assert {path.stem for path in (saved.folder / "seals").iterdir()} == {
        path.name for path in (saved.folder / "actor").iterdir()
    }


def test_the_last_line_says_what_to_type(saved):
    with pytest.raises(TrainingDiverged) as raised:
        saved.check_finite(7, last_good=6, loss=np.inf)
    last = str(raised.value).splitlines()[-1]
    assert last == f"  -p RESUME_FROM {saved.folder} -p LEARNING_RATE 0.01"


def test_a_parameter_that_is_not_there_is_not_advised(saved, begin):
    with pytest.raises(TrainingDiverged, match="Start again with a lower learning rate") as raised:
        begin().check_finite(7, last_good=6, loss=np.inf)
    assert "RESUME_FROM" not in str(raised.value)


def test_one_bad_weight_shows_in_the_norm():
    model = nnx.Dict(a=nnx.Param(np.array([3.0, 0.0])), b=nnx.Param(np.array([[4.0]])))
    assert weights_norm(model) == 5.0
    for bad in (np.nan, np.inf):
        model.b = nnx.Param(np.array([[bad]]))
        assert not np.isfinite(weights_norm(model)), bad


@pytest.fixture
def new_program(compilation_cache):
    """Make a jitted function that nothing has built yet in this process."""
    import jax

    return lambda: jax.jit(lambda x: 3 * x + 1)


@pytest.fixture
def added(compilation_cache):
    """How many programs a call adds to the count."""

    def count(function, *arguments):
        programs = CompilationCounter()
        function(*arguments)
        return programs.count

    return count


def test_a_new_function_counts_once_and_a_cached_call_not_at_all(new_program, added):
    function = new_program()
    assert [added(function, FOUR) for _ in range(3)] == [1, 0, 0]


def test_a_new_shape_or_type_counts_again(new_program, added):
    function = new_program()
    shapes = (FOUR, FIVE, FOUR, FIVE.astype(np.int32), FIVE)
    assert [added(function, shape) for shape in shapes] == [1, 1, 0, 1, 0]


def test_a_program_that_lies_in_the_disk_cache_counts(new_program, added):
    """Its trace and lowering cost a step their time as well."""
    assert [added(new_program(), FOUR) for _ in range(2)] == [1, 1]
