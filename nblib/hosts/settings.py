"""A notebook's settings as one value: its parameters, filled from the profile and checked at once.

What cannot work is refused when the value is made, before a model is loaded or asked: each field
by its type, a combination by the configuration that will be used (`SftConfig`, `GrpoConfig`,
`reward_weights`, `Decoding`). Whether rows and model fit the settings shows when they are loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from nblib.evaluation.answers import Decoding
from nblib.evaluation.judge import JUDGES
from nblib.files import shown
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
from nblib.hosts.settings_context import ContextSettings
from nblib.sources.datasets import FILES, TABLES, is_file
from nblib.sources.endpoint import endpoint_from_environment
from nblib.tasks.registry import get_task
from nblib.tasks.review import ReviewRow, read_review
from nblib.tasks.rewards import reward_weights
from nblib.training.grpo_config import GrpoConfig
from nblib.training.optimizers import NAMES
from nblib.training.sft import SftConfig


def _examples_file(value: str) -> str:
    if value and not is_file(value):
        raise ValueError(f"should be a file that ends in {', '.join(FILES)}")
    return value


def _slugs(tasks: str) -> tuple[str, ...]:
    return tuple(sorted({slug.strip() for slug in tasks.split(",")} - {""}))


@dataclass(frozen=True, kw_only=True)
class SftSettings(ContextSettings):
    """The settings of an SFT notebook; `version` is a recipe of its task."""

    version: Annotated[str, one_of(("", "v1", "v2", "v3"))] = ""
    examples: Annotated[str, AfterValidator(_examples_file)] = ""  # what `data` is, then
    tasks: str = ""  # slugs of the examples, with commas between them; "" is all
    review: str = ""  # a file that a person has marked
    optimizer: Annotated[str, one_of(NAMES)] = SftConfig.optimizer
    judge: Annotated[str, one_of(JUDGES)] = ""
    judge_budget: CountOrNone = 0  # requests to it
    builtin_levels: Levels
    format_target: Number

    _kind = "sft"
    # A judge changes no figure of a run's result; so an unfinished run may get one.
    _aside: ClassVar[tuple[str, ...]] = (*ContextSettings._aside, "judge", "judge_budget")
    _later: ClassVar[Mapping[str, Any]] = {
        **ContextSettings._later,
        **{"task": "gsm8k", "examples": "", "tasks": "", "optimizer": SftConfig.optimizer},
        "review": "",
    }
    _built = ("training", "greedy")

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        examples, tasks = given.get("examples"), given.get("tasks")
        if examples and given.get("data"):
            came = f"EXAMPLES {shown(examples)} and DATA {shown(given['data'])}"
            raise ValueError(f"{came}: expected only one of them")
        given = {name: one for name, one in given.items() if (name, one) != ("optimizer", "")}
        more: dict[str, Any] = {}
        if isinstance(examples, str) and is_file(examples):
            more["data"] = examples
        if isinstance(tasks, str):  # so that the same slugs are the same run
            more["tasks"] = ",".join(_slugs(tasks))
        return super()._filled(profile, given | more)

    @property
    def slugs(self) -> tuple[str, ...]:
        """The kinds of examples to read; () is all of them."""
        return _slugs(self.tasks)

    @property
    def reviewed(self) -> tuple[ReviewRow, ...]:
        """The values that a person has looked at; () without a review."""
        return read_review(Path(self.review).expanduser()) if self.review else ()

    @property
    def training(self) -> SftConfig:
        """How the adapters are trained."""
        names = ("learning_rate", "accumulation", "remat", "save_interval", "optimizer")
        return SftConfig(**{name: getattr(self, name) for name in names})

    def _check(self) -> None:
        super()._check()
        if self.slugs and self.task not in TABLES:
            words = f'expected "" with TASK {self.task!r}: only {TABLES[0]!r} has kinds of rows'
            raise self._refuse("tasks", words)
        if self.review and self.task not in TABLES:
            words = f'expected "" with TASK {self.task!r}: only {TABLES[0]!r} has slots to look at'
            raise self._refuse("review", words)
        self._checked_by("review", lambda: self.reviewed)
        if self.judge:  # before hours of training
            self._checked_by("judge", lambda: endpoint_from_environment("JUDGE"))


@dataclass(frozen=True, kw_only=True)
class GrpoSettings(TunedSettings):
    """The settings of a GRPO notebook; `model` "" is the newest export that it starts from."""

    pass_rate_samples: CountOrNone = 0
    num_steps: Count
    prompts_per_step: Count
    micro_batch: Count
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
