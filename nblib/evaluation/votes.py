"""Several answers to each question: pass@k and majority vote, each named for what it is.

pass@k asks whether one of k answers is right, so it grows with every guess and is no accuracy;
maj@k lets the k answers vote and scores the winner (X. Wang et al., arXiv:2203.11171, 2022).
Neither is ever shown as the headline.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from nblib.evaluation.candidates import Candidate, answer_all
from nblib.evaluation.generate import Decoding
from nblib.evaluation.statistics import metric_figures, pass_at_k
from nblib.tasks.task import Example, Metric, Task


def vote_metrics(records: Sequence[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    """Return pass@1, 2, 4 ... and maj@k of records that hold k scored answers to each question.

    An answer is right where it has the whole headline. The answers to one question stand in the
    order in which they were drawn.

    Returns:
        `{"n": questions, "k": answers to each, "pass@1": .., "pass@1_ci95": [..], "maj@4": ..}`.

    Raises:
        ValueError: no records, or questions with another number of answers.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["id"], []).append(record)
    counts = {len(group) for group in groups.values()}
    if len(counts) != 1:
        raise ValueError(f"questions have {sorted(counts)} answers each, expected one number")
    (k,) = counts
    solved = [sum(map(task.is_right, group)) for group in groups.values()]
    rates: dict[str, list[float]] = {
        f"pass@{drawn}": [pass_at_k(k, count, drawn) for count in solved]
        for drawn in sorted({*(2**power for power in range(k.bit_length())), k})
    }
    rates[f"maj@{k}"] = [task.is_right(majority(group)) for group in groups.values()]
    metrics: dict[str, Any] = {"n": len(groups), "k": k}
    for name, hits in rates.items():
        metrics |= metric_figures(Metric(name=name, meaning=""), hits)
    return metrics


def vote_all(
    candidates: Sequence[Candidate],
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    samples: int,
    shots: Sequence[Example],
    mesh: jax.sharding.Mesh,
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """Sample every model `samples` times and return the `vote_metrics` of each stage.

    Nothing is asked for fewer than two samples; stages that are files are left out. Raises what
    `answer_all` does.
    """
    if samples < 2:
        return {}
    asked = [replace(one, name=f"{one.name}_sampled") for one in candidates if not one.is_file]
    given: dict[str, Any] = {"shots": shots, "mesh": mesh, "folder": folder}
    stages = answer_all(asked, task, examples, decoding, samples=samples, **given)
    return {
        stage.name.removesuffix("_sampled"): vote_metrics(stage.records, task) for stage in stages
    }


def majority(group: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
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
