"""Several sampled answers to each question: one GRPO group, pass rates, pass@k, a majority vote.

GRPO learns from differences inside a group: a question that is always solved, or never, gives none.
pass@k asks whether one of k answers is right, so it grows with every guess and is no accuracy;
maj@k lets the k answers vote and scores the winner (X. Wang et al., arXiv:2203.11171, 2022).
Neither is ever shown as the headline.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from nblib.evaluation.answers import Decoding, ask, score_all
from nblib.evaluation.candidates import Asking, Candidate, answer_all
from nblib.evaluation.statistics import Record, grouped, metric_figures
from nblib.models.names import RefModel
from nblib.tasks.rewards import RewardFunction
from nblib.tasks.task import Example, Metric, Task
from nblib.training.rollouts import group_advantages

_TRIED = 8  # prompts: among as many there is one whose group has a spread


@dataclass(frozen=True, kw_only=True)
class Group:
    """A prompt's completions with their rewards and advantages, best first."""

    example: Example
    completions: tuple[str, ...]
    rewards: tuple[float, ...]
    advantages: tuple[float, ...]


def sample_group(
    ref: RefModel,
    task: Task,
    examples: Sequence[Example],
    reward_fn: RewardFunction,
    decoding: Decoding,
    *,
    size: int,
) -> Group:
    """Sample a group of `size` for each of the first examples; return the one with most spread.

    `reward_fn` is the training's own. Advantages are GRPO's: reward minus the group's mean, over
    its standard deviation; all 0 in a zero-variance group.
    """
    tried = examples[:_TRIED]
    asked = [replace(one, id=f"{one.id}#{n}") for one in tried for n in range(size)]
    drawn = ask(ref, task, asked, decoding)
    rewards = np.empty((len(tried), size))
    for place, one in enumerate(drawn):
        tokens = one["tokens"] + (not one["truncated"])  # a reward counts the end token
        example = tried[place // size]
        earned = reward_fn(example, one["completion"], tokens, one["truncated"])
        rewards.flat[place] = earned.reward
    best = int(np.argmax(rewards.std(axis=1)))
    order = np.argsort(-rewards[best], kind="stable")
    chosen = rewards[best][order]
    return Group(
        example=tried[best],
        completions=tuple(drawn[best * size + int(index)]["completion"] for index in order),
        rewards=tuple(map(float, chosen)),
        advantages=tuple(map(float, group_advantages(chosen[None])[0])),
    )


def keep_informative(
    ref: RefModel,
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    samples: int,
    kept: Path,
) -> tuple[tuple[Example, ...], str]:
    """Return the examples that the model solves sometimes, and a summary of all pass rates.

    Every example is sampled `samples` times, and an answer is right as the reward judges it; `kept`
    is that of `answers.ask`. With fewer than two samples nothing is asked and all are returned.
    """
    if samples < 2:
        return tuple(examples), "pass rates: not measured"
    answers = ask(ref, task, examples, decoding, samples=samples, kept=kept)
    solved = dict.fromkeys((example.id for example in examples), 0)
    for answer, score in zip(answers, score_all(answers, task), strict=True):
        solved[answer["id"]] += task.is_right(score.values)
    counts, n = list(solved.values()), len(solved)
    never, always = counts.count(0), counts.count(samples)
    at_1, at_all = (np.mean([pass_at_k(samples, c, k) for c in counts]) for k in (1, samples))
    return tuple(one for one in examples if 0 < solved[one.id] < samples), (
        f"never {never / n:.1%}, sometimes {1 - never / n - always / n:.1%}, "
        f"always {always / n:.1%} of {n} prompts; pass@1 {at_1:.3f}, pass@{samples} {at_all:.3f}\n"
        f"left out: {always} always solved, {never} never solved"
    )


def vote_all(
    candidates: Sequence[Candidate],
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    asking: Asking,
    *,
    samples: int,
) -> dict[str, dict[str, Any]]:
    """Sample every model `samples` times and return the `vote_metrics` of each stage.

    Nothing is asked for fewer than two samples; stages that are files are left out.
    """
    if samples < 2:
        return {}
    asked = [replace(one, name=f"{one.name}_sampled") for one in candidates if not one.is_file]
    stages = answer_all(asked, task, examples, decoding, asking, samples=samples)
    return {
        stage.name.removesuffix("_sampled"): vote_metrics(stage.records, task) for stage in stages
    }


def vote_metrics(records: Sequence[Record], task: Task) -> dict[str, Any]:
    """Return pass@1, 2, 4 ... and maj@k of records that hold k scored answers to each question.

    An answer is right where it has the whole headline. Answers to one question are in the order in
    which they were drawn. ValueError for no records, or another number of answers to a question.

    Example:
        {"n": 200, "k": 4, "pass@1": 0.31, "pass@1_ci95": [..], ..., "maj@4": 0.4, ...}
    """
    groups = list(grouped(records, itemgetter("id")).values())
    counts = {len(group) for group in groups}
    if len(counts) != 1:
        raise ValueError(f"questions have {sorted(counts)} answers each, expected one number")
    (k,) = counts
    solved = [sum(map(task.is_right, group)) for group in groups]
    rates: dict[str, list[float]] = {
        f"pass@{drawn}": [pass_at_k(k, count, drawn) for count in solved]
        for drawn in sorted({*(2**power for power in range(k.bit_length())), k})
    }
    rates[f"maj@{k}"] = [task.is_right(majority(group)) for group in groups]
    metrics: dict[str, Any] = {"n": len(groups), "k": k}
    for name, hits in rates.items():
        metrics |= metric_figures(Metric(name=name, meaning=""), hits)
    return metrics


def majority(group: Sequence[Record]) -> Record:
    """Return the first record that gives the answer most of the group gives.

    Answers that cannot be read do not vote. On a tie the one that was drawn first wins; where none
    can be read it is simply the first.
    """
    ballots = [json.dumps(one["answer"], sort_keys=True) for one in group]
    votes = Counter(ballot for ballot in ballots if ballot != "null")
    if not votes:
        return group[0]
    winner, _ = votes.most_common(1)[0]  # of equals the one met first
    return group[ballots.index(winner)]


def pass_at_k(n: int, solved: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from `solved` right ones of `n` completions.

    It is the share of the choices of k of the n completions that hold a right one:
    1 - C(n - solved, k) / C(n, k). Source: M. Chen et al., arXiv:2107.03374 (2021).
    """
    return 1 - math.comb(n - solved, k) / math.comb(n, k)
