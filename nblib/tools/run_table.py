"""A table over runs: what differed among them, and what came of it.

Read are the files that every run leaves: `config.json`, `metrics.jsonl`, `result.json`. A folder
that is damaged, of an older version, or no run at all is a row that says so.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nblib.files import OBJECT, POSITIVE, TEXT, Kind, field, parse_json, read_object, shown
from nblib.report.tables import Estimate, Table, in_words, read_estimate, settings_table
from nblib.runs import check_stage, runs_root
from nblib.tasks.registry import get_task
from nblib.tools.sweep_grid import SWEEPS

_UNKNOWN = "-"
_GOES_ON = ("unfinished", "steps left")  # how the state of a run begins that can be continued
_STEPS = Kind("a number of steps", lambda value: type(value) is int and value >= 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRow:
    """What one run's folder says; None where it does not say it.

    `state` is "finished", "unfinished" or "steps left: 40", and what is wrong with the folder.
    """

    notebook: str
    run: str  # the folder's name
    state: str
    started: datetime | None = None
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    headline: str = ""  # the metric in which a gain is claimed
    estimate: Estimate | None = None  # of the stage "tuned", else of the last one
    seconds: float | None = None  # of the last session
    steps: int | None = None  # the last step in metrics.jsonl


def run_row(path: Path) -> RunRow:
    """Read one run's folder; what cannot be read is in `state`, never an error.

    >>> run_row(Path("runs/v1_sft_format/20261128-065243-c5fcae07")).state
    'finished'
    """
    path = path.resolve()
    found: dict[str, Any] = {"started": _started(path.name)}
    wrong = []
    for read in (_parameters, _outcome, _headline, _steps):
        try:
            found |= read(path)
        except (OSError, ValueError) as error:
            wrong.append(_in_short(error, path))
    state = "; ".join(filter(None, (found.pop("state", ""), *dict.fromkeys(wrong))))
    return RunRow(notebook=path.parent.name, run=path.name, state=state, **found)


def run_rows(notebook: str = "", *, newest: int | None = None) -> list[RunRow]:
    """Return a row a run, newest first: of one notebook, else of each folder that holds a run.

    Raises ValueError where there is none, naming the folder.
    """
    root = runs_root()
    holders = {one.parents[1] for one in root.glob("*/*/config.json")}
    folders = [root / notebook] if notebook else sorted(holders)
    paths = [
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_dir() and not path.is_symlink() and path.name[0] != "." and path.name != SWEEPS
    ]
    if not paths:
        there = ", ".join(sorted(one.name for one in holders)) or "no run at all"
        where = (root / notebook).absolute()
        raise ValueError(f"{where} holds no run; in {root.absolute()}: {there}")
    paths.sort(key=lambda path: path.name, reverse=True)  # names begin with the time
    return [run_row(path) for path in paths[:newest]]


def find_run(given: str, *, unfinished: bool = False) -> Path:
    """Return a run's folder: as given, or a notebook's newest, or its newest unfinished one.

    Raises ValueError where there is none, or where a folder is no run's.
    """
    folder = Path(given)
    if (folder / "config.json").is_file():
        return folder.resolve()
    if len(folder.parts) > 1 or (folder.is_dir() and not (runs_root() / given).is_dir()):
        wrong = "holds no config.json" if folder.is_dir() else "is no folder"
        raise ValueError(f"{given} {wrong}: give a run's folder, or a notebook's name")
    for row in run_rows(given):
        path = (runs_root() / row.notebook / row.run).resolve()
        goes_on = row.state.startswith(_GOES_ON)
        if (path / "config.json").is_file() and (goes_on or not unfinished):
            return path
    raise ValueError(f"{given} has no {'unfinished ' if unfinished else ''}run with a config.json")


def rows_table(rows: Sequence[RunRow], *, title: str = "") -> Table:
    """Return a row a run: the parameters that differ among them, the headline, time and state.

    ```
    | run | seed | joint accuracy | time | state |
    | --- | --- | --- | --- | --- |
    | 20261128-065243-c5fcae07 | 1 | 0.812 [0.570, 0.934] (n=16) | 77 s | finished |
    ```
    """
    from nblib.training.session import duration  # brings jax

    differing = differing_parameters(rows)
    names = {row.headline for row in rows if row.headline}
    headline = in_words(*names) if len(names) == 1 else "headline"
    cells = []
    for row, values in zip(rows, differing, strict=True):
        figure = str(row.estimate or _UNKNOWN)
        if row.estimate and len(names) > 1:
            figure = f"{in_words(row.headline)}\n{figure}"
        time = _UNKNOWN if row.seconds is None else duration(row.seconds)
        cells.append((row.run, *values.values(), figure, time, row.state))
    columns = ("run", *(differing[0] if differing else ()), headline, "time", "state")
    return Table(title=title, columns=columns, rows=tuple(cells))


def differing_parameters(rows: Sequence[RunRow]) -> list[dict[str, str]]:
    """Return of each row the parameters that have two values among the rows, as texts.

    One that a run of an older version does not have is "-" there, and does not differ by that.
    """
    flat = [{name: text for name, text in settings_table(row.parameters).rows} for row in rows]
    names = dict.fromkeys(name for values in flat for name in values)
    differ = [name for name in names if len({one[name] for one in flat if name in one}) > 1]
    return [{name: values.get(name, _UNKNOWN) for name in differ} for values in flat]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a `metrics.jsonl`; a last line that is half written is left out.

    Raises ValueError naming file and line of what is no record of a step.
    """
    return [
        metrics_record(line, f"{path}:{number}")
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1)
    ]


def metrics_record(line: bytes, where: str) -> dict[str, Any]:
    """Return the record of a line; ValueError, beginning with `where`, if it is none of a step."""
    try:
        record = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{where}: expected one JSON object, {error}") from error
    step = record.get("step") if isinstance(record, dict) else None
    if type(step) is not int or not -(2**63) <= step < 2**63:
        raise ValueError(
            f'{where}: {shown(record)}, expected an object with a number "step" of 64 bits at most'
        )
    return record


def _parameters(path: Path) -> dict[str, Any]:
    return {"parameters": read_object(path / "config.json")}


def _outcome(path: Path) -> dict[str, Any]:
    result = path / "result.json"
    if not result.exists():
        return {"state": "unfinished"}
    content = read_object(result)
    left = field(content, "steps_left", _STEPS, result, default=0)
    seconds = field(content, "wall_s", POSITIVE, result, default=None)
    return {"state": f"steps left: {left:,}" if left else "finished", "seconds": seconds}


def _headline(path: Path) -> dict[str, Any]:
    result = path / "result.json"
    if not result.exists():
        return {}
    content = read_object(result)
    headline = get_task(field(content, "task", TEXT, result)).headline
    stages = field(content, "stages", OBJECT, result)
    if not stages:  # a run without evaluation
        return {"headline": headline}
    name = "tuned" if "tuned" in stages else [*stages][-1]  # as the report's first paragraph
    stage = stages[name]
    check_stage(stage, (headline,), f"{result}: stage {name}")
    return {"headline": headline, "estimate": read_estimate(stage, headline)}


def _steps(path: Path) -> dict[str, Any]:
    metrics = path / "metrics.jsonl"
    if not metrics.exists():
        return {}
    return {"steps": max((one["step"] for one in read_metrics(metrics)), default=0)}


def _started(name: str) -> datetime | None:
    """Return when a run began, in UTC, from its folder's name: `20261128-065243-c5fcae07`."""
    try:
        return datetime.strptime(name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _in_short(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"no {Path(error.filename).name}"
    return str(error).replace(f"{path}/", "")
