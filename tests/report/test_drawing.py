import numpy as np
import pytest
from matplotlib.figure import Figure
from nblib.report.drawing import by_step, calm, column, new_figure, smooth


def test_records_of_a_step_are_one_sorted_and_as_last_written():
    written = [
        {"step": 3, "loss": 1.0},
        {"step": 1, "loss": 9.0, "tokens": 5},
        {"step": 3, "val_loss": 0.5},
        {"step": 1, "loss": 5.0},
    ]
    assert by_step(written) == [
        {"step": 1, "loss": 5.0, "tokens": 5},
        {"step": 3, "loss": 1.0, "val_loss": 0.5},
    ]
    assert written[1] == {"step": 1, "loss": 9.0, "tokens": 5}  # what was read stays as it was
    assert by_step([]) == []


def test_a_column_has_a_gap_where_nothing_was_measured():
    values = column([{"kl": 2}, {}, {"kl": None}, {"kl": float("nan")}, {"kl": 0}], "kl")
    np.testing.assert_array_equal(values, [2.0, np.nan, np.nan, np.nan, 0.0])
    assert values.dtype == np.float64
    assert column([], "kl").shape == (0,)


def test_smooth_by_hand():
    np.testing.assert_allclose(smooth(np.array([9.0, 3.0, 6.0, 6.0]), 3), [9, 6, 5, 6])


def test_smooth_skips_gaps():
    gaps = np.array([2.0, np.nan, 4.0, np.nan, np.nan, np.nan, 1.0])
    expected = [2, 3, 4, 4, np.nan, 1, 1]
    np.testing.assert_allclose(smooth(gaps, 3), expected)


@pytest.mark.parametrize("window", [2, 0, -1])
def test_smooth_needs_an_odd_window(window):
    with pytest.raises(ValueError, match=f"odd and at least 1, got {window}"):
        smooth(np.zeros(3), window)


def test_a_figure_has_its_size_caption_and_title():
    figure = new_figure(9.0, 3.0, "seed 7", title="A title")
    assert list(figure.get_size_inches()) == [9.0, 3.0]
    assert (figure.get_supxlabel(), figure.get_suptitle()) == ("seed 7", "A title")
    assert new_figure(9.0, 3.0, "seed 7").get_suptitle() == ""


@pytest.mark.parametrize("grid", ["x", "y"])
def test_calm_axes_have_two_spines_and_one_grid(grid):
    axes = Figure().subplots()
    calm(axes, grid=grid)
    shown = {name for name, spine in axes.spines.items() if spine.get_visible()}
    assert shown == {"left", "bottom"}
    lines = {"x": axes.get_xgridlines(), "y": axes.get_ygridlines()}
    for name, drawn in lines.items():
        assert any(line.get_visible() for line in drawn) == (name == grid)
