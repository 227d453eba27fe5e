from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from tunix.rl.rollout.base_rollout import RolloutConfig

from nblib.models.names import get_gemma_ref_model
from nblib.models.published import EMBEDDED
from nblib.tokens.chat import render_prompt
from nblib.tokens.tokenizer import END_OF_TURN, PAD_ID, stop_tokens
from nblib.training.cluster import PolicyRollout, _mean_over_tokens
from nblib.training.grpo_config import GrpoConfig
from nblib.training.policy_loss import completion_log_probs

PROMPTS = [
    render_prompt("Tom has 3 apples. He finds 4 more apples. How many apples does Tom have now?"),
    render_prompt("A shop has 9 kites."),
]
NEW = 48


@pytest.fixture(scope="module")
def ref(compilation_cache, mesh):
    return get_gemma_ref_model(EMBEDDED, mesh)


@pytest.fixture(scope="module")
def config():
    return RolloutConfig(
        max_tokens_to_generate=NEW,
        max_prompt_length=96,
        kv_cache_size=96 + NEW,
        temperature=1.0,
        top_p=1.0,
    )


@pytest.fixture(scope="module")
def rollout(ref, mesh, config):
    return rollout_of(ref.model, ref.tokenizer, mesh, config)


def rollout_of(model, tokenizer, mesh, config):
    return PolicyRollout(model, tokenizer, mesh, config, seed=0)


def at_step(rollout, step, config, prompts=PROMPTS):
    rollout.start_step(step)
    return rollout.generate(prompts, config)


def test_tokens_are_drawn_with_the_probabilities_that_the_trainer_gives_them(ref, rollout, config):
    rows = 600
    output = at_step(rollout, 1, replace(config, max_tokens_to_generate=1), PROMPTS[1:] * rows)
    tokens, counts = np.unique(np.concatenate(output.tokens), return_counts=True)
    labels = tokens.astype(np.int32)[:, None]
    prompts = np.repeat(output.left_padded_prompt_tokens[:1], len(labels), axis=0)
    trained = GrpoConfig(
        steps=1, prompts_per_step=1, max_prompt_length=96, max_new_tokens=NEW, learning_rate=1e-3,
        save_interval="1 min",
    )  # fmt: skip
    log_probs = completion_log_probs(ref.model, prompts, labels, trained, temperature=1.0)
    expected = np.exp(log_probs[:, 0])
    assert expected.sum() > 0.9 and expected.max() < 0.9
    off_by = np.abs(counts / rows - expected) / np.sqrt(expected * (1 - expected) / rows)
    assert off_by[expected > 0.02].max() < 4


def test_no_padding_is_drawn_so_that_the_trainer_sees_every_token(new_model, ref, mesh, config):
    """An untrained model finds padding as likely as anything: 1 of 544 tokens, of 3,000 here."""
    untrained = rollout_of(new_model(num_layers=1), ref.tokenizer, mesh, config)
    output = at_step(untrained, 1, config, PROMPTS * 32)
    assert sum(len(tokens) for tokens in output.tokens) > 2500
    assert not any((tokens == PAD_ID).any() for tokens in output.tokens)


def test_a_policy_that_ends_by_eos_is_not_truncated_and_carries_it(ref, mesh, config):
    eos, end_of_turn = stop_tokens(ref.tokenizer)
    policy = nnx.clone(ref.model)
    embedding = policy.embedder.input_embedding
    rows = embedding.get_value()
    embedding.set_value(rows.at[eos].set(2 * rows[end_of_turn]))  # likelier where that was likely
    rollout = rollout_of(policy, ref.tokenizer, mesh, config)
    output = at_step(rollout, 1, config, PROMPTS[:1] * 6)
    lengths, truncated = rollout.take()
    assert not any(truncated)
    for tokens, text, length in zip(output.tokens, output.text, lengths, strict=True):
        assert (tokens == eos).tolist() == [False] * (length - 1) + [True]
        assert text == ref.tokenizer.decode(tokens[:-1].tolist())


def test_a_completion_that_stopped_carries_its_stop_token(ref, rollout, config):
    output = at_step(rollout, 1, config, PROMPTS * 3)
    end = ref.tokenizer.piece_to_id(END_OF_TURN)
    lengths, truncated = rollout.take()
    assert lengths == [len(tokens) for tokens in output.tokens]
    assert not all(truncated)
    for tokens, text, cut in zip(output.tokens, output.text, truncated, strict=True):
        assert (tokens == end).sum() == (0 if cut else 1)
        assert (tokens[-1] == end) == (not cut)
        assert END_OF_TURN not in text
        assert len(tokens) <= NEW
    assert rollout.take() == ([], [])  # taken once


def test_a_cut_completion_has_no_stop_token(ref, mesh, config):
    short = RolloutConfig(
        max_tokens_to_generate=4, max_prompt_length=96, kv_cache_size=100, temperature=1.0
    )
    end = ref.tokenizer.piece_to_id(END_OF_TURN)
    cut = rollout_of(ref.model, ref.tokenizer, mesh, short)
    output = at_step(cut, 1, short)
    lengths, truncated = cut.take()
    assert all(truncated) and lengths == [4, 4]
    assert not any((tokens == end).any() for tokens in output.tokens)


def test_noise_is_the_steps_own_and_comes_back_with_it(rollout, config):
    same = [PROMPTS[1]] * 6
    first, again, other = (at_step(rollout, step, config, same).text for step in (1, 1, 2))
    assert first == again != other
    rollout.start_step(1)
    draws = [rollout.generate(same, config).text for _ in range(2)]
    assert draws[0] == first != draws[1]  # a second draw within the step


def test_figures_of_a_step_are_means_over_the_tokens_that_were_computed():
    entropy = [np.array(figure, np.float32) for figure in ([6, 2], [0, 0], [4, 8])]
    assert _mean_over_tokens(entropy) == 1.0
    assert np.isnan(_mean_over_tokens(entropy[1:2]))
