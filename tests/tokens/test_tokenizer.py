import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nblib.tokens.tokenizer import (
    TokenizerMismatch,
    check_tokenizer,
    fingerprint,
    load_tokenizer,
    stop_tokens,
    tokenizer_hashes,
    train_tokenizer,
)

# SentencePiece writes a space as U+2581, so that this one character comes back as a space.
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\N{LOWER ONE EIGHTH BLOCK}")
)


@pytest.fixture(scope="module")
def other(texts):
    """Another tokenizer of the same size."""
    return train_tokenizer(texts[::2], vocab_size=544)


def test_exactly_as_many_pieces_as_asked(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size() == 544
    assert [tokenizer.id_to_piece(id) for id in range(7)] == [
        *("<pad>", "</s>", "<s>", "<unk>", "<start_of_turn>", "<end_of_turn>", "\n")
    ]


def test_markers_and_newline_are_single_pieces_wherever_they_stand(tokenizer):
    prompt = "<start_of_turn>user\nHi<end_of_turn>\n\n<start_of_turn>model\n"
    pieces = tokenizer.encode(prompt, out_type=str)
    assert [p for p in pieces if "_of_turn" in p or "\n" in p] == [
        *("<start_of_turn>", "\n", "<end_of_turn>", "\n", "\n", "<start_of_turn>", "\n")
    ]


def test_every_digit_is_a_piece_of_its_own(tokenizer):
    assert tokenizer.encode("$120/365", out_type=str) == ["$", "1", "2", "0", "/", "3", "6", "5"]
    assert not [p for id in range(544) if re.search(r"\d.|.\d", p := tokenizer.id_to_piece(id))
                and not re.fullmatch("<0x[0-9A-F]{2}>", p)]  # fmt: skip


@given(ANY_TEXT)
@example("  two  blanks, a tab\t and a return\r\n ")
@example("5 € für 三 🍎, naïve\u2028\0")
@example("<s></s><pad><unk><0x41><bos>")
def test_no_text_is_lost(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_id() not in ids


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_nothing_of_gsm8k_is_lost(tokenizer, published_gsm8k, split, count):
    lines = (published_gsm8k / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines for text in json.loads(line).values()]
    assert len(texts) == 2 * count
    assert tokenizer.decode(tokenizer.encode(texts)) == texts


def test_the_same_texts_give_the_same_tokenizer_and_others_another(tokenizer, texts, other):
    again = train_tokenizer(iter(texts), vocab_size=544)
    assert fingerprint(again) == fingerprint(tokenizer)
    assert re.fullmatch("[0-9a-f]{64}", fingerprint(tokenizer))
    assert len(other) == 544 and fingerprint(other) != fingerprint(tokenizer)


def test_the_seal_is_size_and_fingerprint(tokenizer):
    assert tokenizer_hashes(tokenizer) == {
        "tokenizer_size": 544,
        "tokenizer_sha256": fingerprint(tokenizer),
    }


def test_too_few_texts_are_an_error_that_names_the_size():
    with pytest.raises(ValueError, match="cannot train a tokenizer of 544 pieces on these texts"):
        train_tokenizer(["one line"], vocab_size=544)


def test_loaded_from_its_folder_it_is_the_same(tokenizer, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.serialized_model_proto())
    assert fingerprint(load_tokenizer(tmp_path)) == fingerprint(tokenizer)


def test_a_missing_or_foreign_file_is_named(tmp_path):
    path = tmp_path / "tokenizer.model"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path} is missing")):
        load_tokenizer(tmp_path)
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a SentencePiece model")):
        load_tokenizer(str(tmp_path))


def test_its_own_tokenizer_passes(tokenizer):
    check_tokenizer(tokenizer, size=544, sha256=fingerprint(tokenizer), where="export/")
    check_tokenizer(tokenizer, size=544, sha256=None, where="a download")


@pytest.mark.parametrize("recorded", [None, "0" * 64])
def test_another_size_is_refused_with_both_sizes(tokenizer, recorded):
    with pytest.raises(TokenizerMismatch, match=r"^model 50304, tokenizer 544: export/ "):
        check_tokenizer(tokenizer, size=50304, sha256=recorded, where="export/")


def test_another_size_is_refused_even_with_the_right_fingerprint(tokenizer):
    with pytest.raises(TokenizerMismatch, match="model 512, tokenizer 544"):
        check_tokenizer(tokenizer, size=512, sha256=fingerprint(tokenizer), where="export/")


def test_another_tokenizer_of_the_same_size_is_refused_by_its_fingerprint(tokenizer, other):
    made_with, found = fingerprint(tokenizer), fingerprint(other)
    with pytest.raises(TokenizerMismatch) as refused:
        check_tokenizer(other, size=544, sha256=made_with, where="export/")
    assert str(refused.value) == (
        f"model 544, tokenizer 544: export/ was made with tokenizer {made_with[:12]}, "
        f"this tokenizer is {found[:12]}. Load the tokenizer from the model's own folder."
    )


def test_a_completion_ends_at_the_text_or_at_the_turn(tokenizer):
    assert stop_tokens(tokenizer) == (1, tokenizer.piece_to_id("<end_of_turn>")) == (1, 5)


def test_a_tokenizer_without_turns_is_no_gemma_tokenizer(tokenizer):
    class NoTurns:
        def piece_to_id(self, piece):
            return self.unk_id()

        def unk_id(self):
            return 3

    with pytest.raises(ValueError, match="no piece '<end_of_turn>': it is not a Gemma tokenizer"):
        stop_tokens(NoTurns())
