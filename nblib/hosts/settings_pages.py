"""The settings of pages to read: a table of examples, a review, a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from nblib.evaluation.judge import JUDGES
from nblib.files import shown
from nblib.hosts.secrets import provide_tokens
from nblib.hosts.settings_base import CountOrNone, one_of
from nblib.hosts.settings_context import ContextSettings
from nblib.sources.datasets import FILES, TABLES, is_file
from nblib.sources.endpoint import endpoint_from_environment
from nblib.tasks.review import ReviewRow, read_review


def _examples_file(value: str) -> str:
    if value and not is_file(value):
        raise ValueError(f"should be a file that ends in {', '.join(FILES)}")
    return value


def _slugs(tasks: str) -> tuple[str, ...]:
    return tuple(sorted({slug.strip() for slug in tasks.split(",")} - {""}))


@dataclass(frozen=True, kw_only=True)
class PagesSettings(ContextSettings):
    """What pages are learnt from, and who else says how well they were read."""

    examples: Annotated[str, AfterValidator(_examples_file)] = ""  # what `data` is, then
    tasks: str = ""  # slugs of the examples, with commas between them; "" is all
    review: str = ""  # a file that a person has marked
    judge: Annotated[str, one_of(JUDGES)] = ""
    judge_budget: CountOrNone = 0  # requests to it

    # A judge changes no figure of a run's result; so an unfinished run may get one.
    _aside: ClassVar[tuple[str, ...]] = (*ContextSettings._aside, "judge", "judge_budget")
    _later: ClassVar[Mapping[str, Any]] = {
        **ContextSettings._later,
        **{"examples": "", "tasks": "", "review": ""},
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
        return super()._filled(profile, given | more)

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
