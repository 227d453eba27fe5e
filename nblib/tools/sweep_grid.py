"""The grid of a sweep: lists of values on the command line, and the cells that they make.

`-p LEARNING_RATE 1e-4,3e-4 -p SEED 0,1` is four cells, the last parameter changing first. The
syntax is that of Hydra's sweeps (https://hydra.cc/docs/advanced/override_grammar/basic/): a comma
in brackets or in quotes separates nothing.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nblib.files import shown
from nblib.runs import runs_root
from nblib.tools.notebooks import declared_parameters, find_notebook, parse_values, read_notebook

MOST_CELLS = 1000
SWEEPS = "sweeps"  # the folder beside a notebook's runs
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ESCAPED = re.compile(r"""\\(["'\\])""")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep: its number, from 0, and its parameters as text."""

    number: int
    parameters: Mapping[str, str]

    def arguments(self, notebook: str) -> list[str]:
        """Return what follows `python -m nblib`: run, the notebook, -p NAME VALUE."""
        pairs = (("-p", name, value) for name, value in self.parameters.items())
        return ["run", notebook, *itertools.chain(*pairs)]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The cells of a notebook's sweep, and the folder of their logs and their table.

    Attributes:
        notebook: As the command names it.
        lists: Each parameter's list of values as given.
        varied: The parameters that differ between cells.
        folder: `runs/<notebook>/sweeps/<id>`; the id is a hash of the notebook's name and of the
            values, so that the same sweep finds it again, in other words too: `+1` is `1`.
    """

    notebook: str
    lists: Mapping[str, str]
    varied: tuple[str, ...]
    cells: tuple[Cell, ...]
    folder: Path

    def log(self, cell: Cell) -> Path:
        """Where a cell's output goes."""
        return self.folder / f"{cell.number}.log"

    def described(self, cell: Cell) -> str:
        """Name a cell in one line: `cell 3 of 0-7: SEED=1`."""
        values = " ".join(f"{name}={_one_line(cell.parameters[name])}" for name in self.varied)
        return f"cell {cell.number} of 0-{len(self.cells) - 1}" + f": {values}" * bool(values)


def plan_sweep(notebook: str, lists: Mapping[str, str]) -> Sweep:
    """Return the sweep of a notebook over lists of values; nothing is run, no file written.

    Raises ValueError: no such notebook, a parameter or value that `run` would refuse, a value given
    twice or without a JSON form, such as an infinite one, or more than 1,000 cells. What the
    notebook's settings would refuse, they refuse when its cell runs.
    """
    source = find_notebook(notebook)
    declared = declared_parameters(read_notebook(source).cells)
    grid = {name: split_values(name, text) for name, text in lists.items()}
    identity = [source.stem]
    for name, values in grid.items():
        try:
            parsed = [parse_values(declared, {name: value})[name] for value in values]
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        _check_different(name, values, parsed)
        identity += [name, _as_json(name, parsed)]
    count = math.prod(map(len, grid.values()))
    if count > MOST_CELLS:
        raise ValueError(f"the grid has {count:,} cells, expected at most {MOST_CELLS:,}")
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    return Sweep(
        notebook=notebook,
        lists=lists,
        varied=tuple(name for name, values in grid.items() if len(values) > 1),
        cells=tuple(
            Cell(number=number, parameters=dict(zip(grid, values, strict=True)))
            for number, values in enumerate(itertools.product(*grid.values()))
        ),
        folder=runs_root().absolute() / source.stem / SWEEPS / digest,
    )


def split_values(name: str, text: str) -> tuple[str, ...]:
    r"""Return the values of a comma list: a list literal and a quoted text are one value each.

    The quotes around a whole value are taken away; in them, a backslash stands before a quote and
    before another backslash.

    Raises:
        ValueError: a value is empty, or a bracket or quote is not closed.

    Example:
        >>> split_values("CURVE", "[0.25,0.5],[1.0]")
        ('[0.25,0.5]', '[1.0]')
        >>> split_values("NAME", "plain,'with, comma',\"\"")
        ('plain', 'with, comma', '')
    """
    parts, closing, at = [""], list[str](), 0
    while at < len(text):
        sign = text[at]
        if sign in "\"'" and (closing or not parts[-1].strip()):  # not the one in "it's"
            quoted = _QUOTED.match(text, at)
            if quoted is None:
                raise ValueError(_not_closed(name, sign, text[at:]))
            sign = quoted[0]
        at += len(sign)
        if sign == "," and not closing:
            parts.append("")
            continue
        if sign in _CLOSING:
            closing.append(_CLOSING[sign])
        elif sign in _CLOSING.values() and (not closing or closing.pop() != sign):
            raise ValueError(f"parameter {name}: {sign} closes nothing in {shown(text)}{_QUOTE}")
        parts[-1] += sign
    if closing:
        raise ValueError(_not_closed(name, closing[-1], parts[-1]))
    values = [part.strip() for part in parts]
    if "" in values:
        raise ValueError(f'parameter {name}: an empty value in {shown(text)}; an empty text is ""')
    return tuple(_unquoted(value) for value in values)


_QUOTE = "; put quotes around a text that holds brackets or quotes"


def _not_closed(name: str, sign: str, rest: str) -> str:
    return f"parameter {name}: {sign} is missing at the end of {shown(rest)}{_QUOTE}"


def _unquoted(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1]) if _QUOTED.fullmatch(value) else value


def _check_different(name: str, values: tuple[str, ...], parsed: list[Any]) -> None:
    seen = dict[str, str]()
    for text, value in zip(values, parsed, strict=True):
        if repr(value) in seen:
            same = "" if seen[repr(value)] == text else f", as {seen[repr(value)]} and {text}"
            raise ValueError(f"parameter {name}: the value {value!r} is given twice{same}")
        seen[repr(value)] = text


def _as_json(name: str, parsed: list[Any]) -> str:
    try:
        return json.dumps(parsed, allow_nan=False)
    except (TypeError, ValueError) as error:  # a set; an infinite number
        raise ValueError(f"parameter {name}: expected values that JSON has, {error}") from error


def _one_line(text: str) -> str:
    """Return a value as it is, or as JSON where it holds white space or a sign that shows not."""
    return text if text and text.isprintable() and " " not in text else json.dumps(text)
