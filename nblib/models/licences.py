"""The licence of an export: that of the model which all its training began with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nblib.models.published import EMBEDDED, GEMMA

GEMMA_TERMS = "https://ai.google.dev/gemma/terms"


@dataclass(frozen=True, kw_only=True)
class Licence:
    """A licence, under the name that each hub has for it.

    `notice` is what must travel with every copy, in a file of that name; "" where nothing must.
    """

    name: str
    kaggle_dataset: str
    kaggle_model: str
    sentence: str
    notice: str = ""


# By the Hugging Face hub's names.
LICENCES: Mapping[str, Licence] = {
    "apache-2.0": Licence(
        name="apache-2.0",
        kaggle_dataset="apache-2.0",
        kaggle_model="Apache 2.0",
        sentence="Apache-2.0, as the model that it was made from.",
    ),
    "gemma": Licence(
        name="gemma",
        kaggle_dataset="other",  # Kaggle: "specified in description"
        kaggle_model="Gemma",  # as Kaggle names that of google/gemma-3
        sentence=f"A derivative of Gemma: use is subject to Gemma's terms, {GEMMA_TERMS}.",
        # The sentence that section 3.1 of the terms asks for.
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at "
        f"{GEMMA_TERMS}\n",
    ),
}


def root_of(manifest: Mapping[str, Any]) -> str:
    """Return the name of what all training began with, without the sources it was asked from."""
    return str(manifest.get("base", {}).get("root", "")).rpartition(":")[2]


def licence_of(manifest: Mapping[str, Any]) -> Licence | None:
    """Return the licence of an export, that of its root; None where the root is not known here."""
    root = root_of(manifest)
    if root in GEMMA:
        return LICENCES["gemma"]
    return LICENCES["apache-2.0"] if root == EMBEDDED else None
