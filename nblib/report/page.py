"""The page that a person reads after a run: one HTML file with nothing outside it.

A model's completion is shown, never trusted: everything is escaped, what cannot be seen is spelled
out, what is long is shortened, and the page's own policy forbids scripts. Nothing is measured here.
"""

import base64
import difflib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from nblib.files import read_object, write_jsonl, write_text
from nblib.models.folders import read_manifest
from nblib.report.model_card import write_model_card
from nblib.report.plots import figure_png
from nblib.report.samples import Sample, outcome
from nblib.report.tables import (
    Table,
    as_text,
    group_word,
    in_words,
    settings_table,
    shorten,
    stage_table,
    visible,
)
from nblib.report.verdicts import Verdict, verdict_table
from nblib.runs import Run, finish_run
from nblib.tasks.task import Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.training.session import Trained

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")  # every character is in one of them
_ALIKE = 0.4  # share of words in common, from which on differences are marked
_CARDS = {"export": "", "adapters": ", adapters", "flax": ", for Flax"}  # folder -> in its title


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a notebook has for its page; what is empty is left out.

    Attributes:
        title: Heading of the page, and of the model cards.
        lead: One paragraph: what was done and what came of it.
        warnings: What a reader must know first, one sentence each.
        facts: Short facts, name -> text.
        verdicts: Targets, met or not.
        figures: Caption -> figure.
        tables: Shown below the figures.
        samples: What `pick_samples` gives.
        rollouts: Records of `rollouts.jsonl` to show, in the order of the training.
        details: Heading -> nested values, folded away at the end.
    """

    title: str
    lead: str
    warnings: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    verdicts: Sequence[Verdict] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    samples: Sequence[Sample] = ()
    rollouts: Sequence[Mapping[str, Any]] = ()
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def finish(
    run: Run,
    task: Task,
    stages: Sequence["Stage"],
    page: Page,
    *,
    model: str,
    data: str,
    started: float,
    trained: "Trained | None" = None,
    **more: Any,
) -> None:
    """End a notebook: write predictions, the page, the model cards and `result.json`.

    Parameters, versions and hashes are read from the run's `config.json` and `manifest.json`. A
    card is written into each of its folders `export`, `adapters` and `flax` whose manifest names a
    base.

    Args:
        run: The run that ends.
        task: What was asked.
        stages: What was evaluated, in the order of time; may be empty.
        page: What this notebook has for the page; facts and details of every run are added.
        model: What the training began with, or what was judged.
        data: Where the rows come from.
        started: `time.monotonic()` at the notebook's start.
        trained: Steps that were made, and that are left to the next session.
        more: More keys of `result.json`.

    Raises ValueError where the result breaks the contract of `runs.finish_run`.
    """
    config, manifest = (_read(run.path / name) for name in ("config.json", "manifest.json"))
    if stages:
        predictions = [record for stage in stages for record in stage.records]
        write_jsonl(run.path / "predictions.jsonl", predictions)
    steps = {"steps": str(trained.steps)} if trained else {}
    facts = {"model": model, "data": data, **steps, **page.facts}
    details = {"Settings": config, "Versions and hashes": manifest, **page.details}
    whole = replace(page, facts=facts, details=details)
    write_page(run.path / "report.html", task, stages, whole)
    for name, words in _CARDS.items():
        if "base" in read_manifest(run.path / name):
            write_model_card(run.path / name, task, stages, title=page.title + words)
    wall_s = time.monotonic() - started
    result = {
        "notebook": run.notebook,
        "task": task.name,
        "profile": config["profile"],
        "seed": config["seed"],
        "wall_s": wall_s,
        "model": model,
        "data": data,
        "stages": {stage.name: stage.metrics for stage in stages},
        "groups": {stage.name: stage.by_group for stage in stages if stage.by_group},
        "steps_left": trained.left if trained else 0,
        **more,
    }
    finish_run(run, result, metrics=task.metric_names)
    print(f"{run.path}: {wall_s / 60:.1f} minutes")


def write_page(path: Path, task: Task, stages: Sequence["Stage"], page: Page) -> None:
    """Write a page as a single HTML file, whole or not at all.

    Raises ValueError where a stage has a metric without its interval or its `n`.
    """
    verdicts, measured = verdict_table(page.verdicts), stage_table(task, stages)
    details = [settings_table(values, title=name) for name, values in page.details.items()]
    html = _template().render(
        page=page,
        task=task,
        measured=[table for table in (verdicts, measured) if table.rows],
        figures={caption: _base64(figure) for caption, figure in page.figures.items()},
        details=[table for table in details if table.rows],
    )
    write_text(path, html)


def marked(text: str, before: str | None) -> Markup:
    """Text with the words that `before` does not have there underlined, everything escaped.

    Nothing is marked where there is no `before`, or where the two have so little in common that
    all would be marked.
    """
    words, others = _WORDS.findall(text), _WORDS.findall(before or "")
    matcher = difflib.SequenceMatcher(None, others, words, autojunk=False)
    if before is None or matcher.ratio() < _ALIKE:
        return Markup(escape(visible(text)))
    pieces = []
    for kind, _, _, start, end in matcher.get_opcodes():
        piece = escape(visible("".join(words[start:end])))
        pieces.append(Markup("<ins>{}</ins>").format(piece) if kind != "equal" else piece)
    return Markup("").join(pieces)


def _template() -> jinja2.Template:
    source = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_finalize,  # of every value the template writes, so that none is forgotten
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (as_text, group_word, in_words, marked, settings_table, shorten)
    environment.filters |= {one.__name__: one for one in filters}
    environment.globals["outcome"] = outcome
    return environment.from_string(source)


def _finalize(value: object) -> str:
    # Markup is made by `marked`, which spells out itself, or by a macro of the template.
    return value if isinstance(value, Markup) else visible(str(value))


def _read(path: Path) -> Mapping[str, Any]:
    return read_object(path) if path.is_file() else {}


def _base64(figure: Figure) -> str:
    return base64.b64encode(figure_png(figure)).decode("ascii")
