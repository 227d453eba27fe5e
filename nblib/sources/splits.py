"""Rows split into train and test: by domain within each task, and no text of one in the other.

A publisher's split is kept. Where there is none, whole domains are held out, so that a model is
asked about shops that it has never seen. Then training rows that repeat a test row, exactly or
nearly, are left out, and named: what was learnt by heart is no reading.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt32

from nblib.sources.rows import Row

TRAIN = ("train", "training")
HELD_OUT = ("test", "validation", "validate", "valid", "val", "dev", "eval")  # all are for the test
_SHARE, _MOST = 0.10, 0.30  # of a task's rows: held out, and at most
_ALIKE = 95.0  # indel ratio of near duplicates, in percent
_SLIP, _SLIPS = 75.0, 2  # indel ratio of words with typos, and signs a word that may be off
_SHORT = 200  # characters: a shorter text with another word says something else
_SHINGLE, _SKETCH = 8, 16  # bytes of a shingle; shingles of a text that are compared
_SHARED = 5  # of them, that two long texts have in common before they are compared
_TOO_COMMON = 50  # test texts that share a shingle: it belongs to a template
_COMMON_LINE = 0.005  # of all texts: a line in more of them is part of the question
_LOOKED_AT = 20_000  # characters of a text, without such lines
_Hashes = UInt32[np.ndarray, " S"]
_NO_HASHES: _Hashes = np.zeros(0, np.uint32)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A row with what decides about its split; `text` is what duplicates are found by."""

    row: Row
    text: str
    domain: str = ""  # pages of one domain stay together
    split: str = ""  # the publisher's: one of `TRAIN` or of `HELD_OUT`; "" for none
    answer: Any = None  # long texts that are alike and have other answers are no duplicates


def split_pages(pages: Sequence[Page]) -> tuple[tuple[Row, ...], tuple[Row, ...], tuple[str, ...]]:
    """Return the rows of train and test in their order, and what was left out of train and why.

    Raises ValueError, by the row, for a publisher's split that is neither.
    """
    held_out = {page.row.id for page in pages if _is_held_out(page)}
    by_task: dict[str, list[Page]] = {}
    for page in pages:
        if not page.split:
            by_task.setdefault(page.row.group, []).append(page)
    for unsplit in by_task.values():
        held_out |= {page.row.id for page in _held_out(unsplit)}
    train = [page for page in pages if page.row.id not in held_out]
    test = [page for page in pages if page.row.id in held_out]
    repeated = repeats(train, test)
    kept = tuple(page.row for index, page in enumerate(train) if index not in repeated)
    notes = []
    for word in ("exactly", "nearly"):
        found = [(one, other) for one, (other, how) in repeated.items() if how == word]
        if found:
            one, other = found[0]
            notes.append(
                f"train: {len(found)} rows left out that repeat a test row {word}, such as "
                f"{train[one].row.id} (test row {test[other].row.id})"
            )
    return kept, tuple(page.row for page in test), tuple(notes)


def repeats(train: Sequence[Page], test: Sequence[Page]) -> dict[int, tuple[int, str]]:
    """Return train index -> (test index, "exactly" or "nearly") of texts that are in both.

    Exactly: the same words but for case and punctuation. Nearly: an indel ratio of 95 % of
    what is left without the lines that many texts share, if the texts differ in added words or in
    typos alone: "for 4 people" is not "for 5 people". Other words of a long text may differ where
    its answer is the same, such as a date in a page. Texts are only compared where they share some
    of the 16 shingles that are drawn from each by their hashes.
    """
    words = {words_of(page.text): index for index, page in reversed([*enumerate(test)])}
    own = _without_common_lines([page.text for page in (*train, *test)])
    mine, others = own[: len(train)], own[len(train) :]
    common = _common_hashes(others)
    by_shingle: dict[int, list[int]] = {}
    for index, text in enumerate(others):
        for shingle in _sketch(text, common):
            by_shingle.setdefault(shingle, []).append(index)
    found: dict[int, tuple[int, str]] = {}
    for index, page in enumerate(train):
        same = words.get(words_of(page.text))
        if same is not None:
            found[index] = (same, "exactly")
            continue
        lists = (by_shingle.get(shingle, ()) for shingle in _sketch(mine[index], common))
        shared = Counter(one for many in lists for one in many)
        least = _SHARED if len(mine[index]) >= _SHORT else 1
        for one in (one for one, count in shared.items() if count >= least):
            same_answer = page.answer == test[one].answer
            if _is_nearly(mine[index], others[one], same_answer=same_answer):
                found[index] = (one, "nearly")
                break
    return found


