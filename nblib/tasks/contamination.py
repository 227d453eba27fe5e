"""Contamination: whether a text repeats a held-out one, in the same words or in others.

    x/y+y/x >= 2 for x, y > 0           the same statement as builtin/test/17
    Let x, y > 0. Show that ...         the same formulas as file line 3
    Each jug holds twice as much ...    the 8 words "jug holds twice as ..." of file line 9

A statement that can be read, LaTeX too, is compared by its normal form alone, over any domain and
without the hypotheses that are no equalities. Of other texts the formulas are
compared as a whole, in any letters: short ones share long pieces by chance. Their words are
compared 8 in a row, the formulas left out; the words of every such problem ("let be positive real
numbers such that prove") and those that several held-out texts share do not count.
Not found are translations and other wordings, and a statement with something put in for a letter
(k^2, -p), multiplied by a factor that is no number, or rewritten by its hypothesis.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from nblib.sources.splits import words_of
from nblib.tasks.normal_form import statement_key
from nblib.tasks.statement_texts import claim_of, read_statement

WORDS_IN_A_ROW = 8  # as deduplication of benchmarks does: 8 to 13 (PaLM, GPT-3)
_OWN_WORDS = 4  # of them, that are not of every problem
_FORMULA = 12  # signs that all formulas of a text have before they are compared
_ASKING = """
    all and any are be determine find following for given has have hold holds if in inequality is
    let maximum minimum negative non nonnegative number numbers of positive prove real reals
    satisfy satisfying show such sum that the then triangle value variables we when where which with
"""
_EVERY_PROBLEM = frozenset(_ASKING.split())
_TOKEN = re.compile(r"\\[a-z]+|[^\W\d_]+|\d+|[^\w\s]")
_PUNCTUATION = frozenset(".,;:!?$'\"{}&\\")


class HeldOut:
    """Held-out texts by their names.

    Example:
        >>> HeldOut({"test/0": "a^2+b^2 >= 2ab for a, b > 0"}).find("x/y+y/x >= 2 for x, y > 0")
        'the same statement as test/0'
    """

    def __init__(self, texts: Mapping[Any, str]) -> None:
        self._keys, self._formulas, rows = dict[str, str](), dict[str, str](), Counter[str]()
        self._rows: dict[str, str] = {}
        for name, text in ((str(name), text) for name, text in texts.items()):
            keys, is_read = keys_of(text)
            for key in keys:
                self._keys.setdefault(key, name)
            if not is_read:
                formulas, words = _parts(text)
                self._formulas.setdefault(formulas, name)
                rows.update(found := _rows_of(words))
                self._rows |= dict.fromkeys(found, name)
        self._rows = {row: name for row, name in self._rows.items() if rows[row] == 1}
        self._formulas.pop("", None)

    def find(self, text: str) -> str:
        """Return what a text repeats; "" where it repeats nothing."""
        keys, is_read = keys_of(text)
        known = next((self._keys[key] for key in keys if key in self._keys), "")
        if known:
            return f"the same {'statement' if is_read else 'text'} as {known}"
        if is_read:
            return ""
        formulas, words = _parts(text)
        if formulas in self._formulas:
            return f"the same formulas as {self._formulas[formulas]}"
        row = next((row for row in _rows_of(words) if row in self._rows), "")
        return f'the {WORDS_IN_A_ROW} words "{row}" of {self._rows[row]}' if row else ""


@lru_cache(maxsize=4096)
def keys_of(text: str) -> tuple[tuple[str, ...], bool]:
    """Return what a text is found by, and whether it was read as a statement.

    Of a statement these are its normal form, and that of its claim over any domain; of another text
    its words.
    """
    statement = read_statement(text)
    if statement is None:
        return (words_of(text),), False
    return (statement_key(statement), f"claim {statement_key(claim_of(statement))}"), True


def _parts(text: str) -> tuple[str, list[str]]:
    """Return the formulas of a text, in letters by the order in which they come, and its words.

    Letters that stand alone are variables, and so are those of words made of nothing else: "abc".
    """
    tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    variables = {token for token in tokens if len(token) == 1 and token.isalpha()}
    signs, words, names = list[str](), list[str](), dict[str, str]()
    for token in tokens:
        if token.isalpha() and not variables.issuperset(token):
            words.append(token)
        elif token.isalpha():
            signs += [names.setdefault(one, f"v{len(names)}") for one in token]
        elif token not in _PUNCTUATION:
            signs.append(token)
    return " ".join(signs) if len(signs) >= _FORMULA else "", words


def _rows_of(words: list[str]) -> list[str]:
    """Return the words in a row that are not those of every problem, in their order."""
    found = (words[n : n + WORDS_IN_A_ROW] for n in range(len(words) - WORDS_IN_A_ROW + 1))
    return list(
        dict.fromkeys(
            " ".join(row) for row in found if len({*row}.difference(_EVERY_PROBLEM)) >= _OWN_WORDS
        )
    )
