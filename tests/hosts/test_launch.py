import subprocess
import sys

import pytest

from nblib.hosts.launch import Launch, this_launch

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
HAND = {
    "JAX_COORDINATOR_ADDRESS": "host0:9876",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Launch()),
        (STEP, Launch(count=4, number=3)),
        ({**STEP, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Launch()),
        # In an sbatch script, outside of srun.
        ({"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, Launch()),
        (HAND, Launch(count=2, number=1, address="host0:9876")),
        ({**STEP, **HAND}, Launch(count=2, number=1, address="host0:9876")),
        ({**STEP, "JAX_NUM_PROCESSES": "1"}, Launch()),
        # Without the others jax's own variable says nothing of itself.
        ({"JAX_COORDINATOR_ADDRESS": "host0:9876"}, Launch()),
    ],
)
def test_who_takes_part(variables, expected):
    assert this_launch(variables) == expected
    assert expected.is_first == (expected.number == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"JAX_COORDINATOR_ADDRESS": ""}, "JAX_COORDINATOR_ADDRESS is not set beside JAX_NUM"),
        ({"JAX_NUM_PROCESSES": ""}, "JAX_NUM_PROCESSES is not set beside JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID is not set beside JAX_NUM_PROCESSES"),
        ({"JAX_PROCESS_ID": "2"}, "JAX_NUM_PROCESSES is '2' and JAX_PROCESS_ID '2': expected two"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID '-1': expected two whole numbers"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'"),
        ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES is '0'"),
    ],
)
def test_variables_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        this_launch({**HAND, **changes})


def test_who_takes_part_is_known_without_jax():
    code = "import sys, nblib.hosts.launch as launch; launch.join(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
