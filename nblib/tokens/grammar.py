r"""Grammars of completions: which tokens may come next, by a JSON Schema or by a list of words.

    schema   {"type": "object", "required": ["in_stock"], "additionalProperties": false,
              "properties": {"in_stock": {"type": "boolean"}}}
    allowed  {"in_stock": true} or {"in_stock": false}, then a stop token; nothing else
    words    ("YES", "NO"): one of them, then a stop token

JSON is written as `tasks.json_text.write_json_text` writes it: properties in their schema's order,
", " and ": " between them, no other white space. llguidance enforces only a part of JSON Schema,
and takes an unknown keyword silently: `compile_grammar` refuses what it does not enforce.

A grammar bounds neither a text without `maxLength` nor the digits of a number, so a completion may
still be cut at its limit. And `1e999` is a number: no reader of floats can hold it. `minimum` and
`maximum` leave out exponents.

https://github.com/guidance-ai/llguidance, docs/json_schema.md
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import sentencepiece as spm
from jaxtyping import Int
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.numpy import fill_next_token_bitmask

from nblib.tasks.json_schema import Schema
from nblib.tasks.json_text import write_json_text
from nblib.tasks.task import Example, Task
from nblib.tokens.tokenizer import END_OF_TURN, START_OF_TURN, stop_tokens

_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_NOTES = frozenset({
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$comment", "$defs"),
})  # fmt: skip
_KINDS = frozenset({"type", "enum", "const", "anyOf", "oneOf", "$ref"})  # one says what a value is
_BOUNDS = frozenset({
    *("properties", "required", "additionalProperties"),
    *("items", "prefixItems", "minItems", "maxItems"),
    *("minLength", "maxLength", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
})  # fmt: skip


class Matcher:
    """Where one completion stands in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def is_accepting(self) -> bool:
        """Whether the completion may end here."""
        return bool(self._matcher.is_accepting())

    def fill(self, mask: Int[np.ndarray, "B W"], row: int) -> None:
        """Write the tokens that may come next into a row: token t is bit t % 32 of word t // 32.

        Stop tokens are among them where the completion may end. Raises ValueError where there are
        none: the tokenizer has no piece for what must come, or the grammar is too complex.
        """
        fill_next_token_bitmask(self._matcher, mask, row)
        if self._matcher.is_error():
            raise ValueError(f"a completion cannot go on in its grammar: {self._error}")

    def consume(self, token: int) -> None:
        """Go on by a token; ValueError for one that may not come."""
        if not self._matcher.consume_token(token):
            raise ValueError(f"token {token} cannot come next: {self._error}")

    @property
    def _error(self) -> str:
        return str(self._matcher.get_error()).partition("\n")[0]  # a page of its state follows


class Grammar:
    """What one schema allows, compiled; make it by `compile_grammar`.

    Attributes:
        schema: The schema, or the words, as JSON.
    """

    def __init__(self, schema: str, matcher: LLMatcher) -> None:
        self.schema = schema
        self._start = matcher

    def matcher(self, begun: Sequence[int] = ()) -> Matcher:
        """Return a matcher after the tokens with which a completion begins."""
        matcher = Matcher(self._start.deep_copy())
        for token in begun:
            matcher.consume(token)
        return matcher

    def count_legal(self, tokens: Sequence[int]) -> int:
        """Return how many tokens of a completion are legal before the first that is not.

        A stop token counts as legal where the completion may end.
        """
        return int(self._start.deep_copy().validate_tokens(list(tokens)))


def task_grammars(
    task: Task, examples: Sequence[Example], tokenizer: spm.SentencePieceProcessor
) -> list[Grammar]:
    """Return the grammar of each example's completion; a schema is compiled once.

    Raises ValueError, naming task and example, for a task without schemas and for a schema that a
    grammar cannot enforce.
    """
    if task.schema is None:
        raise ValueError(
            f"task {task.name} has no schema, expected one: a grammar needs it; decode with "
            "constrained=False, or give the task a schema"
        )
    grammars = []
    for example in examples:
        try:
            grammars.append(compile_grammar(task.schema(example), tokenizer))
        except ValueError as error:
            raise ValueError(f"task {task.name}, example {example.id}: {error}") from error
    return grammars


