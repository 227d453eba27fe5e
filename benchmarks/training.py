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
from tunix.rl.common import TrainExample
from tunix.rl.rollout.base_rollout import CacheConfig, RolloutConfig
from tunix.rl.rollout.vanilla_rollout import VanillaRollout
from tunix.sft.peft_trainer import PeftTrainer, TrainingInput

from benchmarks import PEAK, SECONDS, Work, answer, in_turns
from benchmarks.stock import stock_grpo_trainer, stock_sft_trainer, train_step
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.lora import get_trainable_model
from nblib.models.mesh import device_mesh
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.models.published import EMBEDDED
from nblib.sources.gsm8k import FOLDER_VARIABLE
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.batches import TokenizedExample, bucket_of
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import PAD_ID, stop_tokens
from nblib.tools.preflight.workload import sft_workload

_CPU = {"PROFILE": "cpu"}
_TURNS = 5
_STOCK_TOKENS = 2048  # a batch, as ours has
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
    """Do one step of v2: draw all completions, and update on them; stock without micro-batches."""
    settings = GrpoSettings.of(_CPU)
    group, prompts = settings.num_generations, settings.prompts_per_step
    lengths = settings.max_prompt_length, settings.max_new_tokens
    micro = (settings.micro_batch * group, *lengths)
    whole = (prompts * group, *lengths)
    ways = {"grpo": micro, "stock-grpo": whole, "rollout": whole, "stock-rollout": whole}
    times = _turns(_with_next({way: (shape,) for way, shape in ways.items()}))
    update_s = prompts // settings.micro_batch * times["grpo"][micro]
    stock_update_s = times["stock-grpo"][whole]
    rollout_s, stock_rollout_s = times["rollout"][whole], times["stock-rollout"][whole]
    following = {}
    if "next-grpo" in times:
        next_s, next_rollout_s = times["next-grpo"][whole], times["next-rollout"][whole]
        following = {
            "grpo_step_next_ratio": (next_rollout_s + next_s) / (rollout_s + update_s),
            "grpo_rollout_next_ratio": next_rollout_s / rollout_s,
            "grpo_update_next_ratio": next_s / update_s,
        }
    return {
        **following,
        "grpo_step_ratio": (stock_rollout_s + stock_update_s) / (rollout_s + update_s),
        "grpo_rollout_ratio": stock_rollout_s / rollout_s,
        "grpo_update_ratio": stock_update_s / update_s,
        "grpo_steps_per_s": 1 / (rollout_s + update_s),
        "grpo_stock_steps_per_s": 1 / (stock_rollout_s + stock_update_s),
        "grpo_peak_memory_ratio": times["stock-grpo"][()] / times["grpo"][()],
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
    """Do a step for each shape that stdin asks for, and print what it took."""
    mesh = device_mesh()
    ref = get_gemma_ref_model(EMBEDDED, mesh)
    with mesh:
        step = _rollout_step if way.endswith("rollout") else _training_step
        work = step(way, ref, mesh)

        def once(*shape: int) -> tuple[()]:
            work(shape)
            return ()

        answer(once)


def _training_step(way: str, ref: RefModel, mesh: jax.sharding.Mesh) -> Callable[[Work], Any]:
    settings = SftSettings.of(_CPU) if way.endswith("sft") else GrpoSettings.of(_CPU)
    model = get_trainable_model(ref.model, mesh, settings.lora)
    step = train_step(_trainer(way, model))
    return lambda shape: float(step(_batch(way, shape))[0])


def _rollout_step(way: str, ref: RefModel, mesh: jax.sharding.Mesh) -> Callable[[Work], Any]:
    """Return what draws a group of completions for each of a step's prompts."""
    settings = GrpoSettings.of(_CPU)
    read, written = settings.max_prompt_length, settings.max_new_tokens
    rows = word_problems(settings.prompts_per_step, seed=0, split="train", levels=settings.levels)
    prompts = task_prompts(GSM8K, GSM8K.examples(rows), style="question")
    prompts = [prompt for prompt in prompts for _ in range(settings.num_generations)]
    stop = stop_tokens(ref.tokenizer)
    config = RolloutConfig(
        max_tokens_to_generate=written,
        max_prompt_length=read,
        kv_cache_size=read + written,
        temperature=settings.temperature,
        top_p=1.0,
        eos_tokens=list(stop),
    )
    rollout: VanillaRollout
    if way == "rollout":
        from nblib.training.cluster import PolicyRollout

        rollout = PolicyRollout(ref.model, ref.tokenizer, mesh, config, seed=0)
    else:
        model = ref.model.config
        cache = CacheConfig(
            cache_size=config.kv_cache_size,
            num_layers=model.num_layers,
            num_kv_heads=model.num_kv_heads,
            head_dim=model.head_dim,
        )
        rollout = VanillaRollout(ref.model, ref.tokenizer, cache)
    return lambda shape: rollout.generate(prompts, config)


def _trainer(way: str, model: Gemma3) -> PeftTrainer:
    """Return the trainer whose step is measured; stock's needs none of `nblib.training`."""
    match way:
        case "sft":
            from nblib.training.sft import build_trainer

            config = SftSettings.of(_CPU).training
            return build_trainer(model, config, steps=1000)
        case "grpo":
            from nblib.training.cluster import policy_trainer

            return policy_trainer(model, GrpoSettings.of(_CPU).grpo, pad_id=PAD_ID)
        case "stock-sft" | "next-sft":
            return stock_sft_trainer(model)
        case _:
            group = GrpoSettings.of(_CPU).num_generations
            return stock_grpo_trainer(model, num_generations=group)


def _batch(way: str, shape: Work) -> Any:
    """Return a full batch of random tokens: what they say does not change the time."""
    rng = np.random.default_rng(0)

    def tokens(rows: int, length: int) -> np.ndarray:
        return rng.integers(4, 544, (rows, length)).astype(np.int32)

    if way.endswith("sft"):
        ids = tokens(*shape)
        return TrainingInput(input_tokens=ids, input_mask=np.ones(shape, np.float32))
    rows, read, written = shape
    return TrainExample(
        prompt_ids=tokens(rows, read),
        prompt_mask=np.ones((rows, read), bool),
        completion_ids=tokens(rows, written),
        completion_mask=np.ones((rows, written), np.int32),
        advantages=rng.normal(size=rows).astype(np.float32),
        ref_per_token_logps=None,
        old_per_token_logps=None,
    )


if __name__ == "__main__":
    _work(sys.argv[1])
