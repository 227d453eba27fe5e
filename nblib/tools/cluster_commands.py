"""The commands for many runs and for clusters: `sweep` runs a grid, `serve` prints a server's job.

What is slow to import is imported when a command runs.
"""

import sys
from functools import partial

import click


@click.command()
@click.argument("notebook")
@click.option(
    "-p",
    "lists",
    nargs=2,
    multiple=True,
    required=True,
    metavar="NAME VALUES",
    help="Values of a parameter, with commas between; repeat for more.",
)
@click.option("--gpus", default="", metavar="0,1", help="Run a cell on each of these at a time.")
@click.option("--slurm", is_flag=True, help="Run nothing: print an sbatch script, a task a cell.")
@click.option("--cell", type=click.IntRange(min=0), help="Run this cell alone, as the script does.")
def sweep(
    notebook: str, lists: tuple[tuple[str, str], ...], gpus: str, slurm: bool, cell: int | None
) -> int:
    """Run NOTEBOOK once for each combination of values, and print a table of the runs.

    Brackets and quotes keep a value with commas together: "[0.25,0.5],[1.0]". Nothing starts before
    all values are checked. The same command goes on after a stop: what is finished is not run
    again, and a run that was stopped is continued. Logs and table.md are in
    runs/NOTEBOOK/sweeps/ID; without that folder all cells are run again.
    """
    from nblib.tools.sweep import run_cells
    from nblib.tools.sweep_grid import plan_sweep

    if slurm and (gpus or cell is not None):
        raise click.UsageError("--slurm runs nothing: it takes no --gpus and no --cell")
    names = [name for name, _ in lists]
    if len({*names}) < len(names):
        raise click.UsageError(f"a parameter is given twice: {', '.join(names)}")
    planned = plan_sweep(notebook, dict(lists))
    if cell is not None and cell >= len(planned.cells):
        raise click.UsageError(f"--cell {cell}: the cells are 0 to {len(planned.cells) - 1}")
    chosen = planned.cells if cell is None else planned.cells[cell : cell + 1]
    code = run_cells(planned, chosen, gpus=_gpu_names(gpus), say=partial(print, flush=True))
    if code > 1:
        print("nblib: stopped; the same command goes on", file=sys.stderr)
    return code


def _gpu_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else []
    if "" in names or len({*names}) < len(names):
        raise click.UsageError(f"--gpus is {text!r}, expected different GPUs, such as 0,1")
    return names
