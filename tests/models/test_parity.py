import math
import re

import numpy as np
import pytest

from nblib.models import parity
from nblib.models.parity import (
    NEW_TOKENS,
    PROMPTS,
    choice_logits,
    compare,
    greedy,
    prompt_rows,
)

ASKED = tuple(f"Ann has {n} pens and buys {n + 3} more. How many?" for n in range(2, 9))


@pytest.fixture(scope="module")
def model(new_model):
    return new_model(num_layers=2)


def test_rows_are_the_ends_of_the_prompts_behind_bos(tokenizer):
    texts = ("5 pens and 6 pens", "7 pens")
    rows = prompt_rows(tokenizer, texts)
    shortest = len(tokenizer.encode("7 pens"))
    assert rows.shape == (PROMPTS, 1 + shortest)
    assert set(rows[:, 0]) == {tokenizer.bos_id()}
    assert rows[0, 1:].tolist() == tokenizer.encode(texts[0])[-shortest:]
    np.testing.assert_array_equal(rows[2], rows[0])  # too few are repeated
    with pytest.raises(ValueError, match="no prompt to compare"):
        prompt_rows(tokenizer, ())


def test_greedy_takes_the_best_token_each_time(model, tokenizer, mesh):
    rows = prompt_rows(tokenizer, ASKED)
    tokens, logits = greedy(model, rows, mesh=mesh)
    assert tokens.shape == (PROMPTS, rows.shape[1] + NEW_TOKENS)
    np.testing.assert_array_equal(tokens[:, : rows.shape[1]], rows)
    np.testing.assert_array_equal(logits.argmax(axis=-1), tokens[:, -NEW_TOKENS:])
    assert len(np.unique(tokens[:, -NEW_TOKENS:])) > 10


def test_another_model_is_far_away(model, new_model, tokenizer, mesh):
    tokens, logits = greedy(model, prompt_rows(tokenizer, ASKED), mesh=mesh)
    other = choice_logits(new_model(seed=1, num_layers=2), tokens, mesh=mesh)
    found = compare(tokens, logits, other, reader="other")
    assert not found.equal
    assert found.largest_difference > 1 and found.different_choices > 100


def made(*rows):
    """Logits of one prompt whose first choices are sure, and whose last are `rows`."""
    sure = [[9.0, 0.0, 0.0]] * (NEW_TOKENS - len(rows))
    return np.array([[*sure, *rows]])


def test_comparison_by_hand():
    tokens = np.zeros((1, 3 + NEW_TOKENS), int)  # the first model always chose token 0
    ours = made([2.0, 1.0, 0.0], [20.0, 0.0, 0.0])
    same = compare(tokens, ours, ours, reader="r")
    assert (same.largest_difference, same.different_choices, same.equal) == (0, 0, True)
    assert same.limit == pytest.approx(20 * 1e-4)
    near = compare(tokens, ours, made([2.0, 1.0, 0.001], [20.0, 0.0, 0.0]), reader="r")
    assert near.largest_difference == pytest.approx(0.001) and near.equal
    other = compare(tokens, ours, made([1.0, 2.0, 0.0], [20.0, 0.0, 0.0]), reader="r")
    assert (other.largest_difference, other.different_choices, other.equal) == (1, 1, False)
    assert str(other) == (
        "read by r: 1 prompts, largest logit difference 1.0e+00 (limit 2.0e-03), "
        "1 of 16 greedy tokens differ"
    )


def test_a_tie_is_no_difference_and_nan_is():
    tokens = np.zeros((1, 3 + NEW_TOKENS), int)
    ours = made([1.0, 1.0, 0.0])
    assert compare(tokens, ours, made([1.0, 1.0005, 0.0]), reader="r").equal
    broken = compare(tokens, ours, made([np.nan, 1.0, 0.0]), reader="r")
    assert (broken.largest_difference, broken.different_choices) == (float("inf"), 1)
    assert not broken.equal


def test_limit_is_at_least_that_of_a_logit_of_one():
    tokens = np.zeros((1, 3 + NEW_TOKENS), int)
    small = np.zeros((1, NEW_TOKENS, 3))
    assert compare(tokens, small, small, reader="r").limit == parity.TOLERANCE


def test_only_choices_have_logits(model, tokenizer):
    rows = prompt_rows(tokenizer, ASKED)
    tokens = np.pad(rows, ((0, 0), (0, NEW_TOKENS)))
    programs = [
        step.lower(model, given).lowered.compile().as_text()
        for step, given in ((parity._choices, tokens), (parity._continued, rows))
    ]
    for program, most in zip(programs, (NEW_TOKENS, 1), strict=True):
        shapes = re.findall(rf"f32\[([\d,]+),{model.num_embed}\]", program)
        sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
        assert most <= max(sizes) // PROMPTS < tokens.shape[1]
