"""A step of v2 to be measured: the model that ships draws groups of completions, as v1 would.

It answers in its own form, so that no run of v1 is needed. What a completion is worth is v2's own
reward, so that lengths and zero-variance groups are real.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from tunix.rl.common import TrainExample
from tunix.rl.rollout.base_rollout import RolloutConfig, RolloutOutput
from tunix.rl.rollout.vanilla_rollout import VanillaRollout

from nblib.hosts.settings import GrpoSettings
from nblib.models.names import RefModel
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import reward_function, reward_weights
from nblib.tasks.task import Example
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import PAD_ID, stop_tokens
from nblib.training.cluster import PolicyRollout
from nblib.training.rollouts import group_advantages

_TASK = GSM8K.variants["hash"]  # the form of the model that ships


@dataclass(frozen=True, kw_only=True)
class Step:
    """The questions of one step, and what draws completions for them."""

    ref: RefModel
    settings: GrpoSettings
    mesh: jax.sharding.Mesh

    def draw(self, *, stock: bool = False) -> RolloutOutput:
        """Draw a completion for each question of each group."""
        if stock:
            return VanillaRollout.generate(self._rollout, self._prompts, self._config)
        return self._rollout.generate(self._prompts, self._config)

    def example(self) -> tuple[TrainExample, Sequence[float]]:
        """Return what Tunix's learner would make of the step, and figures of it.

        These are mean and standard deviation of the completions' tokens, and the share of
        zero-variance groups.
        """
        self._rollout.start_step(1)
        output = self.draw()
        lengths, truncated = self._rollout.take()
        size = self.settings.num_generations
        rewards = self._rewards(output.text, lengths, truncated).reshape(-1, size)
        tokens: np.ndarray = np.full((len(lengths), self.settings.max_new_tokens), PAD_ID, np.int32)
        for row, completion in enumerate(output.tokens):
            tokens[row, : len(completion)] = completion
        prompts = jnp.asarray(output.left_padded_prompt_tokens)
        example = TrainExample(
            prompt_ids=prompts,
            prompt_mask=prompts != PAD_ID,
            completion_ids=jnp.asarray(tokens),
            completion_mask=jnp.asarray(tokens != PAD_ID),
            advantages=jnp.asarray(group_advantages(rewards).ravel(), jnp.float32),
            ref_per_token_logps=None,
            old_per_token_logps=None,
        )
        equal = float((np.ptp(rewards, axis=1) == 0).mean())
        return example, (float(np.mean(lengths)), float(np.std(lengths)), equal)

    def _rewards(
        self, texts: Sequence[str], lengths: Sequence[int], truncated: Sequence[bool]
    ) -> np.ndarray:
        weights = reward_weights(_TASK)
        reward = reward_function(_TASK, weights, max_new_tokens=self.settings.max_new_tokens)
        asked = [one for one in self._examples for _ in range(self.settings.num_generations)]
        drawn = zip(asked, texts, lengths, truncated, strict=True)
        return np.array([reward(*one).reward for one in drawn])

    @cached_property
    def _examples(self) -> tuple[Example, ...]:
        settings = self.settings
        rows = word_problems(
            settings.prompts_per_step, seed=0, split="train", levels=settings.levels
        )
        return _TASK.examples(rows)

    @cached_property
    def _prompts(self) -> list[str]:
        prompts = task_prompts(_TASK, self._examples)
        return [prompt for prompt in prompts for _ in range(self.settings.num_generations)]

    @cached_property
    def _config(self) -> RolloutConfig:
        settings = self.settings
        return RolloutConfig(
            max_tokens_to_generate=settings.max_new_tokens,
            max_prompt_length=settings.max_prompt_length,
            kv_cache_size=settings.max_prompt_length + settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=1.0,
            eos_tokens=list(stop_tokens(self.ref.tokenizer)),
        )

    @cached_property
    def _rollout(self) -> PolicyRollout:
        return PolicyRollout(self.ref.model, self.ref.tokenizer, self.mesh, self._config, seed=0)
