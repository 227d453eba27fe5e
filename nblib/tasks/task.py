"""A task as one frozen value: what is asked, how it is answered, scored and rewarded.

A new track is a new value of `Task` in a file of its own. Evaluation, training, reports and tools
loop over what the task declares. Whether an answer was cut at its token limit is a fact of the
generation and is counted outside the task.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nblib.runs import TRUNCATION
from nblib.sources.rows import Row, control_piece, sample_rows

# Keys of predictions.jsonl, result.json and metrics.jsonl that are no metrics.
_RECORD_KEYS = frozenset({
    *("id", "stage", "group", "question", "prompt", "completion", "reference", "answer", "failure"),
    *("details", "truncated", "tokens", "max_new_tokens", "n", TRUNCATION),
    *("slots", "weights", "slot_specs"),
    *("step", "loss", "val_loss", "learning_rate", "grad_norm", "kl", "entropy", "clip_share"),
    *("reward", "reward_std", "terms", "zero_variance_groups", "completion_tokens", "longest"),
    *("seconds", "rollout_seconds", "compilations", "alarms", "probe_accuracy"),
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question with the completion that answers it."""

    id: str  # the row's, such as "gsm8k/test/17"
    prompt: str  # the user's turn, whole, without the system prompt
    completion: str  # what a model should write, in the task's form
    reference: Any  # what a completion is scored against; any JSON value
    group: str = ""  # metrics are also given for each group apart; "" belongs to none
    system_prompt: str | None = None  # in place of the task's, where a row has its own
    slot_specs: Mapping[str, Any] = field(default_factory=dict)  # how a reference's slots compare


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of every completion: a rate of yes and no, or the mean of a figure in 0..1.

    `name` is its key in predictions.jsonl, metrics.jsonl and result.json alike.
    """

    name: str
    meaning: str  # a line for tables and the report
    kind: Literal["rate", "mean"] = "rate"
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one completion did right.

    A mean over items may be of parts: an item with 12 slots then counts for 12 in `slot_f1`, and
    one without any for none. `weights` says so.
    """

    values: Mapping[str, float]  # the task's metrics: a bool of each rate, of each mean 0..1
    answer: Any = None  # what was read as the answer; None where nothing could be
    failure: str | None = None  # the first rule broken; None where there is none
    details: Mapping[str, Any] = field(default_factory=dict)  # scores of parts, a judge's words
    # Of a mean's value; 1 is not said. Then slot -> "correct" -> how many of its leaves.
    weights: Mapping[str, float] = field(default_factory=dict, repr=False)
    slots: Mapping[str, Mapping[str, int]] = field(default_factory=dict, repr=False)


# (completions, their examples, their scores) -> the scores that count
Verifier = Callable[[Sequence[str], Sequence[Example], Sequence[Score]], Sequence[Score]]


