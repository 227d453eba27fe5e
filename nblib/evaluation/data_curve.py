"""A learning curve over the data: the same training on shares of the rows, on the same questions.

    rows    steps  proof verified
    4,000     420  0.41
    8,000     840  0.52     each share holds the smaller ones
    16,000  1,680  0.58     all rows: the training that is exported

Each share is trained from the base by the same recipe, its schedule as long as its own steps: a
checkpoint on the way of one training is no such point, since its learning rate is still high. What
the last step up in rows brought is tested on the same items.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nblib.evaluation.answers import Decoding, Stage, ask, score_answers
from nblib.evaluation.statistics import Paired, paired_comparison, smallest_difference
from nblib.models.lora import LoraConfig, get_trainable_model, merge_lora
from nblib.models.names import RefModel
from nblib.runs import Run
from nblib.tasks.task import Example, Task
from nblib.tokens.batching import Batching, TrainingData, training_data
from nblib.training.session import Trained
from nblib.training.sft import SftConfig, train


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One training: on how many rows, in how many steps, and what its model did."""

    rows: int
    steps: int
    stage: Stage


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """The points by rows, the last of all rows; and what the last one gained, paired.

    `gain` is None where there is one point, or where the training on all rows is not at its end.
    """

    points: tuple[CurvePoint, ...]
    gain: Paired | None
    smallest: float = math.inf  # gain that the items show

    @property
    def is_worth_it(self) -> bool:
        """Whether the last rows helped for sure: the interval of the gain is above 0."""
        return self.gain is not None and self.gain.ci95[0] > 0


def train_on_shares(
    shares: Sequence[float],
    base: RefModel,
    texts: TrainingData,
    run: Run,
    task: Task,
    held_out: Sequence[Example],
    decoding: Decoding,
    *,
    batching: Batching,
    lora: LoraConfig,
    config: SftConfig,
    hashes: Mapping[str, Any],
    enabled: bool = True,
    deadline_s: float = float("inf"),
) -> tuple[CurvePoint, ...]:
    """Train `base` on each share of the examples of `texts`, and ask it the held-out questions.

    A share of 1 is left to the notebook's own training; so `[1.0]` trains nothing. The shares hold
    each other and are drawn with the batching's seed, since a file may be sorted. Each has its
    checkpoints in `checkpoints/rows_<n>` and its answers in `answers/` of the run: a run that was
    killed goes on, and repeats nothing.

    Of `deadline_s`, the seconds for all trainings, each share takes its part; the largest, on all
    rows, is counted. A share that does not get to its end is said and left out.
    Raises ValueError for a share without a whole step, and what `training.train` raises.
    """
    mesh, seed, points = base.mesh, batching.seed, list[CurvePoint]()
    drawn = random.Random(seed).sample(texts.examples, len(texts.examples))
    parts = [share for share in sorted(shares) if share < 1 and enabled]
    for share in parts:
        rows = round(share * len(drawn))
        part = training_data(drawn[:rows], (), batching, row_multiple=mesh.shape["fsdp"])
        name, model = f"rows_{rows}", get_trainable_model(base.model, mesh, lora, seed=seed)
        print(f"{rows:,} of {len(drawn):,} rows:", flush=True)
        trained = train(
            model,
            part,
            config,
            run,
            hashes={**hashes, "examples": part.sha256},
            mesh=mesh,
            name=name,
            deadline_s=deadline_s * share / (1 + sum(parts)),
        )
        if trained.left:
            print(f"{rows:,} rows are left out of the learning curve until they are trained")
            continue
        ref = base.with_model(merge_lora(model, lora), name=name)
        kept = run.path / "answers" / f"{name}.jsonl"
        stage = score_answers(ref.name, ask(ref, task, held_out, decoding, kept=kept), task)
        points.append(CurvePoint(rows=rows, steps=trained.steps, stage=stage))
    return tuple(points)


def learning_curve(
    points: Sequence[CurvePoint],
    tuned: Sequence[Stage],
    task: Task,
    *,
    rows: int,
    trained: Trained,
) -> LearningCurve | None:
    """Return the points with the one of all `rows`: the last stage of `tuned`, None without one.

    The gain is in the task's headline, on the items that both stages answered.
    """
    if not tuned:
        return None
    last = CurvePoint(rows=rows, steps=trained.steps, stage=tuned[-1])
    if not points or trained.left:
        return LearningCurve(points=(*points, last), gain=None)
    both = points[-1].stage.records, last.stage.records
    metric = task.metric(task.headline)
    return LearningCurve(
        points=(*points, last),
        gain=paired_comparison(*both, metric),
        smallest=smallest_difference(*both, metric),
    )
