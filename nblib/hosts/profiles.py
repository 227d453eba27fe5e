"""Profiles: what fills the parameters that a notebook leaves open, by `profiles.toml`."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from itertools import product
from typing import Any

from nblib.models.published import is_real_gemma
from nblib.sources.datasets import is_file

PROFILES = ("auto", "cpu", "tpu", "gpu", "smoke")
TASK = "gsm8k"  # where a notebook has no parameter for it


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


def resolve_dtype(dtype: str) -> str:
    """Return the dtype that weights get on this machine for the one that was asked for.

    GPUs of a compute capability below 8.0 (P100, V100, T4) have no units for bf16: it becomes
    float32, with a line that says so. float16, which they have, ends at 65,504; the activations of
    Gemma 3 270M reach 104,000, and its loss on our problems is 12.48 in place of 1.80.
    """
    import jax

    device = jax.devices()[0]
    capability = str(getattr(device, "compute_capability", "") or "")
    if dtype != "bfloat16" or device.platform != "gpu" or not re.match(r"[1-7]\.\d+$", capability):
        return dtype
    print(
        f"DTYPE float32 in place of bfloat16: {device.device_kind} has no bf16 units (compute "
        f"capability {capability}), and Gemma 3 overflows in float16",
        flush=True,
    )
    return "float32"


@cache
def profile_tables(kind: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the profiles of a kind of notebook ("foundation", "sft", "grpo", "eval") by name."""
    text = resources.files(__package__).joinpath("profiles.toml").read_text(encoding="utf-8")
    tables: dict[str, dict[str, Any]] = {}
    for name, values in tomllib.loads(text)[kind].items():  # a table stands below what it is over
        over = tables[values.pop("over")] if "over" in values else {}
        tables[name] = over | {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return tables


def fill(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with every 0, "" and [] replaced by the table's value, where it has one.

    >>> fill({"epochs": 3, "data": "gsm8k"}, {"epochs": 0, "data": "builtin"})
    {'epochs': 3, 'data': 'builtin'}
    """
    return {**given, **table, **{name: value for name, value in given.items() if value}}


def profile_table(kind: str, profile: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the table of a profile that fits best what is given: task, model or data, version."""
    tables, task = profile_tables(kind), given.get("task", TASK)
    tasks = (*[f"-{task}"] * (task != TASK), "")
    gemma = is_real_gemma(str(given.get("model") or ""))
    data = str(given.get("data"))
    kinds = ("-file",) if is_file(data) else (f"-{data}",)
    ends = (*[f"-gemma{kind}" for kind in kinds] * gemma, *["-gemma"] * gemma, *kinds, "")
    versions = (f"-{given.get('version')}", "")
    named = ("".join(parts) for parts in product([profile], tasks, ends, versions))
    return next(tables[name] for name in named if name in tables)
