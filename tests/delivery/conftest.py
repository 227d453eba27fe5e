"""The kernels, built once for the tests of this folder."""

import pytest

from nblib.delivery.kernels import build_kernels


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with `build/kernels/`, as `python -m nblib kernels build` leaves it."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        build_kernels()
    return folder
