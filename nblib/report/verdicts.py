"""Verdicts: a measured figure against its target, and what to try next; and a report's lead.

A verdict records; it never stops a run. What a task wants to be reached stands in `Task.targets`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nblib.evaluation.statistics import Paired
from nblib.report.tables import Table, difference_text, in_words
from nblib.tasks.task import TRUNCATION, Task

if TYPE_CHECKING:
    from nblib.evaluation.answers import Stage
    from nblib.training.session import Trained

_MOST_LOST = 0.05  # of the headline, against the base in the form that it knows
_TRUNCATION_LIMIT = 0.02  # above it the figures speak of the limit, not of the model
_TRUNCATION_RISE = 0.02  # items of a hundred: less is one or two items of the test
_FORM_AFTER_GRPO = 0.98
_P_VALUE = 0.01
_TESTS = {"rate": "exact McNemar", "mean": "paired bootstrap"}
_UNMEASURED = "nothing was evaluated (EVAL_AT_END is off)"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One target of a run, what was measured, and whether it was met."""

    name: str
    target: str
    measured: str
    met: bool
    advice: str

    @property
    def word(self) -> str:
        """The outcome in words, so that it reads without colour."""
        return "✓ met" if self.met else "✗ not met"


def at_least(name: str, value: float, limit: float, advice: str) -> Verdict:
    """Verdict on a figure that must reach `limit`; NaN never does.

    >>> at_least("strict format", 0.995, 0.99, "train longer").word
    '✓ met'
    """
    return _verdict("at least", name, value, limit, advice, met=value >= limit)


