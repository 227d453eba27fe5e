"""Decoding by grammars writes the likeliest legal token, whichever way it is done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.models import decode as decode_module
from nblib.models import decode_batch, decode_constrained
from nblib.models.decode import Sampling, decode
from nblib.models.decode_constrained import ConstrainedDecoder
from nblib.tasks.json_schema import Schema, list_schema, object_schema
from nblib.tasks.json_text import read_json_text, write_json_text
from nblib.tokens.chat import render_prompt
from nblib.tokens.grammar import compile_grammar
from nblib.tokens.tokenizer import stop_tokens

GREEDY = Sampling(temperature=0.0, top_p=1.0, seed=0)
SAMPLED = Sampling(temperature=1.0, top_p=1.0, seed=3)
NEW = 30  # past the window of 16
LENGTHS = (9, 3, 5, 12, 5, 7, 2, 6, 4, 11, 8)
PROMPTS = [[2, *range(263 + 20 * row, 262 + 20 * row + n)] for row, n in enumerate(LENGTHS)]
SCHEMAS = (
    object_schema({"a": {"type": "string", "maxLength": 4}, "b": {"enum": [1, None]}}),
    ("YES", "NO", "NO WAY"),
    list_schema({"type": "boolean"}, maxItems=3),
    None,  # anything
    {"type": "string"},  # often cut
)


@pytest.fixture(scope="module")
def schemas():
    """Mixed, so that neighbours in a batch differ."""
    return [SCHEMAS[row % len(SCHEMAS)] for row in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def grammars(schemas, tokenizer):
    return [schema and compile_grammar(schema, tokenizer) for schema in schemas]


@pytest.fixture
def small_steps(monkeypatch):
    """Short blocks, so that rows are refilled and moved; returns how often each step was made."""
    monkeypatch.setattr(decode_batch, "BLOCK", 4)
    monkeypatch.setattr(decode_module, "BLOCK", 4)
    calls = {}

    def count(module, name):
        really = getattr(module, name)
        calls[name] = 0

        def call(*arguments, **named):
            calls[name] += 1
            return really(*arguments, **named)

        monkeypatch.setattr(module, name, call)

    for name in ("_prefill", "_moved"):
        count(decode_batch, name)
    for name in ("_forward", "_choose"):
        count(decode_constrained, name)
    return calls


@pytest.fixture
def written(mesh, tokenizer):
    def run(model, grammars, *, sampling=GREEDY, prompts=PROMPTS, new=NEW, batch_size=4):
        return decode(
            model,
            prompts,
            sampling,
            stop=stop_tokens(tokenizer),
            max_new_tokens=new,
            batch_size=batch_size,
            mesh=mesh,
            grammars=grammars,
        )

    return run


@pytest.fixture
def masked_throughout(monkeypatch):
    """Greedy decoding without a free run before: each step has masks, from the first token on."""

    def nothing_written(texts, completions, grammars):
        return texts

    def without_free_run(decoder, texts, **given):
        if isinstance(decoder, ConstrainedDecoder):
            return really(decoder, texts, **given)
        return {}

    really = decode_module._in_lanes
    monkeypatch.setattr(decode_module, "_in_lanes", without_free_run)
    monkeypatch.setattr(decode_module, "_resumed", nothing_written)


def likeliest_texts(model, prompts, grammars, stop):
    """Continue by the whole text each time, by the likeliest token that the grammar allows."""

    @nnx.jit
    def scores(model, tokens, length):
        mask = jnp.arange(tokens.shape[1])[None] < length
        return model(tokens, build_positions_from_mask(mask), None, make_causal_attn_mask(mask))[0]

    def next_token(text, begun, grammar):
        tokens = np.zeros((1, 64), np.int32)
        tokens[0, : len(text)] = text
        logits = np.array(scores(model, tokens, len(text))[0, len(text) - 1])
        for token in range(len(logits)):
            if not token or (grammar and grammar.count_legal([*begun, token]) <= len(begun)):
                logits[token] = -np.inf
        return int(np.argmax(logits))

    completions = [[] for _ in prompts]
    for prompt, grammar, begun in zip(prompts, grammars, completions, strict=True):
        while len(begun) < NEW and not {*begun} & {*stop}:
            begun.append(next_token([*prompt, *begun], begun, grammar))
    return completions


@pytest.fixture(scope="module")
def untrained(new_model):
    """A model whose first token is rarely legal."""
    return new_model(alternating=True, embed_dim=32, head_dim=16)


@pytest.fixture(scope="module")
def asked(eight, tokenizer):
    """Questions that `overfitted` knows, and grammars that its answers break late or never."""
    texts = []
    for number, answer in enumerate(eight.values()):
        cut = number * len(answer) // 7  # before its first sign ... after its last
        texts.append((f"{answer[:cut]}?{answer[cut:]}", f"{answer[:cut]}!"))
    texts[3], texts[5] = tuple(eight.values()), {"type": "string", "maxLength": 6}
    prompts = [[2, *tokenizer.encode(render_prompt(question))] for question in eight]
    return prompts, [compile_grammar(schema, tokenizer) for schema in texts]


@pytest.fixture(scope="module", params=["an untrained model", "a model that is right at first"])
def case(request, untrained, overfitted, grammars, asked, tokenizer):
    """Return (model, prompts, grammars, what the reference loop writes)."""
    known = "right" in request.param
    model, prompts, mixed = (overfitted[0], *asked) if known else (untrained, PROMPTS, grammars)
    expected = likeliest_texts(model, prompts, mixed, stop_tokens(tokenizer))
    return model, prompts, mixed, expected


def test_the_free_run_resumed_is_the_likeliest_legal_text(case, written, small_steps):
    model, prompts, mixed, expected = case
    assert written(model, mixed, prompts=prompts, batch_size=2) == expected
    assert small_steps["_choose"] == small_steps["_forward"] > NEW  # more texts than rows
    assert small_steps["_prefill"] > 8 and small_steps["_moved"] > 2


def test_masks_throughout_write_the_same(case, written, small_steps, masked_throughout):
    model, prompts, mixed, expected = case
    for rows in (1, 2, 32):
        assert written(model, mixed, prompts=prompts, batch_size=rows) == expected


@pytest.fixture(scope="module")
def expected(untrained, grammars, tokenizer):
    return likeliest_texts(untrained, PROMPTS, grammars, stop_tokens(tokenizer))


def check_forms(completions, schemas, tokenizer):
    """Each is whole and valid, or cut; return how many are whole."""
    whole = 0
    for tokens, schema in zip(completions, schemas, strict=True):
        if schema is None:
            continue
        if tokens[-1] not in stop_tokens(tokenizer):
            assert len(tokens) == NEW
            continue
        text, whole = tokenizer.decode(tokens[:-1]), whole + 1
        if isinstance(schema, tuple):
            assert text in schema
        else:
            value = read_json_text(text)
            assert value.strict and Schema(schema).problem(value.value) is None
            assert write_json_text(value.value) == text
    return whole


def test_what_an_untrained_model_writes_is_valid_or_cut(
    untrained, grammars, schemas, expected, written, tokenizer
):
    free = written(untrained, None)
    legal = [one and one.count_legal(tokens) for one, tokens in zip(grammars, free, strict=True)]
    assert all(count < NEW for count in legal if count is not None)  # without, none is
    assert check_forms(expected, schemas, tokenizer) >= 5
    for tokens, one, schema in zip(expected, free, schemas, strict=True):
        assert tokens == one or schema is not None


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_drawn_texts_are_valid_and_follow_the_seed(
    untrained, grammars, schemas, written, tokenizer, small_steps, top_p
):
    """From the first token on there are masks; what else is in the batch does not matter."""
    drawn = Sampling(temperature=1.0, top_p=top_p, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_module, "CompiledDecoder", None)  # nothing is drawn without masks
        together = written(untrained, grammars, sampling=drawn)
    assert small_steps["_choose"] > NEW
    assert check_forms(together, schemas, tokenizer) >= 5
    assert together == written(untrained, grammars, sampling=drawn, batch_size=1)
    other = Sampling(temperature=1.0, top_p=top_p, seed=4)
    assert together != written(untrained, grammars, sampling=other)
    free = written(untrained, None, sampling=drawn)
    for tokens, one, schema in zip(together, free, schemas, strict=True):
        assert (tokens == one) == (schema is None)


def test_legal_tokens_share_the_whole_probability(untrained, written, tokenizer):
    grammar = compile_grammar(("a", "b"), tokenizer)
    hot = Sampling(temperature=1e4, top_p=1.0, seed=0)
    same = [PROMPTS[0]] * 64
    texts = written(untrained, [grammar] * 64, sampling=hot, prompts=same, batch_size=64)
    first = [tokenizer.decode(tokens[:-1]) for tokens in texts]
    assert 16 < first.count("a") < 48
    assert {*first} == {"a", "b"}


def test_a_model_that_is_right_needs_no_mask(overfitted, eight, written, tokenizer, small_steps):
    model, *_ = overfitted
    prompts = [[2, *tokenizer.encode(render_prompt(question))] for question in eight]
    free = written(model, None, prompts=prompts)
    known = compile_grammar(tuple(eight.values()), tokenizer)
    assert written(model, [known] * len(prompts), prompts=prompts) == free
    assert small_steps["_forward"] == small_steps["_choose"] == 0
    answer = next(iter(eight.values()))
    other = compile_grammar((f"{answer[:-1]}0",), tokenizer)  # "1 + 2 = 0": its last token differs
    prefilled = small_steps["_prefill"]
    texts = written(model, [other, *[known] * (len(prompts) - 1)], prompts=prompts)
    assert tokenizer.decode(texts[0][:-1]) == f"{answer[:-1]}0"
    assert texts[1:] == free[1:]
    free_run = prefilled // 2
    assert small_steps["_prefill"] == prefilled + free_run + 1  # one row, and two steps: 0, end
    assert small_steps["_choose"] == 2


def test_a_resumed_text_has_the_tokens_that_are_left(overfitted, eight, written, tokenizer):
    """The legal beginning counts: a limit is a limit of the whole completion."""
    question, answer = next(iter(eight.items()))
    prompt = [2, *tokenizer.encode(render_prompt(question))]
    model, whole = overfitted[0], tokenizer.encode(answer)
    longer = compile_grammar((f"{answer}{'0' * 30}",), tokenizer)
    for limit in (len(whole), len(whole) + 1, len(whole) + 5):
        (tokens,) = written(model, [longer], prompts=[prompt], new=limit)
        assert len(tokens) == limit
        assert tokens[: len(whole)] == whole
        assert tokens[-1] not in stop_tokens(tokenizer)


def test_a_text_cut_at_the_limit_is_left_as_it_is(
    untrained, grammars, expected, written, small_steps
):
    """Not mended: its beginning is what a higher limit would write."""
    short = written(untrained, grammars, new=5)
    assert short == [tokens[:5] for tokens in expected]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_two_lanes_write_what_one_writes(untrained, written, tokenizer, monkeypatch, sampling):
    """Each in its thread, with grammars that both use."""
    mixed = [SCHEMAS[number % 5] for number in range(44)]
    grammars = [schema and compile_grammar(schema, tokenizer) for schema in mixed]
    texts = {}
    for lanes in (1, 2):
        monkeypatch.setattr(decode_module, "_CPU_LANES", lanes)
        texts[lanes] = written(untrained, grammars, sampling=sampling, prompts=PROMPTS * 4)
    assert texts[1] == texts[2]


def test_the_grammars_are_one_a_prompt(untrained, grammars, written):
    with pytest.raises(ValueError, match="10 grammars for 11 prompts"):
        written(untrained, grammars[1:])


def test_masks_are_bits_of_words():
    """Token t is bit t % 32 of word t // 32, the highest bit too; a free row has all."""

    class Two:
        def fill(self, masks, row):
            masks[row] = [-(2**31), 0b101]  # tokens 31, 32 and 34

    logits = jnp.zeros((2, 35)).at[:, 33].set(9.0).at[0, 34].set(1.0)
    masks = decode_constrained._masks({0: Two()}, logits.shape)
    assert masks.tolist() == [[-(2**31), 5], [-1, -1]]
    rows = decode_batch.Rows(
        cache={},
        valid=jnp.zeros((2, 4), bool),
        last=jnp.zeros(2, jnp.int32),
        position=jnp.zeros(2, jnp.int32),
        written=jnp.zeros(2, jnp.int32),
        done=jnp.zeros(2, bool),
        prompt=jnp.zeros(2, jnp.int32),
    )
    rule = decode_batch.Rule(jax.random.key(0), 0.0, 1.0, jnp.array([33]), 8)
    after = decode_constrained._choose(rows, logits, masks, rule, choice="greedy")
    assert after.last.tolist() == [34, 33]
    assert after.done.tolist() == [False, True]
