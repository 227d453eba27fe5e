"""Whether a model fits the GPUs that are to serve it, by arithmetic, before a job is queued.

What vLLM needs at least: the weights, the cache of one sequence of the whole context, and room for
activations and CUDA graphs. A folder of a model says sizes exactly; of a name only its "72B" is
known. Sizes are in GB, 10^9 bytes; a GPU's memory is in GiB, 2^30, as `nvidia-smi` shows it: 40 for
an A100-40GB. https://docs.vllm.ai/en/latest/configuration/conserving_memory/
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nblib.files import COUNT, OBJECT, field, read_object

UTILISATION = 0.9  # vLLM's own share of a GPU: --gpu-memory-utilization
_VISIBLE = 0.985  # of the memory, to CUDA: 39.39 of 40 GiB (A100), 22.18 of 22.49 (A10G)
_ACTIVATIONS_BYTES = 1.5 * 2**30  # of a GPU, with CUDA graphs
_CACHE_NUMBERS = 20e3  # of a token, times the root of the size in 10^9: 8B 57,000, 72B 170,000
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.(\d+))?)([BbMm])(?![A-Za-z])")
_GPUS = (2, 4, 8)  # of one machine
# Bytes of a weight; of a quantised model embeddings, last layer and scales are larger: 10 %.
DTYPES: Mapping[str, float] = {
    **{"bfloat16": 2, "float16": 2, "float32": 4},
    **{"fp8": 1.1, "int8": 1.1, "awq": 0.55, "int4": 0.55},
}
_HUB_NAME = re.compile(r"(?:\w[^/\s]*/)?\w[^/\s]*")
# What a name says of weights that lie quantised; "GPTQ-Int8" has 8 bits.
_8_BITS = re.compile(r"(?<![A-Za-z0-9])(?:fp8|int8|w8a8|w8a16|8-?bit)", re.IGNORECASE)
_4_BITS = re.compile(
    r"(?<![A-Za-z0-9])(?:awq|gptq|int4|w4a16|4-?bit|nvfp4|mxfp4|fp4)", re.IGNORECASE
)
_QUANTISED_BEFORE = ("int8", "awq", "int4")  # as the weights lie; vLLM makes fp8 while it loads


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A way to serve a model: on how many GPUs of how many GiB, as what, for how many tokens."""

    gpus: int
    gpu_memory: float  # GiB
    dtype: str
    context: int

    @property
    def available_bytes(self) -> float:
        """What vLLM may use of all GPUs."""
        return self.gpus * self.gpu_memory * 2**30 * _VISIBLE * UTILISATION

    @property
    def flags(self) -> str:
        """How vLLM is asked for the dtype."""
        if self.dtype == "fp8":
            return "--quantization fp8"
        return f"--dtype {'auto' if self.dtype in _QUANTISED_BEFORE else self.dtype}"


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is known of a model: of a folder all, of a name the parameters at most.

    Attributes:
        parameters: How many; of a name the most that it may mean.
        quantised_bytes: Of weights that lie there quantised; 0 of others.
        cache_numbers: Keys and values of one token in all layers.
        heads: Of queries, and of keys; 0 where they are not known.
        context: The longest, in tokens; 0 where it is not known.
    """

    parameters: float
    cache_numbers: float
    quantised_bytes: int = 0
    heads: tuple[int, int] = (0, 0)
    context: int = 0


def check_served(model: str, plan: Plan) -> str:
    """Return a line that says whether a model fits, and what could not be known.

    Raises ValueError where it does not fit, saying what would; where the GPUs do not divide its
    heads, its context is shorter, or a folder or a name says other weights than the dtype; where
    `model` can be no name on the hub, and is no folder of a model.

    Example:
        >>> plan = Plan(gpus=1, gpu_memory=40, dtype="bfloat16", context=8192)
        >>> check_served("org/chat-7B", plan)[:50]
        'org/chat-7B fits: 18.5 GB (weights 16.0, cache of '
    """
    is_folder = model != "" and Path(model).exists()
    size = _size_of_folder(Path(model), plan) if is_folder else _size_of_name(model, plan)
    unknown = "; the length of its context is not known here (Qwen2.5-Math: 4,096)"
    if not is_folder and plan.gpus > 1:
        unknown = f"; its heads are not known here: vLLM needs {plan.gpus} to divide them{unknown}"
    if size is None:
        return f"whether {model} fits cannot be known: no folder, no size in its name{unknown}"
    _check_heads(model, size, plan)
    if size.context and plan.context > size.context:
        raise ValueError(f"--context {plan.context}: {model} has at most {size.context:,}")
    needed, available = sum(_needs(size, plan)), plan.available_bytes
    weights, cache, activations = (f"{one / 1e9:.1f}" for one in _needs(size, plan))
    figures = (
        f"{needed / 1e9:.1f} GB (weights {weights}, cache of {plan.context:,} tokens {cache}, "
        f"activations {activations}) of {available / 1e9:.1f} that vLLM may use on {plan.gpus} x "
        f"{plan.gpu_memory:g} GiB"
    )
    if needed > available:
        would = f"what would fit: {'; '.join(_what_would_fit(size, plan))}"
        raise ValueError(f"{model} in {plan.dtype} does not fit: {figures}\n{would}")
    sequences = 1 + (available - needed) // _needs(size, plan)[1]
    context = "" if size.context else unknown
    return f"{model} fits: {figures}; at a time, such sequences: {sequences:,.0f}{context}"


def _needs(size: Size, plan: Plan) -> tuple[float, float, float]:
    """Return the bytes of weights, of one sequence's cache, and of activations on all GPUs."""
    width = 4 if plan.dtype == "float32" else 2
    copies = plan.gpus / size.heads[1] if size.heads[1] else 1  # a head of keys on each GPU
    return (
        size.quantised_bytes or size.parameters * DTYPES[plan.dtype],
        size.cache_numbers * max(1, copies) * width * plan.context,
        plan.gpus * _ACTIVATIONS_BYTES,
    )


