import re

import numpy as np
import pytest
from flax import nnx

from nblib.training.checkpoints import latest_step, prepare_checkpoints, seal_checkpoints
from nblib.training.divergence import FiniteGuard, TrainingDiverged, weights_norm


@pytest.fixture
def guard(tmp_path):
    """The guard of a run that has saved steps 3 and 6."""
    steps = prepare_checkpoints(tmp_path, {})
    for step in ("3", "6"):
        (steps / step).mkdir()
        (steps / step / "data").write_text(step)
    seal_checkpoints(tmp_path)
    return FiniteGuard(folder=tmp_path, learning_rate=0.02, resumable=True)


def test_finite_figures_change_nothing(guard):
    guard.check(7, last_good=0, loss=1e30, gradient_norm=0.0)
    assert latest_step(guard.folder) == 6


@pytest.mark.parametrize(("last_good", "kept"), [(6, 6), (5, 3), (2, 0)])
def test_later_checkpoints_are_deleted_and_the_newest_that_is_left_is_named(guard, last_good, kept):
    said = f"last good checkpoint is {kept} " if kept else "There is no checkpoint from before"
    with pytest.raises(TrainingDiverged, match=rf"step 7: loss nan, weights norm inf\. .*{said}"):
        guard.check(7, last_good=last_good, loss=np.nan, val_loss=1.0, weights_norm=np.inf)
    assert latest_step(guard.folder) == kept
    assert {path.stem for path in (guard.folder / "seals").iterdir()} == {
        path.name for path in (guard.folder / "actor").iterdir()
    }


def test_the_last_line_says_what_to_type(guard):
    with pytest.raises(TrainingDiverged) as raised:
        guard.check(7, last_good=6, loss=np.inf)
    last = str(raised.value).splitlines()[-1]
    assert last == f"  -p RESUME_FROM {guard.folder} -p LEARNING_RATE 0.01"


def test_a_parameter_that_is_not_there_is_not_advised(guard):
    guard = FiniteGuard(folder=guard.folder, learning_rate=0.02, resumable=False)
    with pytest.raises(TrainingDiverged, match="Start again with a lower learning rate") as raised:
        guard.check(7, last_good=6, loss=np.inf)
    assert "RESUME_FROM" not in str(raised.value)


def test_one_bad_weight_shows_in_the_norm():
    model = nnx.Dict(a=nnx.Param(np.array([3.0, 0.0])), b=nnx.Param(np.array([[4.0]])))
    assert weights_norm(model) == 5.0
    for bad in (np.nan, np.inf):
        model.b = nnx.Param(np.array([[bad]]))
        assert not np.isfinite(weights_norm(model)), re.escape(str(bad))
