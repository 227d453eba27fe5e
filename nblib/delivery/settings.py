"""A notebook's settings as one value: its parameters, filled from the profile and checked at once.

What cannot work is refused when the value is made, before a model is loaded or asked: each field by
its kind, a combination by the configuration that will be used (`SftConfig`, `GrpoConfig`,
`reward_weights`, `Decoding`). An error names the parameter as the notebook spells it, what came and
what is expected. Whether rows and model fit the settings is known when they are loaded.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Self

from nblib.delivery import profiles
from nblib.delivery.fields import (
    ALL,
    Checked,
    Count,
    CountOrAll,
    CountOrNone,
    Flag,
    Levels,
    Number,
    Text,
    Texts,
    Weights,
    one_of,
    parameter_name,
    whole,
)
from nblib.delivery.ladder import named_candidates
from nblib.evaluation.generate import Decoding
from nblib.models.gemma3 import SIZES
from nblib.models.lora import ALL_WEIGHTS, check_dtype
from nblib.models.published import OVER, ModelNotFound, check_name
from nblib.sources.datasets import NAMES
from nblib.sources.wordproblems import LEVELS
from nblib.tasks.registry import TASKS, get_task
from nblib.tasks.rewards import reward_weights
from nblib.tokens.packing import PACKING
from nblib.training.checkpoints import check_resume_from
from nblib.training.grpo_config import GrpoConfig
from nblib.training.sft import SftConfig

_ALL_BUILTIN = {"num_samples": 7473, "eval_samples": 1319}  # as many as GSM8K has
_WIDEST = 4096  # no model here is wider, so that no adapter needs a higher rank

Rows = Annotated[int, whole(2)]  # one of them is to validate on
RowsOrAll = Annotated[int, whole(2, or_all=True)]
Epochs = Annotated[int, whole(most=1000)]  # the batches of all are planned at once
Tokens = Annotated[int, whole(most=32_768)]  # what Gemma 3 1B reads, ai.google.dev/gemma/docs/core
Packing = Annotated[str, one_of(PACKING)]
TaskName = Annotated[str, one_of(tuple(TASKS))]
Seed = Annotated[int, whole(0, 2**32 - 1)]  # jax drops higher bits without a word


@dataclass(frozen=True, kw_only=True)
class _Settings(Checked):
    """What every notebook has, and how its settings come about."""

    profile: Text
    gsm8k_dir: Text = ""
    seed: Seed = 0

    @property
    def data_folder(self) -> str:
        """The folder that the rows are read from; "" looks for one."""
        return self.gsm8k_dir

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the settings that a notebook's parameters and its profile make.

        Args:
            parameters: by their names in capitals; what else is there is left alone, so that a
                notebook gives its `globals()`. What is missing, 0, "" or [] is the profile's.

        Raises ValueError for a value, or a combination, that cannot work.
        """
        named = {field.name: parameter_name(field.name) for field in fields(cls)}
        given = {name: parameters[named[name]] for name in named if named[name] in parameters}
        given = {key: tuple(one) if isinstance(one, list) else one for key, one in given.items()}
        profile = profiles.resolve_profile(given.pop("profile", "auto"))
        return cls(profile=profile, **cls._filled(profile, given))

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _Asked(_Settings):
    """Held-out questions of a data set, and how they are answered."""

    data: Annotated[str, one_of(NAMES)]
    levels: Levels
    eval_samples: CountOrAll
    eval_batch: Count
    max_new_tokens: Tokens

    @property
    def greedy(self) -> Decoding:
        """How the held-out questions are answered."""
        return Decoding(
            max_new_tokens=self.max_new_tokens, batch_size=self.eval_batch, seed=self.seed
        )

    def _check(self) -> None:
        super()._check()
        if self.data == "builtin":
            _check_builtin(self.levels)


@dataclass(frozen=True, kw_only=True)
class _Trained(_Settings):
    """A model that is trained on so many rows, within a session."""

    num_samples: RowsOrAll
    learning_rate: Number
    save_interval: Text
    session_hours: Number = 0.0


