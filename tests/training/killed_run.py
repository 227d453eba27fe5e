"""Train tiny adapters as a process of its own, which `test_killed_runs.py` kills."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace

import jax
import numpy as np
from flax import nnx
from tunix.sft.peft_trainer import TrainingInput

from nblib.models.gemma3 import init_model
from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model
from nblib.models.mesh import device_mesh
from nblib.models.processes import on_host
from nblib.models.published import EMBEDDED_FOLDER
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.rewards import Reward
from nblib.tasks.task import Example
from nblib.tokens.tokenizer import load_tokenizer
from nblib.training import grpo, rollouts, sft
from nblib.training.checkpoints import latest_step
from nblib.training.grpo_config import GrpoConfig
from tests.tiny_model import TINY

STEPS, SAVE_EVERY = 18, 3
TASK = GSM8K.variants["hash"]

CONFIG = replace(TINY, num_layers=1)


class SlowBatches(Sequence):
    """Random batches, the same in every process, slow enough to be killed between two."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return SlowBatches(len(range(*index.indices(self.count))))
        if index >= self.count:
            raise IndexError(index)
        time.sleep(0.05)
        tokens = np.random.default_rng(index).integers(4, 544, (2, 32)).astype(np.int32)
        return TrainingInput(input_tokens=tokens, input_mask=np.ones((2, 32), np.float32))


def die_at(trainer, moment, step):
    """Kill this process where a parent could hardly hit: around the writing of checksums."""
    write_checksums = trainer.write_checksums

    def write_and_die(checkpoints):
        committed = (checkpoints / "actor" / str(step)).is_dir()
        if moment == "checked":
            write_checksums(checkpoints)
        if committed and (moment == "committed" or latest_step(checkpoints) == step):
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "committed":
            write_checksums(checkpoints)

    trainer.write_checksums = write_and_die


def run_in(folder):
    parameters = {"lora_rank": 2}
    return SimpleNamespace(path=folder, checkpoints=folder / "checkpoints", parameters=parameters)


def tune(model, folder, mesh, val_batches=(), **options):
    """Fine-tune the adapters on random tokens."""
    return sft.train(
        model,
        SimpleNamespace(batches=SlowBatches(STEPS), val_batches=val_batches),
        sft.SftConfig(learning_rate=1e-2, save_interval=f"{SAVE_EVERY} steps"),
        run_in(folder),
        hashes={},
        mesh=mesh,
        **options,
    )


QUESTIONS = [
    Example(id=f"p{number}", prompt=f"{number} + 1?", completion="", reference="1")
    for number in range(5)
]


def reward_length(example, completion, tokens, truncated):
    """Reward length in characters, slowly enough to be killed between two completions."""
    time.sleep(0.01)
    reward = len(completion) / 8
    score = TASK.score(completion, example)
    return Reward(reward=reward, terms={"length": reward}, score=score)


def reinforce(model, folder, mesh, reference=None, changes=MappingProxyType({}), **options):
    """Train the adapters with GRPO for length."""
    rollouts.LIMIT_BYTES = 8192
    return grpo.train_grpo(
        model,
        reference,
        load_tokenizer(EMBEDDED_FOLDER),
        TASK,
        QUESTIONS,
        reward_length,
        GrpoConfig(
            learning_rate=1e-2,
            prompts_per_step=2,
            num_generations=3,
            max_prompt_length=32,
            max_new_tokens=8,
            **{"steps": STEPS, "save_interval": f"{SAVE_EVERY} steps", **changes},
        ),
        run_in(folder),
        hashes={},
        mesh=mesh,
        **options,
    )


def main(method, folder, output, moment="", step=0):
    """Train in a folder, or go on there, to the end, and save the adapters.

    What is printed is written to the file `output`. With a moment, "committed" or "checked", the
    process kills itself when the checkpoint of this step is committed, or when it has checksums.
    """
    with output.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.stdout.reconfigure(line_buffering=True)
    if moment:
        die_at({"sft": sft, "grpo": grpo}[method], moment, step)
    train(method, init_model(CONFIG, seed=0), folder, device_mesh())


def train(method, base, folder, mesh, **options):
    """Train adapters over a base to the end, and save them."""
    model = get_lora_model(base, mesh, LoraConfig(rank=2, alpha=4.0))
    trained = {"sft": tune, "grpo": reinforce}[method](model, folder, mesh, **options)
    print(f"resumed at {trained.resumed_at}")
    adapters = jax.tree_util.tree_leaves_with_path(nnx.state(trained.model, LORA_PARAMETER))
    named = {jax.tree_util.keystr(path): on_host(leaf) for path, leaf in adapters}
    np.savez(folder / "adapters.npz", **named)
