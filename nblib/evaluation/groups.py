"""One group shown: the completions of a prompt, what each earned, and its advantage.

What GRPO does in a step for every prompt, done once for a reader's eyes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from nblib.evaluation.answers import ask
from nblib.evaluation.generate import Decoding
from nblib.models.names import RefModel
from nblib.tasks.rewards import RewardFunction
from nblib.tasks.task import Example, Task
from nblib.training.signals import group_advantages

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
    mesh: jax.sharding.Mesh,
) -> Group:
    """Sample a group of `size` for each of the first examples; return the one with most spread.

    `reward_fn` is the training's own. Advantages are GRPO's: reward minus the group's mean, over
    its standard deviation; all 0 in a group without spread.
    """
    tried = examples[:_TRIED]
    asked = [replace(one, id=f"{one.id}#{n}") for one in tried for n in range(size)]
    drawn = ask(ref, task, asked, decoding, mesh=mesh)
    rewards = np.array(
        [
            # The tokens of a training's rewards count the end token.
            reward_fn(
                tried[place // size],
                one["completion"],
                one["tokens"] + (not one["truncated"]),
                one["truncated"],
            ).reward
            for place, one in enumerate(drawn)
        ]
    ).reshape(len(tried), size)
    best = int(np.argmax(rewards.std(axis=1)))
    order = np.argsort(-rewards[best], kind="stable")
    chosen = rewards[best][order]
    return Group(
        example=tried[best],
        completions=tuple(drawn[best * size + int(index)]["completion"] for index in order),
        rewards=tuple(map(float, chosen)),
        advantages=tuple(map(float, group_advantages(chosen[None])[0])),
    )
