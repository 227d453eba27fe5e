"""v1's update of Gemma 3 1B against the stock way, run on the accelerator that is here.

Weights are random, so nothing is downloaded. A batch of ours is of packed rows; stock has as many
rows of the same length, each one example, padded. Beside the ratios: which share of the chip's
arithmetic each way uses, and where its time goes, by a trace that stays in the bench's run.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.models.gemma3.model import Gemma3, ModelConfig
from tunix.sft.peft_trainer import PeftTrainer, TrainingInput

from benchmarks.stock import stock_sft_trainer, train_step
from benchmarks.traces import DeviceTime, traced
from benchmarks.utilisation import step_operations, utilisation
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
_STEPS, _TRACED_STEPS = 8, 3
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one way's step took; `utilised` is None on a chip whose peak is not known."""

    seconds: float
    peak_bytes: int
    utilised: float | None
    time: DeviceTime


def device(folder: Path) -> dict[str, float]:
    """Time a step of each way, and compare seconds a useful token and the peaks of memory.

    The traces go into `folder`. Without an accelerator: no figures.
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
    trainers: dict[str, Callable[[nnx.Module], PeftTrainer]] = {
        # A peak is never taken back: the lower one first.
        "nblib": lambda model: build_trainer(model, sft, steps=1000),
        "stock": stock_sft_trainer,
    }
    measured: dict[str, Measured] = {}
    for way, trainer in trainers.items():
        with mesh:
            model = get_trainable_model(_random_model(config, mesh), mesh, settings.lora)
            measured[way] = measure(model, trainer(model), rows, length, folder / f"trace-{way}")
        del model
    ours, stock = measured["nblib"], measured["stock"]
    useful = work.tokens_per_batch
    stock_useful = rows * sum(len(one.tokens) for one in work.examples) / len(work.examples)
    return {
        "device_useful_tokens_ratio": useful / ours.seconds / (stock_useful / stock.seconds),
        "device_useful_tokens_per_s": useful / ours.seconds,
        "device_stock_useful_tokens_per_s": stock_useful / stock.seconds,
        "device_step_ratio": stock.seconds / ours.seconds,
        "device_peak_memory_ratio": stock.peak_bytes / ours.peak_bytes,
        "device_peak_gib": ours.peak_bytes / _GIB,
        "device_stock_peak_gib": stock.peak_bytes / _GIB,
        **_shares("device", ours),
        **_shares("device_stock", stock),
    }


def measure(model: Gemma3, trainer: PeftTrainer, rows: int, length: int, folder: Path) -> Measured:
    """Time steps of the trainer of a model, then trace a few more; what is found is printed."""
    devices = jax.local_devices()
    operations = step_operations(model, rows, length)  # before the trainer's step takes the model
    step = _steps(trainer, rows, length)
    seconds = _median_seconds(step)
    time = traced(lambda: [step() for _ in range(_TRACED_STEPS)], folder)
    utilised = utilisation(operations, seconds, devices)
    share = f"{utilised:.1%}" if utilised is not None else "an unknown share"
    rate = operations / seconds / len(devices) / 1e12
    print(
        f"{folder.name}: {seconds:.3f} s a step of {operations / 1e12:.3g} T operations, "
        f"{rate:.3g} T a second: {share} of the peak of {devices[0].device_kind}",
        *[f"  {line}" for line in str(time).splitlines()],
        sep="\n",
        flush=True,
    )
    peak = max(map(_peak_bytes, devices))
    return Measured(seconds=seconds, peak_bytes=peak, utilised=utilised, time=time)


def _shares(name: str, found: Measured) -> dict[str, float]:
    known = {} if found.utilised is None else {f"{name}_utilisation": found.utilised}
    return {**known, f"{name}_idle_share": found.time.idle_share}


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


def _steps(trainer: PeftTrainer, rows: int, length: int) -> Callable[[], float]:
    """Return what makes a step on full rows of random tokens, and waits for its loss."""
    tokens = np.random.default_rng(0).integers(4, 500, (rows, length)).astype(np.int32)
    tokens[:, 0] = BOS_ID
    batch = TrainingInput(input_tokens=tokens, input_mask=np.ones((rows, length), np.float32))
    batch = jax.tree.map(jnp.asarray, batch)
    step = train_step(trainer)
    return lambda: float(step(batch)[0])


def _median_seconds(step: Callable[[], Any]) -> float:
    """Return a step's median seconds, once it is compiled."""
    seconds = []
    for _ in range(1 + _STEPS):
        began = perf_counter()
        step()
        seconds.append(perf_counter() - began)
    return float(np.median(seconds[1:]))


def _peak_bytes(device: jax.Device) -> int:
    return int((device.memory_stats() or {}).get("peak_bytes_in_use", 0))
