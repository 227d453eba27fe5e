"""What the settings of several notebooks share: how they come about, and groups of fields.

Each notebook's own settings are in `settings`. A class here is one concern: held-out questions, a
training, examples in batches, a model that is tuned.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Self

from nblib.evaluation.generate import Decoding
from nblib.hosts import profiles
from nblib.hosts.fields import (
    ALL,
    Checked,
    Count,
    CountOrAll,
    Flag,
    Levels,
    Number,
    Text,
    one_of,
    parameter_name,
    whole,
)
from nblib.models.published import OVER, ModelNotFound, check_name
from nblib.sources.datasets import NAMES
from nblib.sources.wordproblems import LEVELS
from nblib.tasks.registry import TASKS
from nblib.tokens.packing import PACKING
from nblib.training.checkpoints import check_resume_from

_ALL_BUILTIN = {"num_samples": 7473, "eval_samples": 1319}  # as many as GSM8K has
WIDEST = 4096  # no model here is wider, so that no adapter needs a higher rank

Rows = Annotated[int, whole(2)]  # one of them is to validate on
RowsOrAll = Annotated[int, whole(2, or_all=True)]
Epochs = Annotated[int, whole(most=1000)]  # the batches of all are planned at once
Tokens = Annotated[int, whole(most=32_768)]  # what Gemma 3 1B reads, ai.google.dev/gemma/docs/core
Packing = Annotated[str, one_of(PACKING)]
TaskName = Annotated[str, one_of(tuple(TASKS))]
Seed = Annotated[int, whole(0, 2**32 - 1)]  # jax drops higher bits without a word


@dataclass(frozen=True, kw_only=True)
class Settings(Checked):
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
class Asked(Settings):
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
            check_builtin(self.levels)


@dataclass(frozen=True, kw_only=True)
class Trained(Settings):
    """A model that is trained on so many rows, within a session."""

    num_samples: RowsOrAll
    learning_rate: Number
    save_interval: Text
    session_hours: Number = 0.0


@dataclass(frozen=True, kw_only=True)
class Batched(Trained):
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
class Tuned(Asked, Trained):
    """A model that is tuned: in adapters, or in all its weights."""

    model: Text = ""
    dtype: Annotated[str, one_of(profiles.DTYPES)]
    remat: Flag = False
    lora_rank: Annotated[int, whole(most=WIDEST)]
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


def counted(filled: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with "all rows" as a number where the built-in problems have no end."""
    counts = _ALL_BUILTIN if filled["data"] == "builtin" else {}
    return filled | {name: many for name, many in counts.items() if filled.get(name) == ALL}


def check_builtin(levels: Sequence[int]) -> None:
    """Refuse a level that no built-in problem has."""
    if not set(levels) <= set(LEVELS):
        raise ValueError(
            f"DIFFICULTY_FILTER {list(levels)}: expected some of {list(LEVELS)}, the levels of "
            "the built-in problems"
        )
