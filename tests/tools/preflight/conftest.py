import json
from dataclasses import replace

import pytest


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder of runs of its own: nothing compiled is found from another test."""
    monkeypatch.setenv("NBLIB_RUNS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def config_folder(tmp_path_factory):
    """A tiny model's configuration alone: what is compiled needs no weights."""
    folder = tmp_path_factory.mktemp("tiny")
    values = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 2,
        "vocab_size": 544,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "head_dim": 8,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 8,
        "sliding_window": 16,
        "rope_theta": 1_000_000,
        "rope_local_base_freq": 10_000,
    }
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, new_model, tokenizer):
    """A tiny model, whole."""
    from nblib.models.gemma3 import save_model

    folder = tmp_path_factory.mktemp("whole") / "model"
    save_model(new_model(num_layers=2), tokenizer, folder, manifest={})
    return folder


@pytest.fixture
def sft(config_folder):
    """Settings of v1 for the tiny model: 8 rows of 128 tokens."""
    from nblib.hosts.settings import SftSettings

    given = {
        "PROFILE": "cpu",
        "MODEL": str(config_folder),
        "NUM_SAMPLES": 40,
        "NUM_EPOCHS": 2,
        "MAX_LENGTH": 128,
        "BATCH_TOKENS": 1024,
        "LEARNING_RATE": 1e-2,
        "LORA_RANK": 2,
        "LORA_ALPHA": 2.0,
    }
    return replace(SftSettings.of(given), builtin_levels=(1,), long_hand=0.0)


@pytest.fixture
def grpo(config_folder):
    """Settings of v2 for the tiny model: 4 prompts in groups of 2."""
    from nblib.hosts.settings import GrpoSettings

    return GrpoSettings.of(
        {
            "PROFILE": "cpu",
            "MODEL": str(config_folder),
            "LEARNING_RATE": 1e-3,
            "NUM_STEPS": 3,
            "PROMPTS_PER_STEP": 4,
            "BATCH_TOKENS": 256,
            "NUM_GENERATIONS": 2,
            "MAX_PROMPT_LENGTH": 16,
            "MAX_NEW_TOKENS": 8,
            "TEMPERATURE": 1.0,
            "LORA_RANK": 2,
            "LORA_ALPHA": 2.0,
        }
    )
