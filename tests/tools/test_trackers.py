import os
import struct
import sys
from types import SimpleNamespace

import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from nblib.tools import trackers
from nblib.tools.run_log import export_run, follow_run
from nblib.tools.trackers import find_tracker
from tests.tools.made_runs import result_of

RUN = "20261128-065243-c5fcae07"
CONFIG = {"seed": 1, "rate": 0.5, "remat": False, "model": "embedded", "lora": {"levels": [1]}}
STEPS = [
    {"step": 0, "val_loss": 2.0},
    {"step": 1, "loss": 1.5},
    {"step": 2, "loss": 0.5},
    {"step": 2, "val_loss": 0.25},
]


def events(folder):
    """The events of a folder's one event file: TFRecord frames, length, crc, bytes, crc."""
    (file,) = folder.iterdir()
    content, found = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    assert found[0].file_version == "brain.Event:2"
    return found[1:]


def scalars(folder):
    """(tag, step, value) of all scalars, in order."""
    return [
        (one.tag, event.step, one.simple_value)
        for event in events(folder)
        for one in event.summary.value
        if one.WhichOneof("value") == "simple_value"
    ]


def test_tensorboard_has_each_record_once_and_the_results(write_run):
    path = write_run(RUN, CONFIG, STEPS, result_of(0.75))
    write_run(RUN, None, [{"step": 1, "loss": 3.0}], series="half")
    wanted = [
        ("val_loss", 0, 2.0),
        ("loss", 1, 1.5),
        ("loss", 2, 0.5),
        ("val_loss", 2, 0.25),
        ("half/loss", 1, 3.0),
        ("tuned/answer_accuracy", 2, 0.75),
        ("tuned/answer_accuracy_low", 2, 0.0),
        ("tuned/answer_accuracy_high", 2, 1.0),
    ]
    assert "tensorboard --logdir" in export_run(path, "tensorboard")
    assert scalars(path / "tensorboard") == wanted
    write_run(RUN, None, STEPS[:2])  # a resumed run dropped what it will log again
    (path / "tensorboard" / "events.out.tfevents.1.other").write_bytes(b"an older version's")
    export_run(path, "tensorboard")
    results = [(tag, 1, value) for tag, _, value in wanted[5:]]
    assert scalars(path / "tensorboard") == [*wanted[:2], wanted[4], *results]
    assert not [*path.glob(".tensorboard*")]


def test_tensorboard_has_the_parameters_as_hyper_parameters(write_run):
    path = write_run(RUN, CONFIG, None, result_of())
    export_run(path, "tensorboard")
    plugin = {
        one.tag: HParamsPluginData.FromString(one.metadata.plugin_data.content)
        for event in events(path / "tensorboard")
        for one in event.summary.value
        if one.metadata.plugin_data.plugin_name == "hparams"
    }
    given = plugin["_hparams_/session_start_info"].session_start_info.hparams
    assert {name: one.WhichOneof("kind") for name, one in given.items()} == {
        "seed": "number_value",
        "rate": "number_value",
        "remat": "bool_value",
        "model": "string_value",
        "lora.levels": "string_value",
    }
    assert given["rate"].number_value == 0.5 and given["lora.levels"].string_value == "[1]"
    metrics = plugin["_hparams_/experiment"].experiment.metric_infos
    assert "tuned/answer_accuracy" in [one.name.tag for one in metrics]


def test_a_parameter_too_large_for_a_float_is_a_text(write_run):
    path = write_run(RUN, {"seed": 10**400, "rate": -(10**400)}, STEPS)
    export_run(path, "tensorboard")
    assert (path / "tensorboard").is_dir()


def test_an_error_leaves_the_earlier_export_and_no_other_trace(write_run, monkeypatch):
    path = write_run(RUN, CONFIG, STEPS)
    export_run(path, "tensorboard")
    before, earlier = sorted(path.iterdir()), scalars(path / "tensorboard")

    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", full)
    for attempt in (export_run, follow_run):
        with pytest.raises(OSError, match="No space left"):
            attempt(path, "tensorboard")
        assert sorted(path.iterdir()) == before
    assert scalars(path / "tensorboard") == earlier


