"""Verdicts: a measured figure against its target, and what to try next; and a report's lead.

A verdict records; it never stops a run. What a task wants to be reached stands in `Task.targets`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nblib.evaluation.statistics import Paired
from nblib.report.tables import TESTS, Table, difference_text, in_words
from nblib.tasks.task import TRUNCATION, Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.tokens.batching import TrainingData
    from nblib.training.session import Trained

_MOST_LOST = 0.05  # of the headline, against the base in the form that it knows
_TRUNCATION_LIMIT = 0.02  # above it the figures speak of the limit, not of the model
_TRUNCATION_RISE = 0.02  # items of a hundred: less is one or two items of the test
_FORM_AFTER_GRPO = 0.98
_P_VALUE = 0.01
_FEW_STEPS = 50  # of a training of a form
Bound = Literal["at least", "at most"]


class Verdict(NamedTuple):
    """One target of a run: the measured figure, its bound, and what to try where it is missed."""

    name: str
    value: float
    bound: Bound
    limit: float
    advice: str

    @property
    def met(self) -> bool:
        """Whether the figure keeps its bound; NaN never does."""
        return self.value >= self.limit if self.bound == "at least" else self.value <= self.limit

    @property
    def measured(self) -> str:
        """The figure, in full where rounding would show a missed limit as reached."""
        exact = self.value == self.limit or _number(self.value) != _number(self.limit)
        return _number(self.value) if exact else repr(self.value)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Verdicts, one a row; the advice stands where a target was missed."""
    rows = []
    for one in verdicts:
        word, advice = ("✓ met", "–") if one.met else ("✗ not met", one.advice)
        rows.append((word, one.name, f"{one.bound} {_number(one.limit)}", one.measured, advice))
    met = sum(verdict.met for verdict in verdicts)
    return Table(
        title="Targets",
        columns=("verdict", "what", "target", "measured", "what to try next"),
        rows=tuple(rows),
        note=f"{met} of {len(verdicts)} met" if verdicts else "nothing was evaluated",
    )


def target_verdicts(task: Task, stage: "Stage", target: float | None = None) -> tuple[Verdict, ...]:
    """Judge a stage by the task's targets; `target` is the limit in place of the task's own.

    What is unknown, because there was nothing that it is a share of, is not judged.
    """
    return tuple(
        Verdict(
            f"{in_words(one.metric)}, {in_words(stage.name)}",
            stage.metrics[one.metric],
            "at least" if task.metric(one.metric).better == "higher" else "at most",
            one.limit if target is None else target,
            one.advice,
        )
        for one in task.targets
        if stage.metrics[one.metric] is not None
    )


def sft_verdicts(
    task: Task, stages: Sequence["Stage"], target: float | None = None
) -> tuple[Verdict, ...]:
    """Judge the stage `tuned` by the task's targets and by the base in the form that it knows.

    `target` is the limit of the task's targets. Without a stage `base_own_form` nothing can be lost
    against it; without `tuned` there is no verdict.
    """
    named = {stage.name: stage for stage in stages}
    if "tuned" not in named:
        return ()
    verdicts = target_verdicts(task, named["tuned"], target)
    if "base_own_form" not in named:
        return verdicts
    own, tuned = (named[name].metrics[task.headline] for name in ("base_own_form", "tuned"))
    name = f"{in_words(task.headline)} lost against the base in its own form"
    advice = "lower LEARNING_RATE, or train on more samples of the groups that got worse"
    return (*verdicts, Verdict(name, own - tuned, "at most", _MOST_LOST, advice))


def grpo_verdicts(
    task: Task, stages: Sequence["Stage"], paired: Paired | None, *, gain_target: float
) -> tuple[Verdict, ...]:
    """Judge the stage `tuned` against `base` on the same items; () when nothing was measured."""
    if paired is None:
        return ()
    metrics = {stage.name: stage.metrics for stage in stages}
    base, tuned = metrics["base"], metrics["tuned"]
    figures: tuple[tuple[str, float, Bound, float], ...] = (
        (f"{in_words(task.headline)} gained", paired.difference, "at least", gain_target),
        (f"p, {TESTS[paired.kind]}", paired.p_value, "at most", _P_VALUE),
        (f"{in_words(task.form)}, tuned", tuned[task.form], "at least", _FORM_AFTER_GRPO),
        ("truncation risen by", tuned[TRUNCATION] - base[TRUNCATION], "at most", _TRUNCATION_RISE),
    )
    advice = (
        "train for more NUM_STEPS; look at the alarms; are there few zero-variance groups "
        "(all in one earn the same)?",
        "evaluate on more EVAL_SAMPLES, or train for more NUM_STEPS",
        f"raise the weight of {task.form} in REWARDS, or lower LEARNING_RATE",
        "give `truncated` a weight in REWARDS, or raise MAX_NEW_TOKENS",
    )
    return tuple(Verdict(*one, what) for one, what in zip(figures, advice, strict=True))


