import io
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import sentencepiece as spm

from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example
from nblib.tokens.batches import (
    BUCKETS,
    TokenizedExample,
    batch_stream,
    bucket_of,
    collate,
    drop_too_long,
    encode_example,
    encode_task,
    fitting_prompts,
    show_loss_mask,
)

BOS, END_OF_TURN = 2, 5
HASH = GSM8K.variants["hash"]
EGGS = Example(
    id="e/0",
    prompt="2 hens, 3 eggs each?",
    completion="<reasoning>\n2 * 3 = 6.\n</reasoning>\n<answer>6</answer>",
    reference="6",
)


def example_of(length, *, learnt=1, id="x"):
    """`length` tokens of which the last `learnt` are learnt; token ids from 10 on."""
    return TokenizedExample(
        id=id,
        tokens=np.arange(10, 10 + length, dtype=np.int32),
        loss_mask=np.array([0] * (length - learnt) + [1] * learnt, np.float32),
    )


@pytest.fixture(scope="module")
def examples():
    """64 examples of three padded lengths; the first token of each says which one it is."""
    made = []
    for index in range(64):
        example = example_of((40, 140, 200, 100, 128, 129, 192)[index % 7])
        example.tokens[0] = 1000 + index
        made.append(example)
    return made


def rows_of(stream):
    """Which examples each batch holds; -1 for an empty row."""
    return [
        [int(row[0]) - 1000 if row[0] else -1 for row in batch.input_tokens] for batch in stream
    ]