@dataclass(frozen=True, kw_only=True)
class _Batched(_Trained):
    """Examples that are learnt as they are, in batches by length."""

    long_hand: Number  # share of solutions that work every sum out
    num_epochs: Epochs
    max_length: Tokens
    packing: Packing
    batch_tokens: Count
    accumulation: Count = 1

    @property
    def batching(self) -> dict[str, Any]:
        """How examples become batches, as `training_data` takes it."""
        names = ("max_length", "packing", "batch_tokens", "seed")
        return {"epochs": self.num_epochs, **{name: getattr(self, name) for name in names}}

    def _check(self) -> None:
        super()._check()
        if self.max_length > self.batch_tokens:
            raise ValueError(
                f"BATCH_TOKENS {self.batch_tokens}: expected at least MAX_LENGTH "
                f"{self.max_length}, or a row would not fit"
            )
        rows = self.num_samples * self.num_epochs
        if 0 < rows < self.accumulation:
            raise ValueError(
                f"GRADIENT_ACCUMULATION {self.accumulation}: expected at most the {rows:,} rows of "
                "NUM_SAMPLES and NUM_EPOCHS, or there would be no step"
            )


@dataclass(frozen=True, kw_only=True)
class _Tuned(_Asked, _Trained):
    """A model that is tuned: in adapters, or in all its weights."""

    model: Text = ""
    dtype: Annotated[str, one_of(profiles.DTYPES)]
    remat: Flag = False
    lora_rank: Annotated[int, whole(most=_WIDEST)]
    lora_alpha: Number
    resume_from: Text = ""
    export_flax: Flag = False
    eval_at_end: Flag = True

    _aside: ClassVar[tuple[str, ...]] = (
        *("gsm8k_dir", "resume_from", "session_hours", "export_flax", "eval_at_end"),
    )

    @property
    def parameters(self) -> dict[str, Any]:
        """What a run is found again by; where it was resumed from belongs to it."""
        resumed = {"resume_from": self.resume_from} if self.resume_from else {}
        return {**super().parameters, **resumed}

    @property
    def lora(self) -> dict[str, Any]:
        """The adapters' rank and alpha, as `get_lora_model` and `merge_lora` take them."""
        return {"rank": self.lora_rank, "alpha": self.lora_alpha}

    def _check(self) -> None:
        super()._check()
        try:
            for part in self.model.split(OVER) if self.model else ():
                check_name(os.path.expanduser(part))
        except (ModelNotFound, ValueError) as error:
            raise ValueError(f"MODEL {self.model!r}: {error}") from error
        check_resume_from(self.resume_from)