# An example -> the JSON Schema of its completion, or the words that it is one of.
AnswerSchema = Callable[[Example], Mapping[str, Any] | tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a tuned model should reach in one metric, and what to try where it does not."""

    metric: str
    limit: float
    advice: str


@dataclass(frozen=True, kw_only=True)
class OutsideCheck:
    """Questions outside the task, asked without its prompt, to see what a training made worse."""

    name: str
    task: "Task"  # its fallback metric judges
    examples: tuple[Example, ...]


Outside = Callable[[int, int, str], tuple[tuple[OutsideCheck, ...], tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked, how it is answered, and how that is measured; validated on construction.

    Attributes:
        examples: Rows -> examples; ValueError names the row that cannot become one.
        score: (completion, example) -> Score. Takes time linear in the text and never raises on a
            completion; ValueError for a reference that cannot be scored against.
        normalise: Rows -> those that can become examples, brought into form where that can be done.
        reward_terms: (completion, example) -> more terms of a reward, each from 0 to 1.
        verify: A slow verifier (a judge, another model) for evaluation alone: gets the completions,
            their examples and scores, and returns the scores that count.
        outside: (count, seed, folder) -> checks of what a training made worse, and notes on what
            is left out.
    """

    name: str  # in records; a variant is "task/variant"
    system_prompt: str  # before every question; "" is none
    metrics: tuple[Metric, ...]
    headline: str  # the metric in which a gain is claimed
    form: str  # the metric that says that a completion has the strict form
    fallback: str = ""  # the headline of a model that never learnt the form; "" is none
    grouped_by: str = "group"  # what the groups are, for headings and axes
    examples: Callable[[Sequence[Row]], tuple[Example, ...]]
    score: Callable[[str, Example], Score]
    normalise: Callable[[Sequence[Row]], tuple[Row, ...]] = tuple
    reward_weights: Mapping[str, float]  # metric or term -> what it is worth; {}: no rewards
    reward_terms: Callable[[str, Example], Mapping[str, float]] = lambda completion, example: {}
    reward_examples: tuple[tuple[str, Example], ...] = ()  # whose rewards a reader is shown
    schema: AnswerSchema | None = None  # what a grammar allows; None: it is no JSON
    verify: Verifier | None = None
    variants: Mapping[str, "Task"] = field(default_factory=dict)  # the task in another form
    base_variant: str = ""  # in which a base answers before it is tuned; "" is the task itself
    targets: tuple[Target, ...] = ()  # what a tuned model should reach
    advice: Mapping[str, str] = field(default_factory=dict)  # failure -> what to do about it
    outside: Outside | None = None
    limits: tuple[str, ...] = ()  # sentences for the model card

    def __post_init__(self) -> None:
        """Refuse names that no metric has, and metrics that a record could not hold."""
        names = [metric.name for metric in self.metrics]
        taken = [name for name in names if name in _RECORD_KEYS or names.count(name) > 1]
        if taken:
            raise ValueError(f"task {self.name}: metric {taken[0]!r} repeats, or is a record's key")
        used = (self.headline, self.form, *filter(None, [self.fallback]))
        unknown = [n for n in (*used, *(one.metric for one in self.targets)) if n not in names]
        if unknown:
            raise ValueError(
                f"task {self.name}: {unknown[0]!r} is no metric, expected one of {', '.join(names)}"
            )
        lower = [name for name in used if self.metric(name).better == "lower"]
        if lower:
            raise ValueError(
                f"task {self.name}: {lower[0]!r} is better when lower, expected a headline, form "
                "and fallback of which 1 is the whole"
            )
        if self.reward_weights and not self.reward_weights.get(self.headline):
            raise ValueError(f"task {self.name}: reward_weights must hold {self.headline!r}")

    @property
    def lenient(self) -> str:
        """The metric that judges models which never learnt the form: `fallback`, or `headline`."""
        return self.fallback or self.headline

    @property
    def in_base_form(self) -> "Task":
        """The task in the form that a base knows."""
        return self.variants[self.base_variant] if self.base_variant else self

    @property
    def main(self) -> tuple[str, ...]:
        """Names of the metrics to look at first: form, headline, fallback."""
        return tuple(dict.fromkeys(filter(None, (self.form, self.headline, self.fallback))))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics, in the order in which they are shown."""
        return tuple(metric.name for metric in self.metrics)

    def metric(self, name: str) -> Metric:
        """Return a metric by its name; truncation counts as one. Raises KeyError."""
        return {one.name: one for one in (*self.metrics, _CUT)}[name]

    def is_right(self, values: Mapping[str, Any], metric: str = "") -> bool:
        """Whether a record or `Score.values` has the whole headline, or another metric."""
        return bool(values[metric or self.headline] >= 1)


_CUT = Metric(name=TRUNCATION, meaning="cut at the token limit", better="lower")


def example_of(row: Row, *, prompt: str, completion: str, reference: Any, group: str) -> Example:
    """Return a row's example.

    Raises ValueError, by the row's place, for an empty prompt or completion, and for text that
    would control the chat, such as `<end_of_turn>`, in them or in a field of the row.
    """
    made = {"prompt": prompt, "completion": completion}
    for name, text in {**row.fields, **made}.items():
        if name in made and not text.strip():
            raise ValueError(f"{row.named}: the {name} is empty; correct or remove this row")
        piece = control_piece(text) if isinstance(text, str) else None
        if piece:
            raise ValueError(
                f"{row.named}: {piece!r} in its {name} is no text but controls the chat: it would "
                "forge a turn; correct or remove this row"
            )
    return Example(
        id=row.id, prompt=prompt, completion=completion, reference=reference, group=group
    )


def choose_examples(
    task: Task,
    rows: Sequence[Row],
    count: int | None,
    *,
    groups: Collection[object] = (),
    seed: int,
) -> tuple[tuple[Example, ...], int]:
    """Draw `count` rows as `sample_rows` does; return their examples.

    Rows are normalised by the task first. Only rows of `groups` are drawn, compared as text; empty
    keeps all. Also returned is how many rows both left out.

    Raises ValueError where no row is in any of the groups, and for a row that is no example.
    """
    kept, wanted = task.normalise(rows), {str(group) for group in groups}
    if wanted:
        found = [example.group for example in task.examples(kept)]
        kept = tuple(row for row, group in zip(kept, found, strict=True) if group in wanted)
        if not kept:
            known = ", ".join(sorted(set(found)))
            raise ValueError(
                f"{task.grouped_by} {', '.join(sorted(wanted))}: expected some of {known}"
            )
    return task.examples(sample_rows(kept, count, seed=seed)), len(rows) - len(kept)


def check_task(task: Task, examples: Sequence[Example]) -> None:
    """Check that each example's own completion has the strict form and the whole headline.

    Raises ValueError, by the example's id, where it does not, where a score lacks a metric or
    holds a value outside 0..1, or where the task's rewards weigh an unknown term.
    """
    for example in examples:
        problem = _problem(task, example)
        if problem:
            raise ValueError(f"{example.id}: {problem}")


def _problem(task: Task, example: Example) -> str | None:
    """Return what is wrong with the score of an example's own completion."""
    score = task.score(example.completion, example)
    scored, names = sorted(score.values), sorted(task.metric_names)
    if scored != names:
        return f"task {task.name} scores {scored}, expected its metrics {names}"
    terms = {**score.values, **task.reward_terms(example.completion, example)}
    unknown = ", ".join(sorted(task.reward_weights.keys() - terms.keys()))
    if unknown:
        known = ", ".join(terms)
        return f"task {task.name} weighs {unknown} in its rewards, expected some of {known}"
    outside = {name: value for name, value in terms.items() if not 0 <= value <= 1}
    if outside:
        return f"{outside}, expected values in 0..1"
    for name in (task.headline, task.form):
        if score.values[name] != 1:
            return (
                f"its own completion has {name} {score.values[name]:g}, expected 1 "
                f"({score.failure}): {example.completion[-80:]!r}"
            )
    return None
