"""How much of a chip's arithmetic a training step uses: model FLOPs utilisation, MFU.

The operations that the model needs, over those that the chip could have done in that time. What a
program computes twice, as remat does, counts once (PaLM, https://arxiv.org/abs/2204.02311, B).
"""

import jax
from flax import nnx
from tunix.models.gemma3.model import AttentionType, Gemma3

from nblib.models.lora import LORA_PARAMETER
from nblib.tools.preflight.targets import find_target

# Operations a second of dense products: in bf16, and in fp16 where a chip has no bf16 (T4). From
# NVIDIA's data sheets, without sparsity.
_GPUS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "T4": 65e12,
}
_TPUS = {
    "TPU v4": "v4-8",
    "TPU v5 lite": "v5e-1",
    "TPU v5e": "v5e-1",
    "TPU v5": "v5p-8",
    "TPU v5p": "v5p-8",
    "TPU v6 lite": "v6e-1",
    "TPU v6e": "v6e-1",
}


def peak_operations(device_kind: str) -> float:
    """Return a chip's operations a second by the name that jax has for it; 0: not known.

    >>> peak_operations("NVIDIA H200")
    989000000000000.0
    """
    if device_kind in _TPUS:
        return find_target(_TPUS[device_kind]).flops_per_s
    words = f"{device_kind} ".replace("-", " ")  # "NVIDIA A100-SXM4-40GB", "Tesla T4"
    return next((peak for name, peak in _GPUS.items() if f" {name} " in words), 0.0)


def step_operations(model: Gemma3, rows: int, length: int) -> float:
    """Return the operations of a training step on full rows, each of one example.

    A product of a token with a weight costs 2 forward, 2 for the token's gradient and 2 for the
    weight's, which a frozen one has not. With F frozen and A trained weights of products (the tied
    embedding counts once, norms do not), K keys that a token sees on average, H heads of size D:

        rows * length * (4 F + 6 A + the sum over layers of 12 K H D)

    Attention is two products, of 2 operations each for a key and a dimension, and twice that back.
    """
    trained_kind = LORA_PARAMETER if _weights(model, LORA_PARAMETER) else nnx.Param
    trained = _weights(model, trained_kind)
    frozen = _weights(model, nnx.Param) - trained
    config = model.config
    window = config.sliding_window_size
    local = [layer.attn.attn_type == AttentionType.LOCAL_SLIDING for layer in model.layers]
    keys = sum(mean_keys(length, window if one else None) for one in local)
    attention = 12 * keys * config.num_heads * config.head_dim
    return float(rows * length * (4 * frozen + 6 * trained + attention))


def mean_keys(length: int, window: int | None) -> float:
    """Return how many tokens one sees on average, itself among them; `window`: at most so many.

    >>> mean_keys(4, None), mean_keys(4, 2)
    (2.5, 1.75)
    """
    seen = min(length, window or length)
    return (seen * (seen + 1) / 2 + (length - seen) * seen) / length


def utilisation(operations: float, seconds: float, devices: list[jax.Device]) -> float | None:
    """Return which share of the devices' peak it is; None where no peak of theirs is known."""
    peak = sum(peak_operations(device.device_kind) for device in devices)
    return operations / seconds / peak if peak else None


def _weights(model: nnx.Module, kind: type[nnx.Variable]) -> int:
    """Return how many weights of a kind stand in products: norms are vectors."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, kind)) if leaf.ndim > 1)