def _fits(size: Size, plan: Plan) -> bool:
    return sum(_needs(size, plan)) <= plan.available_bytes


def _what_would_fit(size: Size, plan: Plan) -> list[str]:
    more = [replace(plan, gpus=gpus) for gpus in _GPUS if gpus > plan.gpus]
    gpus = [one.gpus for one in more if not _undivided(size, one.gpus) and _fits(size, one)]
    others = {"fp8": "--dtype fp8", "awq": "an AWQ quantisation of it with --dtype awq"}
    smaller = [
        words
        for dtype, words in others.items()
        if DTYPES[dtype] < DTYPES[plan.dtype]
        and not size.quantised_bytes
        and _fits(size, replace(plan, dtype=dtype))
    ]
    memory = plan.gpu_memory * sum(_needs(size, plan)) / plan.available_bytes
    return [
        *(f"--gpus {one}" for one in gpus[:1]),
        *smaller,
        f"GPUs of {math.ceil(memory)} GiB or more",
    ]


def _undivided(size: Size, gpus: int) -> bool:
    """Whether vLLM cannot give each GPU as many heads: fewer GPUs than heads of keys, or copies."""
    queries, keys = size.heads
    return bool(queries and (queries % gpus or (keys % gpus and gpus % keys)))


def _check_heads(model: str, size: Size, plan: Plan) -> None:
    if _undivided(size, plan.gpus):
        possible = [n for n in range(1, size.heads[0] + 1) if not _undivided(size, n)]
        raise ValueError(
            f"--gpus {plan.gpus} does not divide the heads of {model} ({size.heads[0]} of queries, "
            f"{size.heads[1]} of keys), expected one of {', '.join(map(str, possible))}"
        )


def _size_of_name(model: str, plan: Plan) -> Size | None:
    """Return the size that a name says, rounded up: a "7B" may have 7.6, a "72B" 72.7.

    What is active of a mixture is not its size: of "30B-A3B" it is 30B; "8x7B" is 56B at most.
    Raises ValueError for no name, or one that says quantised weights where the dtype does not.
    """
    if not _HUB_NAME.fullmatch(model):
        raise ValueError(
            f"{model!r} is no folder here and no name on the hub: expected a folder of weights, or "
            "a name such as Qwen/Qwen2.5-7B-Instruct"
        )
    name, found = model.rpartition("/")[2], []
    is_8_bits, is_4_bits = _8_BITS.search(name), _4_BITS.search(name)
    expected = ("int8",) if is_8_bits else ("awq", "int4") if is_4_bits else (plan.dtype,)
    if plan.dtype not in expected:
        raise ValueError(
            f"--dtype {plan.dtype}: by its name, {model} has weights of {8 if is_8_bits else 4} "
            f"bits: give --dtype {' or '.join(expected)}, which takes them as they lie"
        )
    for times, number, decimals, unit in _SIZE.findall(name):
        most = int(times) * float(number) if times else float(number) + 10.0 ** -len(decimals)
        found.append(most * (1e9 if unit in "Bb" else 1e6))
    if not found:
        return None
    parameters = max(found)
    return Size(parameters=parameters, cache_numbers=_CACHE_NUMBERS * math.sqrt(parameters / 1e9))


def _size_of_folder(folder: Path, plan: Plan) -> Size:
    """Return what a folder's weights and `config.json` say; ValueError where one is missing."""
    files, path = [*folder.glob("*.safetensors")], folder / "config.json"
    if not files or not path.is_file():
        lacks = "config.json" if files else "weights (*.safetensors)"
        raise ValueError(
            f"{folder} lacks {lacks}: expected the folder of a model, or its name on the hub"
        )
    whole = read_object(path)
    config = field(whole, "text_config", OBJECT, path, default=whole)  # of one that sees images too
    stored_bytes = sum(file.stat().st_size for file in files)
    quantised = "quantization_config" in whole
    if plan.dtype in _QUANTISED_BEFORE and not quantised:
        raise ValueError(
            f"--dtype {plan.dtype}: {path} names no quantization_config: give a folder of "
            "quantised weights, or --dtype fp8, which vLLM makes while it loads"
        )
    queries = field(config, "num_attention_heads", COUNT, path)
    keys = field(config, "num_key_value_heads", COUNT, path, default=queries)
    hidden = field(config, "hidden_size", COUNT, path)
    width = field(config, "head_dim", COUNT, path, default=hidden // queries)
    dtypes = [one.get(key) for one in (whole, config) for key in ("dtype", "torch_dtype")]
    return Size(
        parameters=stored_bytes / (4 if "float32" in dtypes else 2),
        quantised_bytes=stored_bytes if quantised else 0,
        cache_numbers=2 * field(config, "num_hidden_layers", COUNT, path) * keys * width,
        heads=(queries, keys),
        context=_context(config, path),
    )


def _context(config: Mapping[str, Any], path: Path) -> int:
    """Return the longest context; YaRN's factor is on top of it, as vLLM reads it."""
    longest = field(config, "max_position_embeddings", COUNT, path, default=0)
    scaling = field(config, "rope_scaling", OBJECT, path, default={})
    is_yarn = "yarn" in (scaling.get("rope_type"), scaling.get("type"))
    original = scaling.get("original_max_position_embeddings", longest)
    return int(original * scaling.get("factor", 1)) if is_yarn else longest
