"""What a strong model is asked for new proofs, and what its replies hold.

    asked    worked examples, then: Prove: a^2+b^2 >= 2ab for real a, b
    reply    <proof>
             Square a-b: a^2+b^2 >= 2ab
             </proof>

A proof is asked for in the checked language, or as a text that a person would write. Where a new
statement is wanted as well, a seed shows in what manner, and the reply begins with `Statement:`.
What a reply is worth is for `proof_sieve`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nblib.tasks.counterexamples import FALSE, find_counterexample
from nblib.tasks.expressions import ExpressionError
from nblib.tasks.lean_statements import parse_lean_statement
from nblib.tasks.proof_text import RULES
from nblib.tasks.proofs import CLOSE, OPEN, read_block
from nblib.tasks.statements import parse_statement, statement_text

LANGUAGE, TEXT = "language", "text"
_STATED = re.compile(r"^\W*statement\W*:(.+)$", re.IGNORECASE | re.MULTILINE)
_HOW = {
    LANGUAGE: f"""\
You prove inequalities in a small language, one step a line:
<rule> <arguments>: <left> >= <right>
The rules are {", ".join(RULES)}. Steps are numbered from 1, and named (1), (2). The last line is \
the statement. Exact arithmetic checks every line.""",
    TEXT: """\
You are a careful mathematician who proves inequalities. Give a reason for every step. The last \
sentence is the statement.""",
}
_PROVE = """\
Prove this statement. Answer with its proof between {open} and {close}, and nothing else.
Statement: {seed}"""
_INVENT = """\
Here is a statement: {seed}
Write another one, true and not trivial, in the same syntax, and prove it. Answer with one line \
"Statement: ...", then its proof between {open} and {close}, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A statement that proofs are asked of, or that shows in what manner new ones are wanted."""

    name: str
    statement: str


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a reply holds; the failure is why it holds no proof."""

    statement: str
    proof: str = ""
    failure: str = ""


def read_seeds(records: Sequence[Mapping[str, Any]]) -> tuple[tuple[Seed, ...], dict[str, str]]:
    """Return the seeds of records with `statement` or `lean`, and name -> why one is none.

    A statement is none where it cannot be read, or is false.
    """
    seeds, refused = list[Seed](), dict[str, str]()
    for number, record in enumerate(records, start=1):
        name = str(record.get("name") or f"seed {number}")
        text, read = record.get("statement"), parse_statement
        if not isinstance(text, str):
            text, read = record.get("lean"), parse_lean_statement
        try:
            if not isinstance(text, str):
                raise ExpressionError('expected "statement" or "lean", a text')
            statement = read(text)
        except ExpressionError as error:
            refused[name] = str(error)
            continue
        found = find_counterexample(statement)
        if found.verdict == FALSE and found.point:
            point = ", ".join(f"{letter} = {at}" for letter, at in found.point.items())
            refused[name] = f"false at {point}"
        else:
            seeds.append(Seed(name=name, statement=statement_text(statement)))
    return tuple(seeds), refused


def question(
    seed: Seed, shots: Sequence[tuple[str, str]], *, form: Literal["language", "text"], invent: bool
) -> str:
    """Return what a model is asked; `shots` are statements with their proofs, in the same form."""
    worked = [f"Statement: {statement}\n{OPEN}\n{proof}\n{CLOSE}" for statement, proof in shots]
    wanted = (_INVENT if invent else _PROVE).format(seed=seed.statement, open=OPEN, close=CLOSE)
    return "\n\n".join((_HOW[form], *worked, wanted))


def read_reply(text: str, seed: Seed, *, invent: bool) -> Written:
    """Return the statement and the proof of a whole reply; thoughts before them are left out."""
    text = text.rpartition("</think>")[2]  # some templates leave the opening tag out
    if "<think>" in text:
        return Written(statement=seed.statement, failure="unfinished thought")
    stated = _STATED.search(text.partition(OPEN)[0])
    statement = seed.statement
    if invent:
        if stated is None:
            return Written(statement="", failure="no statement")
        statement = stated[1].strip(" `*$")
    failure, proof = read_block(text)
    if not proof:
        return Written(statement=statement, failure=failure or "empty proof")
    return Written(statement=statement, proof=proof)
