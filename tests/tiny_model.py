"""The tiny Gemma 3 of the tests."""

import jax.numpy as jnp
from tunix.models.gemma3.model import ModelConfig

# Six layers, so that the last one attends globally; a window shorter than the texts.
TINY = ModelConfig(
    num_layers=6,
    num_embed=544,
    embed_dim=16,
    hidden_dim=32,
    num_heads=2,
    head_dim=8,
    num_kv_heads=1,
    sliding_window_size=16,
    local_base_frequency=10_000,
    global_base_frequency=1_000_000,
    param_dtype=jnp.float32,
)
