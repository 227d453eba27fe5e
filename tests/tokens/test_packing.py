import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.tokens.batches import TokenizedExample, batch_stream
from nblib.tokens.packing import first_fit, pack

BOS, END = 2, 5


def example_of(length, *, id="x", first=BOS, learnt=1):
    """BOS, then its length as tokens, and an end; the last ones are learnt."""
    tokens = np.array([first, *[100 + length] * (length - 2), END], np.int32)
    mask = np.array([0] * (length - learnt) + [1] * learnt, np.float32)
    return TokenizedExample(id=id, tokens=tokens, loss_mask=mask)


def test_a_row_written_out():
    (row,) = pack([example_of(4, id="a", learnt=2), example_of(3, id="b")], "on",
                  max_length=100, seed=1)  # fmt: skip
    assert row.tokens[:8].tolist() == [BOS, 104, 104, END, BOS, 103, END, 0]
    assert row.loss_mask[:8].tolist() == [0, 0, 1, 1, 0, 0, 1, 0]
    assert (row.id, row.tokens.dtype, row.loss_mask.dtype) == ("a+b", "int32", "float32")
    assert len(row.tokens) == len(row.loss_mask) == 128  # a batch's length: one compilation
    assert not row.tokens[8:].any() and not row.loss_mask[8:].any()


def parts_of(row):
    """The examples of a row, as lists of tokens."""
    tokens = row.tokens[row.tokens != 0]
    return [part.tolist() for part in np.split(tokens, np.flatnonzero(tokens == BOS)[1:])]


@given(lengths=st.lists(st.integers(3, 128), min_size=1, max_size=60), seed=st.integers(0, 3))
def test_every_example_appears_once_and_whole(lengths, seed):
    examples = [example_of(length) for length in lengths]
    rows = pack(examples, "on", max_length=128, seed=seed)
    parts = sorted(part for row in rows for part in parts_of(row))
    assert parts == sorted(example.tokens.tolist() for example in examples)
    assert {len(row.tokens) for row in rows} == {128}
    assert sum(row.loss_mask.sum() for row in rows) == len(examples)


@given(lengths=st.lists(st.integers(1, 50), max_size=60))
def test_first_fit_opens_a_row_only_where_no_earlier_one_has_room(lengths):
    rows = first_fit(lengths, 50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for number, row in enumerate(rows):
        assert sum(lengths[index] for index in row) <= 50
        for earlier in rows[:number]:
            before = sum(lengths[index] for index in earlier if index < row[0])
            assert before + lengths[row[0]] > 50


def test_lengths_like_gsm8ks_leave_little_padding():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(303, 80, 2000), 100, 512).astype(int)
    rows = first_fit(lengths.tolist(), 1024)
    assert lengths.sum() / (1024 * len(rows)) > 0.95


def test_long_ones_go_first_and_short_ones_fill_what_they_leave():
    lengths = [60, 28, 40, 100, 88, 64, 4]  # as they come, first-fit would need four rows
    rows = pack([example_of(length) for length in lengths], "on", max_length=128, seed=0)
    assert [[len(part) for part in parts_of(row)] for row in rows] == [
        [100, 28], [88, 40], [64, 60, 4],
    ]  # fmt: skip


def test_the_seed_decides_the_rows():
    examples = [example_of(20 + index % 9, id=str(index)) for index in range(40)]
    first, again, other = (
        [row.id for row in pack(examples, "on", max_length=128, seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_packed_rows_make_batches_of_one_shape():
    rows = pack([example_of(40)] * 50, "on", max_length=128, seed=0)
    stream = batch_stream(rows, tokens_per_batch=512, epochs=2, seed=0)
    assert {batch.input_tokens.shape for batch in stream} == {(4, 128)}
    assert sum((batch.input_tokens == BOS).sum() for batch in stream) == 2 * 50


def test_off_leaves_the_examples_as_they_are():
    examples = (example_of(9), example_of(2000, first=7))
    assert pack(examples, "off", max_length=128, seed=0) == examples


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (example_of(129, id="e7"), "example e7 has 129 tokens, a packed row 128"),
        (example_of(9, id="e7", first=7), "example e7 .* begin with its only BOS .* 0 times BOS"),
        (example_of(9, learnt=9), r"mask 1\.0"),
        (TokenizedExample(id="e7", tokens=np.array([BOS, BOS, 9]), loss_mask=np.zeros(3)), "2 tim"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(example, said):
    with pytest.raises(ValueError, match=said):
        pack([example_of(9), example], "on", max_length=100, seed=0)


def test_another_word_names_those_that_are_known():
    with pytest.raises(ValueError, match="PACKING 'yes' is unknown: expected one of on, off"):
        pack([], "yes", max_length=100, seed=0)
