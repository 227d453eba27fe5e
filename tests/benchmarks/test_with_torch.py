"""Training with TRL and peft, where the extras `parity` and `peers` are installed."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from tunix.sft.peft_trainer import TrainingInput

from benchmarks import PEAK, peers, with_torch, worker
from nblib.hosts.settings import GrpoSettings
from nblib.models.published import EMBEDDED

BATCH = TrainingInput(
    input_tokens=np.array([[2, 7, 8, 2, 9, 0], [2, 5, 6, 4, 0, 0]], np.int32),
    input_mask=np.array([[0, 0, 1, 0, 1, 0], [0, 1, 1, 1, 0, 0]], np.float32),
)


def test_packed_rows_are_taken_apart():
    assert with_torch.trl_rows(BATCH) == [
        {"input_ids": [2, 7, 8], "labels": [-100, -100, 8]},
        {"input_ids": [2, 9], "labels": [-100, 9]},
        {"input_ids": [2, 5, 6, 4], "labels": [-100, 5, 6, 4]},
    ]


def test_packed_rows_keep_the_lengths_of_their_examples():
    assert with_torch.trl_packed_rows(BATCH) == [
        {"input_ids": [2, 7, 8, 2, 9], "labels": [-100, -100, 8, -100, 9], "seq_lengths": [3, 2]},
        {"input_ids": [2, 5, 6, 4], "labels": [-100, 5, 6, 4], "seq_lengths": [4]},
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("peer") / "model")
    with worker(peers.__name__, "write", EMBEDDED, folder, as_a_kernel=False) as ask:
        ask(0)
    return folder


def first_loss(way, folder):
    with worker(peers.__name__, f"sft-{way}", EMBEDDED, folder, as_a_kernel=False) as ask:
        return ask(0)[PEAK + 1]


def test_all_begin_with_the_same_loss(exported):
    pytest.importorskip("trl", reason="needs the extras parity and peers")
    ours = first_loss("nblib", exported)
    for way in ("trl", "trl-packed", "peft"):
        peers.check_losses(ours, first_loss(way, exported))


def test_trl_asks_each_prompt_in_order_as_often_as_a_group_has(exported, monkeypatch):
    pytest.importorskip("trl", reason="needs the extras parity and peers")
    sizes = {"PROMPTS_PER_STEP": 2, "MICRO_BATCH": 1, "NUM_GENERATIONS": 2, "MAX_NEW_TOKENS": 4}
    settings = GrpoSettings.of({"PROFILE": "cpu", "TEMPERATURE": 1.0, **sizes})
    monkeypatch.setattr(sys, "stdin", io.StringIO("0\n0\n"))
    monkeypatch.setattr(sys, "stdout", answers := io.StringIO())
    asked = []

    def reward(texts, tokens, places):
        asked.append(list(places))
        assert all(1 <= len(ids) <= 4 for ids in tokens) and len(texts) == len(tokens)
        return [float(place) for place in places]

    prompts = ["One?", "Two?", "Three?", "Four?"]
    with_torch.trl_grpo(Path(exported), settings, prompts, reward, checkpointing=True)
    assert asked == [[0, 0, 1, 1], [2, 2, 3, 3]]
    rewards = [line.split()[PEAK + 1] for line in answers.getvalue().splitlines()]
    assert rewards == ["0.5", "2.5"]
