"""Gemma 3 1B on a TPU v5e-8 against the stock way, as libtpu compiles both: sizes and estimates.

Needs the extra `preflight`; each program takes minutes to compile, once. Nothing is run: seconds
are the least for the compiler's counts, so only their ratio is told. Stock: Tunix's bf16 weights,
mesh (8, 1), rows padded to one length; the largest step that fits, and the fastest that does.
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tunix.models.gemma3.model import Gemma3
from tunix.rl.common import TrainExample
from tunix.sft.peft_trainer import PeftTrainer

from benchmarks import worker_environment
from benchmarks.rollouts import Step
from benchmarks.stock import stock_grpo_trainer, stock_sft_trainer
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.abstract import named_config, trainable_model
from nblib.models.lora import LoraConfig
from nblib.models.mesh import device_mesh
from nblib.models.names import get_gemma_ref_model
from nblib.models.published import EMBEDDED
from nblib.sources.gsm8k import FOLDER_VARIABLE
from nblib.tasks.gsm8k import GSM8K
from nblib.tools.preflight.compiled import Compiled, compile_cached, least_seconds
from nblib.tools.preflight.programs import lower_train_step, programs, sft_batch
from nblib.tools.preflight.targets import (
    PreflightError,
    Target,
    compiler_of,
    find_target,
    prepare_environment,
    target_mesh,
)
from nblib.tools.preflight.workload import sft_workload
from nblib.training.grpo_config import GrpoConfig
from nblib.training.policy_batch import pack_completions

_GIB = 2**30
_MARK = "figure"  # of the lines that are meant for the other process
_TARGET = "v5e-8"
_MODEL = "gemma3-1b-it"
_LENGTH = 512
# Sequences a step. Ours: the fastest, with all activations kept; and the most, with remat.
_OUR_ROWS, _OUR_MOST_ROWS, _STOCK_ROWS = 144, 896, (88, 96, 104, 112)
_PROMPTS, _STOCK_PROMPTS = 16, (6, 7, 8)  # a step; stock's, at once
_GRPO_TOKENS = 24_576  # of ours at once, as in the profile


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
    if max(stock) == max(_STOCK_ROWS):
        raise ValueError(f"stock fits at {max(stock)} rows too: the bench has to try more")
    work = sft_workload(settings, GSM8K, row_multiple=mesh.shape["fsdp"])
    mean = sum(len(example.tokens) for example in work.examples) / len(work.examples)
    our_s = least_seconds(fast, target) / work.tokens_per_batch
    stock_s = min(least_seconds(one, target) / (rows * mean) for rows, one in stock.items())
    return {
        "seq_per_step_ratio": _OUR_MOST_ROWS / max(stock) if most.fits else 0.0,
        "seq_per_step": _OUR_MOST_ROWS,
        "seq_per_step_stock": max(stock),
        "tpu_peak_gib": most.peak_bytes / _GIB,
        "tpu_stock_peak_gib": stock[max(stock)].peak_bytes / _GIB,
        "tpu_seconds_per_useful_token_ratio": our_s / stock_s,
        "tpu_fast_rows": _OUR_ROWS,
        "tpu_fast_peak_gib": fast.peak_bytes / _GIB,
        "tpu_useful_share": work.tokens_per_batch / (_OUR_ROWS * _LENGTH),
        "tpu_stock_useful_share": mean / _LENGTH,
        "tpu_on_gsm8k": float(data == "gsm8k"),
    }


def _grpo(target: Target, mesh: jax.sharding.Mesh) -> dict[str, float]:
    """Compare seconds a prompt: of completions as long as those that the suite draws.

    Their lengths are in tokens of the small model, which has about two for one of Gemma's.
    """
    given = {
        "PROFILE": target.kind,
        "MODEL": _MODEL,
        "MAX_PROMPT_LENGTH": 256,
        "MAX_NEW_TOKENS": 768,
        "NUM_GENERATIONS": 8,
        "PROMPTS_PER_STEP": _PROMPTS,
        "BATCH_TOKENS": _GRPO_TOKENS,
    }
    settings = GrpoSettings.of(given)
    config, update = settings.grpo, programs(settings, mesh)[0]
    ours = update.compiled_for(target, mesh)
    example, (tokens, spread, _) = _drawn()
    prompts, completions = np.asarray(example.prompt_ids), np.asarray(example.completion_ids)
    lengths = np.asarray(example.completion_mask).sum(axis=1)
    rows = len(pack_completions(prompts, completions, lengths, config).tokens)
    our_s = math.ceil(rows / update.rows) * least_seconds(ours, target) / _PROMPTS
    trainer = partial(stock_grpo_trainer, num_generations=config.num_generations)
    stock = _stock(
        _STOCK_PROMPTS, trainer, lambda prompts: _stock_batch(config, prompts, mesh), mesh
    )
    stock_s, fastest = min(
        (least_seconds(one, target) / prompts, prompts) for prompts, one in stock.items()
    )
    return {
        "tpu_grpo_seconds_per_prompt_ratio": our_s / stock_s,
        "tpu_grpo_completion_tokens": tokens,
        "tpu_grpo_completion_tokens_spread": spread,
        "tpu_grpo_useful_share": float(lengths.sum()) / (rows * config.row_length),
        "tpu_grpo_peak_gib": ours.peak_bytes / _GIB,
        "tpu_grpo_stock_peak_gib": stock[fastest].peak_bytes / _GIB,
        "tpu_grpo_stock_prompts": fastest,
    }


def _drawn() -> tuple[TrainExample, Sequence[float]]:
    """Return what the model that ships draws for a step of as many prompts, on this CPU."""
    here = device_mesh(1, 1)
    settings = GrpoSettings.of({"PROFILE": "cpu", "PROMPTS_PER_STEP": _PROMPTS})
    return Step(ref=get_gemma_ref_model(EMBEDDED, here), settings=settings, mesh=here).example()


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
    return found


def _stock_batch(config: GrpoConfig, prompts: int, mesh: jax.sharding.Mesh) -> TrainExample:
    """Return the completions of so many prompts as Tunix trains them, without data."""
    by_row = NamedSharding(mesh, PartitionSpec("fsdp"))
    rows = prompts * config.num_generations
    of = partial(jax.ShapeDtypeStruct, sharding=by_row)
    prompt, completion = (rows, config.max_prompt_length), (rows, config.max_new_tokens)
    return TrainExample(
        prompt_ids=of(prompt, jnp.int32),
        prompt_mask=of(prompt, jnp.bool_),
        completion_ids=of(completion, jnp.int32),
        completion_mask=of(completion, jnp.int32),
        advantages=of((rows,), jnp.float32),
        ref_per_token_logps=None,
        old_per_token_logps=None,
    )
