"""Profiles and recipes: what fills the parameters that a notebook leaves at 0, "" or [].

One table a notebook. A profile is a kind of machine and the patience that goes with it; every
value a user sets wins over it. `settings` makes one value of both.
"""

from collections.abc import Mapping
from typing import Any

DTYPES = ("float32", "bfloat16")
PROFILES = ("auto", "cpu", "tpu", "gpu", "smoke")

_CPU_FOUNDATION = {
    "levels": (1, 2),
    "num_samples": 14_000,
    "num_epochs": 1,
    "gsm8k_epochs": 0,
    "practice_samples": 0,
    "practice_levels": (),
    "long_hand": 0.0,
    "max_length": 192,
    "packing": "off",  # on a CPU attention over whole rows costs more than padding
    "batch_tokens": 2048,
    "learning_rate": 1e-2,
    "eval_samples": 200,
    "save_interval": "5 min",
}
FOUNDATION_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": _CPU_FOUNDATION,
    "full": {
        **_CPU_FOUNDATION,
        "levels": (1, 1, 2, 2, 2, 3, 4, 5),  # in turn: the easy levels more often
        "num_samples": 40_000,
        "gsm8k_epochs": 3,
        "practice_samples": 12_000,
        "practice_levels": (1, 2, 2, 2, 3, 4, 5),
        "long_hand": 0.4,
        "max_length": 512,
        "batch_tokens": 4096,
        "eval_samples": 1000,
    },
    "smoke": {**_CPU_FOUNDATION, "num_samples": 400, "eval_samples": 16},
}

_CPU_SFT = {
    "model": "embedded",
    "dtype": "float32",
    "data": "builtin",
    "builtin_levels": (1, 2, 3, 4, 5),
    "long_hand": 0.35,  # of v1 both ways; v2 finds out which one is right more often
    "levels": (),
    "num_samples": 2200,
    "num_epochs": 1,
    "max_length": 384,
    "packing": "off",
    "batch_tokens": 2048,
    "learning_rate": 5e-4,  # more costs answers on the hard levels, and the format comes as surely
    "lora_rank": 64,
    "lora_alpha": 64.0,
    "eval_samples": 300,
    "eval_batch": 32,  # on a CPU: larger ones do not fit its cache
    "max_new_tokens": 320,
    "format_target": 0.99,
    "save_interval": "10 steps",
}
_ACCELERATOR_SFT = {
    "model": "gemma3-1b-it",
    "dtype": "bfloat16",  # of the weights that stay as they are
    "data": "gsm8k",
    "builtin_levels": (1, 2, 3, 4, 5),
    "long_hand": 0.0,
    "levels": (),
    "num_samples": -1,
    "num_epochs": 1,
    "max_length": 1024,
    "packing": "on",
    "batch_tokens": 8192,
    "learning_rate": 1e-4,
    "lora_rank": 64,
    "lora_alpha": 64.0,
    "eval_samples": -1,
    "eval_batch": 64,
    "max_new_tokens": 512,
    "format_target": 0.95,
    "save_interval": "30 min",
}
# GSM8K's rows are longer than the built-in ones, and a tiny model needs them all.
GSM8K_ON_CPU = {
    "num_samples": -1,
    "num_epochs": 1,
    "learning_rate": 2e-3,
    "max_length": 512,
    "max_new_tokens": 384,
    "format_target": 0.90,
    "eval_samples": 200,
    "eval_batch": 32,
    "save_interval": "2 min",
}
SFT_PROFILES: Mapping[str, Mapping[str, Any]] = {
    "cpu": _CPU_SFT,
    "gpu": _ACCELERATOR_SFT,
    "tpu": _ACCELERATOR_SFT,
    "smoke": {**_CPU_SFT, "num_samples": 50, "learning_rate": 2e-3, "eval_samples": 16},
}

_CPU_GRPO = {
    "data": "builtin",
    "dtype": "float32",
    "levels": (4, 5),  # where v1 is right now and then: a group needs both
    "num_samples": 2000,
    "num_steps": 140,
    "prompts_per_step": 12,
    "num_generations": 8,
    "micro_batch": 3,  # less memory to go through at a time than all 12
    "max_prompt_length": 208,
    "max_new_tokens": 320,
    "temperature": 0.5,  # a tiny model at 1 slips in so many digits that no way of working shows
    "learning_rate": 2e-4,
    "lora_rank": -1,  # all weights: adapters save nothing in a model so small
    "lora_alpha": 64.0,
    "probe_samples": 64,
    "probe_every": 25,
    "eval_samples": 450,
    "eval_batch": 32,
    "gain_target": 0.10,
    "save_interval": "5 min",
}
_ACCELERATOR_GRPO = {
    "data": "gsm8k",
    "dtype": "bfloat16",
    "levels": (),
    "num_samples": -1,
    "num_steps": 400,
    "prompts_per_step": 16,
    "num_generations": 8,
    "micro_batch": 4,
    "max_prompt_length": 256,
    "max_new_tokens": 512,
    "temperature": 1.0,
    "learning_rate": 3e-6,
    "lora_rank": 64,
    "lora_alpha": 64.0,
    "probe_samples": 64,
    "probe_every": 50,
    "eval_samples": -1,
    "eval_batch": 64,
    "gain_target": 0.02,
    "save_interval": "30 min",
}
GRPO_PROFILES: Mapping[str, Mapping[str, Any]] = {
    "cpu": _CPU_GRPO,
    "gpu": _ACCELERATOR_GRPO,
    "tpu": _ACCELERATOR_GRPO,
    "smoke": {
        **_CPU_GRPO,
        "num_samples": 60,
        "num_steps": 3,
        "prompts_per_step": 4,
        "micro_batch": 2,
        "num_generations": 4,
        "probe_every": 2,
        "eval_samples": 16,
    },
}

_CPU_EVAL = {
    "data": "builtin",
    "builtin_levels": (1, 2, 3, 4, 5),
    "levels": (),
    "eval_samples": 1319,  # as many as GSM8K's test split has
    "eval_batch": 32,
    "max_new_tokens": 320,
    "shots": 3,
    "samples_per_question": 1,
    "forgetting_samples": 200,
}
_ACCELERATOR_EVAL = {
    **_CPU_EVAL,
    "data": "gsm8k",
    "eval_samples": -1,
    "max_new_tokens": 512,
    "shots": 5,
    "forgetting_samples": 300,
}
EVAL_PROFILES: Mapping[str, Mapping[str, Any]] = {
    "cpu": _CPU_EVAL,
    "gpu": _ACCELERATOR_EVAL,
    "tpu": _ACCELERATOR_EVAL,
    "smoke": {**_CPU_EVAL, "eval_samples": 16, "forgetting_samples": 8},
}


def resolve_profile(profile: str) -> str:
    """Return the profile that `auto` means here: the accelerator that jax sees, else `cpu`.

    Raises ValueError for an unknown profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"PROFILE {profile!r} is unknown: expected one of {', '.join(PROFILES)}")
    if profile != "auto":
        return profile
    import jax

    return jax.default_backend()


def fill(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with every 0, "" and [] replaced by the table's value, where it has one.

    >>> fill({"epochs": 3, "data": "gsm8k"}, {"epochs": 0, "data": "builtin"})
    {'epochs': 3, 'data': 'builtin'}
    """
    return {**given, **table, **{name: value for name, value in given.items() if value}}
