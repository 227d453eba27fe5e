"""Where a device's time goes: jax's profiler, and its trace as a short table of kernels.

The trace itself can be opened by xprof or TensorBoard.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

_NUMBER = re.compile(r"([._]\d+)+$")  # of one kernel among those made alike
_SHOWN, _WIDTH = 10, 72
Event = tuple[float, float, str]  # begin and end in nanoseconds, name


@dataclass(frozen=True, kw_only=True)
class DeviceTime:
    """A trace's seconds of devices: from the first kernel to the last, busy, and by kernel."""

    traced: float
    busy: float
    kernels: Mapping[str, float]  # without those that ran within them

    @property
    def idle_share(self) -> float:
        """The share of the time in which no kernel ran."""
        return 1 - self.busy / self.traced if self.traced else 0.0

    def __str__(self) -> str:
        """The largest kernels with their shares of all kernels' time, a line each."""
        total = sum(self.kernels.values())
        largest = sorted(self.kernels.items(), key=lambda one: -one[1])[:_SHOWN]
        lines = [f"{seconds / total:7.1%}  {name[:_WIDTH]}" for name, seconds in largest]
        return "\n".join([*lines, f"{self.idle_share:7.1%}  of the time idle"])


def traced(work: Callable[[], Any], folder: Path) -> DeviceTime:
    """Do the work under jax's profiler, leave its trace in the folder, and return the times.

    The work must wait for its results.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's own calls would slow the work down
    with jax.profiler.trace(str(folder), profiler_options=options):
        work()
    return read_trace(folder)


def read_trace(folder: Path) -> DeviceTime:
    """Return the times of the newest trace in a folder.

    Of a GPU the streams count, of a TPU its operations, of a CPU the threads that run operations.
    Raises FileNotFoundError where there is no trace.
    """
    files = sorted(folder.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"{folder} holds no *.xplane.pb: expected a trace of jax.profiler")
    planes = list(jax.profiler.ProfileData.from_file(str(files[-1])).planes)
    devices = [list(_device_lines(plane)) for plane in planes if plane.name.startswith("/device:")]
    if not any(devices):
        devices = [list(_cpu_lines(plane)) for plane in planes if plane.name == "/host:CPU"]
    spans = [_span(lines) for lines in devices if lines]
    kernels: defaultdict[str, float] = defaultdict(float)
    for lines in devices:
        for line in lines:
            for name, nanoseconds in own_times(line).items():
                kernels[name] += nanoseconds / 1e9
    return DeviceTime(
        traced=sum(whole for whole, _ in spans) / 1e9,
        busy=sum(busy for _, busy in spans) / 1e9,
        kernels=kernels,
    )


def own_times(events: Iterable[Event]) -> dict[str, float]:
    """Return the nanoseconds of each kernel of one line, numbers off its name.

    What ran within another, as the body of a loop does, counts for itself alone.

    >>> own_times([(0, 10, "while.1"), (2, 5, "fusion.7"), (5, 6, "fusion.8")])
    {'while': 6.0, 'fusion': 4.0}
    """
    found: defaultdict[str, float] = defaultdict(float)
    around: list[tuple[float, str]] = []  # ends and names of what runs at this moment
    for begin, end, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while around and around[-1][0] <= begin:
            around.pop()
        kernel = _NUMBER.sub("", name)
        if around:
            found[around[-1][1]] -= end - begin
        found[kernel] += end - begin
        around.append((end, kernel))
    return dict(found)


def _span(lines: Iterable[Iterable[Event]]) -> tuple[float, float]:
    """Return the nanoseconds from the first event of a device to its last, and those with one."""
    events = sorted((begin, end) for line in lines for begin, end, _ in line)
    busy, reached = 0.0, events[0][0]
    for begin, end in events:
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return reached - events[0][0], busy


def _device_lines(plane: Any) -> Iterator[list[Event]]:
    for line in plane.lines:
        if line.name == "XLA Ops" or line.name.startswith("Stream"):
            events = [_event(event) for event in line.events]
            yield from [events] * bool(events)


def _cpu_lines(plane: Any) -> Iterator[list[Event]]:
    for line in plane.lines:
        events = [_event(event) for event in line.events if "hlo_op" in dict(event.stats)]
        yield from [events] * bool(events)


def _event(event: Any) -> Event:
    name = event.name.partition(" = ")[0].lstrip("%")  # a TPU's has the whole instruction
    return event.start_ns, event.start_ns + event.duration_ns, name
