"""Training beside TRL and peft on this CPU: LoRA by SFT, and steps of GRPO, as a user gets them.

The same weights, exported as a Hugging Face folder, in fp32; the same examples, or prompts and
rewards, a step; the same rank, rates and number of steps. Ours is v1's trainer in its own rows, and
for GRPO the whole of v2's training. Each way is a process of its own; two take turns, so that other
load on the machine meets both alike. The embedded model always, Gemma 3 270M where its weights are.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tunix.sft.peft_trainer import TrainingInput

from benchmarks import CPU_SECONDS, PEAK, SECONDS, Requests, answer, in_turns, worker
from benchmarks.with_torch import peft_sft, trl_grpo, trl_sft
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.gemma3 import save_model
from nblib.models.lora import get_trainable_model
from nblib.models.mesh import device_mesh
from nblib.models.names import get_gemma_ref_model
from nblib.models.published import EMBEDDED, ModelNotFound, find_model
from nblib.runs import start_run
from nblib.sources.gsm8k import FOLDER_VARIABLE
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import Reward, RewardFunction, reward_function
from nblib.tasks.task import Example
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import load_tokenizer, stop_tokens
from nblib.tools.preflight.workload import sft_workload
from nblib.training.grpo import prompt_order, train_grpo
from nblib.training.sft import build_trainer

_TURNS = 2
_GRPO_STEPS = 3  # after one that compiles
_SAME_LOSS = 1e-3
_GIB = 2**30
_NEEDED = ("torch", "peft", "trl")
# A base is asked questions alone: it knows no other form, and its completions end.
_TASK = replace(GSM8K, system_prompt="")
# What a completion earns differs within each group, or ours would leave groups out.
_REWARDS = {"brevity": 0.1}
# TRL as it comes; with its packing; without its gradient checkpointing. And peft in a plain loop:
# TRL is not the fastest that transformers can be on a CPU.
_SFT = ("trl", "trl-packed", "trl-kept", "peft")
_GRPO = ("trl", "trl-kept")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of a model's training is measured: SFT's batches, what GRPO's settings are."""

    batches: int
    grpo: Mapping[str, Any]
    sft: Sequence[str] = _SFT
    grpo_ways: Sequence[str] = _GRPO
    trl_prompts: int = 3  # at once in TRL's update


_SIZES = {
    EMBEDDED: Sizes(batches=8, grpo={"PROMPTS_PER_STEP": 6}),
    "gemma3-270m": Sizes(
        batches=2,
        sft=("trl", "peft"),
        grpo_ways=("trl",),
        grpo=dict(LORA_RANK=16, PROMPTS_PER_STEP=2, BATCH_TOKENS=1024, MAX_NEW_TOKENS=64),
        trl_prompts=1,
    ),
}


def peers() -> dict[str, float]:
    """Compare useful tokens a second of SFT, seconds a step of GRPO, and peaks of memory."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        print(f"peers: left out, {missing[0]} is not installed: pip install -e '.[parity,peers]'")
        return {}
    figures: dict[str, float] = {"peers_on_gsm8k": float(bool(os.environ.get(FOLDER_VARIABLE)))}
    for model in _SIZES:
        try:
            find_model(model)
        except ModelNotFound as error:
            print(f"peers: left out, {error}")
            continue
        with tempfile.TemporaryDirectory(prefix="nblib-") as folder:
            given = (model, str(Path(folder) / "model"))
            with worker(__name__, "write", *given, as_a_kernel=False) as ask:
                ask(0)  # in a process of its own: what it holds would count as this one's peak
            figures |= _sft(*given) | _grpo(*given)
    return figures


def _sft(model: str, folder: str) -> dict[str, float]:
    """Train on a few of v1's batches, each way with the same examples a step."""
    batches = _batches(model)
    useful = sum(int(np.count_nonzero(batch.input_tokens)) for batch in batches)
    name = f"peers_{model.replace('-', '_')}_sft"
    works = [(number,) for number in range(len(batches))]
    figures: dict[str, float] = {}
    for way in _SIZES[model].sft:
        ours, theirs = _pair("sft", way, works, model, folder)
        check_losses(ours["first"], theirs["first"])
        figures |= _ratios(name, way, ours, theirs)
        figures[f"{name}_useful_tokens_per_s"] = useful / ours["seconds"]
        figures[f"{name}_{way.replace('-', '_')}_useful_tokens_per_s"] = useful / theirs["seconds"]
        figures[f"{name}_last_loss"] = ours["last"]
        figures[f"{name}_{way.replace('-', '_')}_last_loss"] = theirs["last"]
    return figures


