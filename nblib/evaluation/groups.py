"""One group shown: the completions of a prompt, what each earned, and its advantage.

What GRPO does in a step for every prompt, done once for a reader's eyes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from nblib.evaluation.generate import Decoding, generate
from nblib.models.names import RefModel
from nblib.tasks.rewards import Rewarded
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import task_prompts
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
    judge: Callable[[int, str, int, bool], Rewarded],
    decoding: Decoding,
    *,
    size: int,
    mesh: jax.sharding.Mesh,
) -> Group:
    """Sample a group of `size` for each of the first examples; return the one with most spread.

    `judge` is the training's own, for the same examples. Advantages are GRPO's: reward minus the
    group's mean, over its standard deviation; all 0 in a group without spread.
    """
    tried = list(examples[:_TRIED])
    drawn = generate(
        ref.model,
        ref.tokenizer,
        [prompt for prompt in task_prompts(task, tried) for _ in range(size)],
        decoding,
        mesh=mesh,
    )
    rewards = np.array(
        [
            judge(index // size, one.text, one.tokens, one.truncated).reward
            for index, one in enumerate(drawn)
        ]
    ).reshape(len(tried), size)
    best = int(np.argmax(rewards.std(axis=1)))
    order = np.argsort(-rewards[best], kind="stable")
    chosen = rewards[best][order]
    advantages = group_advantages(chosen[None])[0]
    return Group(
        example=tried[best],
        completions=tuple(drawn[best * size + int(index)].text for index in order),
        rewards=tuple(map(float, chosen)),
        advantages=tuple(map(float, advantages)),
    )
