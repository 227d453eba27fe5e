"""What several processes agree on and refuse, tried in each of them, for `test_shared_run.py`."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from nblib.evaluation.kept import ANSWER_KEYS, keep, open_kept
from nblib.hosts import shared_run
from nblib.hosts.host import where_am_i
from nblib.hosts.shared_run import start_shared_run
from nblib.models.mesh import device_mesh
from nblib.models.processes import agreed, in_first, of_all, on_host, on_mesh, split_rows


def refused(work):
    try:
        work()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def begin(**parameters):
    return start_shared_run("joined", parameters, devices=(), started=0.0)


def broken():
    raise ValueError("it is broken")


def arrays():
    """Return what a program finds in an array that the processes hold in parts."""
    mesh, rows = device_mesh(), np.arange(8.0).reshape(4, 2)
    with mesh:
        split = split_rows({"rows": rows})["rows"]
    laid = on_mesh(jnp.asarray(rows), NamedSharding(mesh, PartitionSpec(None, "fsdp")))
    return {
        "own": np.asarray(split.addressable_data(0)).tolist(),
        "own columns": np.asarray(laid.addressable_data(0)).tolist(),
        "whole": on_host({"rows": split * 2, "more": laid, "local": rows, "number": 3}),
    }


def kept_by_the_first(folder, number):
    """Return the answers that each process goes on with, where the first alone has a file."""
    answer = {**dict.fromkeys(ANSWER_KEYS), "id": "q0"}
    if number == 0:
        keep(folder / "base.jsonl", {"model": "m"}, [answer], total=2)
    return open_kept(folder / "base.jsonl", {"model": "m"}, ["q0"] * 2)


def main(root):
    """Print what this process finds, as JSON in the last line."""
    os.environ["NBLIB_RUNS_DIR"] = str(root)
    host = where_am_i()
    number = host.launch.number
    run = begin(SEED=0)
    (run.path / f"written by {number}").touch()
    found = {
        "facts": host.facts,
        "same": agreed({"number": number}),
        "all": of_all(number),
        "broken": refused(lambda: in_first(broken)),
        "differ": refused(lambda: begin(SEED=number)),
        "endpoint": refused(lambda: begin(judge="endpoint")),
        "flax": refused(lambda: begin(export_flax=True)),
        "path": str(run.path),
        "links": str((run.path / "checkpoints").resolve()),
        "again": str(begin(SEED=0).path),
        "arrays": arrays(),
        "kept": kept_by_the_first(run.path.parent, number),
    }
    shared_run._copied = lambda path: path / "missing"
    found["blind"] = refused(lambda: begin(SEED=1))
    print(json.dumps(found, default=np.ndarray.tolist))
    jax.distributed.shutdown()


def uneven(root):
    """Print why processes that cannot share the work are refused."""
    os.environ["NBLIB_RUNS_DIR"] = str(root)
    where_am_i()
    print(json.dumps(refused(begin)))
    jax.distributed.shutdown()
