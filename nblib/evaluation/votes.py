"""Several answers to each question: pass@k and majority vote, each named for what it is.

pass@k asks whether one of k answers is right, so it grows with every guess and is no accuracy;
maj@k lets the k answers vote and scores the winner. Neither is ever shown as `answer_accuracy`.
pass@k: M. Chen et al., arXiv:2107.03374 (2021); maj@k: X. Wang et al., arXiv:2203.11171 (2022).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from nblib.evaluation.candidates import Candidate, answer_all
from nblib.evaluation.generate import Decoding
from nblib.evaluation.metrics import rate_metrics
from nblib.evaluation.pass_rates import pass_at_k
from nblib.tasks.task import Example, Task


def vote_metrics(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return pass@1, 2, 4 ... and maj@k of records that hold k scored answers to each question.

    Args:
        records: Scored records (`id`, `answer`, `correct`), the answers to one question in the
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
    solved = [sum(one["correct"] for one in group) for group in groups.values()]
    metrics: dict[str, Any] = {"n": len(groups), "k": k}
    for drawn in _powers_of_two(k):
        metrics |= rate_metrics(f"pass@{drawn}", [pass_at_k(k, count, drawn) for count in solved])
    elected = [majority(group) for group in groups.values()]
    return metrics | rate_metrics(f"maj@{k}", [one["correct"] for one in elected])


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

    Nothing is asked for fewer than two samples; stages that are files are left out.

    Raises:
        ValueError: greedy decoding, which gives the same answer every time.
    """
    if samples < 2:
        return {}
    if decoding.temperature == 0:
        raise ValueError("temperature is 0, expected more: greedy answers are all the same")
    asked = [replace(one, name=f"{one.name}_sampled") for one in candidates if not one.is_file]
    stages = answer_all(
        asked, task, [*examples] * samples, decoding, shots=shots, mesh=mesh, folder=folder
    )
    return {stage.name.removesuffix("_sampled"): vote_metrics(stage.records) for stage in stages}


def majority(group: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the first record that gives the answer most of the group gives.

    Answers that cannot be read do not vote. On a tie the one that was drawn first wins; where none
    can be read it is simply the first.
    """
    votes = Counter(one["answer"] for one in group if one["answer"] is not None)
    if not votes:
        return group[0]
    winner, _ = votes.most_common(1)[0]  # of equals the one met first
    return next(one for one in group if one["answer"] == winner)


def _powers_of_two(k: int) -> list[int]:
    return sorted({*(2**power for power in range(k.bit_length())), k})