def _grpo(model: str, folder: str) -> dict[str, float]:
    """Make a few steps of GRPO: completions, rewards and the update."""
    name = f"peers_{model.replace('-', '_')}_grpo"
    figures: dict[str, float] = {}
    for way in _SIZES[model].grpo_ways:
        ours, theirs = _pair("grpo", way, [(0,)], model, folder)
        figures |= _ratios(name, way, ours, theirs)
        for key, one in {name: ours, f"{name}_{way.replace('-', '_')}": theirs}.items():
            figures[f"{key}_step_s"] = one["seconds"]
            figures[f"{key}_reward"] = one["mean"]
            figures[f"{key}_completion_tokens"] = one["tokens"]
    return figures


def _ratios(
    name: str, way: str, ours: Mapping[str, float], theirs: Mapping[str, float]
) -> dict[str, float]:
    key = f"{name}_{way.replace('-', '_')}"
    return {
        f"{key}_ratio": theirs["seconds"] / ours["seconds"],
        f"{key}_cpu_seconds_ratio": theirs["cpu_seconds"] / ours["cpu_seconds"],
        f"{key}_peak_memory_ratio": theirs["peak"] / ours["peak"],
        f"{name}_peak_gib": ours["peak"] / _GIB,
        f"{key}_peak_gib": theirs["peak"] / _GIB,
    }


def check_losses(ours: float, theirs: float) -> None:
    """Refuse to compare speeds where the first losses differ. Raises RuntimeError with both."""
    if not abs(ours - theirs) <= _SAME_LOSS * theirs:
        raise RuntimeError(
            f"the first loss is {ours:.4f} here and {theirs:.4f} with the peer: they do not train "
            "the same model on the same examples, so that their speeds say nothing"
        )


def _pair(
    kind: str, way: str, works: Sequence[tuple[int]], model: str, folder: str
) -> list[dict[str, float]]:
    """Return what ours and another way took for the pieces of work: of medians over the turns.

    `first` and `last` are figures of the first and last step; `mean` is over all.
    """
    ways = {f"{kind}-nblib": works, f"{kind}-{way}": works}
    turns = _TURNS if kind == "sft" else _GRPO_STEPS
    taken = in_turns(__name__, ways, model, folder, turns=turns, kernels=[f"{kind}-nblib"])
    found = []
    for rows in (list(taken[name].values()) for name in ways):
        medians = np.sum([np.median(one[1:], axis=0) for one in rows], axis=0)
        answered = np.array(rows)[..., PEAK + 1 :]
        found.append(
            {
                "seconds": medians[SECONDS],
                "cpu_seconds": medians[CPU_SECONDS],
                "peak": float(max(one[-1, PEAK] for one in rows)),
                "first": float(answered[0, 0, 0]),
                "last": float(answered[:, -1, 0].mean()),
                "mean": float(answered[..., 0].mean()),
                "tokens": float(answered[..., -1].mean()),
            }
        )
    return found


def _sft_settings(model: str) -> SftSettings:
    data = "gsm8k" if os.environ.get(FOLDER_VARIABLE) else "builtin"
    return SftSettings.of({"PROFILE": "cpu", "MODEL": model, "DATA": data})


def _batches(model: str) -> list[TrainingInput]:
    settings = _sft_settings(model)
    here = replace(settings, model=str(find_model(model)))  # by its name, lengths are estimated
    return list(sft_workload(here, GSM8K, row_multiple=1).batches[: _SIZES[model].batches])


def _grpo_settings(model: str) -> GrpoSettings:
    asked = {"PROFILE": "cpu", "MODEL": model, "TEMPERATURE": 1.0, "REWARDS": _REWARDS}
    return GrpoSettings.of({**asked, "NUM_STEPS": 1 + _GRPO_STEPS, **_SIZES[model].grpo})


