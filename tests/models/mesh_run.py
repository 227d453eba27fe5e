"""Load, adapt, train a step, export and reload on three meshes, for `test_meshes.py`.

python mesh_run.py BASE FOLDER: needs eight devices; writes FOLDER/<mesh>.json and the exports.
"""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
from jax.interpreters import pxla
from jax.sharding import NamedSharding, PartitionSpec
from tunix.sft.peft_trainer import TrainingInput
from tunix.utils import sharding_utils

from nblib.models.adapters import save_adapters
from nblib.models.exports import export_folder
from nblib.models.gemma3 import save_model
from nblib.models.lora import LoraConfig, get_lora_model, merge_lora
from nblib.models.mesh import device_mesh
from nblib.models.names import get_gemma_ref_model
from nblib.models.parity import choice_logits, compare, greedy, prompt_rows
from nblib.runs import start_run
from nblib.training.sft import SftConfig, train

MESHES = ((8, 1), (2, 4), (1, 1))
LORA = LoraConfig(rank=4, alpha=8.0)
ASKED = tuple(f"Ann has {n} pens and buys {n + 3} more. How many?" for n in range(2, 9))


def really_shard(x, axes, eager=False):
    """What Tunix does on a TPU; on a CPU it does nothing, which hides every error."""
    mesh = pxla.thread_resources.env.physical_mesh
    if mesh.empty:
        return x
    sharded.append(axes)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))


def mesh_of(fsdp, tp):
    if fsdp * tp == 8:
        return device_mesh(fsdp, tp)
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"), kinds)


def run_on(fsdp, tp, name, folder):
    mesh = mesh_of(fsdp, tp)
    base = get_gemma_ref_model(name, mesh)
    model = get_lora_model(base.model, mesh, LORA)
    tokens = np.random.default_rng(0).integers(4, 544, (8, 48)).astype(np.int32)
    # Of each device's row another share is learnt, of the first nothing.
    mask = np.arange(48) >= 48 - 6 * np.arange(8)[:, None]
    batch = TrainingInput(input_tokens=tokens, input_mask=mask.astype(np.float32))
    texts = SimpleNamespace(batches=[batch], val_batches=())
    config = SftConfig(learning_rate=1e-2, warmup_share=0)
    trained = train(model, texts, config, start_run("mesh", {}, root=folder), hashes={}, mesh=mesh)
    merged = merge_lora(model, LORA)
    manifest = {"base": {"name": base.name, "sha256": base.sha256}}
    write = partial(save_model, merged, base.tokenizer, manifest={})
    asked = {"manifest": manifest, "prompts": ASKED}
    proof = export_folder(folder / "export", write, merged, base, **asked)
    save_adapters(model, base.tokenizer, folder / "adapters", LORA, manifest=manifest)
    rows, logits = greedy(merged, prompt_rows(base.tokenizer, ASKED), mesh=mesh)
    over_base = get_gemma_ref_model(str(folder / "adapters"), mesh).model
    adapters = compare(rows, logits, choice_logits(over_base, rows, mesh=mesh), reader="adapters")
    up = base.model.layers[0].mlp.up_proj.kernel.get_value()
    return {
        "losses": [record["loss"] for record in trained.history],
        "export": proof[0].largest_difference,
        "adapters": adapters.largest_difference,
        "moved": float(np.abs(logits - choice_logits(base.model, rows, mesh=mesh)).max()),
        "devices": len(up.sharding.device_set),
        "shard": up.sharding.shard_shape(up.shape),
        "constraints": len(sharded),
        "tokens": rows.tolist(),
    }


if __name__ == "__main__":
    sys.modules["torch"] = None  # the gate's check through transformers has a test of its own
    sharded: list[tuple] = []
    sharding_utils.shard = really_shard
    root = Path(sys.argv[2])
    for fsdp, tp in MESHES:
        found = run_on(fsdp, tp, sys.argv[1], root / f"{fsdp}x{tp}")
        (root / f"{fsdp}x{tp}.json").write_text(json.dumps(found))
        sharded.clear()
