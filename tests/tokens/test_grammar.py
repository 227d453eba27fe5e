"""A grammar allows what the writer of the targets writes, and nothing else."""

import io
import json
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.models.published import EMBEDDED_FOLDER
from nblib.sources.rows import Row
from nblib.sources.shop_pages import shop_pages
from nblib.tasks.envelope import ENVELOPE
from nblib.tasks.envelope_schema import PAYLOAD_SCHEMAS, WHOLE_SCHEMA
from nblib.tasks.extraction import EXTRACTION
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.json_schema import Schema, list_schema, object_schema
from nblib.tasks.json_text import read_json_text, write_json_text
from nblib.tasks.task import Example
from nblib.tokens.grammar import compile_grammar, task_grammars
from nblib.tokens.tokenizer import EOS_ID, PAD_ID, load_tokenizer, stop_tokens

NULL, TEXT, NUMBER = {"type": "null"}, {"type": "string"}, {"type": "number"}
BOUNDED = {"type": "number", "minimum": -9000, "maximum": 9000}
# A bit of everything that a grammar enforces.
WIDE = object_schema(
    {
        "name": {"type": "string", "maxLength": 12},
        "größe": {
            "anyOf": [{"enum": ["S", 'x"l\\', None, 1.5, -3]}, list_schema(NULL, maxItems=2)]
        },
        "day": {"type": ["integer", "null"], "minimum": 1, "maximum": 31},
        "price": BOUNDED,
        "is": {"type": "boolean", "title": "a note"},
        "ref": {"$ref": "#/$defs/code"},
        "pair": {"type": "array", "prefixItems": [NULL, {"const": "b"}], "items": False},
    },
    **{"$defs": {"code": {"type": "string", "pattern": "^[A-C]{2}$"}}},
)


@pytest.fixture(scope="module")
def embedded():
    return load_tokenizer(EMBEDDED_FOLDER)


@pytest.fixture(scope="module")
def tokenizers(tokenizer, embedded):
    """The tests' own, and the one that ships: 544 pieces, most of JSON's signs only as bytes."""
    assert embedded.id_to_piece(embedded.encode('{"')) == ["<0x7B>", "<0x22>"]
    return tokenizer, embedded


def is_whole(schema, text, tokenizer, stop=EOS_ID):
    """Whether a grammar takes a text token by token, each within its mask, and then its end."""
    tokens = [*tokenizer.encode(text), stop]
    grammar = compile_grammar(schema, tokenizer)
    matcher = grammar.matcher()
    fits = True
    for token in tokens:
        legal = legal_tokens(matcher, tokenizer)
        assert matcher.is_accepting == (set(stop_tokens(tokenizer)) <= legal)
        if token not in legal:
            fits = False
            break
        matcher.consume(token)
    assert fits == (grammar.count_legal(tokens) == len(tokens))
    return fits


