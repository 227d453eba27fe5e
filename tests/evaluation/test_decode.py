"""A batch that shrinks and a cache that grows change nothing of what is written."""

import pytest

from nblib.evaluation import decode as module
from nblib.evaluation.generate import Decoding, generate
from nblib.tokens.chat import render_prompt
from nblib.training.compilations import CompilationCounter

NEW_TOKENS = 20  # past the window of 16


@pytest.fixture(scope="module")
def prompts(eight):
    """Learnt questions, and one of another form."""
    return [render_prompt(question) for question in eight] + ["2 hens and 3 more"]


@pytest.fixture
def shapes(monkeypatch):
    """Small chunks; returns (rows, places of the cache) of each one that was run."""
    monkeypatch.setattr(module, "_CHUNK", 4)
    monkeypatch.setattr(module, "LENGTH_MULTIPLE", 4)
    seen = []
    really = module._chunk_decoder

    def counted(platform):
        def decoded(structure, state, rows, *arguments, **options):
            seen.append(rows.seen.shape)
            return really(platform)(structure, state, rows, *arguments, **options)

        return decoded

    monkeypatch.setattr(module, "_chunk_decoder", counted)
    return seen


def texts(model, tokenizer, prompts, mesh, **decoding):
    answers = generate(
        model, tokenizer, prompts, Decoding(max_new_tokens=NEW_TOKENS, **decoding), mesh=mesh
    )
    return [(answer.text, answer.tokens, answer.truncated) for answer in answers]


def test_rows_that_ended_leave_and_the_cache_grows(overfitted, tokenizer, prompts, mesh, shapes):
    model = overfitted[0]
    shrinking = texts(model, tokenizer, prompts, mesh, batch_size=16)
    rows, places = zip(*shapes, strict=True)
    assert rows == (16, 16, 4)  # of nine prompts four go on for more than eight tokens
    assert [place - places[0] for place in places] == [0, 4, 8]
    shapes.clear()
    fixed = texts(model, tokenizer, prompts, mesh, batch_size=16, fixed_shapes=True)
    assert shapes == [(16, places[0] - 4 + NEW_TOKENS)]
    assert fixed == shrinking


def test_a_sampled_completion_does_not_depend_on_its_batch(
    new_model, tokenizer, prompts, mesh, shapes
):
    model = new_model(num_layers=1)
    sampled = {"temperature": 1.0, "top_p": 0.9, "seed": 3}
    alone, together, fixed = (
        texts(model, tokenizer, prompts, mesh, **sampled, **sizes)
        for sizes in ({"batch_size": 2}, {"batch_size": 9}, {"batch_size": 4, "fixed_shapes": True})
    )
    assert alone == together == fixed
    assert len({text for text, *_ in alone}) == len(prompts)


def test_what_was_compiled_serves_the_next_model_of_the_same_form(
    new_model, tokenizer, prompts, mesh
):
    sizes = {"batch_size": 3, "fixed_shapes": True}
    first = texts(new_model(0, num_layers=1), tokenizer, prompts[:3], mesh, **sizes)
    counter = CompilationCounter()
    second = texts(new_model(1, num_layers=1), tokenizer, prompts[:3], mesh, **sizes)
    assert counter.count == 0
    assert first != second


def test_top_p_keeps_the_likeliest_tokens_that_reach_it():
    import jax
    import jax.numpy as jnp

    shares = jnp.log(jnp.array([[0.05, 0.5, 0.25, 0.2]]))
    drawn = {
        top_p: {
            int(module._draw(shares, (jax.random.key(0), 1.0, top_p), jnp.array([row]), step)[0])
            for row in range(4)
            for step in range(25)
        }
        for top_p in (0.4, 0.7, 0.9, 1.0)
    }
    # Before the second token 0.5 is reached, before the third 0.75, before the fourth 0.95.
    assert drawn == {0.4: {1}, 0.7: {1, 2}, 0.9: {1, 2, 3}, 1.0: {0, 1, 2, 3}}
