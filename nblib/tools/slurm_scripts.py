"""Scripts for SLURM's `sbatch`: a sweep as an array of jobs, and a model's server as one job.

They are templates beside this module, `*.sbatch.j2`. https://slurm.schedmd.com/sbatch.html
"""

import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

from nblib.runs import runs_root
from nblib.tools.serving import UTILISATION, Plan
from nblib.tools.sweep_grid import Cell, Sweep


def sweep_script(sweep: Sweep, cells: Sequence[Cell]) -> str:
    """Return a script whose array has a task for each of these cells."""
    lists = (("-p", name, values) for name, values in sweep.lists.items())
    command = [sys.executable, "-m", "nblib", "sweep", sweep.notebook, *itertools.chain(*lists)]
    numbers = [cell.number for cell in cells]
    first, last = numbers[0], numbers[-1]
    in_turn = numbers == [*range(first, last + 1)]
    return _template("sweep").render(
        name=sweep.folder.parents[1].name,
        array=f"{first}-{last}" if in_turn else ",".join(map(str, numbers)),
        folder=sweep.folder,
        cells=[sweep.described(cell) for cell in cells],
        here=Path.cwd(),
        runs=runs_root().absolute(),
        command=shlex.join(command),
    )


def serve_script(model: str, plan: Plan, *, port: int, name: str) -> str:
    """Return a script that serves a model by vLLM, and writes its address for other jobs.

    The address is in `serve-<name>.env` of this folder, as NBLIB_<name>_URL, _MODEL and _KEY.
    """
    return _template("serve").render(
        model=Path(model).absolute() if Path(model).is_dir() else model,
        gpus=plan.gpus,
        flags=plan.flags,
        context=plan.context,
        utilisation=UTILISATION,
        port=port,
        name=name,
        here=Path.cwd(),
        address=Path.cwd() / f"serve-{name}.env",
    )


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nblib", "tools"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment.get_template(f"{name}.sbatch.j2")