def legal_tokens(matcher, tokenizer):
    """The set bits of a mask, in a row that is not the first."""
    mask = np.full((2, -(-len(tokenizer) // 32)), 7, np.int32)
    matcher.fill(mask, 1)
    assert (mask[0] == 7).all()
    bits = np.unpackbits(mask[1].view(np.uint8), bitorder="little")
    return {*np.flatnonzero(bits).tolist()}


def written_at_random(schema, tokenizer, rng, most=150):
    """Draw legal tokens, those that end a text or a list more often; None where no end comes."""
    matcher, tokens = compile_grammar(schema, tokenizer).matcher(), []
    closing = {tokenizer.piece_to_id(piece) for piece in ("<0x22>", "<0x5D>", "<0x7D>", ",")}
    while len(tokens) < most:
        legal = sorted(legal_tokens(matcher, tokenizer))
        likelier = [token for token in legal if token in closing] if rng.random() < 0.4 else []
        token = rng.choice(likelier or legal)
        if token in stop_tokens(tokenizer):
            return tokenizer.decode(tokens)
        matcher.consume(token)
        tokens.append(token)
    return None


VALUES = [
    "", "a", 'say "no"', "back\\slash", "\n\r\t\b\f", "\x00\x1b\x1f", "/", "é€😀 \u2028", " a  b ",
    0, -1, 10**20, 1.5, -0.25, 1e-07, 1e22, -2.5e-300, True, False, None, [], ["a", [1, 2.0], None],
    [[], [[]]],
]  # fmt: skip
ANY = {"type": ["string", "number", "boolean", "null"]}
ANY = {
    "anyOf": [ANY, list_schema({"anyOf": [ANY, list_schema({"anyOf": [ANY, list_schema(ANY)]})]})]
}


@pytest.mark.parametrize("value", VALUES, ids=map(repr, VALUES))
def test_what_the_writer_writes_is_taken_token_by_token(value, tokenizers):
    for tokenizer in tokenizers:
        for stop in stop_tokens(tokenizer):
            assert is_whole(ANY, write_json_text(value), tokenizer, stop)
        inside = object_schema({"ä b": ANY, "c": NULL})
        assert is_whole(inside, write_json_text({"ä b": value, "c": None}), tokenizer)


# llguidance writes U+007F as an escape; SentencePiece reads U+2581 as a space.
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f\u2581"))


@settings(max_examples=60, deadline=None)
@given(value=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | PLAIN))
def test_any_texts_and_numbers_are_taken(value, embedded):
    assert is_whole(list_schema(ANY), write_json_text(value), embedded)


def test_nothing_else_is_taken(embedded):
    schema = object_schema({"a": NUMBER, "b": {"type": "string", "maxLength": 2}})
    assert is_whole(schema, '{"a": 1, "b": "xy"}', embedded)
    for text in (
        '{"a":1, "b": "xy"}',  # other white space
        '{"a": 1,"b": "xy"}',
        '{"a": 1,  "b": "xy"}',
        ' {"a": 1, "b": "xy"}',
        '{"a": 1, "b": "xy"} ',
        '{\n"a": 1, "b": "xy"}',
        '{"b": "xy", "a": 1}',  # another order
        '{"a": 1}',
        '{"a": 1, "b": "xyz"}',
        '{"a": 1, "b": "\\u0041"}',  # no such escape is ever learnt
        '{"a": 1, "b": "\n"}',
        '{"a": 01, "b": ""}',
        '{"a": NaN, "b": ""}',
        '{"a": 1, "b": "", "c": 1}',
        '{"a": 1, "b": ""',
        "",
    ):
        assert not is_whole(schema, text, embedded), text


def test_a_completion_may_end_where_the_grammar_does_and_nowhere_else(embedded):
    """Both stop tokens, never a part of the chat or of the tokenizer's own."""
    stops, grammar = {*stop_tokens(embedded)}, compile_grammar(object_schema({"a": TEXT}), embedded)
    assert stops == {1, 5}
    no_text = {
        PAD_ID,
        EOS_ID,
        2,
        3,
        *map(embedded.piece_to_id, ("<start_of_turn>", "<end_of_turn>")),
    }
    tokens = embedded.encode('{"a": "x"}')
    for end in range(len(tokens)):
        legal = legal_tokens(grammar.matcher(tokens[:end]), embedded)
        assert legal and not legal & no_text, end
        for stop in stops:
            assert grammar.count_legal([*tokens[:end], stop]) == end
    assert legal_tokens(grammar.matcher(tokens), embedded) == stops
    with pytest.raises(ValueError, match="token 5 cannot come next"):
        grammar.matcher(tokens[:3]).consume(5)
    assert len(legal_tokens(grammar.matcher(tokens[:7]), embedded)) > 300  # inside of a text


def test_a_text_may_be_cut_into_tokens_in_any_way(embedded):
    """Also where only one text is left: what the mask allows is what is legal when read."""
    schema, ways = object_schema({"an": {"const": "the"}}), set()
    pending = [[]]
    grammar = compile_grammar(schema, embedded)
    while pending:
        tokens = pending.pop()
        legal = legal_tokens(grammar.matcher(tokens), embedded)
        assert all(
            (grammar.count_legal([*tokens, token]) > len(tokens)) == (token in legal)
            for token in range(len(embedded))
        )
        if legal == {*stop_tokens(embedded)}:
            ways.add((*map(embedded.id_to_piece, tokens),))
        elif len(tokens) < 16:
            pending += [[*tokens, token] for token in sorted(legal)[:2]]
    assert len(ways) > 4
    assert {embedded.decode_pieces([*pieces]) for pieces in ways} == {'{"an": "the"}'}


def test_one_of_the_words_is_taken_and_nothing_else(tokenizers):
    words = ("NO", "NO WAY", 'a "b"', "c\\d", "zwölf 😀", "x\ny", "(.*)|#", "\x7f", "//", " sp")
    for tokenizer in tokenizers:
        assert all(is_whole(words, word, tokenizer) for word in words)
        others = ("YES", "N", "no", "NO ", " NO", "NOWAY", "NO WAY NO", "NONO", '"NO"', "")
        assert not any(is_whole(words, text, tokenizer) for text in others)
        no = compile_grammar(words, tokenizer).matcher(tokenizer.encode("NO"))
        pieces = {tokenizer.id_to_piece(t) for t in legal_tokens(no, tokenizer)}
        assert {"</s>", "<end_of_turn>"} < pieces <= {"</s>", "<end_of_turn>", "<0x20>", "▁", "▁W"}


def test_a_matcher_goes_on_alone(embedded):
    """Two completions of one grammar do not disturb each other, nor the next one."""
    grammar = compile_grammar(("ab", "cd"), embedded)
    one, other = grammar.matcher(), grammar.matcher()
    one.consume(embedded.piece_to_id("a"))
    assert legal_tokens(one, embedded) == {embedded.piece_to_id("b"), 7 + ord("b")}
    assert embedded.piece_to_id("c") in legal_tokens(other, embedded)
    assert embedded.piece_to_id("c") in legal_tokens(grammar.matcher(), embedded)


@pytest.mark.parametrize(
    "schema", [WIDE, list_schema(BOUNDED, maxItems=3), PAYLOAD_SCHEMAS["procedure"]]
)
def test_whatever_is_drawn_is_valid_and_written_as_the_writer_writes(schema, embedded):
    rng, valid = random.Random(0), Schema(schema)
    texts = [written_at_random(schema, embedded, rng) for _ in range(60)]
    whole = [text for text in texts if text is not None]
    assert len(whole) > 15
    for text in whole:
        read = read_json_text(text)
        assert read.strict and valid.problem(read.value) is None, text
        assert json.loads(write_json_text(read.value)) == read.value
        if schema is WIDE:
            assert [*read.value] == [*WIDE["properties"]]


def test_numbers_are_bounded_only_by_their_bounds(embedded):
    """What the module's docstring says of them: JSON's numbers may be larger than any float."""
    for text in ("1e999", "9" * 400, "0." + "1" * 400):
        assert is_whole(NUMBER, text, embedded)
    for text in ("1e999", "1e3", "9001", "-9000.1"):
        assert not is_whole(BOUNDED, text, embedded)
    assert is_whole(BOUNDED, "-9000", embedded) and is_whole(BOUNDED, "0.00001", embedded)


REFUSED = {
    "uniqueItems": {"type": "array", "items": NULL, "uniqueItems": True},
    "contains": {"type": "array", "items": NULL, "contains": NULL},
    "minContains": {"type": "array", "items": NULL, "minContains": 1},
    "unevaluatedItems": {"type": "array", "items": NULL, "unevaluatedItems": False},
    "not": {"type": "string", "not": {"const": "a"}},
    "if": {"type": "string", "if": {"const": "a"}, "then": {}},
    "allOf": {"allOf": [TEXT, {"type": "string", "maxLength": 2}]},
    "dependentRequired": object_schema({"a": NULL}, dependentRequired={"a": ["b"]}),
    "dependentSchemas": object_schema({"a": NULL}, dependentSchemas={"a": {}}),
    "propertyNames": object_schema({"a": NULL}, propertyNames={"maxLength": 1}),
    "minProperties": object_schema({"a": NULL}, minProperties=1),
    "maxProperties": object_schema({"a": NULL}, maxProperties=1),
    "unevaluatedProperties": object_schema({"a": NULL}, unevaluatedProperties=False),
    "patternProperties": object_schema({"a": NULL}, patternProperties={"^b": NULL}),
    "$dynamicRef": {"$dynamicRef": "#a"},
    "contentSchema": {"type": "string", "contentSchema": {}},
    # Silently ignored by llguidance, or read as settings of its own.
    "$schema": {"type": "null", "$schema": "http://json-schema.org/draft-07/schema#"},
    "nullable": {"type": "string", "nullable": True},
    "discriminator": {"anyOf": [NULL], "discriminator": {}},
    "x-guidance": {"type": "null", "x-guidance": {"lenient": True}},
    # Enforced, but for what would not be valid JSON, or not the writer's text.
    "additionalProperties": {"type": "object", "properties": {"a": NULL}},
    "items": {"type": "array"},
    "type": {"minimum": 3},
    "enum": {"enum": ["a", 1e-07]},
    "const": {"const": "\x7f"},
    # Refused by llguidance itself, in words of its own.
    "oneOf": {"oneOf": [NUMBER, {"type": "integer"}]},
    "format": {"type": "string", "format": "iban"},
    "pattern": {"type": "string", "pattern": "^a(?=b)"},
}  # fmt: skip


@pytest.mark.parametrize("keyword", REFUSED)
def test_what_is_not_enforced_is_refused_by_its_name_and_place(keyword, tokenizer):
    def deeper(schema):
        return object_schema({"a": list_schema({"anyOf": [TEXT, {"type": "boolean"}, schema]})})

    refers = {"$ref": "#/$defs/x"}
    for schema, place in (
        (REFUSED[keyword], "#"),
        (deeper(REFUSED[keyword]), "#/properties/a/items/anyOf/2"),
        ({"$ref": "#/$defs/x", "$defs": {"x": REFUSED[keyword]}}, "#/$defs/x"),
        (
            {"$defs": {"x": NULL}, **object_schema({"a": REFUSED[keyword], "b": refers})},
            "#/properties/a",
        ),
    ):
        with pytest.raises(ValueError) as refused:
            compile_grammar(schema, tokenizer)
        found, _, message = str(refused.value).partition(":")
        assert found.split()[0] == place
        assert keyword in f"{found} {message}", refused.value


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({}, "#: type is missing"),
        (list_schema({}), "#/items: type is missing"),
        (object_schema({"a": True}), "#/properties/a: type is missing"),
        (object_schema({"a": {"type": ["object", "null"]}}), "a: additionalProperties must be"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength .3. is greater than"),
        ({**object_schema({"a": NULL}), "required": ["b"]}, "required property 'b' is unsat"),
        ({"type": "text"}, "no JSON Schema"),
        ({"$ref": "#/$defs/none"}, "#.*none"),
        ((), "no words"),
        (("a", "\u2581"), "words: \u2581 cannot be written"),
    ],
)
def test_what_says_too_little_is_refused(schema, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        compile_grammar(schema, tokenizer)


def test_names_of_properties_are_no_keywords(embedded):
    schema = object_schema({"not": TEXT, "uniqueItems": NULL, "enum": {"const": {"if": [1, "x"]}}})
    text = '{"not": "a", "uniqueItems": null, "enum": {"if": [1, "x"]}}'
    assert is_whole(schema, text, embedded)


@pytest.fixture(scope="module")
def shop():
    """Built-in pages of both kinds: slots of all types, and YES or NO."""
    return EXTRACTION.examples(
        [
            Row(
                id=page["id"],
                fields={
                    "prompt": page["prompt_text"],
                    "response": page["response_strong"],
                    "slot_specs": page["slot_specs"],
                },
            )
            for page in shop_pages(40, seed=0, split="test")
        ]
    )


def test_the_targets_of_the_built_in_pages_are_taken(shop, tokenizers):
    for tokenizer in tokenizers:
        grammars = task_grammars(EXTRACTION, shop, tokenizer)
        assert len({*map(id, grammars)}) == 2  # each schema is compiled once
        for grammar, example in zip(grammars, shop, strict=True):
            tokens = [*tokenizer.encode(example.completion), EOS_ID]
            assert grammar.count_legal(tokens) == len(tokens)
        assert grammars[0].count_legal(tokenizer.encode("NO")) == 0


def test_an_envelope_of_each_type_is_taken(embedded):
    payload = {
        "itinerary": {
            "title": "Rome",
            "trip_days": [
                {"day": 1, "summary": "Old", "items": [{"time_block": "am", "activity": "Walk"}]}
            ],
        },
        "checklist": {"title": "x", "items": [{"item": "a", "reason": "b", "required": True}]},
        "decision_tree": {
            "question": "?",
            "branches": [{"condition": "Rain", "choice": "Museum"}],
            "otherwise": "Park",
        },
        "procedure": {"title": "x", "steps": [{"step": 12, "action": "Go", "check": "There?"}]},
    }
    assert [*payload] == [*PAYLOAD_SCHEMAS]
    for name, one in payload.items():
        lists = {key: ["a", "b"] for key in ("next_steps", "verification_steps")}
        envelope = {"summary": "s", "assumptions": [], "uncertainty_notes": "", **lists}
        assert is_whole(
            WHOLE_SCHEMA,
            write_json_text({**envelope, "payload_type": name, "payload": one}),
            embedded,
        )
        wrong = {**envelope, "payload_type": "itinerary", "payload": payload["procedure"]}
        assert not is_whole(WHOLE_SCHEMA, write_json_text(wrong), embedded)
    (grammar,) = task_grammars(
        ENVELOPE, [Example(id="1", prompt="", completion="", reference=0)], embedded
    )
    assert json.loads(grammar.schema) == WHOLE_SCHEMA


def test_a_task_is_refused_by_its_name_and_the_example(slots, tokenizer):
    examples = [
        Example(id=name, prompt="", completion="", reference={}) for name in ("row/1", "row/2")
    ]
    schemas = {
        "row/1": object_schema({"a": NULL}),
        "row/2": object_schema({"a": {"not": NULL, **TEXT}}),
    }
    task = replace(slots, schema=lambda example: schemas[example.id])
    with pytest.raises(ValueError, match="task slots, example row/2: #/properties/a: not is not"):
        task_grammars(task, examples, tokenizer)
    with pytest.raises(ValueError, match="task gsm8k has no schema, expected one"):
        task_grammars(GSM8K, examples, tokenizer)
    untyped = replace(examples[0], reference={"a": None})
    with pytest.raises(ValueError, match=r"example row/1: .*slot a has no type"):
        task_grammars(EXTRACTION, [untyped], tokenizer)


def test_what_no_piece_can_write_is_told():
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b", "b a"]),
        model_writer=made,
        model_type="bpe",
        vocab_size=12,
        pad_id=PAD_ID,
        eos_id=EOS_ID,
        bos_id=2,
        unk_id=3,
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    without_bytes = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    matcher = compile_grammar(TEXT, without_bytes).matcher()
    with pytest.raises(ValueError, match=r"^a completion cannot go on in its grammar: .+"):
        matcher.fill(np.zeros((1, 1), np.int32), 0)


def test_llguidance_is_imported_with_the_first_grammar_and_jax_never():
    code = (
        "import sys, nblib.tokens; print('llguidance' in sys.modules)\n"
        "import nblib.tokens.grammar; print('llguidance' in sys.modules, 'jax' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "False\nTrue False\n"
