import re
from collections import Counter

import numpy as np
import pytest

from nblib.sources.rows import Row
from nblib.sources.wordproblems import word_problems
from nblib.tasks.formats import SYSTEM_PROMPT
from nblib.tokens import corpus
from nblib.tokens.chat import render_prompt
from nblib.tokens.corpus import (
    Document,
    corpus_texts,
    encode_documents,
    foundation_documents,
)

QUESTION = "2 hens, 3 eggs each?"
ANSWER = "2 * 3 = <<2*3=6>>6.\nSo 6.\n#### 6"
ROW = Row(id="r/0", fields={"question": QUESTION, "answer": ANSWER})
PAIRS = (r"<reasoning>.*</reasoning>", r"<answer>.*</answer>")


@pytest.fixture(scope="module")
def rows():
    return word_problems(4000, seed=5, split="train")


@pytest.fixture(scope="module")
def documents(rows):
    return foundation_documents(rows, seed=0)


@pytest.fixture
def only(monkeypatch):
    """Return the row as a document of one form alone."""

    def document(form, seed=0):
        monkeypatch.setattr(corpus, "SHARES", {form: 1.0})
        (made,) = foundation_documents([ROW], seed=seed)
        return made

    return document


def form_of(document):
    if not document.prompt:
        return "plain"
    if "Write this inside" in document.prompt:
        return "tag exercise"
    return "system prompt" if SYSTEM_PROMPT in document.prompt else "chat"


def test_plain_text_keeps_the_annotations_and_is_learnt_whole(only):
    assert only("plain") == Document(
        id="r/0",
        prompt="",
        completion="Question: 2 hens, 3 eggs each?\nAnswer: 2 * 3 = <<2*3=6>>6.\nSo 6.\n#### 6",
    )


def test_a_chat_is_answered_in_the_hash_form_without_annotations(only):
    assert only("chat") == Document(
        id="r/0",
        prompt="<start_of_turn>user\n2 hens, 3 eggs each?<end_of_turn>\n<start_of_turn>model\n",
        completion="2 * 3 = 6.\nSo 6.\n#### 6",
    )


def test_the_system_prompt_is_answered_in_the_hash_form_too(only):
    asked = only("system prompt")
    assert asked.prompt == render_prompt(QUESTION, system_prompt=SYSTEM_PROMPT)
    assert asked.completion == only("chat").completion


def test_tag_exercises_write_one_pair_around_words_of_the_row(only):
    documents = [only("tag exercise", seed) for seed in range(20)]
    exercises = {document.completion: document.prompt for document in documents}
    assert exercises == {
        "<answer>6</answer>": render_prompt("Write this inside <answer></answer>: 6"),
        "<reasoning>\n2 * 3 = 6.\n</reasoning>": render_prompt(
            "Write this inside <reasoning></reasoning>: 2 * 3 = 6."
        ),
    }


def test_no_completion_shows_both_pairs_of_tags(documents):
    held = Counter(
        tuple(bool(re.search(pair, document.completion, re.DOTALL)) for pair in PAIRS)
        for document in documents
    )
    assert held[True, True] == 0
    assert min(held[True, False], held[False, True]) > 20  # and yet both occur


def test_the_shares_of_the_forms(documents):
    forms = Counter(map(form_of, documents))
    shares = {form: forms[form] / len(documents) for form in forms}
    assert shares == pytest.approx(
        {"plain": 0.08, "system prompt": 0.15, "tag exercise": 0.03, "chat": 0.74}, abs=0.02
    )


def test_annotations_stand_in_plain_text_alone(documents):
    assert {form_of(document) for document in documents if "<<" in document.completion} == {"plain"}


def test_each_row_is_written_once_and_the_same_for_the_same_seed(rows, documents):
    assert [document.id for document in documents] == [row.id for row in rows]
    assert foundation_documents(rows, seed=0) == documents
    assert foundation_documents(rows, seed=1) != documents


def test_only_a_chat_ends_with_the_end_of_a_turn(tokenizer):
    chat, plain = encode_documents(
        tokenizer,
        [Document(id="a", prompt="1", completion="2"), Document(id="b", prompt="", completion="2")],
    )
    one, two = tokenizer.encode("12")
    assert (chat.id, plain.id) == ("a", "b")
    np.testing.assert_array_equal(chat.tokens, [2, one, two, 5])
    np.testing.assert_array_equal(chat.loss_mask, [0, 0, 1, 1])
    np.testing.assert_array_equal(plain.tokens, [2, two])
    np.testing.assert_array_equal(plain.loss_mask, [0, 1])


def test_texts_for_the_tokenizer_are_prompt_and_completion():
    given = [
        Document(id="a", prompt="p", completion="c"),
        Document(id="b", prompt="", completion="d"),
    ]
    assert list(corpus_texts(given, most=9)) == ["pc", "d"]
