"""The commands of proofs: `truth` seeks counterexamples to statements.

What is slow to import is imported when a command runs.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from nblib.files import parse_json, read_lines, shown

EXPECTED = (
    'expected an object with "statement", such as "a^2+b^2 >= 2ab for a, b > 0", or with "lean"'
)


@click.command()
@click.argument("file")
def truth(file: str) -> None:
    """Seek a counterexample to each statement, and print a JSON line of each.

    FILE holds JSON lines {"name", "statement"} or {"name", "lean"}, packed as .gz too; - is
    standard input. The verdict is "false", with a point where all hypotheses hold and the claim
    does not, by exact arithmetic; "no counterexample", which does not say that the statement is
    true; or "not read". Division by zero and roots of negative numbers have no value (Lean says 0).
    Of a claim with <=, left is the side that is claimed to be greater.
    """
    lines, name = (sys.stdin.buffer, "<stdin>") if file == "-" else (read_lines(Path(file)), file)
    for found in verdicts(lines, name):
        print(json.dumps(found), flush=True)


def verdicts(lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Yield what `truth` prints of each line that is not empty.

    Raises ValueError, beginning with "NAME:line", for a line that holds no statement; and where
    there is none at all.
    """
    from nblib.tasks.counterexamples import truth_of

    count = 0
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            record = parse_json(line)
            text, lean = stated(record)
        except ValueError as error:
            raise ValueError(f"{name}:{number}: {error}") from error
        found = truth_of(text, lean=lean)
        yield {
            "name": record.get("name"),
            "verdict": found.verdict,
            "point": found.point and {letter: str(at) for letter, at in found.point.items()},
            "left": found.left,
            "right": found.right,
            "reason": found.reason,
        }
        count += 1
    if not count:
        raise ValueError(f"{name}: no statement in it: {EXPECTED}, one a line")


def stated(record: Any) -> tuple[str, bool]:
    """Return a line's statement, and whether it is Lean."""
    if not isinstance(record, dict):
        raise ValueError(f"{shown(record)}: {EXPECTED}")
    keys = [key for key in ("statement", "lean") if key in record]
    if not keys:
        raise ValueError(f'no "statement" and no "lean" among {shown(sorted(record))}: {EXPECTED}')
    if not isinstance(record[keys[0]], str):
        raise ValueError(f'"{keys[0]}" is {shown(record[keys[0]])}: {EXPECTED}')
    return record[keys[0]], keys[0] == "lean"
