import numpy as np
import pytest

from nblib.tools.run_plot import plot_runs
from nblib.tools.run_table import run_row
from tests.tools.made_runs import result_of


def panels(figure):
    """(curves, estimates) of each notebook's row."""
    return [tuple(part.axes) for part in figure.subfigs]


def test_each_run_has_a_curve_and_a_headline(write_run):
    losses = {"r2": [4.0, 2.0, 1.0], "r1": [3.0, 3.0, 3.0]}
    rows = [
        run_row(
            write_run(
                name,
                {"seed": seed, "rate": 0.1},
                [{"step": n, "loss": loss} for n, loss in enumerate(values, start=1)],
                result_of(seed / 4),
            )
        )
        for seed, (name, values) in enumerate(losses.items(), start=1)
    ]
    figure = plot_runs({"v1": rows})
    ((curves, headlines),) = panels(figure)
    first, second = curves.lines
    np.testing.assert_array_equal(first.get_xydata(), [(1, 4.0), (2, 2.0), (3, 1.0)])
    np.testing.assert_array_equal(second.get_ydata(), losses["r1"])
    assert [one.get_label() for one in curves.lines] == ["1: seed 1", "2: seed 2"]
    assert first.get_linestyle() != second.get_linestyle()  # readable without colour
    assert [one.get_text() for one in curves.texts] == ["1", "2"]
    assert curves.get_ylabel() == "loss (nats a token)" and curves.get_xlabel() == "training step"
    markers = [one for one in headlines.lines if one.get_marker() == "o"]
    assert [tuple(one.get_xydata()[0]) for one in markers] == [(0.25, 1), (0.5, 2)]
    assert headlines.get_xlabel() == "answer accuracy (fraction of 1)"
    assert figure.subfigs[0].legends[0].get_title().get_text() == "v1"


def test_a_reward_goes_before_the_loss_and_is_smoothed(write_run):
    records = [{"step": n, "loss": 1.0, "reward": n % 2} for n in range(1, 81)]
    ((curves, headlines),) = panels(plot_runs({"v2": [run_row(write_run("r", {}, records))]}))
    (line,) = curves.lines
    assert curves.get_ylabel() == "reward" and line.get_label() == "1: r"
    assert 0.3 < line.get_ydata()[5:-5].min() < line.get_ydata()[5:-5].max() < 0.7
    assert [one.get_text() for one in headlines.texts] == ["not measured"]


@pytest.mark.parametrize("metrics", [None, "", "no\n", [{"step": 1}], [{"step": 1, "loss": "x"}]])
def test_a_run_without_a_curve_leaves_its_place_empty(write_run, metrics):
    full = run_row(write_run("a", {"x": 1}, [{"step": 1, "loss": 1.0}]))
    empty = run_row(write_run("b", {"x": 2}, metrics, result_of(), notebook="v2"))
    figure = plot_runs({"v1": [full], "v2": [empty]})
    (_, (curves, headlines)) = panels(figure)
    assert len(headlines.get_yticks()) == 1 and len(curves.lines) == 1
    assert [one.get_text() for one in curves.texts] == ["not measured"]


def test_more_runs_than_line_styles_are_told_apart_by_number(write_run):
    rows = [run_row(write_run(f"r{n}", {"seed": n}, [{"step": 1, "loss": n}])) for n in range(20)]
    ((curves, _),) = panels(plot_runs({"v1": rows}))
    assert [one.get_text() for one in curves.texts] == [f"{n}" for n in range(1, 21)]
