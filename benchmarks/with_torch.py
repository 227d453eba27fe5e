"""Training as others do it on a CPU: TRL 1.16's `SFTTrainer` and `GRPOTrainer`, and peft's LoRA.

TRL's defaults stand, gradient checkpointing among them, but for these: fp32 in place of bf16, the
sizes, loss and rates of `nblib`'s run, and the order of the examples. Attention is PyTorch's SDPA,
which is what transformers takes by itself here. https://huggingface.co/docs/trl
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tunix.sft.peft_trainer import TrainingInput

from benchmarks import Requests
from nblib.hosts.settings import GrpoSettings, SftSettings
from nblib.models.lora import ALL_WEIGHTS
from nblib.tokens.tokenizer import BOS_ID, PAD_ID

_IGNORED = -100  # a label that is not counted
_PROJECTIONS = [f"{one}_proj" for one in ("q", "k", "v", "o", "gate", "up", "down")]
_ADAPTER = {"task_type": "CAUSAL_LM", "target_modules": _PROJECTIONS}

Reward = Callable[[Sequence[str], Sequence[Sequence[int]], Sequence[int]], list[float]]


def trl_sft(
    folder: Path,
    settings: SftSettings,
    batches: Sequence[TrainingInput],
    *,
    packed: bool,
    checkpointing: bool,
) -> None:
    """Train with `SFTTrainer`, a step for each piece of work that is asked; it answers the loss.

    A step has the examples of one of the batches, each in a row of its own, padded to the longest.
    `packed`: TRL's `packing`, which joins a batch's rows into one; attention keeps examples apart.
    """
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from trl import SFTConfig, SFTTrainer

    rows_of = trl_packed_rows if packed else trl_rows
    parts = [rows_of(batch) for batch in batches]
    ends = np.cumsum([0, *map(len, parts)]).tolist()
    groups = [list(range(begin, end)) for begin, end in pairwise(ends)]
    with tempfile.TemporaryDirectory(prefix="nblib-") as output:
        config = SFTConfig(
            **_arguments(output, settings),
            gradient_checkpointing=checkpointing,
            packing=packed,
            dataset_kwargs={"skip_prepare_dataset": True},  # token ids and labels are given
            max_steps=len(batches),
        )
        trainer = SFTTrainer(
            str(folder),
            config,
            train_dataset=Dataset.from_list([row for part in parts for row in part]),
            **_parts(folder, settings),
        )
        trainer.get_train_dataloader = lambda: DataLoader(
            trainer.train_dataset, batch_sampler=groups, collate_fn=trainer.data_collator
        )
        _train(trainer, lambda logs: (logs["loss"],))


def trl_grpo(
    folder: Path,
    settings: GrpoSettings,
    prompts: Sequence[str],
    reward: Reward,
    *,
    at_once: int,
    checkpointing: bool,
) -> None:
    """Train with `GRPOTrainer`, a step for each piece of work; it answers reward and length.

    `prompts` are those of all steps in order, `at_once` of them a forward pass. `reward` gets
    completions, their tokens and the places of their prompts. Completions come from
    `transformers.generate`.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def earned(
        prompts: Any, completions: Any, completion_ids: Any, place: Any, **columns: Any
    ) -> list[float]:
        return reward(completions, completion_ids, place)

    group = settings.num_generations
    with tempfile.TemporaryDirectory(prefix="nblib-") as output:
        config = GRPOConfig(
            **_arguments(output, settings),
            gradient_checkpointing=checkpointing,
            per_device_train_batch_size=at_once * group,
            gradient_accumulation_steps=settings.prompts_per_step // at_once,
            num_generations=group,
            max_completion_length=settings.max_new_tokens,
            temperature=settings.temperature,
            beta=settings.beta,
            loss_type=settings.loss,
            shuffle_dataset=False,
            max_steps=len(prompts) // settings.prompts_per_step,
        )
        rows = [{"prompt": prompt, "place": place} for place, prompt in enumerate(prompts)]
        trainer = GRPOTrainer(
            str(folder),
            earned,
            config,
            train_dataset=Dataset.from_list(rows),
            **_parts(folder, settings),
        )
        _train(trainer, lambda logs: (logs["reward"], logs["completions/mean_length"]))


def peft_sft(folder: Path, settings: SftSettings) -> Callable[[TrainingInput], float]:
    """Return a step of a plain loop over peft's LoRA and transformers' loss, which gives the loss.

    Each example has a row of its own, padded to the longest.
    """
    import torch
    from peft import get_peft_model
    from transformers import Gemma3ForCausalLM

    base = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model: Any = get_peft_model(base, _parts(folder, settings)["peft_config"]).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate)

    def train(batch: TrainingInput) -> float:
        rows = trl_rows(batch)
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, value: int) -> Any:
            return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

        ids = padded("input_ids", PAD_ID)
        labels, mask = padded("labels", _IGNORED), (ids != PAD_ID).long()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return train


def trl_rows(batch: TrainingInput) -> list[dict[str, list[int]]]:
    """Return a batch's examples each in a row of its own, without padding.

    Each BOS begins an example. A label is the token itself where it is counted.
    """
    return [
        row
        for tokens, mask in zip(batch.input_tokens, batch.input_mask, strict=True)
        for begin, end in pairwise([*np.flatnonzero(tokens == BOS_ID), np.count_nonzero(tokens)])
        for row in [_row(tokens[begin:end], mask[begin:end])]
    ]


def trl_packed_rows(batch: TrainingInput) -> list[dict[str, list[int]]]:
    """Return a batch's rows as TRL's packing makes them, with the lengths of their examples."""
    rows = []
    for tokens, mask in zip(batch.input_tokens, batch.input_mask, strict=True):
        used = np.count_nonzero(tokens)
        lengths = np.diff([*np.flatnonzero(tokens == BOS_ID), used]).tolist()
        rows.append({**_row(tokens[:used], mask[:used]), "seq_lengths": lengths})
    return rows


def _row(tokens: np.ndarray, mask: np.ndarray) -> dict[str, list[int]]:
    labels = np.where(mask > 0, tokens, _IGNORED)
    return {"input_ids": tokens.tolist(), "labels": labels.tolist()}


def _arguments(output: str, settings: SftSettings | GrpoSettings) -> dict[str, Any]:
    """Return what both trainers are given: no files, no bars, no accelerator, fp32."""
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return {
        "output_dir": output,
        "use_cpu": True,
        "bf16": False,
        "learning_rate": settings.learning_rate,
        "model_init_kwargs": {"dtype": "float32"},
        **quiet,
    }


def _parts(folder: Path, settings: SftSettings | GrpoSettings) -> dict[str, Any]:
    from peft import LoraConfig
    from transformers import AutoTokenizer

    rank, alpha = settings.lora_rank, settings.lora_alpha
    lora = None if rank == ALL_WEIGHTS else LoraConfig(r=rank, lora_alpha=alpha, **_ADAPTER)
    return {"processing_class": AutoTokenizer.from_pretrained(folder), "peft_config": lora}


def _train(trainer: Any, figures: Callable[[Mapping[str, float]], Sequence[float]]) -> None:
    """Run the training; each of its steps waits until it is asked for, and ends in an answer."""
    from transformers import PrinterCallback, TrainerCallback

    requests = Requests()

    class Steps(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            requests.next()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **given: Any) -> None:
            if "grad_norm" in logs:  # of a step, not of the whole
                requests.answer(*figures(logs))
                control.should_training_stop = requests.next() is None

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Steps())
    trainer.train()
