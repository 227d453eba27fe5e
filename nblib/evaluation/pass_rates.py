"""How often a model solves each training prompt when it is sampled.

GRPO learns from differences inside a group: a prompt that is always solved, or never, gives none.
What is measured here decides which prompts are worth a step, so it reads the train split alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from nblib.evaluation.answers import ask, score_all
from nblib.evaluation.generate import Decoding
from nblib.evaluation.statistics import pass_at_k
from nblib.models.names import RefModel
from nblib.tasks.task import Example, Task


@dataclass(frozen=True, kw_only=True)
class PassRates:
    """How many of `samples` completions of each prompt were right.

    Attributes:
        solved: id of the prompt -> right completions, 0 to `samples`, in the prompts' order.
        samples: completions a prompt.
    """

    solved: Mapping[str, int]
    samples: int

    def pass_at(self, k: int) -> float:
        """Return the chance that `k` completions of a prompt hold a right one, over all prompts."""
        return float(np.mean([pass_at_k(self.samples, c, k) for c in self.solved.values()]))

    def summary(self) -> str:
        """One line: `never 25.0%, sometimes 50.0%, always 25.0% of 8 prompts; pass@1 0.50, ...`."""
        counts, n = list(self.solved.values()), len(self.solved)
        never, always = counts.count(0) / n, counts.count(self.samples) / n
        return (
            f"never {never:.1%}, sometimes {1 - never - always:.1%}, always {always:.1%} "
            f"of {n} prompts; pass@1 {self.pass_at(1):.3f}, "
            f"pass@{self.samples} {self.pass_at(self.samples):.3f}"
        )


def pass_rates(
    ref: RefModel,
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    samples: int,
    mesh: jax.sharding.Mesh,
    cache: Path,
) -> PassRates:
    """Sample every prompt `samples` times and count the right answers, as the reward judges them.

    The answers are kept in `cache`; takes and raises what `answers.ask` does.
    """
    answers = ask(ref, task, examples, decoding, mesh=mesh, samples=samples, kept=cache)
    solved = dict.fromkeys((example.id for example in examples), 0)
    for answer, score in zip(answers, score_all(answers, task), strict=True):
        solved[answer["id"]] += task.is_right(score.values)
    return PassRates(solved=solved, samples=samples)


def keep_informative(
    examples: Sequence[Example], rates: PassRates
) -> tuple[tuple[Example, ...], int, int]:
    """Return the examples solved sometimes, and how many were dropped as always and never solved.

    Raises:
        ValueError: an example that was not measured, by id.
    """
    for example in examples:
        if example.id not in rates.solved:
            raise ValueError(f"example {example.id!r} has no pass rate: measure these examples")
    counts = [rates.solved[example.id] for example in examples]
    kept = [one for one, c in zip(examples, counts, strict=True) if 0 < c < rates.samples]
    return tuple(kept), counts.count(rates.samples), counts.count(0)
