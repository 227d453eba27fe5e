from types import SimpleNamespace

import pytest
from flax import nnx
from tunix.models.gemma3.model import Gemma3, ModelConfig

from benchmarks.utilisation import mean_keys, peak_operations, step_operations, utilisation
from nblib.models.lora import LoraConfig, with_adapters

# One layer, of a window; the weights of products: embedding; q, k and v, out; gate, up, down.
_CONFIG = ModelConfig(
    num_layers=1,
    num_embed=10,
    embed_dim=4,
    hidden_dim=8,
    num_heads=2,
    head_dim=2,
    num_kv_heads=1,
    sliding_window_size=2,
)
_WEIGHTS = 10 * 4 + (4 * 4 + 2 * 4 * 2 + 4 * 4) + 3 * 4 * 8


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("Tesla T4", 65e12),
        ("NVIDIA L4", 121e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("TPU v4", 275e12),
        ("NVIDIA L40S", 0.0),
        ("cpu", 0.0),
    ],
)
def test_a_chips_peak_goes_by_its_name(kind, peak):
    assert peak_operations(kind) == peak


@pytest.mark.parametrize(
    ("length", "window", "keys"),
    [(1, None, 1.0), (4, None, 2.5), (4, 2, (1 + 2 + 2 + 2) / 4), (3, 8, 2.0)],
)
def test_tokens_see_those_before_them(length, window, keys):
    assert mean_keys(length, window) == keys


def test_operations_of_all_weights_and_of_adapters():
    model = Gemma3(_CONFIG, rngs=nnx.Rngs(0))
    attention = 12 * 1.75 * 2 * 2
    assert step_operations(model, 2, 4) == 2 * 4 * (6 * _WEIGHTS + attention)
    adapted = with_adapters(model, LoraConfig(rank=1, alpha=1.0))
    adapters = (4 + 4) + (4 + 2 * 2) + (4 + 4) + 3 * (4 + 8)
    expected = 2 * 4 * (4 * _WEIGHTS + 6 * adapters + attention)
    assert step_operations(adapted, 2, 4) == expected


def test_utilisation_is_of_all_devices_or_not_known():
    chips = [SimpleNamespace(device_kind="NVIDIA H200")] * 2
    assert utilisation(989e12, 2.0, chips) == 0.25
    assert utilisation(989e12, 2.0, [SimpleNamespace(device_kind="cpu")]) is None
