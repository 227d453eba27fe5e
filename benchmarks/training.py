"""Training against the stock way on this CPU: SFT on real lengths, and a step of GRPO.

Each way is a process of its own, with the environment it would have: ours a notebook's kernel's,
stock none. They take turns, so that other load on the machine meets both alike; a shape's seconds
are the median over the turns. Where NBLIB_NEXT_TUNIX names a folder with another `tunix/`, such as
a snapshot of its repository, that one's stock way is measured too.
"""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tunix.models.gemma3.model import Gemma3
from tunix.sft.peft_trainer import PeftTrainer, TrainingInput

from benchmarks import FIGURES, PEAK, SECONDS, Work, answer, in_turns
from benchmarks.rollouts import Step
from benchmarks.stock import stock_grpo_trainer, stock_sft_trainer, train_step
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.lora import get_trainable_model
from nblib.models.mesh import device_mesh
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.models.published import EMBEDDED
from nblib.sources.gsm8k import FOLDER_VARIABLE
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.batches import TokenizedExample, bucket_of
from nblib.tools.preflight.workload import sft_workload

_CPU = {"PROFILE": "cpu"}
_TURNS = 5
_STOCK_TOKENS = 2048  # a batch, as ours has
_ROLLOUT, _UPDATE = (0,), (1,)  # of a step of GRPO
_NEXT_VARIABLE = "NBLIB_NEXT_TUNIX"
_STOCK, _NEXT = "stock-", "next-"  # ways of the Tunix that is installed, and of the other one


def sft() -> dict[str, float]:
    """Train an epoch of v1 on GSM8K, as measured from each shape of its batches.

    Stock: rows all padded to the longest that is allowed. Without GSM8K, built-in problems.
    """
    data = "gsm8k" if os.environ.get(FOLDER_VARIABLE) else "builtin"
    settings = SftSettings.of({**_CPU, "DATA": data})
    work = sft_workload(settings, GSM8K, row_multiple=1)
    ours, stock = work.shapes, _stock_shapes(work.examples, settings)
    times = _turns(_with_next({"sft": tuple(ours), "stock-sft": tuple(stock)}))
    useful = sum(len(example.tokens) for example in work.examples)
    ours_s, stock_s = _total(ours, times["sft"]), _total(stock, times["stock-sft"])
    following = {}
    if "next-sft" in times:
        following["sft_useful_tokens_next_ratio"] = _total(stock, times["next-sft"]) / ours_s
    return {
        **following,
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

    All ways update on the same completions, with what they earned.
    """
    works = (_ROLLOUT, _UPDATE)
    ways = _with_next({"grpo": works, "stock-grpo": works})
    first = {way: _next_tunix() for way in ways if way.startswith(_NEXT)}
    taken = in_turns(__name__, ways, turns=_TURNS, kernels=["grpo"], first=first)
    times = {
        way: [float(np.median(taken[way][work][1:, SECONDS])) for work in works] for way in ways
    }
    peaks = {way: float(taken[way][_UPDATE][-1, PEAK]) for way in ways}
    tokens, spread, equal = taken["grpo"][_UPDATE][-1, FIGURES:].tolist()

    def ratios(other: str, name: str) -> dict[str, float]:
        (rollout_s, update_s), (their_rollout_s, their_update_s) = times["grpo"], times[other]
        return {
            f"grpo_step{name}_ratio": (their_rollout_s + their_update_s) / (rollout_s + update_s),
            f"grpo_rollout{name}_ratio": their_rollout_s / rollout_s,
            f"grpo_update{name}_ratio": their_update_s / update_s,
            f"grpo_peak_memory{name}_ratio": peaks[other] / peaks["grpo"],
        }

    return {
        **ratios("stock-grpo", ""),
        **(ratios("next-grpo", "_next") if "next-grpo" in ways else {}),
        "grpo_rollout_s": times["grpo"][0],
        "grpo_update_s": times["grpo"][1],
        "grpo_completion_tokens": tokens,
        "grpo_completion_tokens_spread": spread,
        "grpo_zero_variance_groups": equal,
    }


def _next_tunix() -> str:
    """Return the folder with the other Tunix, "" for none. Raises ValueError where it has none."""
    folder = os.environ.get(_NEXT_VARIABLE, "")
    if folder and not (Path(folder) / "tunix" / "__init__.py").is_file():
        raise ValueError(
            f"{_NEXT_VARIABLE}={folder} has no tunix/__init__.py: give the folder that holds tunix/"
        )
    return folder and str(Path(folder).resolve())


def _with_next(ways: Mapping[str, tuple[Work, ...]]) -> dict[str, tuple[Work, ...]]:
    """Return the ways, and those of stock once more for the other Tunix, if there is one."""
    stock = {way: works for way, works in ways.items() if way.startswith(_STOCK)}
    following = {way.replace(_STOCK, _NEXT): works for way, works in stock.items()}
    return {**ways, **(following if _next_tunix() else {})}


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
    ours = [way for way in shapes if not way.startswith((_STOCK, _NEXT))]
    first = {way: _next_tunix() for way in shapes if way.startswith(_NEXT)}
    taken = in_turns(__name__, shapes, turns=_TURNS, kernels=ours, first=first)
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
        step = train_step(
            _trainer(way, get_trainable_model(ref.model, mesh, SftSettings.of(_CPU).lora))
        )

        def once(*shape: int) -> tuple[()]:
            float(step(_sft_batch(shape))[0])
            return ()

        answer(once)


def _grpo_step(way: str, ref: RefModel, mesh: jax.sharding.Mesh) -> Callable[..., Sequence[float]]:
    """Return what draws completions, or updates on some, and says how long these are."""
    settings = GrpoSettings.of(_CPU)
    drawn = Step(ref=ref, settings=settings, mesh=mesh)
    batch: Any
    batch, figures = drawn.example()
    update = train_step(_trainer(way, get_trainable_model(ref.model, mesh, settings.lora)))
    if way == "grpo":
        from nblib.training.policy_batch import policy_batch

        rows = settings.grpo.rows_at_once(mesh.shape["fsdp"])
        batch = policy_batch(batch, settings.grpo, rows=rows)
    draw = drawn.draw if way == "grpo" else drawn.draw_by_tunix

    def work(kind: int) -> Sequence[float]:
        if (kind,) == _UPDATE:
            float(update(batch)[0])
        else:
            draw()
        return figures

    return work


def _trainer(way: str, model: Gemma3) -> PeftTrainer:
    """Return the trainer whose step is measured; stock's needs none of `nblib.training`."""
    match way:
        case "sft":
            from nblib.training.sft import build_trainer

            config = SftSettings.of(_CPU).training
            return build_trainer(model, config, steps=1000)
        case "grpo":
            from nblib.training.cluster import policy_trainer

            return policy_trainer(model, GrpoSettings.of(_CPU).grpo)
        case "stock-sft" | "next-sft":
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
