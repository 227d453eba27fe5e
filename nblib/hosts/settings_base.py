"""What the settings of several notebooks share: kinds of values, and groups of fields.

Each notebook's own settings are in `settings`. A class here is one concern: held-out questions, a
training, examples in batches, a model that is tuned. What a profile fills in is for `profiles`.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Self, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from nblib.evaluation.answers import Decoding
from nblib.files import shown
from nblib.hosts.profiles import TASK, fill, profile_table, resolve_dtype, resolve_profile
from nblib.models.config_file import CONTEXT, LONGEST
from nblib.models.folders import GGUF_KINDS
from nblib.models.gguf_file import gguf_package
from nblib.models.lora import ALL_WEIGHTS, LoraConfig, check_dtype
from nblib.models.published import OVER, check_name
from nblib.sources.datasets import FILES, NAMES, TABLES, is_data
from nblib.sources.duckdb_file import DUCKDB
from nblib.sources.wordproblems import LEVELS
from nblib.tasks.registry import TASKS
from nblib.tokens.batching import Batching
from nblib.tokens.packing import PACKING
from nblib.training.checkpoints import check_resume_from

ALL = -1  # as a count: all there are
# Where a field is called otherwise than its parameter.
_RENAMED = {
    "levels": "DIFFICULTY_FILTER",
    "accumulation": "GRADIENT_ACCUMULATION",
    "cut": "CUT_AT_MAX_LENGTH",
}
_ALL_BUILTIN = {"num_samples": 7473, "eval_samples": 1319}  # as many as GSM8K has
_MOST = 10_000_000  # of anything: what is above is a slip of the hand
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def one_of(names: Sequence[str]) -> AfterValidator:
    """Return the check that a text is one of these."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"should be one of {', '.join(names)}")
        return value

    return AfterValidator(check)


def _known_data(value: str) -> str:
    if not is_data(value):
        ends = ", ".join(FILES)
        raise ValueError(f"should be one of {', '.join(NAMES)}, or a file that ends in {ends}")
    return value


def _at_least_two_or_all(value: int) -> int:
    if value in (0, 1):
        raise ValueError(f"should be at least 2, or {ALL} for all: one row is to validate on")
    return value


Number = Annotated[float, Field(ge=0, le=_MOST)]
Count = Annotated[int, Field(ge=1, le=_MOST)]
CountOrNone = Annotated[int, Field(ge=0, le=_MOST)]
CountOrAll = Annotated[int, Field(ge=ALL, le=_MOST)]
Levels = tuple[Count, ...]
Rows = Annotated[int, Field(ge=2, le=_MOST)]  # one of them is to validate on
RowsOrAll = Annotated[CountOrAll, AfterValidator(_at_least_two_or_all)]
Epochs = Annotated[int, Field(ge=1, le=1000)]  # the batches of all are planned at once
Tokens = Annotated[int, Field(ge=1, le=CONTEXT)]  # Gemma 3 1B, ai.google.dev/gemma/docs/core
Length = Annotated[int, Field(ge=1, le=LONGEST)]  # of a row, with the RoPE factor that it needs
Rank = Annotated[int, Field(le=4096)]  # no model here is wider
Packing = Annotated[str, one_of(PACKING)]
TaskName = Annotated[str, one_of(tuple(TASKS))]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # jax drops higher bits without a word


def parameter_name(field: str) -> str:
    """Return what the notebooks call a field of their settings."""
    return _RENAMED.get(field, field).upper()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every notebook has, and how its settings come about."""

    profile: str
    gsm8k_dir: str = ""
    session_hours: Number = 0.0
    seed: Seed = 0

    _kind: ClassVar[str]  # of the notebook, as in profiles.toml
    _aside: ClassVar[tuple[str, ...]] = ()  # fields that are no part of `parameters`
    # Fields that came later: no part of `parameters` where they say nothing, so that older runs are
    # found again.
    _later: ClassVar[Mapping[str, Any]] = {"cut": False, "version": ""}
    _built: ClassVar[tuple[str, ...]] = ()  # properties that refuse what they cannot be made from

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the settings that a notebook's parameters and its profile make.

        Args:
            parameters: by their names in capitals; what else is there is left alone, so that a
                notebook gives its `globals()`. What is missing, 0, "" or [] is the profile's.

        Raises ValueError for a value, or a combination, that cannot work: it names the parameter.
        """
        named = {field.name: parameter_name(field.name) for field in fields(cls)}
        given = {name: parameters[named[name]] for name in named if named[name] in parameters}
        given = {key: tuple(one) if isinstance(one, list) else one for key, one in given.items()}
        profile = resolve_profile(given.pop("profile", "auto"))
        return cls(profile=profile, **cls._filled(profile, given))

    def __post_init__(self) -> None:
        """Refuse the first value that cannot work, by its parameter's name."""
        for name, adapter in _adapters(type(self)).items():  # type: ignore[arg-type]
            try:
                adapter.validate_python(getattr(self, name))
            except ValidationError as error:
                words = error.errors()[0]["msg"].replace("Input should", "should")
                raise self._refuse(name, words.removeprefix("Value error, ")) from error
        self._check()
        self._build()

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        filled = fill(profile_table(cls._kind, profile, given), given)
        if filled["data"] != "builtin":
            return filled
        # "All rows" is a number where the built-in problems have no end.
        every = {name: many for name, many in _ALL_BUILTIN.items() if filled.get(name) == ALL}
        return {**filled, **every}

    @property
    def data_folder(self) -> str:
        """The folder that the rows are read from; "" looks for one."""
        return self.gsm8k_dir

    @property
    def parameters(self) -> dict[str, Any]:
        """What a run is found again by: all that changes its result."""
        nothing = {
            name for name, value in self._later.items() if getattr(self, name, value) == value
        }
        left_out = {*self._aside, *nothing}
        return {name: value for name, value in self._values().items() if name not in left_out}

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _check(self) -> None:
        """Refuse a combination of values; each by itself is what its type says."""

    def _build(self) -> None:
        """Refuse what a configuration refuses, its fields called as the parameters are."""
        try:
            for name in self._built:
                getattr(self, name)
        except ValueError as error:
            message = str(error)
            for name, value in self._values().items():
                written = rf"\b{name} (?={re.escape(repr(value))})"
                message = re.sub(written, f"{parameter_name(name)} ", message)
            raise ValueError(message) from error

    def _refuse(self, name: str, words: str) -> ValueError:
        """Return the error of a field, with what came and what is expected."""
        value = getattr(self, name)
        came = shown(list(value) if isinstance(value, tuple) else value)
        return ValueError(f"{parameter_name(name)} {came}: {words}")

    def _checked_by(self, name: str, check: Callable[[], object]) -> None:
        """Run a check of a field's value; its error gets the parameter's name."""
        try:
            check()
        except (OSError, ValueError, ImportError) as error:
            raise self._refuse(name, str(error)) from error

    def _check_builtin(self, levels: Sequence[int]) -> None:
        if not set(levels) <= set(LEVELS):
            expected = f"expected some of {list(LEVELS)}, the levels of the built-in problems"
            raise self._refuse("levels", expected)


