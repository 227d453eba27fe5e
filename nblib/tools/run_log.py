"""Reads what a run logs, and hands it to a tracker, once or while the run goes on.

    metrics.jsonl          {"step": 1, "loss": 0.6, "terms": {"form": 1.0}}   loss, terms/form
    metrics_rows_400.jsonl {"step": 1, "loss": 0.9}                           rows_400/loss
    config.json            the parameters
    result.json            the stages' figures: tuned/answer_accuracy, with its interval

A record that is half written waits for the next look.
"""

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nblib.files import OBJECT, field, read_object
from nblib.hosts.secrets import redacted
from nblib.report.tables import as_text
from nblib.runs import check_stage, is_finished
from nblib.tools.run_table import metrics_record
from nblib.tools.trackers import find_tracker

TRACKER_VARIABLE = "NBLIB_TRACKER"
_POLL_S = 2.0
_END_S = 90.0  # for a tracker's last figures, after the run's end


def export_run(path: Path, to: str) -> str:
    """Write a run's folder, finished or not, into a tracker of `TRACKERS`; return where to look.

    Raises ValueError: the tracker is unknown or not installed, or a file of the run is damaged.
    """
    path = path.resolve()
    kind, config = find_tracker(to), _config(path)
    results = stage_figures(path / "result.json")
    records = _records(path, metrics_lines(path), {})
    tracker = kind(path, config, results)  # now that all is read: an earlier export is not lost
    for record in records:
        tracker.log(*record)
    return tracker.close()


def follow_run(
    path: Path, to: str, *, over: threading.Event | None = None, poll_s: float = _POLL_S
) -> str:
    """Write what a run logs while it goes on, until its result is there or `over` is set.

    Then the whole run is written as `export_run` does, whose return value this is. A file that was
    rewritten, because a run that goes on dropped records, is written from its start.
    """
    path, kind, over = path.resolve(), find_tracker(to), over or threading.Event()
    tracker, done = kind(path, _config(path), {}), dict[str, list[bytes]]()
    before = _result_time(path) if _has_steps_left(path) else None
    try:
        is_last = False
        while not is_last:
            is_last = over.is_set() or _result_time(path) != before  # asked before all is read
            now = metrics_lines(path)
            if any(now.get(series, [])[: len(lines)] != lines for series, lines in done.items()):
                tracker.close()
                tracker, done = kind(path, _config(path), {}), {}
            for record in _records(path, now, done):
                tracker.log(*record)
            tracker.flush()
            done = now
            if not is_last:
                over.wait(poll_s)
    finally:  # also after Ctrl-C: what came stays
        tracker.close()
    return export_run(path, to)


@contextmanager
def followed(pointer: Path) -> Iterator[None]:
    """Follow the run whose folder a file will name, where NBLIB_TRACKER names a tracker.

    A thread does it, which ends as this process does. What goes wrong there is a line on stderr:
    no run fails by its tracker. Raises ValueError, at once, for a tracker that is not there.
    """
    to = os.environ.get(TRACKER_VARIABLE, "")
    if not to:
        yield
        return
    find_tracker(to)
    over = threading.Event()
    thread = threading.Thread(target=_follow_pointer, args=(pointer, to, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_END_S)
        if thread.is_alive():
            print(f"nblib: {to} takes more than {_END_S:.0f} s; left alone", file=sys.stderr)


def metrics_lines(path: Path) -> dict[str, list[bytes]]:
    """Return the whole lines of each `metrics*.jsonl` by its series; "" is `metrics.jsonl`."""
    return {
        one.stem.removeprefix("metrics").removeprefix("_"): one.read_bytes().split(b"\n")[:-1]
        for one in sorted(path.glob("metrics*.jsonl"))
    }


def stage_figures(path: Path) -> dict[str, float]:
    """Return the figures of all stages of a `result.json`, with the ends of their intervals.

    Of {"tuned": {"n": 2, "accuracy": 0.5, "accuracy_ci95": [0.1, 0.9]}} these are `tuned/accuracy`,
    `tuned/accuracy_low` and `tuned/accuracy_high`. None where there is no file yet. Raises
    ValueError where the file is damaged.
    """
    if not path.exists():
        return {}
    result = read_object(path)
    figures: dict[str, float] = {}
    for name, stage in field(result, "stages", OBJECT, path).items():
        keys = [*stage] if isinstance(stage, dict) else []
        metrics = [key.removesuffix("_ci95") for key in keys if key.endswith("_ci95")]
        check_stage(stage, metrics, f"{path}: stage {name}")
        for metric in metrics:
            if stage[metric] is not None:
                low, high = stage[f"{metric}_ci95"]
                figures |= {f"{name}/{metric}": stage[metric]}
                figures |= {f"{name}/{metric}_low": low, f"{name}/{metric}_high": high}
    return figures


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a record; a list, such as that of alarms, counts its items.

    >>> scalars({"step": 3, "loss": 0.5, "kl": None, "terms": {"form": 1}, "alarms": ["collapse"]})
    {'loss': 0.5, 'terms/form': 1.0, 'alarms': 1.0}
    """
    found = {}
    for name, value in _flat(record, "/"):
        if isinstance(value, list):
            found[name] = float(len(value))
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            found |= {name: float(value)} if _is_finite(value) else {}
    return found


def _records(
    path: Path, now: Mapping[str, list[bytes]], done: Mapping[str, list[bytes]]
) -> list[tuple[str, int, dict[str, float]]]:
    """Return series, step and scalars of each line that is not done."""
    found = []
    for series, lines in now.items():
        file = path / (f"metrics_{series}.jsonl" if series else "metrics.jsonl")
        after = len(done.get(series, ()))
        for number, line in enumerate(lines[after:], start=after + 1):
            record = metrics_record(line, f"{file}:{number}")
            found.append((series, record["step"], scalars(record)))
    return found


def _config(path: Path) -> dict[str, Any]:
    """Return a run's parameters: numbers and texts, without secrets; a list is its JSON."""
    found: dict[str, Any] = {}
    for name, value in _flat(read_object(path / "config.json"), "."):
        is_plain = isinstance(value, bool | int | float) and _is_finite(value)
        found[name] = value if is_plain else redacted(as_text(value))[0]
    return found


def _is_finite(value: float) -> bool:
    """Whether trackers can hold a number; of an int of 400 digits `math.isfinite` is an error."""
    return abs(value) <= sys.float_info.max


def _flat(values: Mapping[str, Any], joint: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, joint, f"{prefix}{name}{joint}")
        else:
            yield f"{prefix}{name}", value


def _result_time(path: Path) -> int | None:
    """Return when the result was written; None where there is none."""
    result = path / "result.json"
    return result.stat().st_mtime_ns if result.exists() else None


def _has_steps_left(path: Path) -> bool:
    return (path / "result.json").exists() and not is_finished(path)


def _follow_pointer(pointer: Path, to: str, over: threading.Event) -> None:
    while not pointer.exists() and not over.wait(_POLL_S):
        pass
    if not pointer.exists():  # the run never began
        return
    try:
        print(follow_run(Path(pointer.read_text(encoding="utf-8")), to, over=over), flush=True)
    except (OSError, ValueError) as error:
        print(f"nblib: {to}: {error}", file=sys.stderr)
