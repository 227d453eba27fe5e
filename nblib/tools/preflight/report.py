"""What a preflight found: the steps of a run with their memory and time, and the checks."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nblib.tools.preflight.checks import Check
from nblib.tools.preflight.compiled import Compiled
from nblib.tools.preflight.search import Batch

_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Step:
    """One program of a run: what it computes on, how often, and what is known of it."""

    name: str
    rows: int
    length: int
    times: int
    seconds: float  # of one call; 0: not known
    compiled: Compiled | None = None  # None: measured

    def lines(self) -> list[str]:
        """Return what it needs of each device, and its seconds."""
        lines = [f"{self.name}: {self.rows} rows of {self.length} tokens, {self.times} times"]
        found = self.compiled
        if found and not found.fits:
            needed = f"{found.needed_bytes / _GIB:.2f} GiB" if found.needed_bytes else "more"
            limit = f"{found.limit_bytes / _GIB:.2f} GiB" if found.limit_bytes else "there is"
            lines.append(f"  needs {needed} a device, there are {limit}")
        elif found:
            kinds = {
                "weights, optimizer, batch": found.arguments_bytes,
                "activations": found.temporary_bytes,
                "results": found.output_bytes,
                "program": found.code_bytes,
                "at its peak": found.peak_bytes,
            }
            lines += [f"  {size / _GIB:7.2f} GiB  {kind}" for kind, size in kinds.items()]
            lines.append(f"  {found.flops / 1e12:7.2f} T operations")
            lines.append(f"  {found.bytes_moved / _GIB:7.0f} GiB to and from memory")
        if self.seconds:
            lines.append(f"  {self.seconds:7.3f} s{' at least' if found else ''}")
        return lines


def hours_of(steps: tuple[Step, ...]) -> float:
    """Return the hours of all steps together; 0 if the seconds of one of them are not known."""
    used = [step for step in steps if step.times]
    known = all(step.seconds for step in used)
    return sum(step.times * step.seconds for step in used) / 3600 if known else 0.0


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """What a preflight found; hours are 0 where they are not known, or where there is no limit."""

    notebook: str
    target: str
    mesh: Mapping[str, int]
    steps: tuple[Step, ...]
    hours: float
    session_hours: float
    tokens_per_step: float = 0.0  # without padding
    suggestion: Mapping[str, Any] = field(default_factory=dict)  # by the notebook's parameters
    batches: tuple[Batch, ...] = ()  # the fastest first; none where that was not asked for
    checks: tuple[Check, ...] = ()
    compiler: str = ""  # name and version of what compiled the steps; "" where nothing was compiled
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every program that was compiled fits."""
        return all(step.compiled.fits for step in self.steps if step.compiled)

    def to_json(self) -> str:
        """Return everything as a JSON object."""
        return json.dumps({**asdict(self), "fits": self.fits}, indent=2)

    def __str__(self) -> str:
        """Lines for a person."""
        axes = ", ".join(f"{name} {size}" for name, size in self.mesh.items())
        lines = [f"{self.notebook} on {self.target} ({axes})"]
        for step in self.steps:
            lines += ["", *step.lines()]
        lines += ["", *self._verdict(), *(f"note      {note}" for note in self.notes)]
        return "\n".join([*lines, "", *map(str, self.checks)])

    def _verdict(self) -> list[str]:
        compiled = any(step.compiled for step in self.steps)
        verdict = "fits" if self.fits else "does not fit"
        if not compiled:
            verdict = "measured on this machine" if self.steps else "not compiled"
        lines = [f"verdict   {verdict}"]
        if self.compiler:
            lines.append(f"compiler  {self.compiler}")
        if self.suggestion:
            named = " ".join(f"-p {name} {value}" for name, value in self.suggestion.items())
            lines.append(f"fits with {named}")
        lines += [f"{'' if n else 'fastest':10}{one}" for n, one in enumerate(self.batches)]
        if self.tokens_per_step:
            lines.append(f"tokens    {self.tokens_per_step:,.0f} a step, without padding")
        if self.hours and self.fits:
            limit = f" of {self.session_hours:g} a session" if self.session_hours else ""
            least = "at least " if compiled else ""
            minutes = f"({60 * self.hours:.1f} minutes)"
            lines.append(f"training  {least}{self.hours:.2f} hours{limit} {minutes}")
        return lines
