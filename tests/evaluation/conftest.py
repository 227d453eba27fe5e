"""What the tests of evaluation share."""

from pathlib import Path

import pytest

from nblib.models.names import RefModel


@pytest.fixture(scope="session")
def ref_of():
    """Make a RefModel of a model, or of none where nothing is really asked."""

    def make(model=None, tokenizer=None, mesh=None):
        parts = {"model": model, "tokenizer": tokenizer, "mesh": mesh}
        return RefModel(name="tiny", folder=Path(), sha256="aa11", root="tiny", **parts)

    return make