@dataclass(frozen=True, kw_only=True)
class SftSettings(_Tuned, _Batched):
    """The settings of an SFT notebook."""

    builtin_levels: Levels
    format_target: Number

    _built = ("training", "greedy")

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        table = profiles.SFT_PROFILES[profile]
        if profile == "cpu" and given.get("data") == "gsm8k":
            table = {**table, **profiles.GSM8K_ON_CPU}
        return _counted(profiles.fill(table, given))

    @property
    def training(self) -> SftConfig:
        """How the adapters are trained."""
        names = ("learning_rate", "accumulation", "remat", "save_interval")
        return SftConfig(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class GrpoSettings(_Tuned):
    """The settings of a GRPO notebook; `model` "" is the newest export that it starts from."""

    task: TaskName = "gsm8k"
    pass_rate_samples: CountOrNone = 0
    num_steps: Count
    prompts_per_step: Count
    micro_batch: Count
    num_generations: Count
    num_iterations: Count = GrpoConfig.num_iterations
    loss: Text = GrpoConfig.loss
    beta: Number = GrpoConfig.beta
    kl: Text = GrpoConfig.kl
    temperature: Number
    lora_rank: Annotated[int, whole(most=_WIDEST, or_all=True)]
    max_prompt_length: Tokens
    rewards: Weights = field(default_factory=dict)  # over the task's own
    probe_samples: Count
    probe_every: Count
    gain_target: Number

    _aside = (
        *(*_Tuned._aside, "model"),  # its hash is known when it is loaded
        *("remat", "num_iterations", "loss", "beta", "kl"),  # as `grpo`
        "rewards",  # as `weights`
    )
    _built = ("grpo", "weights", "greedy", "sampled")

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        filled = profiles.fill(profiles.GRPO_PROFILES[profile], given)
        if filled["lora_rank"] == ALL_WEIGHTS and not given.get("dtype"):
            filled["dtype"] = "float32"  # all weights are trained, and nothing else was asked for
        return _counted(filled)

    @property
    def parameters(self) -> dict[str, Any]:
        """What a run is found again by, together with the hash of the model it starts from."""
        return {**super().parameters, "grpo": self.grpo, "weights": self.weights}

    @property
    def grpo(self) -> GrpoConfig:
        """How the policy is trained."""
        names = {field.name for field in fields(GrpoConfig)}
        given = {name: value for name, value in self._values().items() if name in names}
        return GrpoConfig(steps=self.num_steps, **given)

    @property
    def weights(self) -> dict[str, float]:
        """What each term of a reward is worth."""
        try:
            return reward_weights(get_task(self.task), self.rewards)
        except ValueError as error:
            raise ValueError(f"REWARDS {dict(self.rewards)}: {error}") from error

    @property
    def sampled(self) -> Decoding:
        """How completions are drawn before the training, to be compared with each other."""
        return self.greedy.sampled(temperature=self.temperature, top_p=1.0)

    def _check(self) -> None:
        super()._check()
        if self.lora_rank == ALL_WEIGHTS:
            check_dtype(self.dtype)
        if ALL < self.num_samples <= self.prompts_per_step:
            raise ValueError(
                f"NUM_SAMPLES {self.num_samples}: expected more than PROMPTS_PER_STEP "
                f"{self.prompts_per_step}, as some questions are kept for the probe"
            )


@dataclass(frozen=True, kw_only=True)
class EvalSettings(_Asked):
    """The settings of eval; no `stages` are the ladder."""

    task: TaskName = "gsm8k"
    stages: Texts = ()
    builtin_levels: Levels
    svamp_dir: Text = ""
    shots: Annotated[int, whole(most=200)]  # so many rows of train the notebook asks for
    samples_per_question: Count
    temperature: Number = 0.7
    top_p: Number = 0.95
    forgetting_samples: Count
    allow_mismatch: Flag = False

    _aside = ("stages", "gsm8k_dir", "svamp_dir")  # stages count as what is found by them
    _built = ("greedy", "sampled")

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        return _counted(profiles.fill(profiles.EVAL_PROFILES[profile], given))

    @property
    def sampled(self) -> Decoding:
        """How several answers to each question are drawn."""
        return self.greedy.sampled(temperature=self.temperature, top_p=self.top_p)

    def _check(self) -> None:
        super()._check()
        try:
            named_candidates(self.stages)
        except ValueError as error:
            raise ValueError(f"STAGES {list(self.stages)}: {error}") from error
        if self.samples_per_question > 1 and not self.temperature:
            raise ValueError(
                f"TEMPERATURE {self.temperature}: expected more with SAMPLES_PER_QUESTION "
                f"{self.samples_per_question}, as greedy answers are all the same"
            )


@dataclass(frozen=True, kw_only=True)
class FoundationSettings(_Batched):
    """The settings of a foundation; the profile `smoke` beats the recipe."""

    recipe: Text
    size: Annotated[str, one_of(tuple(SIZES))] = "embedded"
    levels: Levels
    num_samples: Rows
    gsm8k_epochs: CountOrNone
    practice_samples: CountOrNone
    practice_levels: Levels
    eval_samples: Count

    _aside = ("session_hours", "gsm8k_dir")
    _built = ("training",)

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        recipe = "smoke" if profile == "smoke" else given.get("recipe", "quick")
        if recipe not in tuple(profiles.FOUNDATION_RECIPES):
            names = ", ".join(profiles.FOUNDATION_RECIPES)
            raise ValueError(f"RECIPE {recipe!r} is unknown: expected one of {names}")
        return profiles.fill(profiles.FOUNDATION_RECIPES[recipe], {**given, "recipe": recipe})

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

    def _check(self) -> None:
        super()._check()
        _check_builtin(self.levels)


def _counted(filled: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with "all rows" as a number where the built-in problems have no end."""
    counts = _ALL_BUILTIN if filled["data"] == "builtin" else {}
    return filled | {name: many for name, many in counts.items() if filled.get(name) == ALL}


def _check_builtin(levels: Sequence[int]) -> None:
    if not set(levels) <= set(LEVELS):
        raise ValueError(
            f"DIFFICULTY_FILTER {list(levels)}: expected some of {list(LEVELS)}, the levels of "
            "the built-in problems"
        )
