"""The SentencePiece tokenizer: train a small one, load one from a model folder, check it.

A model with another model's tokenizer gives 0 % accuracy and no error. So every model folder and
checkpoint carries the tokenizer's size and fingerprint, and code that uses a model and a tokenizer
together calls `check_tokenizer` first. SentencePiece: https://github.com/google/sentencepiece
"""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import sentencepiece as spm

START_OF_TURN = "<start_of_turn>"  # Gemma's chat markers
END_OF_TURN = "<end_of_turn>"
TOKENIZER_FILE = "tokenizer.model"
PAD_ID, EOS_ID, BOS_ID, UNK_ID = 0, 1, 2, 3  # Gemma's ids


class TokenizerMismatch(ValueError):
    """The tokenizer at hand is not the one that the model or checkpoint was made with."""


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> spm.SentencePieceProcessor:
    """Train a BPE tokenizer of exactly `vocab_size` pieces that loses no text.

    256 of the pieces are bytes, so that no text is lost; chat markers and the newline are single
    pieces, digits are split, nothing is normalised. The same texts give the same tokenizer.
    Raises ValueError when the texts do not hold that many pieces.
    """
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in text.split("\n") if line),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            bos_id=BOS_ID,
            unk_id=UNK_ID,
            user_defined_symbols=[START_OF_TURN, END_OF_TURN, "\n"],
            byte_fallback=True,
            split_digits=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            character_coverage=0.9995,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"cannot train a tokenizer of {vocab_size} pieces on these texts: {error}"
        ) from error
    tokenizer = spm.SentencePieceProcessor(model_proto=model.getvalue())
    if len(tokenizer) != vocab_size:
        raise ValueError(f"the tokenizer came out with {len(tokenizer)} pieces, not {vocab_size}")
    return tokenizer


def load_tokenizer(folder: Path | str) -> spm.SentencePieceProcessor:
    """Load `tokenizer.model` from a model folder.

    Raises FileNotFoundError or ValueError for a file that is missing or no SentencePiece model.
    """
    path = Path(folder) / TOKENIZER_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a model folder carries its own tokenizer")
    try:
        return spm.SentencePieceProcessor(model_proto=path.read_bytes())
    except RuntimeError as error:
        raise ValueError(f"{path} is not a SentencePiece model: {error}") from error


def fingerprint(tokenizer: spm.SentencePieceProcessor) -> str:
    """Return the SHA-256 of the tokenizer's serialised model, in hex."""
    return hashlib.sha256(tokenizer.serialized_model_proto()).hexdigest()


def tokenizer_hashes(tokenizer: spm.SentencePieceProcessor) -> dict[str, str | int]:
    """Return what a model folder, a checkpoint and a manifest hold of the tokenizer."""
    return {"tokenizer_size": len(tokenizer), "tokenizer_sha256": fingerprint(tokenizer)}


def check_tokenizer(
    tokenizer: spm.SentencePieceProcessor, *, size: int, sha256: str | None, where: str
) -> None:
    """Raise TokenizerMismatch if `tokenizer` is not the one that `where` was made with.

    `size` is the number of rows of the model's embedding, `sha256` the recorded fingerprint (None
    where there is none, as in a download).
    """
    have, found = len(tokenizer), fingerprint(tokenizer)
    if have == size and sha256 in (None, found):
        return
    made_with = f"was made with tokenizer {sha256[:12]}" if sha256 else f"has {size} embedding rows"
    raise TokenizerMismatch(
        f"model {size}, tokenizer {have}: {where} {made_with}, this tokenizer is {found[:12]}. "
        "Load the tokenizer from the model's own folder."
    )


def stop_tokens(tokenizer: spm.SentencePieceProcessor) -> tuple[int, ...]:
    """Return the ids that end a completion: the end of the text and the end of the turn.

    Raises ValueError when the tokenizer has no single piece for the end of a turn.
    """
    end_of_turn = tokenizer.piece_to_id(END_OF_TURN)
    if end_of_turn == tokenizer.unk_id():
        raise ValueError(f"the tokenizer has no piece {END_OF_TURN!r}: it is not a Gemma tokenizer")
    return (tokenizer.eos_id(), end_of_turn)