def _questions(settings: GrpoSettings) -> tuple[Example, ...]:
    count = settings.prompts_per_step * settings.num_steps
    return _TASK.examples(word_problems(count, seed=0, split="train", levels=settings.levels))


def _work(kind: str, model: str, folder: Path) -> None:
    """Do the pieces of work that stdin asks one of the ways for."""
    match kind.split("-", maxsplit=1):
        case ["write"]:
            answer(lambda _: _write(model, folder))
        case ["sft", "nblib"]:
            _our_sft(model)
        case ["sft", "peft"]:
            batches, step = _batches(model), peft_sft(folder, _sft_settings(model))
            answer(lambda number: (step(batches[number]),))
        case ["sft", way]:
            batches = _batches(model) * (1 + _TURNS)
            kinds = {"packed": way == "trl-packed", "checkpointing": way != "trl-kept"}
            trl_sft(folder, _sft_settings(model), batches, **kinds)
        case ["grpo", "nblib"]:
            _our_grpo(model)
        case [_, way]:
            _their_grpo(model, folder, checkpointing=way != "trl-kept")


def _write(model: str, folder: Path) -> tuple[()]:
    ref = get_gemma_ref_model(model, device_mesh())
    save_model(ref.model, ref.tokenizer, folder, manifest={})
    return ()


def _our_sft(model: str) -> None:
    settings, batches, mesh = _sft_settings(model), _batches(model), device_mesh()
    ref = get_gemma_ref_model(model, mesh)
    with mesh:
        trained = get_trainable_model(ref.model, mesh, settings.lora)
        trainer = build_trainer(trained, settings.training, len(batches) * (1 + _TURNS))
        step, _ = trainer.jit_train_and_eval_step()
        answer(lambda number: (float(step(batches[number])[0]),))


def _our_grpo(model: str) -> None:
    """Run the whole of v2's training: its probe, after each step, waits until it is asked."""
    settings, mesh, requests = _grpo_settings(model), device_mesh(), Requests()
    examples, earned = _questions(settings), _reward(settings)
    ref = get_gemma_ref_model(model, mesh)
    drawn: list[tuple[float, int]] = []

    def reward(example: Example, text: str, tokens: int, truncated: bool) -> Reward:
        found = earned(example, text, tokens, truncated)
        drawn.append((found.reward, tokens))
        return found

    def step_ended(_: Any) -> float:
        if drawn:
            requests.answer(*np.mean(drawn, axis=0))
            drawn.clear()
        if requests.next() is None:
            sys.exit()  # without the checkpoint of a training's end
        return 0.0

    with tempfile.TemporaryDirectory(prefix="nblib-") as root:
        train_grpo(
            get_trainable_model(ref.model, mesh, settings.lora),
            None,
            ref.tokenizer,
            _TASK,
            examples,
            reward,
            replace(settings.grpo, probe_every=1),
            start_run("peers", {}, root=Path(root)),
            hashes={},
            mesh=mesh,
            probe=step_ended,
        )


def _their_grpo(model: str, folder: Path, *, checkpointing: bool) -> None:
    settings = _grpo_settings(model)
    examples, earned = _questions(settings), _reward(settings)
    per_step, steps = settings.prompts_per_step, settings.num_steps
    order = prompt_order(len(examples), per_step=per_step, steps=steps, seed=settings.seed).ravel()
    asked = [examples[number] for number in order]
    stops = stop_tokens(load_tokenizer(folder))

    def reward(
        texts: Sequence[str], tokens: Sequence[Sequence[int]], places: Sequence[int]
    ) -> list[float]:
        return [
            earned(asked[place], text, len(ids), ids[-1] not in stops).reward
            for text, ids, place in zip(texts, tokens, places, strict=True)
        ]

    prompts = task_prompts(_TASK, asked)
    at_once = _SIZES[model].trl_prompts
    trl_grpo(folder, settings, prompts, reward, at_once=at_once, checkpointing=checkpointing)


def _reward(settings: GrpoSettings) -> RewardFunction:
    return reward_function(_TASK, settings.weights, max_new_tokens=settings.max_new_tokens)


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