def test_tensorboard_itself_reads_it(write_run):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard"
    )
    path = write_run(RUN, CONFIG, STEPS, result_of(0.75))
    export_run(path, "tensorboard")
    board = reader.EventAccumulator(str(path / "tensorboard"))
    board.Reload()
    assert [(one.step, one.value) for one in board.Scalars("loss")] == [(1, 1.5), (2, 0.5)]
    assert [one.value for one in board.Scalars("tuned/answer_accuracy")] == [0.75]
    assert "_hparams_/session_start_info" in board.summary_metadata


def test_an_unknown_or_missing_tracker_is_named(monkeypatch):
    with pytest.raises(
        ValueError, match=r"'mlflow' is unknown: expected one of tensorboard, wandb"
    ):
        find_tracker("mlflow")
    monkeypatch.setitem(trackers.TRACKERS, "wandb", (object, "no_such_module"))
    with pytest.raises(ValueError, match=r"^wandb is not installed: pip install no_such_module$"):
        find_tracker("wandb")


class FakeRun:
    """A run at wandb's server that has `there` in its summary."""

    url = "https://wandb.example/run"

    def __init__(self, there):
        self.resumed, self.summary, self.axes, self.logged, self.ended = (
            bool(there),
            there,
            {},
            [],
            0,
        )

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, figures):
        self.logged.append(figures)

    def finish(self):
        self.ended += 1


@pytest.fixture
def fake_wandb(monkeypatch, tmp_path):
    """wandb as far as it is used: `fails` is raised by init, `there` is what a server has."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fake = SimpleNamespace(Error=RuntimeError, Settings=dict, fails=None, there={}, made=[])

    def init(**given):
        if fake.fails:
            raise fake.fails
        fake.given = given
        fake.made.append(FakeRun(fake.there))
        return fake.made[-1]

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    return fake


@pytest.mark.parametrize(
    ("variables", "netrc", "offline"),
    [
        ({}, "", True),
        ({"WANDB_API_KEY": "k" * 40}, "", False),
        ({"WANDB_IDENTITY_TOKEN_FILE": "token"}, "", False),
        ({}, "machine api.wandb.ai login user password k", False),
        ({}, "machine github.com login user password k", True),
        ({"WANDB_BASE_URL": "https://mine:80"}, "machine api.wandb.ai login u password k", True),
        ({"WANDB_BASE_URL": "https://mine"}, "machine mine login u password k", False),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "", True),
        ({"WANDB_MODE": "online"}, "", False),
        ({}, "a broken file", True),
    ],
)
def test_wandb_is_offline_where_it_would_ask(
    write_run, fake_wandb, monkeypatch, tmp_path, variables, netrc, offline
):
    (tmp_path / "netrc").write_text(netrc)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = export_run(write_run(RUN, CONFIG, STEPS), "wandb")
    given = fake_wandb.given
    assert (given["mode"], given["resume"]) == (("offline", None) if offline else (None, "allow"))
    assert said.startswith("wandb sync") if offline else said == FakeRun.url
    assert (given["project"], given["name"]) == ("v1", RUN)
    assert given["settings"]["x_disable_stats"] and given["settings"]["x_disable_meta"]


def test_at_wandb_a_second_export_adds_what_is_missing(write_run, fake_wandb, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    path = write_run(RUN, CONFIG, STEPS)
    write_run(RUN, None, [{"step": 1, "loss": 3.0}], series="half")
    export_run(path, "wandb")
    first, first_id = fake_wandb.made[0], fake_wandb.given["id"]
    assert first.logged == [*STEPS, {"half/step": 1, "half/loss": 3.0}]
    assert first.axes == {"val_loss": "step", "loss": "step", "half/loss": "half/step"}
    assert first.ended == 1 and len(first_id) == 16
    fake_wandb.there = {"step": 1, "loss": 1.5}
    write_run(RUN, None, None, result_of(0.75))
    export_run(path, "wandb")
    second = fake_wandb.made[1]
    assert fake_wandb.given["id"] == first_id
    assert second.logged == [*STEPS[2:], {"half/step": 1, "half/loss": 3.0}]
    assert second.summary["tuned/answer_accuracy"] == 0.75
    export_run(write_run("other", CONFIG), "wandb")
    assert fake_wandb.given["id"] != first_id


def test_a_server_that_does_not_answer_is_an_error_with_the_way_out(write_run, fake_wandb):
    fake_wandb.fails = fake_wandb.Error("timed\nout")
    with pytest.raises(ValueError, match=r"^wandb: timed out. WANDB_MODE=offline writes the run"):
        export_run(write_run(RUN, CONFIG), "wandb")
