"""Candidates: what a comparison asks, models in a style of prompt each, or files of answers.

A candidate is written as one text, `name=source`: a model's name or folder with `@style`, or a
`predictions.jsonl` with `:stage`. All are asked the same questions. Answers are kept at once: a run
that was killed asks only what is still missing.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from nblib.evaluation.answers import Decoding, Stage, ask, score_answers
from nblib.evaluation.kept import ANSWER_KEYS, SPECS_KEY
from nblib.evaluation.statistics import grouped
from nblib.files import read_jsonl
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import STYLES

_FORM = "expected name=model, name=model@style or name=predictions.jsonl:stage"
_FILES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model asked in one style, or the answers of one stage in a file."""

    name: str  # what the stage is called
    source: str  # as `get_gemma_ref_model` takes it, or a file ending in .jsonl or .jsonl.gz
    style: str = "format"  # one of `tokens.chat.STYLES`; unused for a file
    stage: str = ""  # of a file that holds several

    def __post_init__(self) -> None:
        """Refuse what could not be asked."""
        if not self.name or not self.source:
            raise ValueError(f"stage {self.name!r} with source {self.source!r}: {_FORM}")
        if not self.name.isprintable() or {*"/\\"} & {*self.name}:
            raise ValueError(
                f"stage {self.name!r}: its answers are kept under this name, expected one without "
                "slashes, such as base or v1"
            )
        if self.style not in STYLES:
            styles = ", ".join(STYLES)
            raise ValueError(f"stage {self.name}: style {self.style!r}, expected one of {styles}")

    @property
    def is_file(self) -> bool:
        """Whether the answers are there already."""
        return self.source.endswith(_FILES)


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How candidates are asked: worked examples for "few-shot", and where answers are kept."""

    shots: Sequence[Example] = ()
    folder: Path  # takes a file a candidate, as `answers.ask` keeps it
    mesh: jax.sharding.Mesh


def parse_candidate(text: str) -> Candidate:
    """Read `name=source`, a style after "@", a file's stage after ".jsonl:".

    An "@" inside a path begins no style: what follows it holds a slash, or the path is a folder.

    Raises ValueError for another form and an unknown style.

    >>> parse_candidate("few=embedded@few-shot").style
    'few-shot'
    """
    name, equals, source = text.partition("=")
    if not equals:
        raise ValueError(f"stage {text!r}: {_FORM}")
    of_file = re.fullmatch(r"(.+\.jsonl(?:\.gz)?):(.*)", source)
    if of_file:
        return Candidate(name=name, source=of_file[1], stage=of_file[2])
    model, at, style = source.rpartition("@")
    whole = source.endswith(_FILES) or "/" in style or Path(source).is_dir()
    if not at or (whole and style not in STYLES):
        return Candidate(name=name, source=source)
    return Candidate(name=name, source=model, style=style)


def answer_all(
    candidates: Sequence[Candidate],
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    asking: Asking,
    *,
    samples: int = 1,
) -> tuple[Stage, ...]:
    """Return a scored stage for each candidate; a model that follows itself is loaded once.

    Raises ValueError for a broken file, by line or item; ModelNotFound for a model that is nowhere.
    """
    stages = []
    ref: RefModel | None = None
    for candidate in candidates:
        if candidate.is_file:
            answers = read_answers(Path(candidate.source), candidate.stage)
        else:
            if ref is None or ref.name != candidate.source:
                ref = None  # the memory of one model is free before the next one comes
                ref = get_gemma_ref_model(candidate.source, asking.mesh)
            given: dict[str, Any] = {"style": candidate.style, "shots": asking.shots}
            given |= {"samples": samples, "kept": asking.folder / f"{candidate.name}.jsonl"}
            answers = ask(ref, task, examples, decoding, **given)
        stages.append(score_answers(candidate.name, answers, task))
    return tuple(stages)


def read_answers(path: Path, stage: str = "") -> list[dict[str, Any]]:
    """Return the answers of one stage of a `predictions.jsonl`, or of any file of answers.

    A line is an object with `id` and `completion`, both text, and `reference`. Other
    `kept.ANSWER_KEYS` are used where they are; `level` is what `group` was once called. Raises
    ValueError for a line without them, no line of that stage, or several stages and none chosen.
    """
    records = read_jsonl(path)
    for number, record in enumerate(records, start=1):
        found = record if isinstance(record, dict) else {}
        for name in ("id", "completion"):
            if not isinstance(found.get(name), str):
                raise ValueError(f"{path}:{number}: {name} is {found.get(name)!r}, expected text")
        if "reference" not in found:
            raise ValueError(f"{path}:{number}: no reference, expected one")
    there = list(dict.fromkeys(record.get("stage", "") for record in records))
    if not stage and len(there) > 1:
        raise ValueError(f"{path} holds the stages {', '.join(there)}: name one, {path}:{there[0]}")
    chosen = [record for record in records if not stage or record.get("stage") == stage]
    if not chosen:
        raise ValueError(f"{path} has no answers of stage {stage!r}; it has {there}")
    return [
        {key: record[key] for key in (*ANSWER_KEYS, SPECS_KEY) if key in record}
        | {"group": "" if group is None else str(group)}
        for record in chosen
        for group in [record.get("group", record.get("level"))]
    ]


def varied_shots(examples: Sequence[Example], count: int, *, seed: int) -> tuple[Example, ...]:
    """Draw `count` worked examples by `seed`, each of another group; fewer where there are fewer.

    >>> [shot.group for shot in varied_shots(train_examples, 2, seed=0)]
    ['Titu', 'AM-GM']
    """
    rng, groups = random.Random(f"shots/{seed}"), grouped(examples, lambda one: one.group)
    drawn = rng.sample([*groups], min(count, len(groups)))
    return tuple(rng.choice(groups[group]) for group in drawn)


def how_asked(
    candidates: Sequence[Candidate], asking: Asking, mismatches: Sequence[str]
) -> dict[str, Any]:
    """Return for the record how each stage was asked, and what `comparable` found to differ."""
    asked = {one.name: asdict(one) for one in candidates}
    for one in candidates:
        if one.style == "few-shot":
            asked[one.name]["shots"] = [shot.id for shot in asking.shots]
    return {"asked": asked, "mismatches": mismatches}
