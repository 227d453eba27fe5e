"""One of several processes that train tiny adapters together, for `test_joined_runs.py`."""

import math
import os

from nblib.hosts.host import where_am_i
from nblib.hosts.shared_run import start_shared_run
from nblib.models.gemma3 import init_model
from nblib.models.mesh import device_mesh
from tests.training import killed_run

# Of each step two updates, of which the second needs the log-probabilities before the first.
GRPO = {"beta": 0.1, "num_iterations": 2, "steps": 6, "save_interval": "4 steps"}


def main(method, root):
    """Train in a run below a folder, or go on there, to the end, and save the adapters."""
    os.environ["NBLIB_RUNS_DIR"] = str(root)
    launch = where_am_i().launch
    run = start_shared_run("joined", {"method": method}, devices=(), started=0.0)
    print(f"the run's folder here: {run.path}")
    base = init_model(killed_run.CONFIG, seed=0)
    # The others' clocks do not count.
    options = {"deadline_s": math.inf if launch.is_first else 0.0}
    if method == "grpo":
        options |= {"reference": base, "changes": GRPO}
    else:
        options["val_batches"] = killed_run.SlowBatches(2)
    killed_run.train(method, base, run.path, device_mesh(), **options)
