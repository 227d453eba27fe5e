"""The settings of a foundation, which is trained by a recipe and not by a machine's profile."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from nblib.evaluation.answers import Decoding
from nblib.hosts.profiles import fill, profile_tables
from nblib.hosts.settings_base import (
    BatchedSettings,
    Count,
    CountOrNone,
    Levels,
    Rows,
    Tokens,
    one_of,
)
from nblib.models.gemma3 import SIZES
from nblib.tokens.batching import Batching
from nblib.training.sft import SftConfig


@dataclass(frozen=True, kw_only=True)
class FoundationSettings(BatchedSettings):
    """The settings of a foundation; the profile `smoke` beats the recipe."""

    recipe: str
    size: Annotated[str, one_of(tuple(SIZES))] = "embedded"
    levels: Levels
    num_samples: Rows
    max_length: Tokens
    gsm8k_epochs: CountOrNone
    practice_samples: CountOrNone
    practice_levels: Levels
    eval_samples: Count

    _kind = "foundation"
    _aside = ("session_hours", "gsm8k_dir")
    _built = ("training",)

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        recipe = "smoke" if profile == "smoke" else given.get("recipe", "quick")
        recipes = profile_tables(cls._kind)
        if recipe not in tuple(recipes):
            names = ", ".join(recipes)
            raise ValueError(f"RECIPE {recipe!r} is unknown: expected one of {names}")
        return fill(recipes[recipe], {**given, "recipe": recipe})

    @property
    def training(self) -> SftConfig:
        """How all weights are trained."""
        return SftConfig(
            learning_rate=self.learning_rate,
            weight_decay=0.05,
            accumulation=self.accumulation,
            optimizer="muon",
            save_interval=self.save_interval,
        )

    @property
    def practice_batching(self) -> Batching:
        """How the texts of the practice become batches: half as large, once."""
        half = self.batch_tokens // 2
        return replace(self.batching, epochs=1, seed=self.seed + 1, batch_tokens=half)

    @property
    def practice_training(self) -> SftConfig:
        """How the practice is trained: at a quarter of the rate."""
        return replace(self.training, learning_rate=0.25 * self.learning_rate)

    @property
    def greedy(self) -> Decoding:
        """How the held-out problems are answered."""
        return Decoding(max_new_tokens=320, seed=self.seed)

    def _check(self) -> None:
        super()._check()
        self._check_builtin(self.levels)
