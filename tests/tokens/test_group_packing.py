import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tokens.group_packing import pack_groups

tokens = st.lists(st.integers(4, 99), min_size=1, max_size=6)
groups = st.lists(st.tuples(tokens, st.lists(st.lists(st.integers(4, 99), max_size=9))), max_size=4)


def test_a_prompt_stands_once_and_its_completions_begin_with_its_last_token():
    packed = pack_groups([[5, 6, 7]] * 2, [[11, 12], [13, 14, 15]], row_length=10)
    rows = {
        "tokens": [5, 6, 7, 13, 14, 15, 7, 11, 12, 0],
        "positions": [0, 1, 2, 3, 4, 5, 2, 3, 4, 0],
        "segments": [1, 1, 2, 2, 2, 2, 3, 3, 3, 0],
        "prefixes": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
        "counted": [0, 0, 0, 1, 1, 1, 0, 1, 1, 0],
    }
    for name, row in rows.items():
        assert getattr(packed, name).tolist() == [row], name
    values = np.array([[1, 2, 0], [3, 4, 5]])
    assert packed.spread(values).tolist() == [[0, 0, 0, 3, 4, 5, 0, 1, 2, 0]]


def seen_alone(packed, row, column):
    """The text that a completion token is predicted from, with its positions."""
    own, prefix = packed.segments[row, column], packed.prefixes[row, column]
    before = np.isin(packed.segments[row, :column], [own, prefix])
    positions = packed.positions[row, :column][before].tolist()
    assert positions == list(range(packed.positions[row, column]))
    return packed.tokens[row, :column][before].tolist()


@given(groups=groups, share=st.booleans(), more=st.integers(0, 20))
def test_each_token_sees_what_it_would_alone(groups, share, more):
    prompts = [prompt for prompt, group in groups for _ in group]
    completions = [completion for _, group in groups for completion in group]
    packed = pack_groups(prompts, completions, row_length=15 + more, share=share)
    assert len(packed.row) == sum(map(len, completions))
    places = zip(packed.row, packed.column, packed.completion, packed.number, strict=True)
    for row, column, completion, number in places:
        assert packed.tokens[row, column] == completions[completion][number]
        expected = [*prompts[completion], *completions[completion][:number]]
        assert seen_alone(packed, row, column) == expected
    assert len(set(zip(packed.row, packed.column, strict=True))) == len(packed.row)
    values = np.arange(9 * len(completions)).reshape(-1, 9) + 1
    kept = np.arange(9) < np.array([len(one) for one in completions], int)[:, None]
    there_and_back = packed.gathered(packed.spread(values), values.shape)
    assert (there_and_back == np.where(kept, values, 0)).all()


def test_rows_are_few_and_another_group_fills_what_one_leaves():
    prompts = [[5] * 20] * 8 + [[6] * 20] * 8
    completions = [[7] * length for length in (10, 20, 30, 40, 10, 20, 30, 40)] * 2
    whole = pack_groups(prompts, completions, row_length=128)
    assert len(whole.tokens) == 4  # 2 x (200 + 8 + 19) tokens, of which a prompt is there twice
    assert (whole.segments == 0).mean() < 0.1
    apart = pack_groups(prompts, completions, row_length=128, share=False)
    assert len(apart.tokens) == 7  # of 720 tokens
    assert len(pack_groups(prompts, [[]] * 16, row_length=128).tokens) == 0


def test_what_does_not_fit_a_row_is_refused():
    with pytest.raises(ValueError, match=r"prompt of 3 tokens and its completion of 6 .* row of 8"):
        pack_groups([[5, 6, 7]], [[8] * 6], row_length=8)
