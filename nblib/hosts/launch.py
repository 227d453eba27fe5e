"""Which processes train together: by SLURM's variables, or by three that are set by hand.

    srun python -m nblib run v1_sft_format        in an sbatch script, with --ntasks above 1

    JAX_COORDINATOR_ADDRESS=host0:9876 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 python -m nblib run ...

By hand the address is one of process 0's machine, with a free port, the same in all. Without any of
these a process is alone. What joined processes agree on is in `models.processes`. This module
imports no jax by itself.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

ADDRESS, COUNT, ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How many processes run a notebook together, and which one this is."""

    count: int = 1
    number: int = 0
    address: str = ""  # of the first one; "": as SLURM's variables say

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's folder, and speaks."""
        return self.number == 0


ALONE = Launch()


def this_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Return what the variables say. Raises ValueError for some that cannot be, by name."""
    given = {name: environment[name] for name in (COUNT, ID) if environment.get(name)}
    if given:
        return _by_hand(environment.get(ADDRESS, ""), given)
    # As jax's own detection; a step of one task is alone, as `srun --pty` or a task of an array.
    if all(name in environment for name in _SLURM) and environment["SLURM_NTASKS"] != "1":
        return Launch(
            count=int(environment["SLURM_NTASKS"]), number=int(environment["SLURM_PROCID"])
        )
    return ALONE


def join() -> Launch:
    """Make this process one of those that the variables name, once; return which it is.

    To be called before jax looks for its devices. Raises ValueError as `this_launch`, and
    RuntimeError where the others cannot be reached.
    """
    launch = this_launch()
    if launch.count == 1:
        return launch
    import jax

    if not jax.distributed.is_initialized():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
        if launch.address:
            by_hand = {"num_processes": launch.count, "process_id": launch.number}
            method = {"cluster_detection_method": "deactivate"}  # or SLURM would choose a GPU
            jax.distributed.initialize(launch.address, **by_hand, **method)
        else:
            jax.distributed.initialize(cluster_detection_method="slurm")
    return launch


def _by_hand(address: str, given: Mapping[str, str]) -> Launch:
    if given.get(COUNT) == "1":
        return ALONE
    values = {ADDRESS: address, COUNT: given.get(COUNT, ""), ID: given.get(ID, "")}
    if missing := [name for name, value in values.items() if not value]:
        raise ValueError(
            f"{', '.join(missing)} is not set beside {', '.join(given)}: several processes need "
            f"all of {ADDRESS}, {COUNT} and {ID}"
        )
    count, number = values[COUNT], values[ID]
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise ValueError(
            f"{COUNT} is {count!r} and {ID} {number!r}: expected two whole numbers, the second "
            "from 0 to below the first"
        )
    return Launch(count=int(count), number=int(number), address=address)
