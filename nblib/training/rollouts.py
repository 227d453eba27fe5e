"""Rollouts: what the policy writes while it is trained with GRPO, and the log of it.

Tunix's own rollout worker leaves the end token out of what is trained, and draws the same noise
each step. `PolicyRollout` mends both: a completion that stopped carries its end token, so that
stopping is rewarded with the answer, and every step has noise of its own, the same one when a
killed run does that step again.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tunix.rl.rollout import base_rollout
from tunix.rl.rollout.vanilla_rollout import VanillaRollout

from nblib.files import append_jsonl, read_jsonl, write_jsonl

_LOG_NAME = "rollouts.jsonl"


@dataclass
class RolloutClock:
    """Which step it is, and what was drawn in it: shared by the data, the rollouts, the reward."""

    seed: int
    step: int = 0
    draws: int = 0  # batches drawn in this step
    seconds: float = 0.0  # spent drawing them
    tokens: list[int] = field(default_factory=list)  # of each completion, end token included
    truncated: list[bool] = field(default_factory=list)

    def start_step(self, step: int) -> None:
        """Begin a step: its noise depends on the seed and the step alone."""
        self.step, self.draws, self.seconds = step, 0, 0.0
        self.take()

    def key(self) -> jax.Array:
        """Return the noise of the next draw."""
        key = jax.random.fold_in(jax.random.key(self.seed, impl="threefry2x32"), self.step)
        key = jax.random.fold_in(key, self.draws)
        self.draws += 1
        return jax.random.key_data(key)

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Return and forget the lengths [N] and truncations [N] of all completions since."""
        taken = np.array(self.tokens, np.int32), np.array(self.truncated, bool)
        self.tokens, self.truncated = [], []
        return taken


class PolicyRollout(VanillaRollout):
    """Tunix's sampler, with the end token kept and fresh noise.

    One end token, `<end_of_turn>`: with more than one, nobody could say which of them was drawn.
    """

    def __init__(
        self,
        rollout_actor: nnx.Module,
        tokenizer: Any,
        mesh: jax.sharding.Mesh,
        rollout_config: base_rollout.RolloutConfig,
        *,
        clock: RolloutClock,
        end_token: int,
    ) -> None:
        config = rollout_actor.config
        cache = base_rollout.CacheConfig(
            cache_size=rollout_config.kv_cache_size,
            num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        )
        super().__init__(rollout_actor, tokenizer, cache)
        self._clock, self._end_token = clock, end_token

    def generate(
        self, prompts: list[str], rollout_config: base_rollout.RolloutConfig, **kwargs: Any
    ) -> base_rollout.RolloutOutput:
        """Return one completion a prompt; `text` is without, `tokens` with the end token."""
        fresh = replace(rollout_config, seed=self._clock.key(), eos_tokens=[self._end_token])
        began = time.perf_counter()
        output = super().generate(prompts, fresh, **kwargs)
        self._clock.seconds += time.perf_counter() - began
        limit = rollout_config.max_tokens_to_generate
        truncated = [len(tokens) >= limit for tokens in output.tokens]
        tokens = [
            drawn if cut else np.append(drawn, self._end_token).astype(drawn.dtype)
            for drawn, cut in zip(output.tokens, truncated, strict=True)
        ]
        self._clock.truncated += truncated
        self._clock.tokens += [len(one) for one in tokens]
        return replace(output, tokens=tokens)


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
