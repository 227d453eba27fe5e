"""A probe: how many of a few fixed questions a model answers right, asked again and again.

It tells during a training what the rewards alone cannot: whether the answers get better. Its
questions come from the train split; the test split is for the evaluation at the end.
"""

from collections.abc import Sequence

import jax
import sentencepiece as spm
from flax import nnx

from nblib.evaluation.generate import Decoding, generate
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import task_prompts


class Probe:
    """Greedy answer accuracy on the same examples, compiled once for all measurements."""

    def __init__(
        self,
        tokenizer: spm.SentencePieceProcessor,
        task: Task,
        examples: Sequence[Example],
        *,
        max_new_tokens: int,
        mesh: jax.sharding.Mesh,
    ) -> None:
        self._tokenizer, self._task, self._examples, self._mesh = tokenizer, task, examples, mesh
        self._decoding = Decoding(max_new_tokens=max_new_tokens, batch_size=len(examples))
        self._prompts = task_prompts(task, examples)

    def __call__(self, model: nnx.Module) -> float:
        """Return the share of right answers, a fraction of 1."""
        completions = generate(
            model, self._tokenizer, self._prompts, self._decoding, mesh=self._mesh
        )
        right = [
            self._task.score(completion.text, example.answer).correct
            for completion, example in zip(completions, self._examples, strict=True)
        ]
        return sum(right) / len(right)
