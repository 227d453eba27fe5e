"""Training against the stock way on this CPU: SFT on real lengths, and a step of GRPO.

Each way is a process of its own, with the environment it would have: ours a notebook's kernel's,
stock none. They take turns, so that other load on the machine meets both alike; a shape's seconds
are the median over the turns.
"""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import PeftTrainer, TrainingInput

from benchmarks import FIGURES, PEAK, SECONDS, Work, answer, in_turns
from benchmarks.rollouts import Step
from benchmarks.stock import stock_grpo_trainer, stock_sft_trainer
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.lora import get_trainable_model
from nblib.models.mesh import device_mesh
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.models.published import EMBEDDED
from nblib.sources.gsm8k import FOLDER_VARIABLE
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.batches import TokenizedExample, bucket_of
from nblib.tools.preflight.workload import sft_workload
from nblib.training.cluster import policy_trainer
from nblib.training.policy_batch import policy_batch
from nblib.training.sft import build_trainer

_CPU = {"PROFILE": "cpu"}
_TURNS = 5
_STOCK_TOKENS = 2048  # a batch, as ours has
_ROLLOUT, _UPDATE = (0,), (1,)  # of a step of GRPO


def sft() -> dict[str, float]:
    """Train an epoch of v1 on GSM8K, as measured from each shape of its batches.

    Stock: rows all padded to the longest that is allowed. Without GSM8K, built-in problems.
    """
    data = "gsm8k" if os.environ.get(FOLDER_VARIABLE) else "builtin"
    settings = SftSettings.of({**_CPU, "DATA": data})
    work = sft_workload(settings, GSM8K, row_multiple=1)
    ours, stock = work.shapes, _stock_shapes(work.examples, settings)
    times = _turns({"sft": tuple(ours), "stock-sft": tuple(stock)})
    useful = sum(len(example.tokens) for example in work.examples)
    ours_s, stock_s = _total(ours, times["sft"]), _total(stock, times["stock-sft"])
    return {
        "sft_useful_tokens_ratio": stock_s / ours_s,
        "sft_useful_tokens_per_s": useful / ours_s,
        "sft_stock_useful_tokens_per_s": useful / stock_s,
        "sft_useful_share": useful / _tokens(ours),
        "sft_stock_useful_share": useful / _tokens(stock),
        "sft_peak_memory_ratio": times["stock-sft"][()] / times["sft"][()],
        "sft_on_gsm8k": float(data == "gsm8k"),
    }


def grpo() -> dict[str, float]:
    """Do steps of v2 with the model that ships: draw all completions, and update on them.

    Both ways update on the same completions, with what they earned.
    """
    works = (_ROLLOUT, _UPDATE)
    ways = {"grpo": works, "stock-grpo": works}
    taken = in_turns(__name__, ways, turns=_TURNS, kernels=["grpo"])
    ours, stock = (
        {work: np.median(rows[1:, SECONDS]) for work, rows in taken[way].items()} for way in ways
    )
    peaks = {way: taken[way][_UPDATE][-1, PEAK] for way in ways}
    tokens, spread, equal = taken["grpo"][_UPDATE][-1, FIGURES:]
    our_s, stock_s = (sum(one.values()) for one in (ours, stock))
    return {
        "grpo_step_ratio": stock_s / our_s,
        "grpo_rollout_ratio": stock[_ROLLOUT] / ours[_ROLLOUT],
        "grpo_update_ratio": stock[_UPDATE] / ours[_UPDATE],
        "grpo_peak_memory_ratio": peaks["stock-grpo"] / peaks["grpo"],
        "grpo_step_s": our_s,
        "grpo_stock_step_s": stock_s,
        "grpo_rollout_s": ours[_ROLLOUT],
        "grpo_update_s": ours[_UPDATE],
        "grpo_completion_tokens": tokens,
        "grpo_completion_tokens_spread": spread,
        "grpo_zero_variance_groups": equal,
    }


def _stock_shapes(
    examples: Sequence[TokenizedExample], settings: SftSettings
) -> Mapping[Work, int]:
    length = bucket_of(settings.max_length)
    rows = _STOCK_TOKENS // length
    return {(rows, length): math.ceil(len(examples) / rows)}


def _tokens(shapes: Mapping[Any, int]) -> int:
    return sum(times * math.prod(shape) for shape, times in shapes.items())


def _total(shapes: Mapping[Any, int], seconds: Mapping[Any, float]) -> float:
    return sum(times * seconds[shape] for shape, times in shapes.items())


def _turns(shapes: Mapping[str, Sequence[Work]]) -> dict[str, dict[Work, float]]:
    """Return the median seconds of each way's shapes; under () the peak of its memory."""
    ours = [way for way in shapes if not way.startswith("stock")]
    taken = in_turns(__name__, shapes, turns=_TURNS, kernels=ours)
    return {
        way: {
            **{shape: float(np.median(rows[1:, SECONDS])) for shape, rows in found.items()},
            (): float(max(rows[-1, PEAK] for rows in found.values())),
        }
        for way, found in taken.items()
    }


def _work(way: str) -> None:
    """Do the pieces of work that stdin asks for, and print what each took."""
    mesh = device_mesh()
    ref = get_gemma_ref_model(EMBEDDED, mesh)
    with mesh:
        if way.endswith("grpo"):
            answer(_grpo_step(way, ref, mesh))
            return
        model = get_trainable_model(ref.model, mesh, SftSettings.of(_CPU).lora)
        step, _ = _trainer(way, model).jit_train_and_eval_step()

        def once(*shape: int) -> tuple[()]:
            float(step(_sft_batch(shape))[0])
            return ()

        answer(once)


def _grpo_step(way: str, ref: RefModel, mesh: jax.sharding.Mesh) -> Callable[..., Sequence[float]]:
    """Return what draws completions, or updates on some, and says how long these are."""
    settings, stock = GrpoSettings.of(_CPU), way.startswith("stock")
    drawn = Step(ref=ref, settings=settings, mesh=mesh)
    example, figures = drawn.example()
    model = get_trainable_model(ref.model, mesh, settings.lora)
    step, _ = _trainer(way, model).jit_train_and_eval_step()
    rows = settings.grpo.rows_at_once(mesh.shape["fsdp"])
    batch: Any = example if stock else policy_batch(example, settings.grpo, rows=rows)

    def work(kind: int) -> Sequence[float]:
        if kind == _UPDATE[0]:
            float(step(batch)[0])
        else:
            drawn.draw(stock=stock)
        return figures

    return work


def _trainer(way: str, model: Gemma3) -> PeftTrainer:
    """Return the trainer whose step is measured."""
    match way:
        case "sft":
            config = SftSettings.of(_CPU).training
            return build_trainer(model, config, steps=1000)
        case "grpo":
            return policy_trainer(model, GrpoSettings.of(_CPU).grpo)
        case "stock-sft":
            return stock_sft_trainer(model)
        case _:
            group = GrpoSettings.of(_CPU).num_generations
            return stock_grpo_trainer(model, num_generations=group)


def _sft_batch(shape: Work) -> TrainingInput:
    """Return a full batch of random tokens: what they say does not change the time."""
    tokens = np.random.default_rng(0).integers(4, 544, shape).astype(np.int32)
    return TrainingInput(input_tokens=tokens, input_mask=np.ones(shape, np.float32))


if __name__ == "__main__":
    _work(sys.argv[1])
