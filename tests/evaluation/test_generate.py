import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.evaluation.generate import Decoding, generate
from nblib.tokens.chat import render_prompt
from nblib.tokens.tokenizer import TokenizerMismatch, stop_tokens, train_tokenizer

NEW_TOKENS = 20  # past the window of 16


@pytest.fixture(scope="module")
def prompts(eight):
    """Learnt questions and, of other lengths, two that were not."""
    known = [render_prompt(question) for question in eight]
    longer = render_prompt("How many pens, 3 or 4?")
    return [known[0], "2 hens and 3 more", known[7], longer, known[4]]


@pytest.fixture(scope="module")
def greedy(overfitted, tokenizer, prompts, mesh):
    """Five prompts in batches of two, so that the last batch has to be filled up."""
    decoding = Decoding(max_new_tokens=NEW_TOKENS, batch_size=2)
    return generate(overfitted[0], tokenizer, prompts, decoding, mesh=mesh)


def test_answers_come_in_the_order_of_the_prompts(greedy, prompts, eight):
    assert [completion.prompt for completion in greedy] == prompts
    known = list(eight.values())
    assert [greedy[0].text, greedy[2].text, greedy[4].text] == [known[0], known[7], known[4]]


def test_stop_token_is_not_counted(greedy, tokenizer):
    for completion in (greedy[0], greedy[2], greedy[4]):
        assert completion.tokens == len(tokenizer.encode(completion.text))
        assert not completion.truncated


def test_greedy_equals_an_argmax_over_the_whole_text(overfitted, greedy, tokenizer, prompts):
    """No cache, no padding on the left: so masks, positions and the window are the same."""
    model, length = overfitted[0], 64

    @nnx.jit
    def scores_of(model, tokens):
        mask = tokens != 0
        positions = build_positions_from_mask(mask)
        return model(tokens, positions, None, make_causal_attn_mask(mask))[0][0]

    for completion, prompt in zip(greedy, prompts, strict=True):
        ids = [tokenizer.bos_id(), *tokenizer.encode(prompt)]
        written = []
        while len(written) < NEW_TOKENS:
            padded = np.zeros((1, length), np.int32)
            padded[0, : len(ids)] = ids
            best = int(np.argmax(scores_of(model, jnp.asarray(padded))[len(ids) - 1]))
            if best in stop_tokens(tokenizer):
                break
            ids.append(best)
            written.append(best)
        assert completion.text == tokenizer.decode(written)
        assert completion.tokens == len(written)
        assert completion.truncated == (len(written) == NEW_TOKENS)


def test_cut_answer_is_truncated(overfitted, tokenizer, prompts, mesh, eight, greedy):
    whole = greedy[0].tokens
    for limit, cut in ((whole, True), (whole + 1, False)):
        decoding = Decoding(max_new_tokens=limit, batch_size=2)
        (completion,) = generate(overfitted[0], tokenizer, prompts[:1], decoding, mesh=mesh)
        assert completion.truncated == cut, limit
        assert completion.tokens == min(limit, whole)
        assert next(iter(eight.values())).startswith(completion.text)


def test_sampling_follows_its_seed(new_model, tokenizer, prompts, mesh):
    model = new_model(embed_dim=32, head_dim=16)  # untrained: everything is about as likely

    def sampled(seed):
        decoding = Decoding(temperature=1.0, max_new_tokens=NEW_TOKENS, batch_size=2, seed=seed)
        answers = generate(model, tokenizer, prompts[:3], decoding, mesh=mesh)
        return [answer.text for answer in answers]

    first = sampled(0)
    assert sampled(0) == first
    assert sampled(1) != first
    assert len(set(first)) == 3


def test_small_top_p_is_nearly_greedy(overfitted, greedy, tokenizer, prompts, mesh):
    decoding = Decoding(temperature=0.7, top_p=1e-6, max_new_tokens=NEW_TOKENS, batch_size=2)
    answers = generate(overfitted[0], tokenizer, prompts[:2], decoding, mesh=mesh)
    assert [answer.text for answer in answers] == [answer.text for answer in greedy[:2]]


def test_wrong_tokenizer(overfitted, texts, prompts, mesh):
    larger = train_tokenizer(texts, vocab_size=560)
    with pytest.raises(TokenizerMismatch, match=r"^model 544, tokenizer 560: "):
        generate(overfitted[0], larger, prompts, Decoding(), mesh=mesh)


def test_names_for_tables():
    decoding = Decoding(max_new_tokens=7, seed=3)
    assert decoding.name == "greedy"
    sampled = decoding.sampled(temperature=0.7, top_p=0.95)
    assert sampled == Decoding(temperature=0.7, top_p=0.95, max_new_tokens=7, seed=3)
    assert sampled.name == "t=0.7 p=0.95"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, r"temperature -0\.1 must be"),
        ({"top_p": 0.0}, r"top_p 0\.0 in \(0, 1\]"),
        ({"top_p": 1.1}, r"top_p 1\.1 in \(0, 1\]"),
        ({"max_new_tokens": 0}, "max_new_tokens 0 "),
        ({"batch_size": 0}, "batch_size 0 must"),
    ],
)
def test_settings_that_the_sampler_would_misunderstand(values, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**values)
