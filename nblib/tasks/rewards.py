"""Rewards: weighted views of a task's Score, so that what is trained is what is measured.

A completion is scored by its task and nowhere else. Weights under which a wrong answer could earn
as much as a right one are refused, for every task: public rewards pay 4.5 for a well-formed wrong
answer and -2.5 for a right one without its tags, and get what they pay for.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nblib.tasks.task import Example, Score, Task

# Facts of the generation, for every task: the share of the allowed tokens that was not needed, and
# whether the token limit cut the completion, which is taken away.
BREVITY, TRUNCATED = "brevity", "truncated"
_SHOWN = 80  # characters of a completion in a table


@dataclass(frozen=True, kw_only=True)
class Reward:
    """What one completion earned, and why: its terms without their weights, and its score."""

    reward: float
    terms: Mapping[str, float]
    score: Score


# (example, completion, its tokens with the end token, whether it was cut) -> what it earned
RewardFunction = Callable[[Example, str, int, bool], Reward]


def reward_weights(task: Task, given: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return what each term of a task's reward is worth: the task's own weights, `given` over them.

    A term is one of the task's metrics, one of its `reward_terms`, `brevity` or `truncated`.

    Raises ValueError for a task without rewards, an unknown term, a weight that is negative or not
    finite, and weights under which a completion with headline 0 could earn as much as one with
    headline 1.
    """
    if not task.reward_weights:
        raise ValueError(
            f"task {task.name} has no rewards: nothing that is measured exactly says that an "
            "answer is right"
        )
    default = {**task.reward_weights, BREVITY: 0.0, TRUNCATED: 0.0}
    known = dict.fromkeys((*default, *task.metric_names))
    weights = {**default, **(given or {})}
    for name, weight in weights.items():
        if name not in known:
            raise ValueError(f"reward {name!r} is unknown: expected some of {', '.join(known)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of {name} is {weight}: expected a number of at least 0")
    worst_right = weights[task.headline] - weights[TRUNCATED]
    extra = _extra_terms(task, weights)
    best_wrong = sum(weights[name] for name in extra)
    if worst_right <= best_wrong:
        parts = " + ".join(f"{name} {weights[name]:g}" for name in extra)
        raise ValueError(
            f"a wrong answer could earn {parts} = {best_wrong:g}, and a right one only "
            f"{task.headline} {weights[task.headline]:g} - {TRUNCATED} {weights[TRUNCATED]:g} = "
            f"{worst_right:g}: raise {task.headline} or lower the others"
        )
    return weights


def reward_function(
    task: Task, weights: Mapping[str, float], *, max_new_tokens: int
) -> RewardFunction:
    """Return the reward function of a training; `weights` are those of `reward_weights`."""
    extra = _extra_terms(task, weights)
    lower = {metric.name for metric in task.metrics if metric.better == "lower"}

    def reward(example: Example, completion: str, tokens: int, truncated: bool) -> Reward:
        length_share = tokens / max_new_tokens
        if not 0 <= length_share <= 1:
            raise ValueError(f"length_share {length_share} must be from 0 to 1: tokens / allowed")
        score = task.score(completion, example)
        found = {
            # Of each metric, 1 is the better end.
            **{name: 1 - v if name in lower else v for name, v in score.values.items()},
            **task.reward_terms(completion, example),
            BREVITY: 1.0 - length_share,
            TRUNCATED: float(truncated),
        }
        terms = {name: float(found[name]) for name in weights}
        outside = {name: value for name, value in terms.items() if not 0 <= value <= 1}
        if outside:
            raise ValueError(f"{example.id}: {outside}, expected terms of a reward in 0..1")
        weighted = {name: weight * terms[name] for name, weight in weights.items()}
        # In the order of the check of the weights, so that rounding cannot undo what it promises.
        earned = weighted[task.headline] - weighted[TRUNCATED] + sum(weighted[n] for n in extra)
        return Reward(reward=earned, terms=terms, score=score)

    return reward


def reward_table(task: Task, weights: Mapping[str, float]) -> str:
    """Return the task's `reward_examples` as a Markdown table: each with its terms and its reward.

    There is no tokenizer here: length is in characters, as a share of the longest completion
    shown, and none counts as truncated.

    ```
    | completion | answer accuracy | format accuracy | steps | brevity | truncated | reward |
    | --- | --- | --- | --- | --- | --- | --- |
    | `2 * 9 = 18 <answer>18</answer>` | 1.00 | 0.00 | 1.00 | 0.50 | 0.00 | 1.00 |
    ```
    """
    longest = max((len(text) for text, _ in task.reward_examples), default=0) or 1
    reward = reward_function(task, weights, max_new_tokens=longest)
    names = [name.replace("_", " ") for name in weights]
    rows = [["completion", *names, "reward"], ["---"] * (len(names) + 2)]
    for text, example in task.reward_examples:
        one = reward(example, text, len(text), False)
        rows.append([_shown(text), *(f"{v:.2f}" for v in (*one.terms.values(), one.reward))])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _extra_terms(task: Task, weights: Mapping[str, float]) -> list[str]:
    """Return the terms that a wrong answer can earn as well."""
    return [name for name in weights if name not in (task.headline, TRUNCATED)]


def _shown(completion: str) -> str:
    """One line in code type, where tags are no HTML and $ is no formula; start and end are kept."""
    text = " ".join(completion.split())
    if not text:
        return "(nothing)"
    if len(text) > _SHOWN:
        half = (_SHOWN - 3) // 2
        text = f"{text[:half]} … {text[-half:]}"
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"
