"""The settings that ask what the data brings: worked examples, shares of the rows, other items."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from nblib.hosts.settings_base import CountOrNone
from nblib.hosts.settings_pages import PagesSettings

Share = Annotated[float, Field(gt=0, le=1)]
Shots = Annotated[int, Field(ge=0, le=50)]


@dataclass(frozen=True, kw_only=True)
class DataSettings(PagesSettings):
    """How a model is also asked, and on how much of the data it is also trained."""

    shots: Shots = 0  # worked examples of the few-shot stages; 0 where there are none
    curve: tuple[Share, ...] = ()  # shares of the training rows; 1 is the training itself
    composed_samples: CountOrNone = 0  # held-out items that are composed of known ones

    _later: ClassVar[Mapping[str, Any]] = {
        **PagesSettings._later,
        **{"shots": 0, "curve": (), "composed_samples": 0},
    }

    @property
    def trainings(self) -> int:
        """How many trainings a run makes, each with its checkpoints."""
        return 1 + sum(share < 1 for share in self.curve)

    def _check(self) -> None:
        super()._check()
        if len({*self.curve}) < len(self.curve):
            raise self._refuse("curve", "expected each share once, such as [0.25, 0.5]")