def compile_grammar(
    schema: Mapping[str, Any] | tuple[str, ...], tokenizer: spm.SentencePieceProcessor
) -> Grammar:
    """Return the grammar of a JSON Schema, or of words of which a completion is exactly one.

    Example:
        >>> compile_grammar({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, ...)
        ValueError: #: uniqueItems is not enforced by a grammar; ...

    Raises ValueError, naming the keyword and its place, for a schema that it cannot enforce.
    """
    return _compiled(json.dumps(schema, ensure_ascii=False), tokenizer)


@lru_cache(maxsize=1024)  # most examples of a task share their schema
def _compiled(text: str, tokenizer: spm.SentencePieceProcessor) -> Grammar:
    schema = json.loads(text)
    if isinstance(schema, list):
        return _compiled_words(text, schema, tokenizer)
    Schema(schema)  # or its parts might be of any form
    parts = list(_parts(schema, "#"))
    for place, part in parts:
        _check_keywords(part, place)
    if problem := _problem(schema):
        raise ValueError(_located(problem, schema, parts))
    for place, part in parts:
        _check_values(part, place, tokenizer)
    return Grammar(text, _matcher(f"%json {_json(schema)}", tokenizer))


def _compiled_words(
    text: str, words: Sequence[str], tokenizer: spm.SentencePieceProcessor
) -> Grammar:
    if not words:
        raise ValueError("no words: expected at least one that a completion may be")
    matcher = _matcher(" | ".join(map(_quoted, words)), tokenizer)
    _check_texts(words, matcher, tokenizer, "words")
    return Grammar(text, matcher)


