"""The settings of rows that may be longer than the context that a model was trained with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from nblib.hosts.settings_base import BatchedSettings, Tokens, TunedSettings
from nblib.models.config_file import CONTEXT, ROPE_FACTORS, read_config
from nblib.models.folders import CONFIG_FILE

_LONG = 8192  # tokens of a row whose activations are computed again, or they would fit no device


def _known_factor(value: int) -> int:
    if value not in (0, *ROPE_FACTORS):
        raise ValueError("should be 1, 2 or 4, or 0 for the model's own")
    return value


@dataclass(frozen=True, kw_only=True)
class ContextSettings(TunedSettings, BatchedSettings):
    """A model that is tuned on rows as long as its context, times a RoPE factor, allows."""

    rope_factor: Annotated[int, AfterValidator(_known_factor)] = 0  # in all; 0 is the model's own
    needle_tokens: Tokens = 2048  # of the longest page that a needle is looked for in

    _aside: ClassVar[tuple[str, ...]] = (*TunedSettings._aside, "needle_tokens")
    _later: ClassVar[Mapping[str, Any]] = {**TunedSettings._later, "rope_factor": 0}

    @classmethod
    def _filled(cls, profile: str, given: dict[str, Any]) -> dict[str, Any]:
        filled = super()._filled(profile, given)
        length, tokens = filled["max_length"], filled["batch_tokens"]
        if not given.get("batch_tokens") and type(length) is int:  # left open: at least one row
            filled["batch_tokens"] = max(length, tokens)
        if type(length) is int and length > _LONG:
            filled["remat"] = True
        return filled

    def _check(self) -> None:
        super()._check()
        if self.max_length > CONTEXT and self.max_length > (context := self._context):
            raise self._refuse(
                "max_length",
                f"expected at most {context}, the context of {self.model} with the RoPE factor "
                f"{context / CONTEXT:g}: the extraction notebook's ROPE_FACTOR makes it longer "
                "(2, 4)",
            )

    @property
    def _context(self) -> int:
        """How long a row may be: by the factor given, else by that of a folder's config.json."""
        folder = Path(self.model).expanduser()
        if not self.rope_factor and (folder / CONFIG_FILE).is_file():
            return int(CONTEXT * read_config(folder).global_scale_factor)
        return CONTEXT * (self.rope_factor or 1)
