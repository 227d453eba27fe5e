"""The page that a person reads after a run: one HTML file with nothing outside it.

A model's completion is shown, never trusted: everything is escaped, what cannot be seen is spelled
out, what is long is shortened, and the page's own policy forbids scripts. Nothing is measured here.
"""

import base64
import difflib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jinja2
from IPython.display import Image, display
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from nblib.files import to_jsonable, write_json, write_jsonl, write_text
from nblib.models.folders import read_manifest
from nblib.report.comparison import base_gain, enough_line
from nblib.report.model_card import write_model_card
from nblib.report.plots import figure_png
from nblib.report.samples import KINDS, Sample, outcome, pick_samples, samples_table
from nblib.report.tables import (
    Table,
    as_text,
    group_word,
    in_words,
    settings_table,
    shorten,
    visible,
)
from nblib.report.verdicts import Verdict, lead, truncation_warnings, verdict_table
from nblib.runs import Run, finish_run, write_manifest
from nblib.tasks.task import Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.evaluation.comparison import Comparison
    from nblib.training.session import Trained

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_ABOVE = ("Targets", "Stages")  # tables above the figures; all others stand below them
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")  # every character is in one of them
_ALIKE = 0.4  # share of words in common, from which on differences are marked
# Folder -> in its title.
_CARDS = {"export": "", "adapters": ", adapters", "flax": ", for Flax", "gguf": ", GGUF"}


