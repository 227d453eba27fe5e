"""The commands of runs that are there: `runs` compares them, `log` sends one to a tracker.

What is slow to import is imported when a command runs.
"""

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nblib.tools.trackers import TRACKERS

if TYPE_CHECKING:
    from nblib.report.tables import Table


def _png(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path and path.suffix.lower() != ".png":
        raise click.BadParameter(f"{path} is no .png file: give a name such as runs.png.")
    if path and not path.parent.is_dir():
        raise click.BadParameter(f"{path}: there is no folder {path.parent}: make it first.")
    return path


@click.command()
@click.argument("notebook", default="")
@click.option(
    "-n",
    "newest",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many, the newest ones.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_png,
    help="Draw loss or reward, and the headlines, into this .png file.",
)
def runs(notebook: str, newest: int, plot: Path | None) -> None:
    """Show the newest runs, of NOTEBOOK or of all: what differed, and what came of it.

    A table a notebook: the parameters that differ among its runs, the headline metric with its
    interval, the time, and whether the run is finished.
    """
    from nblib.tools.run_table import rows_table, run_rows

    rows = run_rows(notebook, newest=newest)
    rows.sort(key=lambda row: row.notebook)  # stable: the newest stay first
    groups = {name: [*of_it] for name, of_it in groupby(rows, key=lambda row: row.notebook)}
    tables = [_padded(rows_table(of_it, title=name)) for name, of_it in groups.items()]
    if plot:  # before the table: an error stands alone
        from nblib.report.plots import figure_png
        from nblib.tools.run_plot import plot_runs

        plot.write_bytes(figure_png(plot_runs(groups)))
    print(*(table.section() for table in tables), sep="\n\n")
    if plot:
        print(plot)


@click.command()
@click.argument("run")
@click.option(
    "--to",
    type=click.Choice(list(TRACKERS)),
    required=True,
    help="Which tracker; installed by you.",
)
@click.option("--follow", is_flag=True, help="Write while the run goes on, until its result.")
def log(run: str, to: str, follow: bool) -> None:
    """Write a run's metrics, parameters and results into a tracker.

    RUN is a run's folder, or a notebook: its newest run; with --follow, its newest unfinished one.
    TensorBoard's files go into RUN/tensorboard. The same command again replaces what it wrote, at
    wandb it adds what is missing.
    """
    from nblib.tools.run_log import export_run, follow_run
    from nblib.tools.run_table import find_run

    path = find_run(run, unfinished=follow)
    print(f"{path}: to {to}", flush=True)
    print((follow_run if follow else export_run)(path, to))


def _padded(table: "Table") -> "Table":
    """Return the table with cells of equal width, for a terminal."""
    lines = [[cell.replace("\n", " ") for cell in line] for line in (table.columns, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    columns, *rows = [
        tuple(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    ]
    return replace(table, columns=columns, rows=tuple(rows))
