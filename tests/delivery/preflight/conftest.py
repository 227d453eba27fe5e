import json

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
    return {
        "model": str(config_folder),
        "dtype": "float32",
        "data": "builtin",
        "builtin_levels": (1,),
        "long_hand": 0.0,
        "levels": (),
        "num_samples": 40,
        "num_epochs": 2,
        "max_length": 128,
        "packing": "off",
        "batch_tokens": 1024,
        "learning_rate": 1e-2,
        "lora_rank": 2,
        "lora_alpha": 2.0,
        "accumulation": 1,
        "remat": False,
        "save_interval": "30 min",
    }


@pytest.fixture
def grpo(sft):
    """Settings of v2 for the tiny model: 4 prompts in groups of 2."""
    return {
        "model": sft["model"],
        "dtype": sft["dtype"],
        "learning_rate": 1e-3,
        "num_steps": 3,
        "prompts_per_step": 4,
        "micro_batch": 4,
        "num_generations": 2,
        "num_iterations": 1,
        "max_prompt_length": 16,
        "max_new_tokens": 8,
        "temperature": 1.0,
        "lora_rank": 2,
        "lora_alpha": 2.0,
        "remat": False,
        "levels": (),
    }
