"""Continuous batching writes what the model would write for each prompt alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.models import decode as decode_module
from nblib.models import decode_batch as module
from nblib.models.decode import Sampling, decode, rows_for
from nblib.models.lora import LoraConfig, get_lora_model
from nblib.training.session import CompilationCounter

GREEDY = Sampling(temperature=0.0, top_p=1.0, seed=0)
SAMPLED = Sampling(temperature=1.0, top_p=0.9, seed=3)
STOP = tuple(range(40, 60))  # so many that an untrained model stops now and then
NEW = 20  # past the window of 16
LENGTHS = (9, 3, 5, 12, 5, 7, 2, 6, 4, 11, 8)
PROMPTS = [[2, *range(100 + 20 * row, 99 + 20 * row + n)] for row, n in enumerate(LENGTHS)]


def written(model, mesh, *, sampling=GREEDY, prompts=PROMPTS, batch_size=4, **settings):
    return decode(
        model,
        prompts,
        sampling,
        stop=STOP,
        max_new_tokens=NEW,
        batch_size=batch_size,
        mesh=mesh,
        **settings,
    )


@pytest.fixture
def small_steps(monkeypatch):
    """Short blocks and chunks; returns how often a program was called."""
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "_STEPS", 6)
    calls = {"_prefill": 0, "_moved": 0}

    def counted(name):
        really = getattr(module, name)

        def call(*arguments):
            calls[name] += 1
            return really(*arguments)

        return call

    for name in calls:
        monkeypatch.setattr(module, name, counted(name))
    return calls


def likeliest(model, prompt):
    """Continue by the whole text each time: no cache, nothing on the left."""

    @nnx.jit
    def scores(model, tokens, length):
        mask = jnp.arange(tokens.shape[1])[None] < length
        return model(tokens, build_positions_from_mask(mask), None, make_causal_attn_mask(mask))[0]

    tokens = np.zeros((1, 40), np.int32)
    tokens[0, : len(prompt)] = prompt
    for end in range(len(prompt), len(prompt) + NEW):
        tokens[0, end] = 1 + np.argmax(scores(model, tokens, end)[0, end - 1, 1:])  # never padding
        if tokens[0, end] in STOP:
            break
    return tokens[0, len(prompt) : end + 1].tolist()


# Six layers: the last one attends globally. The cache has 32 positions: below a window of 12 the
# local layers' are rings, with one of 4 while a prompt is read, too.
@pytest.mark.parametrize(
    ("layers", "heads", "window"),
    [(6, (2, 1), 16), (2, (4, 2), 16), (6, (2, 2), 16), (6, (2, 1), 6), (6, (2, 2), 4)],
)
def test_greedy_is_the_likeliest_of_the_whole_text(
    new_model, mesh, small_steps, layers, heads, window
):
    sizes = {"num_layers": layers, "num_heads": heads[0], "num_kv_heads": heads[1]}
    model = new_model(embed_dim=32, head_dim=16, sliding_window_size=window, **sizes)
    answers = written(model, mesh)
    assert answers == [likeliest(model, prompt) for prompt in PROMPTS]
    assert any(tokens[-1] in STOP for tokens in answers)
    assert max(map(len, answers)) == NEW
    assert small_steps["_prefill"] > 6 and small_steps["_moved"] > 1


def test_local_layers_of_a_long_cache_keep_their_window_alone(new_model):
    model = new_model(num_layers=6, sliding_window_size=512)
    shapes = module.cache_shapes(model, 2, 131_072)
    heads, width = model.config.num_kv_heads, model.config.head_dim
    assert [shape[1] for shape in shapes.values()] == [544] * 5 + [131_072]
    assert {(shape[0], shape[2]) for shape in shapes.values()} == {(2 * heads, width)}
    assert {shape[1] for shape in module.cache_shapes(model, 2, 1024).values()} == {1024}


def test_adapters_act(new_model, mesh, small_steps):
    base = new_model(num_layers=2, embed_dim=32, head_dim=16)
    model = get_lora_model(base, mesh, LoraConfig(rank=2, alpha=8.0))
    key = jax.random.key(1)
    drawn = jax.tree.map(lambda a: jax.random.normal(key, a.shape), nnx.state(model, nnx.LoRAParam))
    nnx.update(model, drawn)
    answers = written(model, mesh)
    assert answers == [likeliest(model, prompt) for prompt in PROMPTS]
    assert answers != written(base, mesh)


def test_a_sampled_completion_depends_on_its_place_alone(new_model, mesh, small_steps):
    model = new_model(num_layers=1)
    together, alone, padded = (
        written(model, mesh, sampling=SAMPLED, **sizes)
        for sizes in ({"batch_size": 12}, {"batch_size": 1}, {"max_prompt_length": 30})
    )
    assert together == alone == padded
    same = written(model, mesh, sampling=SAMPLED, prompts=[PROMPTS[0]] * 5)
    assert len({tuple(tokens) for tokens in same}) == 5
    assert same[0] == together[0]
    assert written(model, mesh, sampling=replace(SAMPLED, seed=4)) != together


def test_what_was_compiled_serves_other_weights_and_lengths(new_model, mesh):
    first = written(new_model(0, num_layers=1), mesh, max_prompt_length=12)
    counter = CompilationCounter()
    second = written(new_model(1, num_layers=1), mesh, prompts=PROMPTS[:3], max_prompt_length=12)
    assert counter.count == 0
    assert first[:3] != second


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_few_prompts_take_few_rows_and_are_continued_alike(
    new_model, mesh, small_steps, monkeypatch, sampling
):
    model, rows = new_model(num_layers=1), set()

    def empty_rows(model, batch, *others):
        rows.add(batch)
        return module.empty_rows(model, batch, *others)

    monkeypatch.setattr(decode_module, "empty_rows", empty_rows)
    few, many = (
        written(model, mesh, sampling=sampling, prompts=prompts, batch_size=32)
        for prompts in (PROMPTS[:3], PROMPTS)
    )
    assert rows == {4, 16}
    assert few == many[:3]


def test_long_prompts_share_the_cache_that_a_device_has(new_model, mesh, small_steps, monkeypatch):
    """12 positions of a prompt and 20 of its completion; 70 hold two such rows."""
    model, rows = new_model(num_layers=1), set()

    def empty_rows(model, batch, *others):
        rows.add(batch)
        return module.empty_rows(model, batch, *others)

    monkeypatch.setattr(decode_module, "empty_rows", empty_rows)
    expected = written(model, mesh, batch_size=8)
    monkeypatch.setattr(decode_module, "_MOST_POSITIONS", 70)
    assert written(model, mesh, batch_size=8) == expected
    assert rows == {8, 2}


@pytest.mark.parametrize(
    ("prompts", "most", "parts", "rows"),
    [(16, 32, 1, 16), (17, 64, 1, 32), (1, 32, 1, 1), (90, 64, 1, 64), (20, 24, 1, 24),
     (3, 64, 8, 8), (20, 64, 8, 32), (17, 96, 6, 24)],
)  # fmt: skip
def test_rows_are_a_power_of_two_in_each_part_and_never_too_many(prompts, most, parts, rows):
    assert rows_for(prompts, most, parts) == rows
