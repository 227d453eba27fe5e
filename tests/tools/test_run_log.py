import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.files import write_json
from nblib.tools import run_log, trackers
from nblib.tools.run_log import export_run, follow_run, followed, scalars, stage_figures
from tests.tools.made_runs import result_of

RUN = "20261128-065243-c5fcae07"
ROOT = Path(__file__).parents[2]


MADE = []  # all recorders of a test, the newest last


class Recorder:
    """A tracker that keeps what it was given."""

    def __init__(self, path, config, results):
        self.config, self.results, self.logged, self.shown, self.closed = config, results, [], 0, 0
        MADE.append(self)

    def log(self, series, step, figures):
        self.logged.append((series, step, dict(figures)))

    def flush(self):
        self.shown = len(self.logged)

    def close(self):
        self.closed += 1
        return "here"


@pytest.fixture(autouse=True)
def recorder(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "recorder", (Recorder, "json"))
    MADE.clear()


class Script(threading.Event):
    """Follows a script instead of a clock: each wait makes the next change, the last one is over.

    `seen` has what the tracker had shown at each wait.
    """

    def __init__(self, *changes):
        super().__init__()
        self.changes, self.seen = [*changes], []

    def wait(self, timeout=None):
        assert len(MADE[-1].logged) == MADE[-1].shown
        self.seen.append([step for _, step, _ in MADE[-1].logged])
        self.changes.pop(0)()
        if not self.changes:
            self.set()
        return self.is_set()


def test_a_run_is_written_whole(write_run):
    config = {"rate": 0.1, "lora": {"rank": 8}, "levels": [1, 2], "packing": None, "remat": True}
    records = [{"step": 0, "val_loss": 1.5}, {"step": 1, "loss": 0.5, "terms": {"form": 1}}]
    path = write_run(RUN, config, records, result_of(0.25))
    write_run(RUN, None, [{"step": 7, "loss": 2.0}], series="rows_400")
    assert export_run(path, "recorder") == "here"
    (made,) = MADE
    plain = {"rate": 0.1, "lora.rank": 8, "levels": "[1, 2]", "packing": "none", "remat": True}
    assert made.config == plain and made.closed == 1
    ends = {"tuned/answer_accuracy_low": 0.0, "tuned/answer_accuracy_high": 1.0}
    assert made.results == {"tuned/answer_accuracy": 0.25, **ends}
    assert made.logged == [
        ("", 0, {"val_loss": 1.5}),
        ("", 1, {"loss": 0.5, "terms/form": 1.0}),
        ("rows_400", 7, {"loss": 2.0}),
    ]


def test_a_secret_among_the_parameters_is_not_handed_over(write_run, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "open-sesame-1")
    path = write_run(RUN, {"url": "http://open-sesame-1@host", "models": ["hf_" + "x" * 30]})
    export_run(path, "recorder")
    said = json.dumps(MADE[0].config)
    assert "sesame" not in said and "xxx" not in said and said.count("removed") == 2


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"step": 3, "loss": 1, "kl": None, "note": "x", "done": True}, {"loss": 1.0}),
        ({"terms": {"a": {"b": 2.5}}}, {"terms/a/b": 2.5}),
        ({"alarms": []}, {"alarms": 0.0}),
        ({"alarms": ["collapse", "length"]}, {"alarms": 2.0}),
        ({"loss": float("nan"), "norm": float("inf"), "count": 10**400}, {}),
    ],
)
def test_the_scalars_of_a_record(record, found):
    assert scalars(record) == found


def test_figures_that_are_unknown_have_no_scalar(write_run):
    stage = {"n": 3, "a": None, "a_ci95": None, "b": 0.5, "b_ci95": [0.25, 0.75], "other": 4}
    path = write_run(RUN, {}, None, result_of(stages={"base": stage}))
    figures = {"base/b": 0.5, "base/b_low": 0.25, "base/b_high": 0.75}
    assert stage_figures(path / "result.json") == figures
    assert stage_figures(path / "none.json") == {}


@pytest.mark.parametrize(
    ("config", "metrics", "result", "said"),
    [
        ({}, "{}\n", None, r"metrics.jsonl:1: \{\}, expected an object"),
        ({}, '{"step": 1}\nno\n', None, "metrics.jsonl:2: expected one JSON object"),
        ({}, None, {"stages": 1}, "stages is 1, expected an object"),
        ({}, None, {"stages": {"a": []}}, r"stage a is \[\], expected an object"),
        ({}, None, {"stages": {"a": {"b_ci95": 1}}}, "stage a: missing n, b"),
        ("[1]", None, None, r"config.json holds \[1\]"),
    ],
)
def test_a_damaged_run_is_refused_by_its_file(write_run, config, metrics, result, said):
    path = write_run(RUN, config, metrics, result)
    with pytest.raises(ValueError, match=said):
        export_run(path, "recorder")
    assert not MADE  # what an earlier export wrote stays


def test_what_comes_is_shown_at_once_and_half_a_line_waits(write_run):
    path = write_run(RUN, {}, '{"step": 1}\n{"step"')
    file = path / "metrics.jsonl"
    script = Script(
        lambda: file.write_text('{"step": 1}\n{"step": 2}\n'),
        lambda: write_run(RUN, None, '{"step": 1, "loss": 3}\n', series="half"),
        lambda: file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}'),
    )
    assert follow_run(path, "recorder", over=script) == "here"
    assert script.seen == [[1], [1, 2], [1, 2, 1]]
    followed_, exported = MADE
    assert followed_.closed == exported.closed == 1
    assert sorted(followed_.logged) == sorted(exported.logged)


