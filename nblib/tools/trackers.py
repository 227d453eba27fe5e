"""A run in TensorBoard, Weights & Biases or trackio, read from its folder, afterwards or meanwhile.

`metrics.jsonl` stays the truth: no training calls a tracker. What is sent is always the whole run,
so that a second export ends like the first one. For most uses prefer `run_log.export_run`, which
feeds the classes here.
"""

import hashlib
import importlib.util
import netrc
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

Figures = Mapping[str, float]

_WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
_WANDB_WAIT_S = 30.0  # for its server; its own 90 s are a long time to say nothing


class Tracker(Protocol):
    """What an export writes into; made of a run's folder, its parameters and its results.

    `series` is "" for `metrics.jsonl` and "half" for `metrics_half.jsonl`.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], results: Figures) -> None: ...

    def log(self, series: str, step: int, figures: Figures) -> None:
        """Write the figures of one record."""

    def flush(self) -> None:
        """Make what was logged visible."""

    def close(self) -> str:
        """Write the results and end; return where to look."""


class TensorBoard:
    """An event file in the run's folder `tensorboard`, which takes the place of an earlier one.

    Nothing is written before the first `flush`, so that an error before it leaves no trace.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], results: Figures) -> None:
        from tensorboardX.summary import hparams

        self._folder = path / "tensorboard"
        self._results, self._last = results, 0
        self._writer: Any = None
        self._waiting: list[Any] = []  # events that are not yet written
        for summary in hparams(config, results):
            self._write(summary, 0)

    def log(self, series: str, step: int, figures: Figures) -> None:
        """Write a scalar a figure: `loss`, `half/loss`."""
        from tensorboardX.proto.summary_pb2 import Summary

        if not figures:
            return
        prefix = f"{series}/" if series else ""
        scalars = [
            Summary.Value(tag=f"{prefix}{name}", simple_value=value)
            for name, value in figures.items()
        ]
        self._last = max(self._last, step)
        self._write(Summary(value=scalars), step)

    def flush(self) -> None:
        """Write to the disk; the first time, put the folder in the place of the earlier one."""
        if self._writer:
            self._write_waiting()
            return
        from tensorboardX.event_file_writer import EventsWriter

        hidden = self._folder.with_name(f".tensorboard.{os.getpid()}.tmp")
        try:
            hidden.mkdir()
            # Not its SummaryWriter, whose thread may hold back what was logged before a flush.
            self._writer = EventsWriter(str(hidden / "events"))
            self._write_waiting()
            shutil.rmtree(self._folder, ignore_errors=True)
            hidden.rename(self._folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)  # it is there after an error alone

    def close(self) -> str:
        """Write the results at the last step."""
        self.log("", self._last, self._results)
        self.flush()
        self._writer.close()
        return f"{self._folder}: tensorboard --logdir {self._folder.parents[1]}"

    def _write(self, summary: Any, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._waiting.append(Event(wall_time=time.time(), step=step, summary=summary))

    def _write_waiting(self) -> None:
        for event in self._waiting:
            self._writer.write_event(event)
        self._waiting.clear()
        self._writer.flush()


class WeightsAndBiases:
    """A run at wandb, its id made of the folder's name, so that a second export goes on with it.

    Without a key, or where WANDB_MODE says so, it is an offline run in the folder `wandb`, in place
    of an earlier one; `wandb sync` sends it. Nothing but the run's own figures and parameters is
    recorded: no console, host, code or git, and no measurement of the machine, which asks a
    network address even offline.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], results: Figures) -> None:
        import wandb

        given = os.environ.get("WANDB_MODE")
        self._offline = given == "offline" or not (given or _has_wandb_key())
        name = f"{path.parent.name}/{path.name}"
        run_id = hashlib.sha256(name.encode()).hexdigest()[:16]
        if self._offline:
            for earlier in path.glob(f"wandb/offline-run-*-{run_id}"):
                shutil.rmtree(earlier)
        self._results, self._known, self._folder = results, set[str](), path / "wandb"
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or path.parent.name,
                name=path.name,
                id=run_id,
                dir=path,
                config=dict(config),
                mode="offline" if self._offline else None,
                resume=None if self._offline else "allow",
                reinit="create_new",
                settings=wandb.Settings(
                    init_timeout=_WANDB_WAIT_S,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    x_disable_meta=True,
                    x_save_requirements=False,
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                ),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"wandb: {reason}. WANDB_MODE=offline writes the run into {self._folder} instead"
            ) from error
        # Of a run that goes on: the last step of each series that is there.
        self._there = dict(self._run.summary) if self._run.resumed else {}

    def log(self, series: str, step: int, figures: Figures) -> None:
        """Log the figures over the series' own step, but for steps that are there already."""
        prefix = f"{series}/" if series else ""
        axis = f"{prefix}step"
        if step <= self._there.get(axis, -1):
            return
        named = {f"{prefix}{name}": value for name, value in figures.items()}
        for name in named.keys() - self._known:
            self._run.define_metric(name, step_metric=axis)
            self._known.add(name)
        self._run.log({axis: step, **named})

    def flush(self) -> None:
        """Do nothing: wandb's own process sends what is logged."""

    def close(self) -> str:
        """Write the results into the run's summary, and wait until all is sent or written."""
        self._run.summary.update(dict(self._results))
        where = f"wandb sync {self._folder}/offline-run-*" if self._offline else self._run.url
        self._run.finish()
        return str(where)


class Trackio:
    """A run in trackio's database, `TRACKIO_DIR`, which takes the place of an earlier one.

    At a server (TRACKIO_SPACE_ID, TRACKIO_SERVER_URL) nothing is replaced: a second export is a
    second run of the same name.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], results: Figures) -> None:
        import trackio

        self._project, self._results, self._last = path.parent.name, results, 0
        with suppress(ValueError):  # the project's first run
            for earlier in trackio.Api().runs(self._project):
                if earlier.name == path.name:
                    earlier.delete()
        self._run = trackio.init(
            project=self._project,
            name=path.name,
            config=dict(config),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, series: str, step: int, figures: Figures) -> None:
        """Log the figures: `loss`, `half/loss`."""
        prefix = f"{series}/" if series else ""
        self._last = max(self._last, step)
        self._run.log({f"{prefix}{name}": value for name, value in figures.items()}, step=step)

    def flush(self) -> None:
        """Do nothing: a thread of trackio writes what is logged."""

    def close(self) -> str:
        """Log the results at the last step, and wait until all is written."""
        self.log("", self._last, self._results)
        self._run.finish()
        return f'trackio show --project "{self._project}"'


TRACKERS: Mapping[str, tuple[type[Tracker], str]] = {  # by name, with the module that they need
    "tensorboard": (TensorBoard, "tensorboardX"),
    "wandb": (WeightsAndBiases, "wandb"),
    "trackio": (Trackio, "trackio"),
}


def find_tracker(name: str) -> type[Tracker]:
    """Return a tracker; ValueError for an unknown one, or one that is not installed."""
    if name not in TRACKERS:
        raise ValueError(f"tracker {name!r} is unknown: expected one of {', '.join(TRACKERS)}")
    tracker, module = TRACKERS[name]
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"{name} is not installed: pip install {module}")
    return tracker


def _has_wandb_key() -> bool:
    """Whether wandb would find a key, by its variables or in `.netrc`, so that it asks for none."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = os.environ.get("WANDB_BASE_URL")
    hosts = (urlsplit(server).netloc,) if server else _WANDB_HOSTS
    try:
        known = netrc.netrc(os.environ.get("NETRC") or None)
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(host) for host in hosts)