def foundation_verdicts(
    task: Task, stage: "Stage", history: Sequence[Mapping[str, Any]]
) -> tuple[Verdict, ...]:
    """Judge a model that was trained from nothing: its loss, and its answers by the task's targets.

    `history` holds the records of metrics.jsonl. A run without validation records is a ValueError.
    """
    # JSON's null is a NaN that training met.
    losses, val_losses = (
        [math.nan if one[name] is None else one[name] for one in history if name in one]
        for name in ("loss", "val_loss")
    )
    if not losses or not val_losses:
        raise ValueError("metrics.jsonl has no loss or no val_loss: training did not run")
    last = losses[-20:]
    ratio, validation = sum(last) / len(last) / losses[0], val_losses[-1]
    fell = "the loss did not fall: lower LEARNING_RATE, or train for more steps"
    learnt = "over 5.0 nothing was learnt: lower LEARNING_RATE; over 3.0: raise NUM_SAMPLES"
    return (
        Verdict("last training loss over first", ratio, "at most", 0.5, fell),
        Verdict("validation loss at the end", validation, "at most", 3.0, learnt),
        *target_verdicts(task, stage),
    )


def lead(
    task: Task, stages: Sequence["Stage"], trained: "Trained | None", gain: Paired | None
) -> str:
    """Return a report's first paragraph: how long was trained, and what came of it.

    Judged is `tuned`, or else the last stage, against the first; `gain` is between these two. In
    the headline the base is judged in its own form, where it was asked in it.
    """
    said = [f"Trained for {trained}"] if trained else []
    if not stages:
        return ". ".join([*said, "Nothing was evaluated (EVAL_AT_END is off)."])
    named = {stage.name: stage.metrics for stage in stages}
    first, last = stages[0].name, "tuned" if "tuned" in named else stages[-1].name

    def change(metric: str, since: str) -> str:
        then, at_last = (_figure(named[one], metric) for one in (since, last))
        before = f"went from {then:.1%} ({in_words(since)}) to"
        now = f"{at_last:.1%} ({in_words(last)})"
        return f"{in_words(metric).capitalize()} {before if since != last else 'is'} {now}"

    said.append(f"{change(task.form, first)} on {named[last]['n']:,} held-out questions")
    if gain:
        said.append(f"{change(gain.metric, first)}: {difference_text(gain, unit=' points')}")
    else:
        own = "base_own_form" if "base_own_form" in named else first
        said.append(change(task.headline, own))
    return ". ".join(said) + "."


def plan_warnings(texts: "TrainingData", accumulation: int) -> tuple[str, ...]:
    """Say before a training what of its examples, or of its steps, will not be enough."""
    steps, share = texts.steps(accumulation), texts.whole_share
    warnings = []
    if share < 1:
        warnings.append(
            f"Only {share:.0%} of the examples end within MAX_LENGTH {texts.max_length}: what "
            "stands at the end is hardly learnt. Raise it."
        )
    if steps < _FEW_STEPS:
        warnings.append(
            f"Only {steps} steps: a form is hardly learnt in under {_FEW_STEPS}. Raise NUM_EPOCHS "
            "or NUM_SAMPLES, or lower GRADIENT_ACCUMULATION."
        )
    return tuple(warnings)


def truncation_warnings(stages: Sequence["Stage"]) -> tuple[str, ...]:
    """Name the stages that were cut too often to be judged."""
    return tuple(
        f"{stage.name}: {stage.metrics[TRUNCATION]:.1%} of the completions were cut at "
        "MAX_NEW_TOKENS. Raise it, or look at the samples for endless text."
        for stage in stages
        if (stage.metrics[TRUNCATION] or 0) > _TRUNCATION_LIMIT
    )


def _figure(metrics: Mapping[str, Any], name: str) -> float:
    """Return a figure; NaN where there was nothing that it is a share of."""
    return math.nan if metrics[name] is None else float(metrics[name])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