def test_a_resume_that_drops_records_begins_a_fresh_tracker(write_run):
    path = write_run(RUN, {}, [{"step": n, "loss": n} for n in (1, 2, 3)])
    script = Script(
        lambda: write_run(RUN, None, [{"step": 1, "loss": 1}]),
        lambda: write_run(RUN, None, [{"step": 1, "loss": 1}, {"step": 2, "loss": 8}]),
        lambda: write_run(RUN, None, [{"step": 1, "loss": 1}, {"step": 2, "loss": 9}]),
        lambda: None,
    )
    follow_run(path, "recorder", over=script)
    assert script.seen == [[1, 2, 3], [1], [1, 2], [1, 2]]
    before, after, last, exported = MADE
    assert [len(one.logged) for one in (before, after, last)] == [3, 2, 2]
    assert last.logged == exported.logged and last.logged[1][2] == {"loss": 9.0}
    assert all(one.closed == 1 for one in MADE)


LINE = st.builds(
    lambda step, loss: f'{{"step": {step}, "loss": {loss}}}', st.integers(0, 9), st.integers(0, 3)
)
CHANGE = st.tuples(
    st.integers(0, 6), st.lists(LINE, max_size=3), st.sampled_from(["", '{"step": 1', "{"])
)


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(CHANGE, min_size=1, max_size=6))
def test_a_follower_ends_with_what_is_there_in_the_end(changes):
    """Each change keeps some lines, adds others, and may leave half of one."""
    MADE.clear()
    with tempfile.TemporaryDirectory() as folder:
        path, lines = Path(folder), []
        (path / "config.json").write_text("{}")

        def change(kept, more, half):
            lines[kept:] = more
            (path / "metrics.jsonl").write_text("".join(f"{one}\n" for one in lines) + half)

        steps = [lambda one=one: change(*one) for one in changes]
        follow_run(path, "recorder", over=Script(*steps))
    assert MADE[-2].logged == MADE[-1].logged
    wanted = [json.loads(line) for line in lines]
    assert [one[1:] for one in MADE[-1].logged] == [
        (one["step"], {"loss": float(one["loss"])}) for one in wanted
    ]


def test_a_follower_ends_at_the_result_of_this_session(write_run):
    path = write_run(RUN, {}, [{"step": 1}], result_of(steps_left=5))

    def session_ends():
        write_run(RUN, None, [{"step": 1}, {"step": 2}])
        write_json(path / "result.json", result_of(0.75))
        time.sleep(0.01)

    script = Script(lambda: None, session_ends, lambda: pytest.fail("it has not ended"))
    follow_run(path, "recorder", over=script)
    assert script.seen == [[1], [1]]
    assert [one[1] for one in MADE[0].logged] == [1, 2]
    assert MADE[1].results["tuned/answer_accuracy"] == 0.75
    follow_run(path, "recorder", over=Script(lambda: pytest.fail("it is finished")))


def test_ctrl_c_closes_what_was_written(write_run):
    path = write_run(RUN, {}, [{"step": 1}])

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_run(path, "recorder", over=Script(interrupt))
    (made,) = MADE
    assert made.closed == 1 and len(made.logged) == 1


def test_no_variable_no_follower(tmp_path, monkeypatch):
    monkeypatch.delenv(run_log.TRACKER_VARIABLE, raising=False)
    before = threading.active_count()
    with followed(tmp_path / "run"):
        assert threading.active_count() == before


def test_the_variable_is_checked_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setenv(run_log.TRACKER_VARIABLE, "abacus")
    with pytest.raises(ValueError, match="tracker 'abacus' is unknown: expected"):
        followed(tmp_path / "run").__enter__()


@pytest.mark.parametrize("end", ["finished", "failed", "never began", "damaged"])
def test_the_follower_of_a_run_ends_with_it(write_run, tmp_path, monkeypatch, capsys, end):
    monkeypatch.setenv(run_log.TRACKER_VARIABLE, "recorder")
    monkeypatch.setattr(run_log, "_POLL_S", 0.01)
    pointer = tmp_path / "run"
    with followed(pointer):
        if end != "never began":
            path = write_run(RUN, {}, "no\n" if end == "damaged" else [{"step": 1}])
            pointer.write_text(str(path))
        if end == "finished":
            write_json(path / "result.json", result_of())
    said = capsys.readouterr()
    assert all(one.closed == 1 for one in MADE)
    if end == "never began":
        assert not MADE and not said.out + said.err
    elif end == "damaged":
        assert said.err.startswith("nblib: recorder: ") and "metrics.jsonl:1" in said.err
    else:
        assert said.out == "here\n" and not said.err
        assert [one[1] for one in MADE[-1].logged] == [1]


def _as_in_a_terminal():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_follower_in_the_background_writes_meanwhile_and_ends_on_ctrl_c(write_run):
    """The command itself, with a clock and a signal."""
    path = write_run(RUN, {}, [{"step": 1, "loss": 0.5}])
    command = [sys.executable, "-m", "nblib", "log", "v1", "--to", "tensorboard", "--follow"]
    how = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    # A job in the background of a shell ignores Ctrl-C, and so would what it starts.
    child = subprocess.Popen(command, preexec_fn=_as_in_a_terminal, **how)
    try:
        until = time.monotonic() + 60
        while not (path / "tensorboard").exists() and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    finally:
        child.kill()
        child.wait()
    assert len([*(path / "tensorboard").iterdir()]) == 1
    assert not [*path.glob(".tensorboard*")]