def words_of(text: str) -> str:
    """Return a text as its words, with one blank between them: no case, no punctuation.

    Signs that are no punctuation stay: "$12" is not "€12".

    >>> words_of(" The  MUG, for $12! ")
    'the mug for $12'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    gaps = {ord(sign): " " for sign in set(folded) if _is_gap(sign)}
    return " ".join(folded.translate(gaps).split())


@lru_cache(maxsize=4096)
def _is_gap(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "PZC"  # punctuation, separators, controls


def _is_held_out(page: Page) -> bool:
    name = page.split.strip().casefold()
    if name in HELD_OUT:
        return True
    if name and name not in TRAIN:
        expected = ", ".join((*TRAIN, *HELD_OUT))
        raise ValueError(f"{page.row.named}: split is {page.split!r}, expected one of {expected}")
    return False


def _held_out(pages: Sequence[Page]) -> Iterable[Page]:
    """Return the pages of a task to hold out: whole domains, drawn by their hash."""
    domains: dict[str, list[Page]] = {}
    for page in pages:
        domain = page.domain.strip().casefold() or words_of(page.text)
        domains.setdefault(domain, []).append(page)
    if len(domains) == 1:  # nothing to part: single pages, then
        domains = {page.row.id: [page] for page in pages}
    if len(domains) == 1:  # of a single page there is nothing to hold out
        return ()
    taken, count = list[Page](), len(pages)
    order = sorted(domains, key=lambda name: hashlib.sha256(name.encode(errors="replace")).digest())
    for name in order:
        more = len(taken) + len(domains[name])
        if len(taken) < _SHARE * count and more <= _MOST * count:
            taken += domains[name]
    return taken or domains[min(order, key=lambda name: len(domains[name]))]


def _without_common_lines(texts: Sequence[str]) -> list[str]:
    """Return texts as their words, without the lines that many share: instructions, menus."""
    lines = [[words_of(line) for line in text.splitlines()] for text in texts]
    counts = Counter(line for own in lines for line in set(own))
    most = max(3.0, _COMMON_LINE * len(texts))
    kept = ("\n".join(line for line in own if line and counts[line] <= most) for own in lines)
    return [text[:_LOOKED_AT] for text in kept]


def _is_nearly(one: str, other: str, *, same_answer: bool) -> bool:
    from rapidfuzz.distance import Indel
    from rapidfuzz.fuzz import ratio  # of insertions and deletions alone: the indel ratio

    if not ratio(one, other, score_cutoff=_ALIKE):
        return False
    if same_answer and min(len(one), len(other)) >= _SHORT:
        return True
    words, others = Counter(one.split()), Counter(other.split())
    here, there = [*(words - others).elements()], [*(others - words).elements()]
    if not here or not there:
        return True  # words were only added, or change places
    most, joined = _SLIPS * max(len(here), len(there)), ("".join(here), "".join(there))
    if _digits(joined[0]) != _digits(joined[1]):
        return False
    return Indel.distance(*joined) <= most and ratio(*joined) >= _SLIP


def _digits(text: str) -> list[str]:
    return [sign for sign in text if sign.isdigit()]


def _sketch(text: str, common: _Hashes = _NO_HASHES) -> list[int]:
    """Return the smallest hashes of a text's shingles, at most `_SKETCH`, and none of `common`."""
    hashes = _hashes(text)
    if len(common):
        places = np.minimum(np.searchsorted(common, hashes), len(common) - 1)
        hashes = hashes[common[places] != hashes]
    smallest: list[int] = hashes[:_SKETCH].tolist()
    return smallest


def _common_hashes(texts: Sequence[str]) -> _Hashes:
    """Return the hashes of the shingles that too many texts share, in their order."""
    if len(texts) <= _TOO_COMMON:
        return _NO_HASHES
    hashes, counts = np.unique(np.concatenate([*map(_hashes, texts)]), return_counts=True)
    return hashes[counts > _TOO_COMMON]


def _hashes(text: str) -> _Hashes:
    """Return the hashes of a text's shingles, each once, in their order."""
    data = np.frombuffer(text.encode(errors="replace"), np.uint8).astype(np.uint32)
    if len(data) < _SHINGLE:
        return _NO_HASHES
    windows = np.lib.stride_tricks.sliding_window_view(data, _SHINGLE)
    hashes: _Hashes = np.zeros(len(windows), np.uint32)
    for column in range(_SHINGLE):  # FNV-1a, then a mix of its low bits into the high ones
        hashes = (hashes ^ windows[:, column]) * np.uint32(16777619)
    hashes = (hashes ^ (hashes >> np.uint32(15))) * np.uint32(2246822519)
    return np.unique(hashes)
