"""What the foundation reads: rows written in the forms that the later notebooks ask for.

Two traps shape the mix. A small model computes inside GSM8K's `<<...>>` annotations, so most of
the text has none, in the surface form that v1 and v2 write. And markers that never occur while the
foundation is trained keep random embeddings, which adapters cannot move: so most of the text is
chat, a share of the prompts carries the system prompt, and a few short exercises write the tags.
No text shows reasoning and answer tags together: that is what v1 teaches.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sentencepiece as spm

from nblib.sources.rows import Row
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example
from nblib.tokens.batches import TokenizedExample, encode_example
from nblib.tokens.chat import render_prompt
from nblib.tokens.tokenizer import END_OF_TURN


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text to learn: an empty prompt means that all of it is learnt."""

    id: str
    prompt: str
    completion: str


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of the forms, each of 1; what is left is chat without a system prompt."""

    plain: float = 0.08  # "Question: ... Answer: ..." with annotations, learnt as a whole
    with_system_prompt: float = 0.15  # the XML prompt, answered in the hash form
    tag_exercises: float = 0.03  # one pair of tags around a number or a line

    def __post_init__(self) -> None:
        """Refuse shares that are not shares."""
        shares = (self.plain, self.with_system_prompt, self.tag_exercises)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"Mix shares {shares} must be at least 0 and at most 1 in all")


def foundation_documents(
    rows: Sequence[Row], *, seed: int, mix: Mix | None = None
) -> tuple[Document, ...]:
    """Tell each row once, in a form drawn from the mix; the same seed tells the same."""
    mix = mix or Mix()
    rng = random.Random(f"corpus/{seed}")
    examples = GSM8K.in_base_form.examples(rows)
    return tuple(_tell(rng, row, one, mix) for row, one in zip(rows, examples, strict=True))


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


def corpus_texts(documents: Sequence[Document]) -> Iterator[str]:
    """Yield the documents as plain texts, for training a tokenizer."""
    for document in documents:
        yield document.prompt + document.completion


def _tell(rng: random.Random, row: Row, example: Example, mix: Mix) -> Document:
    draw = rng.random()
    if draw < mix.plain:
        text = f"Question: {example.prompt}\nAnswer: {row.fields['answer']}"
        return Document(id=row.id, prompt="", completion=text)
    if draw < mix.plain + mix.tag_exercises:
        return _tag_exercise(rng, example)
    system = draw < mix.plain + mix.tag_exercises + mix.with_system_prompt
    prompt = render_prompt(example.prompt, system_prompt=GSM8K.system_prompt if system else "")
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
