from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nblib.evaluation import answers
from nblib.evaluation.generate import Completion, Decoding
from nblib.evaluation.groups import sample_group
from nblib.models.names import RefModel
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example
from nblib.tokens.chat import task_prompts

SAMPLED = Decoding(temperature=1.0, max_new_tokens=9, batch_size=4)


def questions(count):
    return tuple(
        Example(id=f"q/{n}", prompt=f"{n} + 1?", completion="", reference=str(n + 1))
        for n in range(count)
    )


def ref_of(model=None, tokenizer=None):
    given = {"name": "x", "folder": Path(), "model": model, "tokenizer": tokenizer}
    return RefModel(**given, mesh=None, sha256="", root="x")


@pytest.fixture
def drawn(monkeypatch):
    """Sample a group whose rewards are given, a list a prompt: (group, prompts, judged)."""

    def run(rewards, *, examples=None):
        size = len(rewards[0])
        flat = [reward for group in rewards for reward in group]
        asked, judged = [], []

        def written(model, tokenizer, prompts, decoding, *, mesh):
            asked.extend(prompts)
            return [
                Completion(prompt=prompt, text=f"text {n}", tokens=n, truncated=n % 3 == 0)
                for n, prompt in enumerate(prompts)
            ]

        def reward_fn(example, completion, tokens, truncated):
            judged.append((example.id, completion, tokens, truncated))
            return SimpleNamespace(reward=flat[int(completion.removeprefix("text "))])

        monkeypatch.setattr(answers, "generate", written)
        given = questions(len(rewards)) if examples is None else examples
        group = sample_group(ref_of(), GSM8K, given, reward_fn, SAMPLED, size=size, mesh=None)
        return group, asked, judged

    return run


def test_the_group_with_the_most_spread_is_shown_best_first(drawn):
    group, _, _ = drawn([[1, 1, 1, 1], [0.2, 1.2, 0, 0.2], [0, 0, 0, 0.2]])
    assert group.example.id == "q/1"
    assert group.rewards == (1.2, 0.2, 0.2, 0)
    assert group.completions == ("text 5", "text 4", "text 7", "text 6")  # equal ones as drawn


def test_advantages_by_hand(drawn):
    """Mean 0.5; standard deviation of a sample, with n - 1: sqrt((0.25 + 0.25) / 3)."""
    group, _, _ = drawn([[0.5, 0.0, 1.0, 0.5]])
    assert group.rewards == (1.0, 0.5, 0.5, 0.0)
    assert group.advantages == pytest.approx((1.22474, 0, 0, -1.22474), abs=1e-4)
    assert sum(group.advantages) == pytest.approx(0)


def test_zero_variance_groups_have_no_advantage(drawn):
    group, _, _ = drawn([[0.2] * 3, [1.2] * 3])
    assert len(group.rewards) == 3
    assert group.advantages == pytest.approx((0, 0, 0), abs=1e-6)


def test_each_prompt_is_asked_for_a_whole_group_and_judged_by_its_own_example(drawn):
    _, asked, judged = drawn([[0, 1], [0, 0], [1, 1]])
    first, second, third = task_prompts(GSM8K, questions(3))
    assert asked == [first, first, second, second, third, third]
    assert judged == [  # a completion that ended has one token more, the one that ended it
        ("q/0", "text 0", 0, True),
        ("q/0", "text 1", 2, False),
        ("q/1", "text 2", 3, False),
        ("q/1", "text 3", 3, True),
        ("q/2", "text 4", 5, False),
        ("q/2", "text 5", 6, False),
    ]


def test_a_few_prompts_are_enough_to_try(drawn):
    rewards = [[0.0, 0.1]] * 8 + [[0.0, 1.0]]
    group, asked, _ = drawn(rewards, examples=questions(9))
    assert group.example.id == "q/0"  # the first of equals; the ninth is never asked
    assert len(asked) == 16


def test_a_real_model_writes_a_group(new_model, tokenizer, mesh):
    def length(example, completion, tokens, truncated):
        return SimpleNamespace(reward=float(len(completion)))

    ref = ref_of(new_model(num_layers=1), tokenizer)
    group = sample_group(ref, GSM8K, questions(2), length, SAMPLED, size=4, mesh=mesh)
    assert list(group.rewards) == [len(text) for text in group.completions]
    assert list(group.rewards) == sorted(group.rewards, reverse=True)
    assert len(set(group.completions)) > 1  # drawn with noise
    assert group.rewards[0] > group.rewards[-1]
    assert np.std(group.advantages, ddof=1) == pytest.approx(1, abs=1e-4)
    assert sum(group.advantages) == pytest.approx(0, abs=1e-4)
