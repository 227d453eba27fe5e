"""Processes on this machine that are joined over loopback, for the tests of several rooms."""

import multiprocessing
import os
import socket
import sys

PROCESSES = multiprocessing.get_context("forkserver")
LIMIT_S = 300


def by_hand(devices, cache):
    """Return the variables of each process, by how many devices it has; alone with one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        {
            **cache,
            "XLA_FLAGS": f"{cache['XLA_FLAGS']} --xla_force_host_platform_device_count={count}",
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": str(len(devices)),
            "JAX_PROCESS_ID": str(number),
        }
        for number, count in enumerate(devices)
    ]


def by_slurm(devices, cache):
    """Return the variables that `srun` would give to each process."""
    return [
        {
            "XLA_FLAGS": one["XLA_FLAGS"],
            "JAX_COORDINATOR_PORT": one["JAX_COORDINATOR_ADDRESS"].partition(":")[2],
            "SLURM_JOB_ID": "4711",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": str(len(devices)),
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": str(number),
        }
        for number, one in enumerate(by_hand(devices, cache))
    ]


def start(main, folder, variables, *arguments):
    """Start `main(*arguments)` once for each dictionary of variables; the output goes to files."""
    folder.mkdir(exist_ok=True)
    PROCESSES.set_forkserver_preload([main.__module__])
    processes = []
    for number, own in enumerate(variables):
        given = (main, own, folder / f"output{number}", arguments)
        processes.append(PROCESSES.Process(target=_begin, args=given))
        processes[-1].start()
    return processes


def ended(processes, folder):
    """Wait for the end of all; return their exit codes and what each printed."""
    for process in processes:
        process.join(LIMIT_S)
    said = [(folder / f"output{number}").read_text() for number in range(len(processes))]
    return [process.exitcode for process in processes], said


def _begin(main, variables, output, arguments):
    os.environ.update(variables)
    with output.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.stdout.reconfigure(line_buffering=True)
    main(*arguments)
