from dataclasses import replace

import pytest
from tunix.models.gemma3.model import ModelConfig

from nblib.tools.preflight.programs import (
    attention_operations,
    largest_batch,
    programs,
    weight_counts,
)


def test_v1_has_one_update_a_shape_the_hungriest_first(sft, mesh):
    found = programs(sft, mesh)
    assert [(one.name, one.rows, one.length, one.times) for one in found] == [("update", 8, 128, 0)]
    assert largest_batch(replace(sft, max_length=200), mesh) == (4, 256)
    assert largest_batch(replace(sft, batch_tokens=128), mesh) == (1, 128)


def test_v2_has_its_update_and_the_sampler(grpo, mesh):
    found = programs(replace(grpo, batch_tokens=128, num_iterations=2), mesh)
    assert [(one.name, one.rows, one.length, one.times) for one in found] == [
        ("update", 4, 32, 3 * 2 * 2),  # steps, iterations, micro-batches
        ("prefill", 2, 32, 3 * 4),  # a quarter of the rows, 32 tokens of each
        ("decode", 8, 1, 3 * 8),  # a token each
    ]


def test_weights_are_counted_without_being_made(sft, grpo, mesh):
    # Two layers: width 16, hidden 32, heads of 8 (two queries, a key, a value); rank 2.
    layer = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 32 + 4 * 16 + 2 * 8
    adapters = 2 * ((16 + 16) + (16 + 2 * 8) + (16 + 16) + 3 * (16 + 32))
    whole = 544 * 16 + 16 + 2 * layer
    assert weight_counts(sft, mesh) == (whole, 2 * adapters)
    assert weight_counts(replace(grpo, lora_rank=-1), mesh) == (whole, whole)


def test_every_program_compiles_and_says_what_it_needs(sft, grpo, mesh, runs):
    from nblib.tools.preflight.targets import find_target

    cpu = find_target("cpu")
    update = programs(sft, mesh)[0].compiled_for(cpu, mesh)
    parts = {one.name: one.compiled_for(cpu, mesh) for one in programs(grpo, mesh)}
    assert update.fits and all(one.fits for one in parts.values())
    weights = 4 * weight_counts(sft, mesh)[0]
    for found in (update, *parts.values()):
        assert found.arguments_bytes >= weights and found.flops > 0
    assert parts["prefill"].flops > 3 * parts["decode"].flops


def test_what_the_attention_kernel_computes_is_added(mesh):
    """Gemma 3 270M: 4 heads of 256, 3 global layers, 15 that see 512 tokens; products of 2 * 256.

    Tiles have 512 tokens: on the diagonal half of one is computed in vain, at a window's edge too.
    """
    model, length = ModelConfig.gemma3_270m(), 131_072
    pairs = 3 * (length * length / 2 + length * 256) + 15 * length * (512 + 512)
    expected = 2 * 4 * 11 * 2 * 256 * pairs
    given = {"rows": 2, "mesh": mesh, "remat": True}
    assert attention_operations(model, length=length, **given) == pytest.approx(expected)
    assert attention_operations(model, length=2000, **given) == 0
    assert attention_operations(model, length=2048, **given, shared=True) == 0
    a_tile = attention_operations(model, length=512, **given)
    assert a_tile == pytest.approx(2 * 4 * 11 * 2 * 256 * 18 * 512 * 512)
    kept = attention_operations(model, length=length, **{**given, "remat": False})
    assert kept == pytest.approx(expected * 9 / 11)
