"""Gemma 3 1B on a TPU v5e-8 against the stock way, as libtpu compiles both: sizes and estimates.

Needs the extra `preflight`; each program takes minutes to compile, once. Nothing is run: seconds
are the least for the compiler's counts, so only their ratio is told. Stock: Tunix's bf16 weights,
mesh (8, 1), rows padded to one length; the largest step that fits, and the fastest that does.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import PeftTrainer

from benchmarks import worker_environment
from benchmarks.stock import stock_grpo_trainer, stock_sft_trainer
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.abstract import named_config, trainable_model
from nblib.models.lora import LoraConfig
from nblib.sources.gsm8k import FOLDER_VARIABLE
from nblib.tasks.gsm8k import GSM8K
from nblib.tools.preflight.compiled import Compiled, compile_cached, least_seconds
from nblib.tools.preflight.programs import grpo_batch, lower_train_step, programs, sft_batch
from nblib.tools.preflight.targets import (
    PreflightError,
    Target,
    compiler_of,
    find_target,
    prepare_environment,
    target_mesh,
)
from nblib.tools.preflight.workload import sft_workload

_GIB = 2**30
_MARK = "figure"  # of the lines that are meant for the other process
_TARGET = "v5e-8"
_MODEL = "gemma3-1b-it"
_LENGTH = 512
# Sequences a step. Ours: the fastest, with all activations kept; and the most, with remat.
_OUR_ROWS, _OUR_MOST_ROWS, _STOCK_ROWS = 144, 896, (88, 96, 104, 112)
_OUR_PROMPTS, _OUR_MOST_PROMPTS, _STOCK_PROMPTS = 6, 40, (6, 7, 8)  # a step, likewise


def tpu() -> dict[str, float]:
    """Compile SFT's and GRPO's steps, ours and stock, and compare bytes and seconds a token.

    In a process of its own: there jax computes on no other device. Without libtpu: no figures.
    """
    try:
        print(f"tpu: compiled by {compiler_of(find_target(_TARGET))}", flush=True)
    except PreflightError as error:
        print(f"tpu: left out, {error}")
        return {}
    code = "from benchmarks.tpu import print_figures; print_figures()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=worker_environment(os.environ),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return {line[1]: float(line[2]) for line in lines if line[:1] == [_MARK]}


def print_figures() -> None:
    """Print each figure and its value, a line each."""
    target = find_target(_TARGET)
    prepare_environment(target)
    mesh = target_mesh(target)
    for found in (_sft(target, mesh), _grpo(target, mesh)):
        for name, value in found.items():
            print(_MARK, name, value)


def _sft(target: Target, mesh: jax.sharding.Mesh) -> dict[str, float]:
    data = "gsm8k" if os.environ.get(FOLDER_VARIABLE) else "builtin"
    given = {"PROFILE": target.kind, "DATA": data, "MAX_LENGTH": _LENGTH}

    def ours(rows: int, *, remat: bool) -> tuple[SftSettings, Compiled]:
        settings = SftSettings.of({**given, "BATCH_TOKENS": rows * _LENGTH, "REMAT": remat})
        return settings, programs(settings, mesh)[0].compiled_for(target, mesh)

    settings, fast = ours(_OUR_ROWS, remat=False)
    _, most = ours(_OUR_MOST_ROWS, remat=True)
    stock = _stock(
        _STOCK_ROWS, stock_sft_trainer, lambda rows: sft_batch(rows, _LENGTH, mesh), mesh
    )
    work = sft_workload(settings, GSM8K, row_multiple=mesh.shape["fsdp"])
    mean = sum(len(example.tokens) for example in work.examples) / len(work.examples)
    our_s = least_seconds(fast, target) / work.tokens_per_batch
    stock_s = min(least_seconds(one, target) / (rows * mean) for rows, one in stock.items())
    return {
        **_sizes("tpu", "seq_per_step", _OUR_MOST_ROWS, most, stock),
        "tpu_seconds_per_useful_token_ratio": our_s / stock_s,
        "tpu_fast_rows": _OUR_ROWS,
        "tpu_fast_peak_gib": fast.peak_bytes / _GIB,
        "tpu_useful_share": work.tokens_per_batch / (_OUR_ROWS * _LENGTH),
        "tpu_stock_useful_share": mean / _LENGTH,
        "tpu_on_gsm8k": float(data == "gsm8k"),
    }


def _grpo(target: Target, mesh: jax.sharding.Mesh) -> dict[str, float]:
    given = {
        "PROFILE": target.kind,
        "MODEL": _MODEL,
        "MAX_PROMPT_LENGTH": 256,
        "MAX_NEW_TOKENS": 768,
        "NUM_GENERATIONS": 8,
    }

    def ours(prompts: int, *, remat: bool) -> tuple[GrpoSettings, Compiled]:
        sizes = {"PROMPTS_PER_STEP": prompts, "MICRO_BATCH": prompts}
        settings = GrpoSettings.of({**given, **sizes, "REMAT": remat})
        return settings, programs(settings, mesh)[0].compiled_for(target, mesh)

    settings, fast = ours(_OUR_PROMPTS, remat=False)
    _, most = ours(_OUR_MOST_PROMPTS, remat=True)
    plain = replace(settings.grpo, beta=0.0, num_iterations=1)
    trainer = partial(stock_grpo_trainer, num_generations=plain.num_generations)
    stock = _stock(_STOCK_PROMPTS, trainer, lambda prompts: grpo_batch(plain, prompts, mesh), mesh)
    stock_s = min(least_seconds(one, target) / prompts for prompts, one in stock.items())
    return {
        **_sizes("tpu_grpo", "grpo_batch", _OUR_MOST_PROMPTS, most, stock),
        "tpu_grpo_seconds_ratio": least_seconds(fast, target) / _OUR_PROMPTS / stock_s,
        "tpu_grpo_fast_prompts": _OUR_PROMPTS,
        "tpu_grpo_fast_peak_gib": fast.peak_bytes / _GIB,
    }


def _stock(
    sizes: Sequence[int],
    trainer: Callable[[Gemma3], PeftTrainer],
    batch_of: Callable[[int], Any],
    mesh: jax.sharding.Mesh,
) -> dict[int, Compiled]:
    """Return those of the sizes, smallest first, at which Tunix's own step fits."""
    config = named_config(_MODEL, dtype=jnp.bfloat16)

    def build() -> PeftTrainer:
        return trainer(trainable_model(config, LoraConfig(rank=64, alpha=64.0)))

    found: dict[int, Compiled] = {}
    for size in sizes:
        batch = batch_of(size)
        shapes = [leaf.shape for leaf in jax.tree.leaves(batch)]
        key = {"stock": type(batch).__name__, "mesh": dict(mesh.shape), "shapes": shapes}
        lower = partial(lower_train_step, build, batch, mesh)
        compiled = compile_cached({**key, "target": _TARGET}, lower)
        if not compiled.fits:
            return found
        found[size] = compiled
    raise ValueError(f"stock fits at {max(sizes)} too: the bench has to try more")


def _sizes(
    name: str, ratio: str, size: int, ours: Compiled, stock: Mapping[int, Compiled]
) -> dict[str, float]:
    """Return what fits: ours, the most that stock does, and how many times as much."""
    most = max(stock)
    return {
        f"{ratio}_ratio": size / most if ours.fits else 0.0,
        f"{ratio}": size,
        f"{ratio}_stock": most,
        f"{name}_peak_gib": ours.peak_bytes / _GIB,
        f"{name}_stock_peak_gib": stock[most].peak_bytes / _GIB,
    }
