"""The texts that v0 trains on: rows written in the forms that the later notebooks ask for.

Two traps shape the mix. A small model computes inside GSM8K's `<<...>>` annotations, so most of
the text has none, in the surface form that v1 and v2 write. And markers that never occur while the
foundation is trained keep random embeddings, which adapters cannot move: so most of the text is
chat, a share of the prompts carries the system prompt, and a few short exercises write the tags.
No text shows reasoning and answer tags together: that is what v1 teaches.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import sentencepiece as spm

from nblib.sources.rows import Row
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example
from nblib.tokens.batches import TokenizedExample, encode_example
from nblib.tokens.chat import render_prompt
from nblib.tokens.tokenizer import END_OF_TURN

# Shares of the forms, each of 1; what is left is chat without a system prompt.
SHARES: Mapping[str, float] = {
    "plain": 0.08,  # "Question: ... Answer: ..." with annotations, learnt as a whole
    "tag exercise": 0.03,  # one pair of tags around a number or a line
    "system prompt": 0.15,  # the XML prompt, answered in the hash form
}


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text to learn: an empty prompt means that all of it is learnt."""

    id: str
    prompt: str
    completion: str


def foundation_documents(rows: Sequence[Row], *, seed: int) -> tuple[Document, ...]:
    """Write each row once, in a form drawn by `SHARES`; the same seed gives the same documents."""
    rng = random.Random(f"corpus/{seed}")
    examples = GSM8K.in_base_form.examples(rows)
    return tuple(_document(rng, row, one) for row, one in zip(rows, examples, strict=True))


def encode_documents(
    tokenizer: spm.SentencePieceProcessor, documents: Sequence[Document]
) -> tuple[TokenizedExample, ...]:
    """Tokenise every document; only a chat ends with the end of a turn."""
    return tuple(
        encode_example(
            tokenizer,
            id=document.id,
            prompt=document.prompt,
            completion=document.completion,
            end=END_OF_TURN if document.prompt else "",
        )
        for document in documents
    )


def corpus_texts(documents: Sequence[Document], *, most: int = 4000) -> Iterator[str]:
    """Yield about `most` of the documents as plain texts, for training a tokenizer."""
    for document in documents[:: len(documents) // most + 1]:
        yield document.prompt + document.completion


def _document(rng: random.Random, row: Row, example: Example) -> Document:
    draw, limits = rng.random(), zip(SHARES, accumulate(SHARES.values()), strict=True)
    form = next((form for form, limit in limits if draw < limit), "chat")
    if form == "plain":
        text = f"Question: {example.prompt}\nAnswer: {row.fields['answer']}"
        return Document(id=row.id, prompt="", completion=text)
    if form == "tag exercise":
        return _tag_exercise(rng, example)
    system_prompt = GSM8K.system_prompt if form == "system prompt" else ""
    prompt = render_prompt(example.prompt, system_prompt=system_prompt)
    return Document(id=row.id, prompt=prompt, completion=example.completion)


def _tag_exercise(rng: random.Random, example: Example) -> Document:
    """Ask for one pair of tags around given words; never both pairs in one text."""
    tag, words = rng.choice(
        (("answer", example.reference), ("reasoning", example.completion.split("\n")[0]))
    )
    newline = "\n" if tag == "reasoning" else ""
    return Document(
        id=example.id,
        prompt=render_prompt(f"Write this inside <{tag}></{tag}>: {words}"),
        completion=f"<{tag}>{newline}{words}{newline}</{tag}>",
    )
