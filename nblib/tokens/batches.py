"""Prompts and completions to padded batches: token ids, the loss mask, buckets by length.

The loss mask is 1 on the tokens to be learnt (the completion and its end-of-turn marker) and 0 on
the prompt and the padding. An example that is too long is counted and left out, because a cut one
never shows the model the end of its answer; `cut_too_long` is there to show just that.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import grain
import numpy as np
import sentencepiece as spm
from jaxtyping import Float, Int
from tunix.sft.peft_trainer import TrainingInput

from nblib.tasks.task import Example, Task, check_task
from nblib.tokens.chat import task_prompts
from nblib.tokens.tokenizer import END_OF_TURN, PAD_ID, stop_tokens

# Each length is one compilation of the step; rows are padded to the next one.
BUCKETS = (128, 192, 256, 384, 512, 768, *(1024 << times for times in range(8)))

_Item = TypeVar("_Item")
_Entry = tuple[list[int], int, int]  # indices of a batch's examples, padded length, rows


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """One example as token ids and loss mask, both of its own length T."""

    id: str
    tokens: Int[np.ndarray, "T"]  # noqa: F821
    loss_mask: Float[np.ndarray, "T"]  # noqa: F821


def encode_example(
    tokenizer: spm.SentencePieceProcessor,
    *,
    id: str,
    prompt: str,
    completion: str,
    end: str = END_OF_TURN,
) -> TokenizedExample:
    r"""Tokenise one example: BOS, prompt (mask 0), completion and `end` (mask 1).

    Prompt and completion are tokenised apart, as they are when the model answers. An empty
    prompt gives a text to learn as a whole.

        tokens     <bos> <start_of_turn> user ... model \n 3 * 6 =  ...    14    <end_of_turn>
        loss_mask    0         0          0   ...   0    0       1      ...     1           1
    """
    head = [tokenizer.bos_id(), *tokenizer.encode(prompt)]
    tail = tokenizer.encode(completion + end)
    return TokenizedExample(
        id=id,
        tokens=np.array(head + tail, np.int32),
        loss_mask=np.array([0] * len(head) + [1] * len(tail), np.float32),
    )


def encode_task(
    tokenizer: spm.SentencePieceProcessor, task: Task, examples: Sequence[Example]
) -> tuple[TokenizedExample, ...]:
    """Tokenise a task's examples: the prompt, and the completion to be learnt.

    Raises ValueError for a completion that the task itself would not score as right (see
    `check_task`), and for one that does not end, inside its loss mask, by a token that ends a
    completion: a model that learns from it never learns to stop.
    """
    check_task(task, examples)
    stops = stop_tokens(tokenizer)
    encoded = tuple(
        encode_example(tokenizer, id=example.id, prompt=prompt, completion=example.completion)
        for example, prompt in zip(examples, task_prompts(task, examples), strict=True)
    )
    for one in encoded:
        if one.tokens[-1] not in stops or one.loss_mask[-1] != 1:
            raise ValueError(
                f"{one.id} ends by token {one.tokens[-1]} with mask {one.loss_mask[-1]:g}, "
                f"expected one of {stops} with mask 1: the tokenizer splits {END_OF_TURN}"
            )
    return encoded


def fitting_prompts(
    tokenizer: spm.SentencePieceProcessor,
    task: Task,
    examples: Sequence[Example],
    max_prompt_length: int,
) -> tuple[tuple[Example, ...], int]:
    """Return the examples whose prompt has at most so many tokens (BOS too), and how many had more.

    Raises ValueError when none is left.
    """
    lengths = [1 + len(ids) for ids in tokenizer.encode(task_prompts(task, examples))]
    return _short_enough(examples, lengths, "MAX_PROMPT_LENGTH", max_prompt_length, "prompts")


def drop_too_long(
    examples: Sequence[TokenizedExample], max_length: int
) -> tuple[tuple[TokenizedExample, ...], int]:
    """Return the examples of at most `max_length` tokens, and how many were longer.

    Raises ValueError when none is left.
    """
    lengths = [len(example.tokens) for example in examples]
    return _short_enough(examples, lengths, "MAX_LENGTH", max_length, "examples")


def cut_too_long(
    examples: Sequence[TokenizedExample], max_length: int
) -> tuple[tuple[TokenizedExample, ...], int]:
    """Return the first `max_length` tokens of each example, and how many lost their end.

    An example whose prompt alone is as long is left out. Raises ValueError when none is left.
    """
    cut = tuple(
        replace(one, tokens=one.tokens[:max_length], loss_mask=one.loss_mask[:max_length])
        for one in examples
        if one.loss_mask[:max_length].any()
    )
    if not cut:
        raise ValueError(f"MAX_LENGTH {max_length} leaves nothing to learn: raise it")
    return cut, sum(len(one.tokens) > max_length for one in examples)


def _short_enough(
    items: Sequence[_Item], lengths: Sequence[int], name: str, most: int, what: str
) -> tuple[tuple[_Item, ...], int]:
    kept = tuple(item for item, length in zip(items, lengths, strict=True) if length <= most)
    if not kept:
        raise ValueError(
            f"{name} {most} leaves none of {len(items)} {what} "
            f"(the longest has {max(lengths, default=0)} tokens): raise it"
        )
    return kept, len(items) - len(kept)


def show_loss_mask(tokenizer: spm.SentencePieceProcessor, example: TokenizedExample) -> str:
    """Return the example as text, with what is learnt between two marker lines."""
    first = int(np.argmax(example.loss_mask))
    prompt, learnt = example.tokens[:first].tolist(), example.tokens[first:].tolist()
    return (
        f"--- read, {first} tokens, mask 0 ---\n{tokenizer.decode(prompt)}\n"
        f"--- learnt, {len(learnt)} tokens, mask 1 ---\n{tokenizer.decode(learnt)}"
    )


def batch_stream(
    examples: Sequence[TokenizedExample],
    *,
    tokens_per_batch: int,
    epochs: int,
    seed: int,
    shuffle: bool = True,
    row_multiple: int = 1,
) -> grain.MapDataset:
    """Return the batches of `epochs` passes over the examples, the same ones for the same seed.

    Rows of similar length share a batch of about `tokens_per_batch` tokens, padding included; the
    number of rows is a multiple of `row_multiple` (the devices that share a batch). Each example
    appears exactly once an epoch; the last batch of a length is filled up with empty rows.
    """
    rng = random.Random(f"batches/{seed}")
    plan: list[_Entry] = []
    for _ in range(epochs):
        order = list(range(len(examples)))
        if shuffle:
            rng.shuffle(order)
        epoch = list(_plan_epoch(examples, order, tokens_per_batch, row_multiple))
        if shuffle:
            rng.shuffle(epoch)
        plan += epoch
    return grain.MapDataset.source(plan).map(lambda entry: collate(examples, *entry))


def collate(
    examples: Sequence[TokenizedExample], indices: Sequence[int], length: int, rows: int
) -> TrainingInput:
    """Pad the chosen examples to `rows` rows of `length` tokens.

    In Tunix's record the mask of the tokens to be learnt is called `input_mask`.
    """
    tokens: np.ndarray = np.full((rows, length), PAD_ID, np.int32)
    loss_mask: np.ndarray = np.zeros((rows, length), np.float32)
    for row, index in enumerate(indices):
        example = examples[index]
        tokens[row, : len(example.tokens)] = example.tokens
        loss_mask[row, : len(example.tokens)] = example.loss_mask
    return TrainingInput(input_tokens=tokens, input_mask=loss_mask)


def bucket_of(length: int) -> int:
    """Return the padded length for an example of `length` tokens."""
    return next((bucket for bucket in BUCKETS if length <= bucket), length)


def _plan_epoch(
    examples: Sequence[TokenizedExample], order: Sequence[int], tokens_per_batch: int, multiple: int
) -> Iterator[_Entry]:
    """Yield which examples share a batch: full ones as they fill up, the rest at the end."""
    waiting: dict[int, list[int]] = {}
    rows_of: dict[int, int] = {}
    for index in order:
        length = bucket_of(len(examples[index].tokens))
        rows = rows_of.setdefault(length, max(1, tokens_per_batch // length // multiple) * multiple)
        queue = waiting.setdefault(length, [])
        queue.append(index)
        if len(queue) == rows:
            yield queue, length, rows
            waiting[length] = []
    for length, queue in sorted(waiting.items()):
        if queue:
            yield queue, length, rows_of[length]
