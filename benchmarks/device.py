"""v1's update of Gemma 3 1B against the stock way, run on the accelerator that is here.

Weights are random, so nothing is downloaded. A batch of ours is of packed rows; stock has as many
rows of the same length, each one example, padded.
"""

import os
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.models.gemma3.model import Gemma3, ModelConfig
from tunix.sft.peft_trainer import PeftTrainer, TrainingInput

from benchmarks.stock import stock_sft_trainer
from nblib.hosts.settings import SftSettings
from nblib.models.abstract import named_config
from nblib.models.lora import get_trainable_model
from nblib.models.mesh import device_mesh
from nblib.sources.gsm8k import FOLDER_VARIABLE
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.tokenizer import BOS_ID
from nblib.tools.preflight.programs import largest_batch
from nblib.tools.preflight.workload import sft_workload
from nblib.training.sft import build_trainer

_LENGTH = 512
_STEPS = 8
_GIB = 2**30


def device() -> dict[str, float]:
    """Time a step of each way, and compare seconds a useful token and the peaks of memory.

    Without an accelerator: no figures.
    """
    kind = jax.default_backend()
    if kind == "cpu":
        print("device: left out, jax sees no accelerator here")
        return {}
    mesh = device_mesh()
    data = "gsm8k" if os.environ.get(FOLDER_VARIABLE) else "builtin"
    settings = SftSettings.of({"PROFILE": kind, "MAX_LENGTH": _LENGTH, "DATA": data})
    work = sft_workload(settings, GSM8K, row_multiple=mesh.shape["fsdp"])
    rows, length = largest_batch(settings, mesh)
    config = named_config(settings.model, dtype=settings.dtype)
    sft = settings.training

    def ours(model: nnx.Module) -> PeftTrainer:
        return build_trainer(model, sft, steps=1000)

    measured: list[tuple[float, float]] = []
    for trainer in (ours, stock_sft_trainer):  # a peak is never taken back: the lower one first
        with mesh:
            model = get_trainable_model(_random_model(config, mesh), mesh, settings.lora)
            seconds = _step_seconds(trainer(model), rows, length)
        del model
        measured.append((seconds, max(map(_peak_bytes, jax.local_devices()))))
    (our_s, our_peak), (stock_s, stock_peak) = measured
    useful = work.tokens_per_batch
    stock_useful = rows * sum(len(one.tokens) for one in work.examples) / len(work.examples)
    return {
        "device_useful_tokens_ratio": useful / our_s / (stock_useful / stock_s),
        "device_useful_tokens_per_s": useful / our_s,
        "device_stock_useful_tokens_per_s": stock_useful / stock_s,
        "device_step_ratio": stock_s / our_s,
        "device_peak_memory_ratio": stock_peak / our_peak,
        "device_peak_gib": our_peak / _GIB,
        "device_stock_peak_gib": stock_peak / _GIB,
    }


def _random_model(config: ModelConfig, mesh: jax.sharding.Mesh) -> Gemma3:
    """Return fresh weights, each made where it belongs."""

    @nnx.jit
    def create() -> Gemma3:
        model = Gemma3(config, rngs=nnx.Rngs(0))
        state = nnx.state(model)
        split = nnx.get_named_sharding(state, mesh)
        nnx.update(model, jax.lax.with_sharding_constraint(state, split))
        return model

    return create()


def _step_seconds(trainer: PeftTrainer, rows: int, length: int) -> float:
    """Return a step's median seconds, once it is compiled."""
    tokens = np.random.default_rng(0).integers(4, 1000, (rows, length)).astype(np.int32)
    tokens[:, 0] = BOS_ID
    batch = TrainingInput(input_tokens=tokens, input_mask=np.ones((rows, length), np.float32))
    batch = jax.tree.map(jnp.asarray, batch)
    step, _ = trainer.jit_train_and_eval_step()
    seconds = []
    for _ in range(1 + _STEPS):
        began = perf_counter()
        float(step(batch)[0])
        seconds.append(perf_counter() - began)
    return float(np.median(seconds[1:]))


def _peak_bytes(device: jax.Device) -> int:
    return int((device.memory_stats() or {}).get("peak_bytes_in_use", 0))
