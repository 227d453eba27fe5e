"""Load and train a model on 3, 5, 6 and 7 devices, for `test_meshes.py`.

python odd_mesh_run.py MODEL: prints what happened on each as JSON; needs seven devices.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
from tunix.sft.peft_trainer import TrainingInput

from nblib.models.mesh import device_mesh, mesh_summary
from nblib.models.names import get_gemma_ref_model
from nblib.runs import start_run
from nblib.training.sft import SftConfig, train

ROWS = 8


def losses_on(mesh):
    """Train in full on one batch and return the loss before each of two steps."""
    model = get_gemma_ref_model(sys.argv[1], mesh).model
    tokens = np.random.default_rng(0).integers(4, 544, (ROWS, 16)).astype(np.int32)
    batch = TrainingInput(input_tokens=tokens, input_mask=np.ones((ROWS, 16), np.float32))
    with tempfile.TemporaryDirectory() as scratch:
        texts = SimpleNamespace(batches=[batch] * 2, val_batches=())
        config = SftConfig(learning_rate=1e-2, warmup_share=0)
        run = start_run("odd_mesh", {}, root=Path(scratch))
        trained = train(model, texts, config, run, hashes={}, mesh=mesh)
        return [record["loss"] for record in trained.history]


def on(count):
    """What comes of the automatic mesh over so many devices, of all in fsdp, and of all in tp."""
    jax.devices = lambda: every[:count]
    found = {"mesh": mesh_summary(device_mesh())}
    if count in (3, 7):
        found["losses"] = losses_on(device_mesh())
    for name, axes in (("fsdp", (count, 1)), ("tp", (1, count))):
        try:
            losses_on(device_mesh(*axes))
        except ValueError as error:
            found[name] = str(error)
    return found


if __name__ == "__main__":
    every = jax.devices()
    found = {count: on(count) for count in (3, 5, 6, 7)}
    print(json.dumps({**found, "one": losses_on(device_mesh(1, 1))}))
