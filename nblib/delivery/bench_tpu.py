"""Gemma 3 1B on a TPU v5e-8 against the stock way, as libtpu compiles both: sizes and estimates.

Needs the extra `preflight`; each program takes minutes to compile, once. Nothing is run: seconds
are the least for the compiler's counts, so only their ratio is told. Stock: Tunix's bf16 weights,
mesh (8, 1), rows padded to one length, and of a few sizes of a step the largest that fits.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import PeftTrainer

from nblib.delivery.preflight.compiled import Compiled, compile_cached, least_seconds
from nblib.delivery.preflight.plan import notebook_settings, sft_work
from nblib.delivery.preflight.programs import programs
from nblib.delivery.preflight.steps import grpo_batch, lower_train_step, sft_batch
from nblib.delivery.preflight.targets import (
    PreflightError,
    Target,
    check_libtpu,
    find_target,
    prepare_environment,
    target_mesh,
)
from nblib.delivery.stock import stock_grpo_trainer, stock_sft_trainer
from nblib.models.abstract import named_config, trainable_model
from nblib.sources.gsm8k import FOLDER_VARIABLE

_GIB = 2**30
_MARK = "figure"  # of the lines that are meant for the other process
_TARGET = "v5e-8"
_LENGTH = 512
_STOCK_ROWS, _OUR_ROWS = (16, 24), 128  # sequences a step
_READ, _WRITTEN, _GROUP = 256, 768, 8
_STOCK_PROMPTS, _OUR_PROMPTS = (1, 2, 4), 8  # a step


def tpu() -> dict[str, float]:
    """Compile SFT's and GRPO's steps, ours and stock, and compare bytes and seconds a token.

    In a process of its own: there jax computes on no other device. Without libtpu: no figures.
    """
    try:
        check_libtpu()
    except PreflightError as error:
        print(f"tpu: left out, {error}")
        return {}
    code = "from nblib.delivery.bench_tpu import print_figures; print_figures()"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}  # read when jax is imported
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return {line[1]: float(line[2]) for line in lines if line[:1] == [_MARK]}


def print_figures() -> None:
    """Print each figure and its value, a line each; ratios only of what fits."""
    target = find_target(_TARGET)
    prepare_environment(target)
    mesh = target_mesh(target)
    for found in (_sft(target, mesh), _grpo(target, mesh)):
        for name, value in found.items():
            print(_MARK, name, value)


def _sft(target: Target, mesh: jax.sharding.Mesh) -> dict[str, float]:
    given: dict[str, object] = {
        "MAX_LENGTH": _LENGTH,
        "BATCH_TOKENS": _OUR_ROWS * _LENGTH,
    }
    given |= {} if os.environ.get(FOLDER_VARIABLE) else {"DATA": "builtin"}
    parameters = {name: str(value) for name, value in given.items()}
    settings = notebook_settings("v1_sft_format", target, parameters)
    work = sft_work(settings, row_multiple=mesh.shape["fsdp"])
    ours = programs("v1_sft_format", settings, mesh)[0].compiled_for(target, mesh)
    stock_rows, stock = _largest_stock(
        _STOCK_ROWS, stock_sft_trainer, lambda rows: sft_batch(rows, _LENGTH, mesh), mesh
    )
    mean = sum(len(example.tokens) for example in work.examples) / len(work.examples)
    if not (ours.fits and stock.fits):
        return {"tpu_fits": float(ours.fits), "tpu_stock_fits": float(stock.fits)}
    ours_s = least_seconds(ours, target) / work.tokens_per_batch
    stock_s = least_seconds(stock, target) / (stock_rows * mean)
    return {
        "seq_per_step_ratio": _OUR_ROWS / stock_rows,
        "tpu_seconds_per_useful_token_ratio": ours_s / stock_s,
        "tpu_useful_share": work.tokens_per_batch / (_OUR_ROWS * _LENGTH),
        "tpu_stock_useful_share": mean / _LENGTH,
        **_sizes("tpu", ours, stock),
        "tpu_on_gsm8k": float(settings["data"] == "gsm8k"),
    }


def _grpo(target: Target, mesh: jax.sharding.Mesh) -> dict[str, float]:
    given: dict[str, object] = {
        "MAX_PROMPT_LENGTH": _READ,
        "MAX_NEW_TOKENS": _WRITTEN,
        "NUM_GENERATIONS": _GROUP,
    }
    given |= {"PROMPTS_PER_STEP": _OUR_PROMPTS, "MICRO_BATCH": _OUR_PROMPTS, "REMAT": True}
    parameters = {name: str(value) for name, value in given.items()}
    settings = notebook_settings("v2_grpo", target, parameters)
    ours = programs("v2_grpo", settings, mesh)[0].compiled_for(target, mesh)

    def batch(prompts: int) -> Any:
        rows = prompts * _GROUP
        return grpo_batch(rows, _READ, _WRITTEN, mesh, with_reference=False, with_old=False)

    trainer = partial(stock_grpo_trainer, num_generations=_GROUP)
    stock_prompts, stock = _largest_stock(_STOCK_PROMPTS, trainer, batch, mesh)
    if not (ours.fits and stock.fits):
        return {"tpu_grpo_fits": float(ours.fits), "tpu_grpo_stock_fits": float(stock.fits)}
    ours_s = least_seconds(ours, target) / _OUR_PROMPTS
    stock_s = least_seconds(stock, target) / stock_prompts
    return {
        "grpo_batch_ratio": _OUR_PROMPTS / stock_prompts,
        "tpu_grpo_seconds_ratio": ours_s / stock_s,
        **_sizes("tpu_grpo", ours, stock),
    }


def _largest_stock(
    sizes: Sequence[int],
    trainer: Callable[[Gemma3], PeftTrainer],
    batch_of: Callable[[int], Any],
    mesh: jax.sharding.Mesh,
) -> tuple[int, Compiled]:
    """Return the largest of the sizes, smallest first, at which Tunix's own step fits."""
    config = named_config("gemma3-1b-it", dtype=jnp.bfloat16)

    def build() -> PeftTrainer:
        return trainer(trainable_model(config, rank=64, alpha=64.0))

    found = []
    for size in sizes:
        batch = batch_of(size)
        shapes = [leaf.shape for leaf in jax.tree.leaves(batch)]
        key = {"stock": type(batch).__name__, "mesh": dict(mesh.shape), "shapes": shapes}
        lower = partial(lower_train_step, build, batch, mesh)
        compiled = compile_cached({**key, "target": _TARGET}, lower)
        found.append((size, compiled))
        if not compiled.fits:
            break
    fitting = [one for one in found if one[1].fits]
    return (fitting or found)[-1]


def _sizes(name: str, ours: Compiled, stock: Compiled) -> Mapping[str, float]:
    return {
        f"{name}_peak_gib": ours.peak_bytes / _GIB,
        f"{name}_stock_peak_gib": stock.peak_bytes / _GIB,
    }
