"""The settings of pages to read: a table of examples, their lengths, a review, a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from nblib.evaluation.judge import JUDGES
from nblib.files import shown
from nblib.hosts.secrets import provide_tokens
from nblib.hosts.settings_base import (
    BatchedSettings,
    CountOrNone,
    Tokens,
    TunedSettings,
    one_of,
)
from nblib.models.config_file import CONTEXT, ROPE_FACTORS, read_config
from nblib.models.folders import CONFIG_FILE
from nblib.sources.datasets import FILES, TABLES, is_file
from nblib.sources.endpoint import endpoint_from_environment
from nblib.tasks.review import ReviewRow, read_review

_LONG = 8192  # tokens of a row whose activations are computed again, or they would fit no device


def _known_factor(value: int) -> int:
    if value not in (0, *ROPE_FACTORS):
        raise ValueError("should be 1, 2 or 4, or 0 for the model's own")
    return value


def _examples_file(value: str) -> str:
    if value and not is_file(value):
        raise ValueError(f"should be a file that ends in {', '.join(FILES)}")
    return value


def _slugs(tasks: str) -> tuple[str, ...]:
    return tuple(sorted({slug.strip() for slug in tasks.split(",")} - {""}))


@dataclass(frozen=True, kw_only=True)
class PagesSettings(TunedSettings, BatchedSettings):
    """What pages are learnt from, how long they may be, and who else judges how they were read."""

    examples: Annotated[str, AfterValidator(_examples_file)] = ""  # what `data` is, then
    tasks: str = ""  # slugs of the examples, with commas between them; "" is all
    review: str = ""  # a file that a person has marked
    judge: Annotated[str, one_of(JUDGES)] = ""
    judge_budget: CountOrNone = 0  # requests to it
    rope_factor: Annotated[int, AfterValidator(_known_factor)] = 0  # in all; 0 is the model's own
    needle_tokens: Tokens = 2048  # of the longest page that a needle is looked for in

    # A judge changes no figure of a run's result; so an unfinished run may get one.
    _aside: ClassVar[tuple[str, ...]] = (
        *TunedSettings._aside,
        *("judge", "judge_budget", "needle_tokens"),
    )
    _later: ClassVar[Mapping[str, Any]] = {
        **TunedSettings._later,
        **{"examples": "", "tasks": "", "review": "", "rope_factor": 0},
    }

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        examples, tasks = given.get("examples"), given.get("tasks")
        if examples and given.get("data"):
            came = f"EXAMPLES {shown(examples)} and DATA {shown(given['data'])}"
            raise ValueError(f"{came}: expected only one of them")
        more: dict[str, Any] = {}
        if isinstance(examples, str) and is_file(examples):
            more["data"] = examples
        if isinstance(tasks, str):  # so that the same slugs are the same run
            more["tasks"] = ",".join(_slugs(tasks))
        filled = super()._filled(profile, given | more)
        length, tokens = filled["max_length"], filled["batch_tokens"]
        if not given.get("batch_tokens") and type(length) is int:  # left open: at least one row
            filled["batch_tokens"] = max(length, tokens)
        if type(length) is int and length > _LONG:
            filled["remat"] = True
        return filled

    @property
    def slugs(self) -> tuple[str, ...]:
        """The kinds of examples to read; () is all of them."""
        return _slugs(self.tasks)

    @property
    def reviewed(self) -> tuple[ReviewRow, ...]:
        """The values that a person has looked at; () without a review."""
        return read_review(Path(self.review).expanduser()) if self.review else ()

    def _check(self) -> None:
        super()._check()
        if self.max_length > CONTEXT and self.max_length > (context := self._context):
            raise self._refuse(
                "max_length",
                f"expected at most {context}, the context of {self.model} with the RoPE factor "
                f"{context / CONTEXT:g}: the extraction notebook's ROPE_FACTOR makes it longer "
                "(2, 4)",
            )
        if self.slugs and self.task not in TABLES:
            words = f'expected "" with TASK {self.task!r}: only {TABLES[0]!r} has kinds of rows'
            raise self._refuse("tasks", words)
        if self.review and self.task not in TABLES:
            words = f'expected "" with TASK {self.task!r}: only {TABLES[0]!r} has slots to look at'
            raise self._refuse("review", words)
        self._checked_by("review", lambda: self.reviewed)
        if self.judge:  # before hours of training
            provide_tokens([f"NBLIB_JUDGE_{one}" for one in ("URL", "MODEL", "KEY")])
            self._checked_by("judge", lambda: endpoint_from_environment("JUDGE"))

    @property
    def _context(self) -> int:
        """How long a row may be: by the factor given, else by that of a folder's config.json."""
        folder = Path(self.model).expanduser()
        if not self.rope_factor and (folder / CONFIG_FILE).is_file():
            return int(CONTEXT * read_config(folder).global_scale_factor)
        return CONTEXT * (self.rope_factor or 1)
