"""A notebook's settings as one value: its parameters, filled from the profile and checked at once.

What cannot work is refused when the value is made, before a model is loaded or asked: each field
by its type, a combination by the configuration that will be used (`SftConfig`, `GrpoConfig`,
`reward_weights`, `Decoding`). Whether rows and model fit the settings shows when they are loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

from pydantic import Field

from nblib.evaluation.answers import Decoding
from nblib.hosts.ladder import named_candidates
from nblib.hosts.settings_base import (
    ALL,
    Count,
    CountOrNone,
    EvaluatedSettings,
    Levels,
    Number,
    Tokens,
    TunedSettings,
    one_of,
)
from nblib.hosts.settings_data import DataSettings
from nblib.tasks.registry import get_task
from nblib.tasks.rewards import reward_weights
from nblib.training.grpo_config import GrpoConfig
from nblib.training.optimizers import NAMES
from nblib.training.sft import SftConfig


@dataclass(frozen=True, kw_only=True)
class SftSettings(DataSettings):
    """The settings of an SFT notebook; `version` is a recipe of its task."""

    version: Annotated[str, one_of(("", "v1", "v2", "v3"))] = ""
    optimizer: Annotated[str, one_of(NAMES)] = SftConfig.optimizer
    builtin_levels: Levels
    format_target: Number

    _kind = "sft"
    _later: ClassVar[Mapping[str, Any]] = {
        **DataSettings._later,
        **{"task": "gsm8k", "optimizer": SftConfig.optimizer},
    }
    _built = ("training", "greedy")

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        given = {name: one for name, one in given.items() if (name, one) != ("optimizer", "")}
        return super()._filled(profile, given)

    @property
    def training(self) -> SftConfig:
        """How the adapters are trained."""
        names = ("learning_rate", "accumulation", "remat", "save_interval", "optimizer")
        return SftConfig(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class GrpoSettings(TunedSettings):
    """The settings of a GRPO notebook; `model` "" is the newest export that it starts from."""

    pass_rate_samples: CountOrNone = 0
    num_steps: Count
    prompts_per_step: Count
    batch_tokens: Count
    num_generations: Count
    num_iterations: Count = GrpoConfig.num_iterations
    loss: str = GrpoConfig.loss
    beta: Number = GrpoConfig.beta
    kl: str = GrpoConfig.kl
    temperature: Number
    max_prompt_length: Tokens
    rewards: Mapping[str, Number] = field(default_factory=dict)  # over the task's own
    probe_samples: Count
    probe_every: Count
    gain_target: Number

    _kind = "grpo"
    _aside: ClassVar[tuple[str, ...]] = (
        *(*TunedSettings._aside, "model"),  # its hash is known when it is loaded
        *("remat", "num_iterations", "loss", "beta", "kl"),  # as `grpo`
        "rewards",  # as `weights`
    )
    _built = ("grpo", "greedy", "sampled")

    @property
    def parameters(self) -> dict[str, Any]:
        """What a run is found again by, together with the hash of the model it starts from."""
        return {**super().parameters, "grpo": self.grpo, "weights": self.weights}

    @property
    def grpo(self) -> GrpoConfig:
        """How the policy is trained."""
        names = {one.name for one in fields(GrpoConfig)}
        given = {name: value for name, value in self._values().items() if name in names}
        return GrpoConfig(steps=self.num_steps, **given)

    @property
    def weights(self) -> dict[str, float]:
        """What each term of a reward is worth."""
        return reward_weights(get_task(self.task), self.rewards)

    @property
    def sampled(self) -> Decoding:
        """How completions are drawn before the training, to be compared with each other."""
        return self.greedy.sampled(temperature=self.temperature, top_p=1.0)

    def _check(self) -> None:
        super()._check()
        self._checked_by("rewards", lambda: self.weights)
        if ALL < self.num_samples <= self.prompts_per_step:
            raise self._refuse(
                "num_samples",
                f"expected more than PROMPTS_PER_STEP {self.prompts_per_step}, as some questions "
                "are kept for the probe",
            )


@dataclass(frozen=True, kw_only=True)
class EvalSettings(EvaluatedSettings):
    """The settings of eval; no `stages` are the ladder."""

    stages: tuple[str, ...] = ()
    builtin_levels: Levels
    svamp_dir: str = ""
    shots: Annotated[int, Field(ge=1, le=200)]  # so many rows of train the notebook asks for
    samples_per_question: Count
    temperature: Number = 0.7
    top_p: Number = 0.95
    forgetting_samples: Count
    allow_mismatch: bool = False

    _kind = "eval"
    # Stages count as what is found by them.
    _aside = ("stages", "session_hours", "gsm8k_dir", "svamp_dir")
    _built = ("greedy", "sampled")

    @property
    def sampled(self) -> Decoding:
        """How several answers to each question are drawn."""
        return self.greedy.sampled(temperature=self.temperature, top_p=self.top_p)

    def _check(self) -> None:
        super()._check()
        self._checked_by("stages", lambda: named_candidates(self.stages))
        if self.samples_per_question > 1 and not self.temperature:
            raise self._refuse(
                "temperature",
                f"expected more with SAMPLES_PER_QUESTION {self.samples_per_question}, as greedy "
                "answers are all the same",
            )
