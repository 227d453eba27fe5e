"""Gemma 3 270M on this CPU, beside what others run it with: training against transformers and peft.

The same weights, examples a step, adapters and first loss, in fp32: ours in v1's packed rows, those
of peft each in a row of its own, padded to the longest. Each way is a process of its own; they take
turns, so that other load on the machine meets both alike. Needs the weights and the extra `parity`;
without them there are no figures.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
from tunix.sft.peft_trainer import TrainingInput

from benchmarks import CPU_SECONDS, PEAK, SECONDS, answer, in_turns
from nblib.hosts.settings import SftSettings
from nblib.models.lora import get_trainable_model
from nblib.models.mesh import device_mesh
from nblib.models.names import get_gemma_ref_model
from nblib.models.published import ModelNotFound, find_model
from nblib.sources.gsm8k import FOLDER_VARIABLE
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.tokenizer import BOS_ID, PAD_ID
from nblib.tools.preflight.workload import sft_workload
from nblib.training.sft import build_trainer

_MODEL = "gemma3-270m"
_BATCHES = 3  # of v1's own
_TURNS = 2
_IGNORED = -100  # a label that transformers does not count
_SAME_LOSS = 1e-3
_GIB = 2**30

Step = Callable[[TrainingInput], float]


def peers() -> dict[str, float]:
    """Compare useful tokens a second and peak memory with those of each peer."""
    missing = [name for name in ("torch", "peft") if find_spec(name) is None]
    if missing:
        print(f"peers: left out, {missing[0]} is not installed: pip install -e '.[parity]'")
        return {}
    try:
        find_model(_MODEL)
    except ModelNotFound as error:
        print(f"peers: left out, {error}")
        return {}
    return _training()


def _training() -> dict[str, float]:
    """Train on a few batches."""
    batches = _batches(_settings())
    useful = sum(int(np.count_nonzero(batch.input_tokens)) for batch in batches)
    taken = _turns(len(batches))
    ours, theirs = taken["nblib"], taken["peft"]
    _check_losses(ours["loss"], theirs["loss"])
    return {
        "peers_training_useful_tokens_ratio": theirs["seconds"] / ours["seconds"],
        "peers_training_cpu_seconds_ratio": theirs["cpu_seconds"] / ours["cpu_seconds"],
        "peers_training_useful_tokens_per_s": useful / ours["seconds"],
        "peers_training_peft_useful_tokens_per_s": useful / theirs["seconds"],
        "peers_training_peak_memory_ratio": theirs["peak"] / ours["peak"],
        "peers_training_peak_gib": ours["peak"] / _GIB,
        "peers_training_peft_peak_gib": theirs["peak"] / _GIB,
        "peers_on_gsm8k": float(bool(os.environ.get(FOLDER_VARIABLE))),
    }


def _check_losses(ours: float, theirs: float) -> None:
    if not abs(ours - theirs) <= _SAME_LOSS * theirs:
        raise RuntimeError(
            f"the first loss is {ours:.4f} here and {theirs:.4f} with peft: they do not train the "
            "same model on the same examples, so that their speeds say nothing"
        )


def _turns(batches: int) -> dict[str, dict[str, float]]:
    """Return each way's seconds for a step of each batch, its peak of memory and first loss."""
    works = {way: [(number,) for number in range(batches)] for way in _WAYS}
    taken = in_turns(__name__, works, turns=_TURNS, kernels=["nblib"])
    figures = {}
    for way, found in taken.items():
        medians = np.sum([np.median(rows[1:], axis=0) for rows in found.values()], axis=0)
        figures[way] = {
            "seconds": medians[SECONDS],
            "cpu_seconds": medians[CPU_SECONDS],
            "peak": max(rows[-1, PEAK] for rows in found.values()),
            "loss": found[0,][0, PEAK + 1],
        }
    return figures


def _settings() -> SftSettings:
    return SftSettings.of(
        {
            "PROFILE": "cpu",
            "MODEL": _MODEL,
            "DATA": "gsm8k" if os.environ.get(FOLDER_VARIABLE) else "builtin",
        }
    )


def _batches(settings: SftSettings) -> list[TrainingInput]:
    here = replace(settings, model=str(find_model(_MODEL)))  # by its name, lengths are estimated
    return list(sft_workload(here, GSM8K, row_multiple=1).batches[:_BATCHES])


def _unpacked(batch: TrainingInput) -> TrainingInput:
    """Return a batch's examples each in a row of its own, padded to the longest."""
    examples = []
    for tokens, mask in zip(batch.input_tokens, batch.input_mask, strict=True):
        begins = [*np.flatnonzero(tokens == BOS_ID), np.count_nonzero(tokens)]
        examples += [(tokens[a:b], mask[a:b]) for a, b in pairwise(begins)]
    longest = max(len(tokens) for tokens, _ in examples)
    tokens, mask = (
        np.stack([np.pad(one, (0, longest - len(one))) for one in column])
        for column in zip(*examples, strict=True)
    )
    return TrainingInput(input_tokens=tokens, input_mask=mask)


def _our_step(settings: SftSettings) -> Step:
    mesh = device_mesh()
    ref = get_gemma_ref_model(settings.model, mesh)
    with mesh:
        model = get_trainable_model(ref.model, mesh, settings.lora)
        step, _ = build_trainer(model, settings.training, steps=1000).jit_train_and_eval_step()

    def train(batch: TrainingInput) -> float:
        with mesh:
            return float(step(batch)[0])

    return train


def _pefts_step(settings: SftSettings) -> Step:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Gemma3ForCausalLM

    base = Gemma3ForCausalLM.from_pretrained(find_model(_MODEL), dtype=torch.float32)
    names = [f"{one}_proj" for one in ("q", "k", "v", "o", "gate", "up", "down")]
    rank, alpha = settings.lora_rank, settings.lora_alpha
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    model: Any = get_peft_model(base, lora).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate)

    def train(batch: TrainingInput) -> float:
        rows = _unpacked(batch)
        ids = torch.tensor(rows.input_tokens, dtype=torch.long)
        counted = torch.tensor(rows.input_mask) > 0
        labels = torch.where(counted, ids, _IGNORED)
        loss = model(input_ids=ids, attention_mask=(ids != PAD_ID).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


_WAYS: Mapping[str, Callable[[SftSettings], Step]] = {"nblib": _our_step, "peft": _pefts_step}


def _work(way: str) -> None:
    """Do a step on each batch that stdin asks for, and print what it took and its loss."""
    settings = _settings()
    batches, step = _batches(settings), _WAYS[way](settings)
    answer(lambda index: (step(batches[index]),))


if __name__ == "__main__":
    _work(sys.argv[1])