def test_tokens_and_mask_written_out(tokenizer):
    example = encode_example(tokenizer, id="a", prompt="<start_of_turn>12\n", completion="3\n4")
    one, two, three, four = tokenizer.encode("1234")
    newline, start = tokenizer.piece_to_id("\n"), tokenizer.piece_to_id("<start_of_turn>")
    np.testing.assert_array_equal(
        example.tokens, [BOS, start, one, two, newline, three, newline, four, END_OF_TURN]
    )
    np.testing.assert_array_equal(example.loss_mask, [0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert (example.id, example.tokens.dtype, example.loss_mask.dtype) == ("a", "int32", "float32")


def test_the_end_of_the_turn_is_learnt_and_the_prompts_own_is_not(tokenizer):
    (example,) = encode_task(tokenizer, GSM8K, [EGGS])
    ends = example.tokens == END_OF_TURN
    np.testing.assert_array_equal(example.loss_mask[ends], [0, 1])
    assert ends[-1] and not np.isin(example.tokens, [1]).any()  # no end of text after it


def test_an_end_of_turn_that_is_not_read_from_text_is_refused(texts):
    """A control piece has an id, so it looks right, but its text is cut into letters."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts[:50] for line in text.split("\n") if line),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        model_type="bpe",
        control_symbols=["<start_of_turn>", "<end_of_turn>"],
        byte_fallback=True,
        minloglevel=2,
    )
    tokenizer = spm.SentencePieceProcessor(model_proto=model.getvalue())
    with pytest.raises(ValueError, match=r"e/0 ends by .* splits <end_of_turn>"):
        encode_task(tokenizer, GSM8K, [EGGS])


def test_an_example_that_its_own_task_would_not_reward_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"^e/0: its own completion has answer_accuracy 0"):
        encode_task(tokenizer, GSM8K, [replace(EGGS, reference="7")])


def test_a_system_prompt_of_its_own_stands_in_place_of_the_tasks(tokenizer):
    (own,) = encode_task(tokenizer, GSM8K, [replace(EGGS, system_prompt="Be brief.")])
    assert "user\nBe brief.\n\n2 hens" in show_loss_mask(tokenizer, own)


def test_without_a_prompt_all_but_bos_is_learnt(tokenizer):
    example = encode_example(tokenizer, id="a", prompt="", completion="77", end="")
    assert example.tokens.tolist() == [BOS, *tokenizer.encode("77")]
    np.testing.assert_array_equal(example.loss_mask, [0, 1, 1])


def test_the_prompt_is_tokenised_as_it_is_when_the_model_answers(tokenizer):
    merged = next(  # a piece of two letters, torn apart by where the prompt ends
        piece
        for piece in map(tokenizer.id_to_piece, range(263, 544))
        if re.fullmatch("[a-z]{2}", piece) and tokenizer.encode(piece, out_type=str) == [piece]
    )
    example = encode_example(tokenizer, id="a", prompt=merged[0], completion=merged[1], end="")
    assert example.tokens.tolist() == [BOS, *tokenizer.encode(list(merged))[0],
                                       *tokenizer.encode(merged[1])]  # fmt: skip


def test_a_task_is_told_in_its_own_format(tokenizer):
    xml, hashed = (
        encode_task(tokenizer, task, [replace(EGGS, completion=completion)])[0]
        for task, completion in ((GSM8K, EGGS.completion), (HASH, "2 * 3 = 6.\n#### 6"))
    )
    read, learnt = int((xml.loss_mask == 0).sum()), int(xml.loss_mask.sum())
    assert show_loss_mask(tokenizer, xml) == (
        f"--- read, {read} tokens, mask 0 ---\n"
        "<start_of_turn>user\n"
        "Work it out inside <reasoning></reasoning>, then give just the number inside "
        "<answer></answer>.\n\n2 hens, 3 eggs each?<end_of_turn>\n<start_of_turn>model\n\n"
        f"--- learnt, {learnt} tokens, mask 1 ---\n"
        "<reasoning>\n2 * 3 = 6.\n</reasoning>\n<answer>6</answer><end_of_turn>"
    )
    assert show_loss_mask(tokenizer, hashed).endswith("mask 1 ---\n2 * 3 = 6.\n#### 6<end_of_turn>")
    assert "Work it out" not in show_loss_mask(tokenizer, hashed)
    assert xml.id == hashed.id == "e/0"


def test_what_is_too_long_is_counted_and_left_out_whole():
    given = [example_of(3), example_of(5), example_of(4), example_of(6)]
    kept, dropped = drop_too_long(given, 4)
    assert dropped == 2
    assert kept == (given[0], given[2])  # the same objects: nothing was cut


def test_when_all_are_too_long_the_longest_is_named():
    with pytest.raises(ValueError, match=r"MAX_LENGTH 4 leaves none of 2 .* longest has 6 tokens"):
        drop_too_long([example_of(5), example_of(6)], 4)
    with pytest.raises(ValueError, match="none of 0 examples"):
        drop_too_long([], 4)


@pytest.fixture(scope="module")
def asked(tokenizer):
    """Three questions of growing length, and how long their prompts are with BOS before them."""
    examples = tuple(
        replace(EGGS, id=f"e/{n}", prompt=EGGS.prompt + " And 1 more." * n) for n in range(3)
    )
    encoded = encode_task(tokenizer, GSM8K, examples)
    lengths = [int((one.loss_mask == 0).sum()) for one in encoded]
    assert lengths == sorted(set(lengths))
    return examples, lengths


def test_a_prompt_of_exactly_the_limit_fits_and_the_rest_is_counted(tokenizer, asked):
    examples, lengths = asked
    for most, kept in ((lengths[1] - 1, 1), (lengths[1], 2), (lengths[2], 3), (9999, 3)):
        found = fitting_prompts(tokenizer, GSM8K, examples, most)
        assert found == (examples[:kept], 3 - kept), most


def test_prompts_are_measured_as_the_task_asks_them(tokenizer, asked):
    examples, lengths = asked
    plain = HASH  # no system prompt: shorter
    assert fitting_prompts(tokenizer, plain, examples, lengths[0] - 1)[0] == examples


def test_when_no_prompt_fits_both_lengths_are_named(tokenizer, asked):
    examples, lengths = asked
    message = (
        rf"MAX_PROMPT_LENGTH {lengths[0] - 1} leaves none of 3 prompts "
        rf"\(the longest has {lengths[2]} tokens\)"
    )
    with pytest.raises(ValueError, match=message):
        fitting_prompts(tokenizer, GSM8K, examples, lengths[0] - 1)
    with pytest.raises(ValueError, match="none of 0 prompts"):
        fitting_prompts(tokenizer, GSM8K, [], 9)


def test_collated_arrays_written_out():
    given = [example_of(2), example_of(4, learnt=3), example_of(3, learnt=2)]
    batch = collate(given, [2, 1], length=5, rows=3)
    np.testing.assert_array_equal(
        batch.input_tokens, [[10, 11, 12, 0, 0], [10, 11, 12, 13, 0], [0, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        batch.input_mask, [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    )
    assert (batch.input_tokens.dtype, batch.input_mask.dtype) == ("int32", "float32")


def test_padded_lengths():
    assert [bucket_of(n) for n in (1, 128, 129, 384, 2048)] == [128, 128, 192, 384, 2048]
    assert [bucket_of(n) for n in (2049, 100_000)] == [4096, 131_072]
    assert bucket_of(131_073) == 131_073 > BUCKETS[-1]


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_example_appears_exactly_once_an_epoch(examples, shuffle):
    stream = batch_stream(examples, tokens_per_batch=1024, epochs=3, seed=0, shuffle=shuffle)
    batches = rows_of(stream)
    assert len(batches) % 3 == 0
    each = len(batches) // 3
    for epoch in range(3):
        seen = Counter(index for row in batches[epoch * each :][:each] for index in row)
        del seen[-1]
        assert seen == Counter(range(64))


def test_a_batch_holds_whole_examples_of_one_length_and_about_the_tokens_asked(examples):
    for batch in batch_stream(examples, tokens_per_batch=1024, epochs=1, seed=0):
        rows, length = batch.input_tokens.shape
        assert (rows, length) in {(8, 128), (5, 192), (4, 256)}
        for tokens, mask in zip(batch.input_tokens, batch.input_mask, strict=True):
            if tokens[0]:
                example = examples[tokens[0] - 1000]
                size = len(example.tokens)
                assert bucket_of(size) == length
                np.testing.assert_array_equal(tokens[:size], example.tokens)
                np.testing.assert_array_equal(mask[:size], example.loss_mask)
                assert not tokens[size:].any() and not mask[size:].any()


def test_batches_are_the_same_for_the_same_seed(examples):
    def batches(seed):
        return rows_of(batch_stream(examples, tokens_per_batch=1024, epochs=2, seed=seed))

    assert batches(0) == batches(0) != batches(1)
    first, second = batches(0)[: len(batches(0)) // 2], batches(0)[len(batches(0)) // 2 :]
    assert first != second  # another order in each epoch


def test_a_batch_can_be_asked_for_again_at_its_place(examples):
    stream = batch_stream(examples, tokens_per_batch=1024, epochs=2, seed=0)
    np.testing.assert_array_equal(stream[9].input_tokens, list(stream)[9].input_tokens)


def test_each_epoch_puts_other_examples_together(examples):
    batches = rows_of(batch_stream(examples, tokens_per_batch=1024, epochs=2, seed=0))
    first, second = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    together = [{frozenset(batch) for batch in epoch} for epoch in (first, second)]
    assert len(together[0] & together[1]) < len(first) / 4


def test_half_filled_batches_come_anywhere_in_an_epoch(examples):
    epochs = 8
    batches = rows_of(batch_stream(examples, tokens_per_batch=1024, epochs=epochs, seed=0))
    each = len(batches) // epochs
    last = [batches[(epoch + 1) * each - 1] for epoch in range(epochs)]
    assert 0 < sum(-1 in batch for batch in last) < epochs


def test_another_seed_is_another_order(examples):
    one, other = (
        rows_of(batch_stream(examples, tokens_per_batch=1024, epochs=1, seed=seed))
        for seed in (0, 1)
    )
    assert one != other


def test_unshuffled_batches_keep_the_order(examples):
    first, *_ = rows_of(
        batch_stream(examples, tokens_per_batch=1024, epochs=1, seed=0, shuffle=False)
    )
    assert first == [1, 5, 6, 8, 12]  # the first five of 129 to 192 tokens fill up first


@pytest.mark.parametrize(("multiple", "rows"), [(1, {8, 5, 4}), (4, {8, 4}), (8, {8})])
def test_rows_are_a_multiple_of_the_devices_that_share_a_batch(examples, multiple, rows):
    stream = batch_stream(examples, tokens_per_batch=1024, epochs=1, seed=0, row_multiple=multiple)
    assert {len(batch.input_tokens) for batch in stream} == rows
    assert sum(index >= 0 for batch in rows_of(stream) for index in batch) == 64


def test_an_example_longer_than_a_batch_still_gets_a_row():
    (batch,) = batch_stream([example_of(100)], tokens_per_batch=64, epochs=1, seed=0)
    assert batch.input_tokens.shape == (1, 128)