def at_most(name: str, value: float, limit: float, advice: str) -> Verdict:
    """Verdict on a figure that must not pass `limit`; NaN always does."""
    return _verdict("at most", name, value, limit, advice, met=value <= limit)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Verdicts, one a row; the advice stands where a target was missed."""
    met = sum(verdict.met for verdict in verdicts)
    return Table(
        title="Targets",
        columns=("verdict", "what", "target", "measured", "what to try next"),
        rows=tuple(
            (one.word, one.name, one.target, one.measured, "–" if one.met else one.advice)
            for one in verdicts
        ),
        note=f"{met} of {len(verdicts)} met" if verdicts else "nothing was evaluated",
    )


def target_verdicts(task: Task, stage: "Stage", target: float | None = None) -> tuple[Verdict, ...]:
    """Judge a stage by the task's targets; `target` is the limit in place of the task's own."""
    verdicts = []
    for one in task.targets:
        metric = task.metric(one.metric)
        limit = one.limit if target is None else target
        judge = at_least if metric.better == "higher" else at_most
        name = f"{in_words(one.metric)}, {in_words(stage.name)}"
        verdicts.append(judge(name, stage.metrics[one.metric], limit, one.advice))
    return tuple(verdicts)


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
    lost = at_most(
        f"{in_words(task.headline)} lost against the base in its own form",
        named["base_own_form"].metrics[task.headline] - named["tuned"].metrics[task.headline],
        _MOST_LOST,
        "lower LEARNING_RATE, or train on more samples of the groups that got worse",
    )
    return (*verdicts, lost)


def grpo_verdicts(
    task: Task, stages: Sequence["Stage"], paired: Paired | None, *, gain_target: float
) -> tuple[Verdict, ...]:
    """Judge the stage `tuned` against `base` on the same items; () when nothing was measured."""
    if paired is None:
        return ()
    base, tuned = (_metrics(stages, name) for name in ("base", "tuned"))
    return (
        at_least(
            f"{in_words(task.headline)} gained",
            paired.difference,
            gain_target,
            "train for more NUM_STEPS; look at the alarms; are there few zero-variance groups?",
        ),
        at_most(
            f"p, {_TESTS[paired.kind]}",
            paired.p_value,
            _P_VALUE,
            "evaluate on more EVAL_SAMPLES, or train for more NUM_STEPS",
        ),
        at_least(
            f"{in_words(task.form)}, tuned",
            tuned[task.form],
            _FORM_AFTER_GRPO,
            f"raise the weight of {task.form} in REWARDS, or lower LEARNING_RATE",
        ),
        at_most(
            "truncation risen by",
            tuned[TRUNCATION] - base[TRUNCATION],
            _TRUNCATION_RISE,
            "give `truncated` a weight in REWARDS, or raise MAX_NEW_TOKENS",
        ),
    )


def foundation_verdicts(
    task: Task, stage: "Stage", history: Sequence[Mapping[str, Any]]
) -> tuple[Verdict, ...]:
    """Judge a model that was trained from nothing: its loss, and its answers by the task's targets.

    `history` holds the records of metrics.jsonl. A run without validation records is a ValueError.
    """
    losses, val_losses = _values(history, "loss"), _values(history, "val_loss")
    if not losses or not val_losses:
        raise ValueError("metrics.jsonl has no loss or no val_loss: training did not run")
    last = losses[-20:]
    return (
        at_most(
            "last training loss over first",
            sum(last) / len(last) / losses[0],
            0.5,
            "the loss did not fall: lower LEARNING_RATE, or train for more steps",
        ),
        at_most(
            "validation loss at the end",
            val_losses[-1],
            3.0,
            "over 5.0 nothing was learnt: lower LEARNING_RATE; over 3.0: raise NUM_SAMPLES",
        ),
        *target_verdicts(task, stage),
    )


def sft_lead(task: Task, stages: Sequence["Stage"], trained: "Trained") -> str:
    """Return the first paragraph of the report on a fine-tuning."""
    done = f"LoRA adapters were trained for {trained}"
    if not stages:
        return f"{done}; {_UNMEASURED}."
    base, tuned = _metrics(stages, "base"), _metrics(stages, "tuned")
    own = _metrics(stages, "base_own_form")
    form, headline = task.form, task.headline
    return (
        f"{done}. {in_words(form).capitalize()} went from {base[form]:.1%} to {tuned[form]:.1%} on "
        f"{tuned['n']} held-out questions; {in_words(headline)} is {tuned[headline]:.1%}, against "
        f"{(own or base)[headline]:.1%} for the base{' in its own form' * bool(own)}."
    )


def grpo_lead(
    task: Task, stages: Sequence["Stage"], paired: Paired | None, trained: "Trained"
) -> str:
    """Return the first paragraph of the report on a training by rewards."""
    done = f"GRPO trained the policy for {trained}"
    if paired is None:
        return f"{done}; {_UNMEASURED}."
    base, tuned = (_metrics(stages, name)[task.headline] for name in ("base", "tuned"))
    return (
        f"{done}. {in_words(task.headline).capitalize()} went from {base:.1%} to {tuned:.1%} on "
        f"the same {paired.n} held-out questions: {difference_text(paired, unit=' points')}, "
        f"{_TESTS[paired.kind]} p = {paired.p_value:.2g}."
    )


def truncation_warnings(stages: Sequence["Stage"], *, judged: str = "tuned") -> tuple[str, ...]:
    """Name the stages, of those that begin with `judged`, that were cut too often to be judged."""
    return tuple(
        f"{stage.name}: {stage.metrics[TRUNCATION]:.1%} of the completions were cut at "
        "MAX_NEW_TOKENS. Raise it, or look at the samples for endless text."
        for stage in stages
        if stage.name.startswith(judged) and (stage.metrics[TRUNCATION] or 0) > _TRUNCATION_LIMIT
    )


def _verdict(
    words: str, name: str, value: float, limit: float, advice: str, *, met: bool
) -> Verdict:
    # In full where rounding would show a missed limit as reached.
    rounded = value == limit or _number(value) != _number(limit)
    return Verdict(
        name=name,
        target=f"{words} {_number(limit)}",
        measured=_number(value) if rounded else repr(value),
        met=bool(met),
        advice=advice,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _metrics(stages: Sequence["Stage"], name: str) -> Mapping[str, Any]:
    """Return the metrics of a stage, {} where there is none of that name."""
    return next((stage.metrics for stage in stages if stage.name == name), {})


def _values(history: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return one figure of all records that have it; JSON's null is a NaN that training met."""
    values = [record[name] for record in history if name in record]
    return [math.nan if value is None else value for value in values]
