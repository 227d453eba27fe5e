import hashlib
from dataclasses import replace

import numpy as np
import pytest

from nblib.sources.rows import split_validation
from nblib.sources.wordproblems import word_problems
from nblib.tasks.gsm8k import GSM8K
from nblib.tokens.batches import TokenizedExample, encode_task
from nblib.tokens.batching import Batching, TrainingData, training_data
from nblib.tokens.corpus import encode_documents, foundation_documents


@pytest.fixture(scope="module")
def rows():
    return split_validation(word_problems(300, seed=0, split="train"))


@pytest.fixture(scope="module")
def encoded(tokenizer, rows):
    """What v1 trains and validates on."""
    return [encode_task(tokenizer, GSM8K, GSM8K.examples(part)) for part in rows]


@pytest.fixture(scope="module")
def documents(tokenizer, rows):
    """What v0 trains and validates on."""
    return [encode_documents(tokenizer, foundation_documents(part, seed=0)) for part in rows]


def sha(batches):
    digest = hashlib.sha256()
    for batch in batches:
        tokens, mask = batch.input_tokens, batch.input_mask
        digest.update(repr(tokens.shape).encode() + tokens.tobytes() + mask.tobytes())
    return digest.hexdigest()[:16]


V1 = Batching(max_length=192, packing="off", batch_tokens=1024, epochs=2, seed=3)
V1_PACKED = replace(V1, packing="on")
V0 = Batching(max_length=128, packing="off", batch_tokens=1024, epochs=1, seed=0)


@pytest.mark.parametrize(
    ("given", "batching", "devices", "counts", "hashes"),
    [
        (
            *("encoded", V1, 1, (130, 155, 130, 46, 2)),
            ("e4c56613f64c4e31", "726f4a932b8c978c", "2bd4f2643b9a8ba6"),
        ),
        (
            *("encoded", V1_PACKED, 2, (130, 155, 130, 66, 2)),
            ("e4c56613f64c4e31", "4a14ca46c4d4bb67", "28a59f6df00f457f"),
        ),
        (
            *("documents", V0, 1, (109, 176, 109, 14, 1)),
            ("141ee82fd53a77c1", "5e7fcd55b681366f", "ad74697398d94082"),
        ),
    ],
)
def test_batches_are_bit_for_bit_what_runs_were_made_with(
    request, given, batching, devices, counts, hashes
):
    # If this changes on purpose, checkpoints of before cannot be gone on from.
    data = training_data(*request.getfixturevalue(given), batching, row_multiple=devices)
    sizes = (len(data.examples), data.too_long, data.rows, len(data.batches), len(data.val_batches))
    assert sizes == counts
    assert (data.sha256[:16], sha(data.batches), sha(data.val_batches)) == hashes


def test_it_says_what_was_left_out_and_how_the_rest_is_packed(encoded):
    data = training_data(*encoded, replace(V1_PACKED, max_length=512))
    left_out, lengths, filled = str(data).splitlines()
    assert left_out == "0 of 285 over 512 tokens: left out, not cut"
    assert lengths.startswith("285 examples: ")
    assert filled == f"285 examples in {data.rows} rows, {len(data.batches)} batches"
    assert data.rows < 285


def test_without_anything_to_validate_on_there_are_no_batches_of_it(encoded):
    data = training_data(encoded[0], (), V1_PACKED)
    assert len(data.val_batches) == 0 and list(data.val_batches) == []
    both = training_data(*encoded, V1_PACKED)
    for one, other in zip(data.batches, both.batches, strict=True):
        np.testing.assert_array_equal(one.input_tokens, other.input_tokens)


@pytest.mark.parametrize("part", [0, 1])
def test_examples_that_are_all_too_long_are_an_error(encoded, part):
    given = [encoded[0][:8], encoded[1][:8]]
    given[part] = [one for one in encoded[part] if len(one.tokens) > 192]
    with pytest.raises(ValueError, match="MAX_LENGTH 192 leaves none"):
        training_data(*given, V1)


def data_of(*sizes):
    """Training data of examples that have these many tokens, and learn so many of them."""
    examples = tuple(
        TokenizedExample(
            id="x",
            tokens=np.full(length, 9, np.int32),
            loss_mask=np.array([0] * (length - learnt) + [1] * learnt, np.float32),
        )
        for length, learnt in sizes
    )
    given = {"too_long": 2, "rows": 3, "batches": (), "val_batches": (), "max_length": 40}
    return TrainingData(examples=examples, **{"total": len(examples) + 2, **given})


def test_summary_of_lengths():
    assert str(data_of((2, 1), (4, 2), (6, 3), (8, 4), (30, 15))).splitlines() == [
        "2 of 7 over 40 tokens: left out, not cut",
        "5 examples: 10 tokens on average (5 learnt), median 6, 95th percentile 26, longest 30",
        "5 examples in 3 rows, 0 batches",
    ]


def test_the_hash_goes_by_tokens_mask_and_order():
    digest = data_of((3, 1), (4, 1)).sha256
    assert digest == data_of((3, 1), (4, 1)).sha256
    others = (((4, 1), (3, 1)), ((3, 1),), ((3, 1), (4, 2)), ((3, 1), (4, 1), (4, 1)))
    assert digest not in {data_of(*sizes).sha256 for sizes in others}


def test_what_is_too_long_is_cut_where_that_is_asked_for(encoded):
    short = replace(V1, max_length=160)
    left_out, cut = (training_data(*encoded, replace(short, cut=cut)) for cut in (False, True))
    assert cut.too_long == left_out.too_long > 0
    assert len(left_out.examples) + left_out.too_long == len(encoded[0])
    learnt = [one for one in encoded[0] if one.loss_mask[:160].any()]
    assert [one.id for one in cut.examples] == [one.id for one in learnt]
    assert max(len(one.tokens) for one in cut.examples) == 160
    assert cut.whole_share == left_out.whole_share == 1 - cut.too_long / len(encoded[0])
    assert f"{cut.too_long} of {len(encoded[0])} over 160 tokens: cut" in str(cut)
    whole = {one.id: one for one in encoded[0]}
    for one in cut.examples:
        assert np.array_equal(one.tokens, whole[one.id].tokens[:160])
        assert np.array_equal(one.loss_mask, whole[one.id].loss_mask[:160])
    assert training_data(*encoded, replace(V1, max_length=512)).whole_share == 1


def test_a_length_that_cuts_all_that_is_learnt_is_refused(encoded):
    with pytest.raises(ValueError, match="MAX_LENGTH 8 leaves nothing to learn"):
        training_data(*encoded, replace(V1, max_length=8, cut=True))


def test_steps_are_batches_by_the_accumulation(encoded):
    data = training_data(*encoded, V1)
    assert data.steps(1) == len(data.batches) and data.steps(7) == len(data.batches) // 7
