"""Rollouts: what the policy writes while it is trained with GRPO, and the log of it.

Tunix's own rollout worker leaves the stop token out of what is trained, draws the same noise each
step, and keeps every row until the slowest has ended. `PolicyRollout` mends all three: a completion
that stopped carries its stop token, so that stopping is rewarded with the answer, and every step
has noise of its own, the same one when a killed run does that step again.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.rl.rollout import base_rollout
from tunix.rl.rollout.vanilla_rollout import VanillaRollout

from nblib.files import append_jsonl, read_jsonl, write_jsonl
from nblib.models.decode import Sampling, decode, left_padded

_LOG_NAME = "rollouts.jsonl"


@dataclass
class RolloutClock:
    """Which step it is, and what was drawn in it: shared by the data, the rollouts, the reward."""

    seed: int
    step: int = 0
    draws: int = 0  # batches drawn in this step
    seconds: float = 0.0  # spent drawing them
    tokens: list[int] = field(default_factory=list)  # of each completion, stop token included
    truncated: list[bool] = field(default_factory=list)

    def start_step(self, step: int) -> None:
        """Begin a step: its noise depends on the seed and the step alone."""
        self.step, self.draws, self.seconds = step, 0, 0.0
        self.take()

    def noise(self) -> int:
        """Return the seed of the next draw."""
        seeds = np.random.SeedSequence((self.seed, self.step, self.draws))
        self.draws += 1
        return int(seeds.generate_state(1)[0])

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Return and forget the lengths [N] and truncations [N] of all completions since."""
        taken = np.array(self.tokens, np.int32), np.array(self.truncated, bool)
        self.tokens, self.truncated = [], []
        return taken


class PolicyRollout(VanillaRollout):
    """Tunix's rollouts, drawn by `nblib.models.decode`: faster, the stop token kept, fresh noise.

    Completions end where they do in evaluation: `stop` is `stop_tokens(tokenizer)`.
    """

    def __init__(
        self,
        rollout_actor: nnx.Module,
        tokenizer: Any,
        mesh: jax.sharding.Mesh,
        rollout_config: base_rollout.RolloutConfig,
        *,
        clock: RolloutClock,
        stop: Sequence[int],
    ) -> None:
        config = rollout_actor.config
        unused = base_rollout.CacheConfig(
            cache_size=rollout_config.kv_cache_size,
            num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        )
        super().__init__(rollout_actor, tokenizer, unused)
        self._tokenizer, self._mesh, self._clock = tokenizer, mesh, clock
        self._stop = tuple(stop)

    def generate(
        self, prompts: list[str], rollout_config: base_rollout.RolloutConfig, **kwargs: Any
    ) -> base_rollout.RolloutOutput:
        """Return one completion a prompt; `text` is without, `tokens` with the stop token."""
        began = time.perf_counter()
        encoded = [[self._tokenizer.bos_id(), *self._tokenizer.encode(text)] for text in prompts]
        sampling = Sampling(
            temperature=rollout_config.temperature,
            top_p=rollout_config.top_p or 1.0,
            seed=self._clock.noise(),
        )
        completions = decode(
            self.model(),
            encoded,
            sampling,
            stop=self._stop,
            max_new_tokens=rollout_config.max_tokens_to_generate,
            batch_size=len(prompts),
            mesh=self._mesh,
            max_prompt_length=rollout_config.max_prompt_length,
        )
        self._clock.seconds += time.perf_counter() - began
        self._clock.tokens += [len(tokens) for tokens in completions]
        self._clock.truncated += [tokens[-1] not in self._stop for tokens in completions]
        return base_rollout.RolloutOutput(
            text=[
                self._tokenizer.decode([token for token in tokens if token not in self._stop])
                for tokens in completions
            ],
            logits=None,
            tokens=[np.array(tokens, np.int32) for tokens in completions],
            left_padded_prompt_tokens=left_padded(encoded, rollout_config.max_prompt_length),
            logprobs=None,
        )


@dataclass(frozen=True, kw_only=True)
class RolloutLog:
    """`rollouts.jsonl`, one record a completion; full files become `rollouts.1.jsonl`, ...

    The newest `keep` full files stay, so a long run cannot fill the disk.
    """

    folder: Path
    limit_bytes: int = 64 * 2**20
    keep: int = 8

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add the records of one step; turn the file over when it is full."""
        path = self.folder / _LOG_NAME
        for record in records:
            append_jsonl(path, record)
        if path.is_file() and path.stat().st_size >= self.limit_bytes:
            full = self._full_files()
            number = 1 + max(full, default=0)
            path.rename(self.folder / f"rollouts.{number}.jsonl")
            for old in sorted(full)[: max(0, len(full) + 1 - self.keep)]:
                full[old].unlink()

    def read(self) -> list[Any]:
        """Return all records that are kept, the oldest first."""
        full = self._full_files()
        paths = [*(full[number] for number in sorted(full)), self.folder / _LOG_NAME]
        return [record for path in paths if path.is_file() for record in read_jsonl(path)]

    def forget_after(self, step: int) -> None:
        """Drop what a killed run drew after its last checkpoint: those steps are done again."""
        for path in (*self._full_files().values(), self.folder / _LOG_NAME):
            if path.is_file():
                records = read_jsonl(path)
                kept = [record for record in records if record["step"] <= step]
                if len(kept) < len(records):
                    write_jsonl(path, kept)

    def _full_files(self) -> dict[int, Path]:
        return {int(path.stem.split(".")[1]): path for path in self.folder.glob("rollouts.*.jsonl")}
