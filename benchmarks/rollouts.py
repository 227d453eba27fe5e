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
from tunix.rl.rollout.base_rollout import CacheConfig, RolloutConfig, RolloutOutput
from tunix.rl.rollout.vanilla_rollout import VanillaRollout

from nblib.hosts.settings import GrpoSettings
from nblib.models.decode import Sampling, decode, left_padded
from nblib.models.names import RefModel
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import reward_function, reward_weights
from nblib.tasks.task import Example
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import PAD_ID, stop_tokens
from nblib.training.rollouts import group_advantages

_TASK = GSM8K.variants["hash"]  # the form of the model that ships


@dataclass(frozen=True, kw_only=True)
class Step:
    """The questions of one step, and what draws completions for them."""

    ref: RefModel
    settings: GrpoSettings
    mesh: jax.sharding.Mesh

    def draw(self) -> RolloutOutput:
        """Draw a completion for each question of each group."""
        return self._rollout.generate(self._prompts, self._config)

    def draw_by_tunix(self) -> RolloutOutput:
        """Do the same as Tunix does it."""
        return self._tunix_rollout.generate(self._prompts, self._config)

    def example(self) -> tuple[TrainExample, Sequence[float]]:
        """Return what Tunix's learner would make of the step, and figures of it.

        These are mean and standard deviation of the completions' tokens, and the share of
        zero-variance groups.
        """
        settings, tokenizer = self.settings, self.ref.tokenizer
        encoded = [[tokenizer.bos_id(), *tokenizer.encode(text)] for text in self._prompts]
        stop = stop_tokens(tokenizer)
        drawn = decode(
            self.ref.model,
            encoded,
            Sampling(temperature=settings.temperature, top_p=1.0, seed=0),
            stop=stop,
            max_new_tokens=settings.max_new_tokens,
            batch_size=len(encoded),
            mesh=self.mesh,
            max_prompt_length=settings.max_prompt_length,
        )
        texts = [tokenizer.decode([one for one in ids if one not in stop]) for ids in drawn]
        lengths = [len(ids) for ids in drawn]
        rewards = self._rewards(texts, lengths, [ids[-1] not in stop for ids in drawn])
        tokens: np.ndarray = np.full((len(drawn), settings.max_new_tokens), PAD_ID, np.int32)
        for row, ids in enumerate(drawn):
            tokens[row, : len(ids)] = ids
        prompts = jnp.asarray(left_padded(encoded, settings.max_prompt_length))
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
        earned = [reward(*one).reward for one in drawn]
        return np.array(earned).reshape(-1, self.settings.num_generations)

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
    def _rollout(self) -> VanillaRollout:
        from nblib.training.cluster import PolicyRollout  # names what a newer Tunix has renamed

        return PolicyRollout(self.ref.model, self.ref.tokenizer, self.mesh, self._config, seed=0)

    @cached_property
    def _tunix_rollout(self) -> VanillaRollout:
        model = self.ref.model.config
        cache = CacheConfig(
            cache_size=self._config.kv_cache_size,
            num_layers=model.num_layers,
            num_kv_heads=model.num_kv_heads,
            head_dim=model.head_dim,
        )
        return VanillaRollout(self.ref.model, self.ref.tokenizer, cache)