class Page:
    """What a notebook shows and its report keeps: each method displays its content and collects it.

    A cell that is run again replaces what it showed before. The cells of a notebook:

    ```
    page = report.Page(title="v1 · SFT: teach the format", task=task, seed=SEED)
    page.warn("12 rows were left out")
    page.figure("Loss", report.plot_training(history, seed=SEED, title="SFT"))
    page.table(report.stage_table(task, stages))
    page.figure("Base and tuned", report.plot_stages(task, stages, seed=SEED))  # None: no stages
    page.verdicts(report.sft_verdicts(task, stages))
    page.samples(stages, count=4)
    about = {"model": base.name, "data": data.origin, "hashes": hashes}
    report.finish(run, stages, page, trained=trained, **about)
    ```
    """

    def __init__(self, *, title: str, task: Task, seed: int) -> None:
        self.title, self.task, self.seed = title, task, seed
        self.warnings: tuple[str, ...] = ()
        self.figures: dict[str, bytes] = {}  # caption -> PNG
        self.tables: dict[str, Table] = {}  # by title
        self.picked: tuple[Sample, ...] = ()

    def warn(self, *warnings: str) -> None:
        """Print what a reader of the report must know first, one sentence each."""
        self.warnings = (*dict.fromkeys((*self.warnings, *warnings)),)
        for warning in warnings:
            print(warning)

    def figure(self, caption: str, figure: Figure | None) -> None:
        """Show a figure; nothing where there was nothing to draw."""
        if figure is not None:
            self.figures[caption] = figure_png(figure)
            display(Image(self.figures[caption]))

    def table(self, *tables: Table) -> None:
        """Show tables; nothing for one that has neither rows nor a note."""
        for table in tables:
            if table.rows or table.note:
                self.tables[table.title] = table
                display(table)

    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Show which targets were met, and what to try where one was not."""
        self.table(verdict_table(verdicts))

    def samples(self, stages: Sequence["Stage"], *, count: int) -> None:
        """Pick `count` items for the report; the notebook shows one of each kind."""
        self.picked = pick_samples(self.task, stages, count=count, seed=self.seed)
        display(samples_table(self.task, self.picked[: len(KINDS)]))


def finish(
    run: Run,
    stages: Sequence["Stage"],
    page: Page,
    *,
    model: str,
    data: str,
    hashes: Mapping[str, str | int],
    trained: "Trained | None" = None,
    comparison: "Comparison | None" = None,
    asked: Mapping[str, Any] = _NOTHING,
    **found: Any,
) -> None:
    """End a notebook: write its manifest, predictions, page, model cards and `result.json`.

    A card is written into each of the run's folders `export`, `adapters`, `flax` and `gguf` whose
    manifest names a base. A comparison's metrics and the failures of the form get their own files.

    Args:
        run: Its parameters, devices and start are recorded.
        stages: In the order of time; may be empty.
        page: What the notebook has shown.
        model: What the training began with, or what was judged.
        data: Where the rows come from.
        hashes: Of what went in, for the manifest.
        trained: How far the training came.
        comparison: Of these stages.
        asked: How the stages were asked: more settings, for the page and the comparison.
        found: More keys of `result.json`, or with a comparison of `comparison_metrics.json`;
            `paired` is the gain that the page begins with.

    Raises ValueError where the result breaks the contract of `runs.finish_run`.
    """
    task, path, gain = page.task, run.path, found.get("paired")
    config = to_jsonable(run.parameters)
    manifest = write_manifest(run, hashes=hashes)
    if stages:
        predictions = [record for stage in stages for record in stage.records]
        write_jsonl(path / "predictions.jsonl", predictions)
    facts = {"model": model, "data": data} | ({"steps": str(trained.steps)} if trained else {})
    if comparison:
        gain = base_gain(comparison)
        facts |= {"questions": f"{gain.n:,}", "smallest gain that shows": enough_line(comparison)}
        about = {"settings": {**config, **asked}, "hashes": hashes}
        _write_comparison(path, task, stages, comparison, **found, **about)
    found |= _alarms(trained.history if trained else ())
    # Of a training, the stages before it may be cut as often as they like.
    judged = [one for one in stages if not trained or one.name.startswith("tuned")]
    alarms = (f"Alarm at {alarm}" for alarm in found.get("alarms", ()))
    write_page(
        path / "report.html",
        page,
        lead=lead(task, stages, trained, gain),
        facts=facts,
        warnings=(*truncation_warnings(judged), *alarms),
        details={"Settings": config, "Versions and hashes": manifest, "Asked": asked},
    )
    for name, words in _CARDS.items():
        if "base" in read_manifest(path / name):
            write_model_card(path / name, task, stages, title=page.title + words)
    result = {
        "notebook": run.notebook,
        "task": task.name,
        "profile": config["profile"],
        "seed": config["seed"],
        "wall_s": time.monotonic() - run.started,
        "model": model,
        "data": data,
        "stages": {stage.name: stage.metrics for stage in stages},
        "groups": {stage.name: stage.by_group for stage in stages if stage.by_group},
        "steps_left": trained.left if trained else 0,
        **({} if comparison else found),
    }
    finish_run(run, result, metrics=task.metric_names)
    print(f"{path}: {result['wall_s'] / 60:.1f} minutes")


def write_page(
    path: Path,
    page: Page,
    *,
    lead: str = "",
    facts: Mapping[str, str] = _NOTHING,
    warnings: Sequence[str] = (),
    details: Mapping[str, Mapping[str, Any]] = _NOTHING,
) -> None:
    """Write a page as a single HTML file, whole or not at all; `details` are folded at its end.

    Beside it stands a `.md` with the same words and tables, without figures, samples and details.
    """
    tables, warnings = page.tables, (*warnings, *page.warnings)
    folded = [settings_table(values, title=name) for name, values in details.items()]
    html = _template().render(
        page=page,
        task=page.task,
        lead=lead,
        facts=facts,
        warnings=warnings,
        above=[tables[name] for name in _ABOVE if name in tables and tables[name].rows],
        below=[table for name, table in tables.items() if name not in _ABOVE],
        figures={name: base64.b64encode(png).decode() for name, png in page.figures.items()},
        details=[table for table in folded if table.rows],
    )
    write_text(path, html)
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    alarms = "\n>\n".join(f"> {one}" for one in warnings)
    parts = [f"# {page.title}", lead, listed, alarms, *(one.section() for one in tables.values())]
    write_text(path.with_suffix(".md"), "\n\n".join(filter(None, map(visible, parts))) + "\n")


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


def _write_comparison(
    path: Path, task: Task, stages: Sequence["Stage"], comparison: "Comparison", **more: Any
) -> None:
    from nblib.evaluation.comparison import comparison_metrics, schema_failures  # bring jax

    write_jsonl(path / "schema_failures_debug.jsonl", schema_failures(stages, task))
    write_json(
        path / "comparison_metrics.json", comparison_metrics(comparison, stages, task, **more)
    )


def _alarms(history: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return when each alarm of a training began, nothing for one that has no alarms to give."""
    began = [f"step {one['step']}: {name}" for one in history for name in one.get("alarms", ())]
    return {"alarms": began} if any("alarms" in one for one in history) else {}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nblib", "report"),
        autoescape=True,
        finalize=_finalize,  # of every value the template writes, so that none is forgotten
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (as_text, group_word, in_words, marked, settings_table, shorten)
    environment.filters |= {one.__name__: one for one in filters}
    environment.globals["outcome"] = outcome
    return environment.get_template("report.html.j2")


def _finalize(value: object) -> str:
    # Markup is made by `marked`, which spells out itself, or by a macro of the template.
    return value if isinstance(value, Markup) else visible(str(value))
