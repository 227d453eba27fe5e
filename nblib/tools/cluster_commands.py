"""The commands for many runs and for clusters: `sweep` runs a grid, `serve` prints a server's job.

What is slow to import is imported when a command runs.
"""

import math
import re
import sys
from functools import partial

import click

from nblib.tools.serving import DTYPES, Plan, check_served


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

    Brackets and quotes keep a value with commas together: "[0.25,0.5],[1.0]". Names and types of
    all values are checked before the first cell starts; what else is wrong with a value, its cell
    says. The same command goes on after a stop: what is finished is not run again, and a run that
    was stopped is continued. Logs and table.md are in runs/NOTEBOOK/sweeps/ID; without that folder
    all cells are run again.
    """
    from nblib.tools.slurm_scripts import sweep_script
    from nblib.tools.sweep import read_outcome, run_cells, write_table
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
    if slurm:
        left = [one for one in chosen if not read_outcome(planned.log(one)).is_finished]
        if not left:
            raise ValueError("all cells are finished: without --slurm the table is printed")
        planned.folder.mkdir(parents=True, exist_ok=True)  # SLURM opens its logs there
        print(sweep_script(planned, left), end="")
        return 0
    code = run_cells(planned, chosen, gpus=_gpu_names(gpus), say=partial(print, flush=True))
    table = write_table(planned)
    if code > 1:
        print("nblib: stopped; the same command goes on", file=sys.stderr)
    elif cell is None:
        print(f"\n{table}")
    print(planned.folder / "table.md")
    return code


def _gpu_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else []
    if "" in names or len({*names}) < len(names):
        raise click.UsageError(f"--gpus is {text!r}, expected different GPUs, such as 0,1")
    return names


def _finite(context: click.Context, option: click.Parameter, value: float) -> float:
    if not math.isfinite(value):  # a range lets nan through
        raise click.BadParameter(f"{value} is not finite: expected GiB, such as 40.")
    return value


@click.command()
@click.argument("model")
@click.option("--gpus", type=click.IntRange(min=1), required=True, help="How many, of one machine.")
@click.option(
    "--gpu-memory",
    type=click.FloatRange(min=1, max=1024),
    callback=_finite,
    required=True,
    help="GiB of one GPU, as nvidia-smi shows: A100-40GB 40, L4 22.5.",
)
@click.option(
    "--dtype",
    type=click.Choice([*DTYPES]),
    default="bfloat16",
    show_default=True,
    help="Of the weights; fp8 is made while they load, int8, awq and int4 lie so in the files.",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    default=8192,
    show_default=True,
    help="Tokens of prompt and answer; Qwen2.5-Math has 4096 at most.",
)
@click.option("--port", type=click.IntRange(1024, 65535), default=8000, show_default=True)
@click.option(
    "--name",
    default="GENERATOR",
    show_default=True,
    help="The endpoint's name, in capitals: it makes NBLIB_<name>_URL, _MODEL and _KEY.",
)
def serve(
    model: str, gpus: int, gpu_memory: float, dtype: str, context: int, port: int, name: str
) -> None:
    """Print an sbatch script that serves MODEL by vLLM, a folder or a name on the hub.

    Before, it is checked by arithmetic whether the model fits the GPUs; the exit code is 1 where
    it does not. The script writes serve-<name>.env in this folder once the server answers, and
    takes it away at its end; a job that follows sources it. It holds the server's key: commit it
    to no repository.
    """
    from nblib.tools.slurm_scripts import serve_script

    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise click.UsageError(f"--name is {name!r}, expected capital letters, such as GENERATOR")
    plan = Plan(gpus=gpus, gpu_memory=gpu_memory, dtype=dtype, context=context)
    print(check_served(model, plan), file=sys.stderr)
    print(serve_script(model, plan, port=port, name=name), end="")
