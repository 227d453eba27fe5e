"""Needles: where they stand, how long their pages are, and what a grid of them counts."""

from dataclasses import replace

import pytest

from nblib.evaluation import needle as module
from nblib.evaluation.answers import Decoding, generate
from nblib.evaluation.needle import (
    DEPTHS,
    needle_examples,
    needle_grid,
    needle_lengths,
    with_long_pages,
)
from nblib.sources.datasets import get_dataset
from nblib.tasks.extraction import EXTRACTION
from nblib.tokens.batches import encode_task
from nblib.tokens.chat import task_prompts

DECODING = Decoding(max_new_tokens=20, batch_size=32)


@pytest.fixture(scope="module")
def pages():
    data = get_dataset("builtin", task="extraction", num_train=40, num_test=60, seed=0)
    return EXTRACTION.examples(EXTRACTION.normalise(data.test))


@pytest.fixture(scope="module")
def products(pages):
    return [one for one in pages if isinstance(one.reference, dict)]


def split(example):
    asked, _, page = example.prompt.partition("\n\n")
    return asked, page.split("\n")


def tokens_of(examples, tokenizer):
    return [1 + len(ids) for ids in tokenizer.encode(task_prompts(EXTRACTION, examples))]


@pytest.mark.parametrize("length", [256, 1024])
def test_a_needle_stands_at_its_depth_in_a_page_of_its_length(length, products, tokenizer):
    few = products[:4]
    fillers = []
    for depth in DEPTHS:
        given = {"length": length, "depth": depth}
        made = needle_examples(few, EXTRACTION, tokenizer, **given)
        assert all(length - 60 < count <= length for count in tokens_of(made, tokenizer))
        for one, own in zip(made, few, strict=True):
            (asked, lines), (own_asked, page) = split(one), split(own)
            assert asked == own_asked
            start = next(n for n in range(len(lines)) if lines[n : n + len(page)] == page)
            filler = lines[:start] + lines[start + len(page) :]
            assert start == round(depth * len(filler))
            assert one.id == f"{own.id}/{length}/{depth:.0%}" and one.group == f"{depth:.0%}"
            assert (one.reference, one.slot_specs) == (own.reference, own.slot_specs)
            fillers.append((own.id, *filler))
    assert len(set(fillers)) == len(few)  # the same at each depth, another for each page


def test_a_page_that_is_longer_already_stays_as_it_is(products, tokenizer):
    (made,) = needle_examples(products[:1], EXTRACTION, tokenizer, length=20, depth=0.5)
    assert made.prompt == products[0].prompt


def test_a_prompt_that_asks_for_nothing_apart_is_all_needle(products, tokenizer):
    bare = replace(products[0], prompt="Mug Rosa, 12 EUR")
    (first,) = needle_examples([bare], EXTRACTION, tokenizer, length=256, depth=0.0)
    (last,) = needle_examples([bare], EXTRACTION, tokenizer, length=256, depth=1.0)
    assert first.prompt.startswith("Mug Rosa, 12 EUR\n")
    assert last.prompt.endswith("\nMug Rosa, 12 EUR")


def test_half_of_the_products_are_learnt_in_long_pages_that_fit(pages, tokenizer):
    given = {"length": 512, "seed": 0}
    made = with_long_pages(pages, EXTRACTION, tokenizer, **given)
    changed = [one for one, own in zip(made, pages, strict=True) if one != own]
    assert all(isinstance(one.reference, dict) for one in changed)
    assert 8 <= len(changed) <= 22  # of 30 products
    assert [one.id for one in made] == [one.id for one in pages]
    encoded = encode_task(tokenizer, EXTRACTION, made)  # every one is still right
    fits = [len(one.tokens) for one, own in zip(encoded, pages, strict=True) if one.id == own.id]
    assert max(fits) <= 512 and max(tokens_of(changed, tokenizer)) > 300
    assert with_long_pages(pages, EXTRACTION, tokenizer, **given) == made
    assert with_long_pages(pages, EXTRACTION, tokenizer, length=512, seed=1) != made


def test_lengths_double_up_to_the_longest():
    assert needle_lengths(2048) == (256, 512, 1024, 2048)
    assert needle_lengths(2047) == (256, 512, 1024) and needle_lengths(255) == ()


@pytest.fixture
def reader(monkeypatch):
    """A model that reads what is not further from the end than half a page; what it was asked."""
    calls = []

    def ask(ref, task, examples, decoding):
        calls.append((len(examples), decoding.batch_size))
        return [
            {
                "id": one.id,
                "group": one.group,
                "question": one.prompt,
                "completion": one.completion if float(one.group[:-1]) >= 50 else "",
                "reference": one.reference,
                "slot_specs": one.slot_specs,
                "truncated": False,
            }
            for one in examples
        ]

    monkeypatch.setattr(module, "ask", ask)
    return calls


def test_a_grid_counts_the_needles_of_each_depth(reader, pages, ref_of, tokenizer, mesh):
    ref = ref_of(tokenizer=tokenizer, mesh=mesh)
    grid = needle_grid(ref, EXTRACTION, pages, DECODING, most=1024)
    assert [stage.name for stage in grid] == ["256_tokens", "512_tokens", "1024_tokens"]
    assert reader == [(20, 32), (20, 16), (20, 8)]  # four needles at five depths
    for stage in grid:
        found = {depth: (one["n"], one["slot_f1"]) for depth, one in stage.by_group.items()}
        lost, read = (4, 0.0), (4, 1.0)
        assert [*found] == ["0%", "25%", "50%", "75%", "100%"]
        assert [*found.values()] == [lost, lost, read, read, read]


def test_a_grid_that_nobody_wants_asks_nothing(reader, pages, ref_of, tokenizer, mesh, capsys):
    ref = ref_of(tokenizer=tokenizer, mesh=mesh)
    assert needle_grid(ref, EXTRACTION, pages, DECODING, most=1024, enabled=False) == ()
    long = [replace(one, prompt=one.prompt + "\n" + "It holds. " * 100) for one in pages]
    assert capsys.readouterr().out == ""
    assert needle_grid(ref, EXTRACTION, long, DECODING, most=1024) == () and reader == []
    assert capsys.readouterr().out == "no needles: no page with slots is as short as 128 tokens\n"


def test_the_same_weights_at_two_factors_are_never_mixed_up(new_model, ref_of, tokenizer, mesh):
    """What is compiled for one factor must not answer for the other."""
    model = new_model()
    model.layers[5].attn.attn_vec_einsum.w.set_value(
        50 * model.layers[5].attn.attn_vec_einsum.w.get_value()
    )  # so that the global layer has a say
    ref = ref_of(model, tokenizer, mesh)
    prompts = [f"Ann has {n} pens and buys {n + 3} more. How many?" for n in range(4)]

    def written(factor):
        return [
            one["completion"] for one in generate(ref.at_rope_factor(factor), prompts, DECODING)
        ]

    one, four = written(1), written(4)
    assert one != four and (written(1), written(4)) == (one, four)