@dataclass(frozen=True, kw_only=True)
class EvaluatedSettings(Settings):
    """Held-out questions of a data set, and how they are answered."""

    task: TaskName = TASK
    data: Annotated[str, AfterValidator(_known_data)]
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
            self._check_builtin(self.levels)
        if self.data.endswith(DUCKDB) and self.task not in TABLES:
            name = "examples" if getattr(self, "examples", "") else "data"
            raise self._refuse(name, f"a DuckDB file needs TASK {TABLES[0]!r}, not {self.task!r}")


@dataclass(frozen=True, kw_only=True)
class TrainedSettings(Settings):
    """A model that is trained on so many rows."""

    num_samples: RowsOrAll
    learning_rate: Number
    save_interval: str


@dataclass(frozen=True, kw_only=True)
class BatchedSettings(TrainedSettings):
    """Examples that are learnt as they are, in batches by length."""

    long_hand: Number  # share of solutions that work every sum out
    num_epochs: Epochs
    max_length: Length
    packing: Packing
    batch_tokens: Count
    cut: bool = False
    accumulation: Count = 1

    @property
    def batching(self) -> Batching:
        """How examples become batches."""
        names = ("max_length", "packing", "batch_tokens", "seed", "cut")
        return Batching(epochs=self.num_epochs, **{name: getattr(self, name) for name in names})

    def _check(self) -> None:
        super()._check()
        if self.max_length > self.batch_tokens:
            expected = f"expected at least MAX_LENGTH {self.max_length}, or a row would not fit"
            raise self._refuse("batch_tokens", expected)
        rows = self.num_samples * self.num_epochs
        if 0 < rows < self.accumulation:
            raise self._refuse(
                "accumulation",
                f"expected at most the {rows:,} rows of NUM_SAMPLES and NUM_EPOCHS, or there would "
                "be no step",
            )


@dataclass(frozen=True, kw_only=True)
class TunedSettings(EvaluatedSettings, TrainedSettings):
    """A model that is tuned: in adapters, or in all its weights."""

    model: str = ""
    dtype: Annotated[str, one_of(("float32", "bfloat16"))]
    remat: bool = False
    lora_rank: Annotated[Rank, Field(ge=ALL_WEIGHTS)]
    lora_alpha: Number
    resume_from: str = ""
    export_flax: bool = False
    export_gguf: Annotated[str, one_of(("off", *GGUF_KINDS))] = "off"
    eval_at_end: bool = True

    _aside: ClassVar[tuple[str, ...]] = (
        *("gsm8k_dir", "resume_from", "session_hours", "export_flax", "export_gguf"),
        "eval_at_end",
    )

    @property
    def parameters(self) -> dict[str, Any]:
        """What a run is found again by; where it was resumed from belongs to it."""
        resumed = {"resume_from": self.resume_from} if self.resume_from else {}
        return {**super().parameters, **resumed}

    @property
    def lora(self) -> LoraConfig:
        """The adapters' rank and alpha."""
        return LoraConfig(rank=self.lora_rank, alpha=self.lora_alpha)

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        filled = super()._filled(profile, given)
        if filled["lora_rank"] == ALL_WEIGHTS and not given.get("dtype"):
            filled["dtype"] = "float32"  # all weights are trained, and nothing else was asked for
        return {**filled, "dtype": resolve_dtype(filled["dtype"])}

    def _check(self) -> None:
        super()._check()
        if self.lora_rank == ALL_WEIGHTS:
            check_dtype(self.dtype)
        self._checked_by("model", self._check_model)
        check_resume_from(self.resume_from)
        if self.export_gguf != "off":  # before hours of training
            self._checked_by("export_gguf", gguf_package)

    def _check_model(self) -> None:
        for part in self.model.split(OVER) if self.model else ():
            check_name(os.path.expanduser(part))


@cache
def _adapters(cls: Any) -> Mapping[str, TypeAdapter[Any]]:
    """Return what checks each field of a class of settings."""
    hints = get_type_hints(cls, include_extras=True)
    return {one.name: TypeAdapter(hints[one.name], config=_STRICT) for one in fields(cls)}
