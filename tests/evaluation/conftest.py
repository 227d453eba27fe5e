"""What the tests of evaluation share."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from nblib.models.names import RefModel


@pytest.fixture(scope="session")
def ref_of():
    """Make a RefModel of a model, or of none where nothing is really asked."""

    nothing = SimpleNamespace(config=SimpleNamespace(global_scale_factor=1.0))

    def make(model=nothing, tokenizer=None, mesh=None):
        parts = {"model": model, "tokenizer": tokenizer, "mesh": mesh}
        return RefModel(name="tiny", folder=Path(), sha256="aa11", root="tiny", **parts)

    return make