def _parts(schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield a schema and each schema within it, with their places: `#/properties/price`."""
    yield place, schema
    if not isinstance(schema, dict):
        return
    for keyword, inner in schema.items():
        match keyword:
            case "properties" | "$defs":
                named = list(inner.items())
            case "anyOf" | "oneOf" | "prefixItems":
                named = list(enumerate(inner))
            case "items":
                named = [("", inner)]
            case _:
                continue
        for name, part in named:
            yield from _parts(part, f"{place}/{keyword}/{name}".rstrip("/"))


def _check_keywords(schema: Any, place: str) -> None:
    """Refuse what llguidance ignores, and what it enforces otherwise than a validator does."""
    if schema is False:  # no value at all: no items after the prefix
        return
    keywords = schema.keys() if isinstance(schema, dict) else frozenset()
    if unknown := [name for name in keywords if name not in _NOTES | _KINDS | _BOUNDS]:
        raise ValueError(
            f"{place}: {unknown[0]} is not enforced by a grammar; remove it, or decode without one"
        )
    if not keywords & _KINDS:
        raise ValueError(f"{place}: type is missing: any value is more than a grammar can bound")
    types = schema.get("type", ())
    types = (types,) if isinstance(types, str) else types
    if "enum" in schema or "const" in schema:
        return
    if "object" in types and schema.get("additionalProperties") is not False:
        raise ValueError(
            f"{place}: additionalProperties must be false: a grammar lets other names repeat"
        )
    if "array" in types and "items" not in schema:
        raise ValueError(f"{place}: items is missing: a grammar needs to know what is in the list")


def _check_values(schema: Any, place: str, tokenizer: spm.SentencePieceProcessor) -> None:
    """Refuse values that llguidance writes otherwise than `write_json_text`, such as 1e-07."""
    if not isinstance(schema, dict):
        return
    for keyword in ("enum", "const"):
        if keyword in schema:
            values = schema["enum"] if keyword == "enum" else [schema["const"]]
            texts = [write_json_text(value) for value in values]
            matcher = _matcher(f"%json {_json({'enum': values})}", tokenizer)
            _check_texts(texts, matcher, tokenizer, f"{place}: {keyword}")


def _check_texts(
    texts: Sequence[str], matcher: LLMatcher, tokenizer: spm.SentencePieceProcessor, what: str
) -> None:
    """Raise ValueError for a text that the tokenizer's pieces cannot write in a grammar."""
    end = stop_tokens(tokenizer)[0]
    for text in texts:
        tokens = [*tokenizer.encode(text), end]
        if matcher.validate_tokens(tokens) < len(tokens):
            raise ValueError(
                f"{what}: {text[:40]} cannot be written by a grammar and this tokenizer"
            )


def _problem(schema: Mapping[str, Any]) -> str | None:
    """Return why llguidance refuses a schema, or of what it warns."""
    grammar = LLMatcher.grammar_from_json_schema(_json(schema))
    _, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return " ".join(messages[0].split()) if messages else None


def _located(problem: str, schema: Mapping[str, Any], parts: Sequence[tuple[str, Any]]) -> str:
    """Return a problem of a schema with the innermost part that has one, and its keywords."""
    named = {"$defs": schema.get("$defs", {})}
    for place, part in reversed(parts):
        own = _problem({**named, **part}) if isinstance(part, dict) else None
        if own:
            return f"{place} ({', '.join(part)}): {own}"
    return f"#: {problem}"


def _json(schema: Mapping[str, Any]) -> str:
    return _quoted({"x-guidance": _STYLE, **schema})


def _quoted(value: Any) -> str:
    return json.dumps(value).replace("\x7f", r"\u007f")  # which llguidance's reader does not take


def _matcher(rule: str, tokenizer: spm.SentencePieceProcessor) -> LLMatcher:
    """Return the matcher of a rule in llguidance's language.

    Without `no_forcing` a mask has only the usual pieces of a text that is the only one left, while
    any pieces of it are legal when they are read: the two ways to decode greedily would differ.
    """
    grammar = f'%llguidance {{"no_forcing": true}}\nstart: {rule}\n'
    matcher = LLMatcher(_engine(tokenizer), LLMatcher.grammar_from_lark(grammar), log_level=0)
    if matcher.is_error():
        raise ValueError(f"llguidance cannot compile it: {matcher.get_error()[:200]}")
    return matcher


@lru_cache(maxsize=2)  # a vocabulary of 262,144 pieces takes a second
def _engine(tokenizer: spm.SentencePieceProcessor) -> LLTokenizer:
    ends = [*reversed(stop_tokens(tokenizer))]
    return LLTokenizer(TokenizerWrapper(_Pieces(tokenizer)), eos_token=ends)


class _Pieces:
    """A tokenizer in the form that llguidance reads: the bytes of each piece."""

    def __init__(self, tokenizer: spm.SentencePieceProcessor) -> None:
        everything = range(len(tokenizer))
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id(), tokenizer.bos_id()
        self.tokens = [_bytes(tokenizer, token) for token in everything]
        self.special_token_ids = [token for token in everything if _is_special(tokenizer, token)]

    def __call__(self, text: bytes | str) -> list[int]:
        return list(self._tokenizer.encode(text if isinstance(text, str) else text.decode()))


def _bytes(tokenizer: spm.SentencePieceProcessor, token: int) -> bytes:
    piece = str(tokenizer.id_to_piece(token))
    if tokenizer.is_byte(token):
        return bytes([int(piece[3:5], 16)])  # <0x7B>
    return piece.replace("\u2581", " ").encode()  # the sign that SentencePiece has for a space


def _is_special(tokenizer: spm.SentencePieceProcessor, token: int) -> bool:
    """Whether a token stands for no text: control, unknown, or a marker of the chat."""
    is_marker = tokenizer.id_to_piece(token) in (START_OF_TURN, END_OF_TURN)
    return bool(is_marker or tokenizer.is_control(token) or tokenizer.is_unknown(token))
