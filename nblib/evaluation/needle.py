"""Needles: a short page within filler, asked at every depth of pages of several lengths.

    Read the product as JSON: name, ...     what is asked, by the task's own prompt
    The box has two parts.                  filler: a quarter of it before the needle is "25%"
    Mug Rosa                                the needle: a page with its slots
    Now 12,50 EUR
    Wash it with warm water.
    (and so on, up to the length in tokens)

A needle is an example of the task, scored as any other: so the tuned model itself is judged. In
Gemma 3 only the global layers see a needle that is further away than the window.
Method: https://github.com/gkamradt/LLMTest_NeedleInAHaystack
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import sentencepiece as spm

from nblib.evaluation.answers import Decoding, Stage, ask, score_answers
from nblib.models.memory import give_back_memory
from nblib.models.names import RefModel
from nblib.sources.shop_pages import filler_lines
from nblib.tasks.task import Example, Task
from nblib.tokens.chat import task_prompts

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHORTEST = 256  # tokens of a prompt; half of it is the most that a needle has
_FEWEST, _SHARE = 4, 20  # needles in a cell: one in so many of the pages that are asked


def needle_examples(
    examples: Sequence[Example],
    task: Task,
    tokenizer: spm.SentencePieceProcessor,
    *,
    length: int,
    depth: float,
) -> tuple[Example, ...]:
    """Return the examples as needles in pages whose prompts have `length` tokens, or a few less.

    `depth` is the share of the filler that stands before the needle; it is also their group. The
    filler of an example is the same at each depth.
    """
    return tuple(
        replace(
            _buried(one, task, tokenizer, length=length, depth=depth, seed=one.id),
            id=f"{one.id}/{length}/{depth:.0%}",
            group=f"{depth:.0%}",
        )
        for one in examples
    )


def with_long_pages(
    examples: Sequence[Example],
    task: Task,
    tokenizer: spm.SentencePieceProcessor,
    *,
    length: int,
    seed: int,
) -> tuple[Example, ...]:
    """Return training examples of which every other one with slots is a needle, to learn from.

    Its length is drawn between its own and `length` tokens, the answer included, and so is its
    depth: what is learnt on short pages alone, a model does on short pages alone.
    """
    made, rng = list[Example](), random.Random(f"needle/{seed}")
    for example, prompt in zip(examples, task_prompts(task, examples), strict=True):
        if isinstance(example.reference, Mapping) and rng.random() < 0.5:
            most = length - len(tokenizer.encode(example.completion)) - 2  # and the end of a turn
            own = min(most, 1 + len(tokenizer.encode(prompt)))
            drawn, depth, name = rng.randint(own, most), rng.random(), f"{seed}/{example.id}"
            example = _buried(example, task, tokenizer, length=drawn, depth=depth, seed=name)
        made.append(example)
    return tuple(made)


def needle_lengths(most: int) -> tuple[int, ...]:
    """Return the lengths in tokens that are asked: 256, 512, 1,024, ... up to `most`."""
    doubled = (_SHORTEST << times for times in range(32))
    return tuple(takewhile(lambda length: length <= most, doubled))


def needle_grid(
    ref: RefModel,
    task: Task,
    examples: Sequence[Example],
    decoding: Decoding,
    *,
    most: int,
    enabled: bool = True,
) -> tuple[Stage, ...]:
    """Ask the same needles at each depth of each length; return a stage a length, grouped by depth.

    Needles are the first examples that have slots and a short page, a twentieth of all. There is no
    stage when not `enabled`, or where no page is short enough, which is printed.
    """
    needles = _needles(examples, task, ref.tokenizer) if enabled else ()
    stages = []
    for length in needle_lengths(min(most, ref.context)) if needles else ():
        given = [
            needle_examples(needles, task, ref.tokenizer, length=length, depth=depth)
            for depth in DEPTHS
        ]
        rows = max(1, decoding.batch_size * _SHORTEST // length)  # about as much memory at a time
        asked = [one for cell in given for one in cell]
        answers = ask(ref, task, asked, replace(decoding, batch_size=rows))
        stages.append(score_answers(f"{length}_tokens", answers, task))
        give_back_memory()
    return tuple(stages)


def _needles(
    examples: Sequence[Example], task: Task, tokenizer: spm.SentencePieceProcessor
) -> tuple[Example, ...]:
    with_slots = [one for one in examples if isinstance(one.reference, Mapping)]
    prompts = tokenizer.encode(task_prompts(task, with_slots)) if with_slots else []
    short = [
        one
        for one, ids in zip(with_slots, prompts, strict=True)
        if 2 * _page_tokens(one, tokenizer) <= _SHORTEST and len(ids) < _SHORTEST
    ]
    if not short:
        print(f"no needles: no page with slots is as short as {_SHORTEST // 2} tokens")
    return tuple(short[: max(_FEWEST, len(examples) // _SHARE)])


def _page_tokens(example: Example, tokenizer: spm.SentencePieceProcessor) -> int:
    return len(tokenizer.encode(_split(example.prompt)[1]))


def _split(prompt: str) -> tuple[str, str]:
    """Return what is asked, with the empty line behind it, and the page; "" where none is."""
    asked, gap, page = prompt.partition("\n\n")
    return (asked + gap, page) if gap else ("", prompt)


def _buried(
    example: Example,
    task: Task,
    tokenizer: spm.SentencePieceProcessor,
    *,
    length: int,
    depth: float,
    seed: str,
) -> Example:
    """Return an example with filler around its page, so many tokens in all, BOS included."""
    asked, page = _split(example.prompt)
    (prompt,) = task_prompts(task, [example])
    room, lines = length - 1 - len(tokenizer.encode(prompt)), list[str]()
    for line in filler_lines(seed):
        room -= len(tokenizer.encode(f"{line}\n"))
        if room < 0:
            break
        lines.append(line)
    before = round(depth * len(lines))
    return replace(example, prompt=asked + "\n".join([*lines[:before], page, *lines[before:]]))
