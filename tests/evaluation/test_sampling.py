"""Several answers to each question: a group, pass rates, pass@k and the majority."""

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.evaluation import answers as module
from nblib.evaluation.answers import Decoding
from nblib.evaluation.candidates import Asking, Candidate, parse_candidate
from nblib.evaluation.sampling import (
    keep_informative,
    majority,
    pass_at_k,
    sample_group,
    vote_all,
    vote_metrics,
)
from nblib.files import read_jsonl
from nblib.models.gemma3 import save_model
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example
from nblib.tokens.chat import task_prompts

SAMPLED = Decoding(temperature=1.0, max_new_tokens=9, batch_size=4)
# What the stand-in for the model writes in each of four repetitions: 1 is right.
WRITTEN = {"always": "1111", "never": "0000", "half": "0110", "once": "0100"}
SUMMARY = (
    "never 25.0%, sometimes 50.0%, always 25.0% of 4 prompts; pass@1 0.438, pass@4 0.750\n"
    "left out: 1 always solved, 1 never solved"
)


def questions(count):
    return tuple(
        Example(id=f"q/{n}", prompt=f"{n} + 1?", completion="", reference=str(n + 1))
        for n in range(count)
    )


@pytest.fixture
def drawn(monkeypatch, ref_of):
    """Sample a group whose rewards are given, a list a prompt: (group, prompts, judged)."""

    def run(rewards, *, examples=None):
        size = len(rewards[0])
        flat = [reward for group in rewards for reward in group]
        asked, judged = [], []

        def written(ref, prompts, decoding, grammars=None):
            asked.extend(prompts)
            return [
                {"prompt": prompt, "completion": f"text {n}", "tokens": n, "truncated": n % 3 == 0}
                for n, prompt in enumerate(prompts)
            ]

        def reward_fn(example, completion, tokens, truncated):
            judged.append((example.id, completion, tokens, truncated))
            return SimpleNamespace(reward=flat[int(completion.removeprefix("text "))])

        monkeypatch.setattr(module, "generate", written)
        given = questions(len(rewards)) if examples is None else examples
        group = sample_group(ref_of(), GSM8K, given, reward_fn, SAMPLED, size=size)
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


def test_a_real_model_writes_a_group(ref_of, new_model, tokenizer, mesh):
    def length(example, completion, tokens, truncated):
        return SimpleNamespace(reward=float(len(completion)))

    ref = ref_of(new_model(num_layers=1), tokenizer, mesh)
    group = sample_group(ref, GSM8K, questions(2), length, SAMPLED, size=4)
    assert list(group.rewards) == [len(text) for text in group.completions]
    assert list(group.rewards) == sorted(group.rewards, reverse=True)
    assert len(set(group.completions)) > 1  # drawn with noise
    assert group.rewards[0] > group.rewards[-1]
    assert np.std(group.advantages, ddof=1) == pytest.approx(1, abs=1e-4)
    assert sum(group.advantages) == pytest.approx(0, abs=1e-4)


@pytest.fixture
def examples():
    return tuple(Example(id=id_, prompt=f"{id_}?", completion="", reference="7") for id_ in WRITTEN)


@pytest.fixture
def seeds(monkeypatch):
    """Replace the model; returns the seeds with which it was asked."""
    asked = []

    def written(ref, prompts, decoding, grammars=None):
        time = len(asked) % 4
        asked.append(decoding.seed)
        rights = [WRITTEN[id_] for prompt in prompts for id_ in WRITTEN if f"{id_}?" in prompt]
        return [
            {
                "prompt": prompt,
                "completion": f"No form. <answer>{'7' if right[time] == '1' else '8'}</answer>",
                "tokens": 9,
                "truncated": False,
            }
            for prompt, right in zip(prompts, rights, strict=True)
        ]

    monkeypatch.setattr(module, "generate", written)
    return asked


@pytest.fixture(scope="session")
def informative(ref_of):
    def run(examples, kept, task=GSM8K, samples=4):
        return keep_informative(ref_of(), task, examples, SAMPLED, samples=samples, kept=kept)

    return run


def test_what_is_solved_sometimes_is_kept_in_order_over_fresh_repetitions(
    informative, examples, seeds, tmp_path
):
    kept, summary = informative(examples[::-1], tmp_path / "rates.jsonl")
    assert [one.id for one in kept] == ["once", "half"]
    assert summary == SUMMARY
    assert len(set(seeds)) == 4
    assert seeds[0] == SAMPLED.seed


def test_answers_are_kept_and_counted_again(informative, examples, seeds, tmp_path):
    cache = tmp_path / "deep" / "rates.jsonl"
    found = informative(examples, cache)
    assert len(read_jsonl(cache)) == 1 + 4 * 4
    assert informative(examples, cache) == found
    assert len(seeds) == 4


def test_with_one_sample_nothing_is_asked_and_all_are_kept(informative, examples, seeds, tmp_path):
    found = informative(examples, tmp_path / "rates.jsonl", samples=1)
    assert found == (examples, "pass rates: not measured")
    assert seeds == [] and not list(tmp_path.iterdir())


def test_right_is_what_the_reward_counts_as_right(informative, examples, seeds, tmp_path):
    """A verifier is for evaluation alone, and a mean is right where it is whole."""
    mean = replace(GSM8K.metric("answer_accuracy"), kind="mean")
    task = replace(
        GSM8K,
        metrics=tuple(mean if one.name == mean.name else one for one in GSM8K.metrics),
        verify=lambda completions, examples, scores: pytest.fail("asked"),
    )
    assert informative(examples, tmp_path / "rates.jsonl", task=task)[1] == SUMMARY


def answers(id_, *texts, right="4"):
    return [{"id": id_, "answer": text, "answer_accuracy": text == right} for text in texts]


def test_pass_at_k_and_majority_by_hand():
    records = [*answers("a", "4", "5", "4", "6"), *answers("b", "4", "5", "5", "5")]
    metrics = vote_metrics(records, GSM8K)
    assert (metrics["n"], metrics["k"]) == (2, 4)
    assert metrics["pass@1"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    # Two of four: 1 - C(2,2)/C(4,2) for a, 1 - C(3,2)/C(4,2) for b.
    assert metrics["pass@2"] == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert metrics["pass@4"] == 1.0
    assert metrics["maj@4"] == 0.5  # a elects 4, b elects 5
    for rate in ("pass@1", "pass@2", "pass@4", "maj@4"):
        low, high = metrics[f"{rate}_ci95"]
        assert 0 <= low <= metrics[rate] <= high <= 1
    assert "answer_accuracy" not in metrics


def test_few_questions_leave_a_rate_uncertain_however_they_went():
    """Wilson's interval of two questions: 2 of 2 right is 0.342 to 1, 1 of 2 is 0.095 to 0.905."""
    both = vote_metrics([*answers("a", "4", "4"), *answers("b", "4", "4")], GSM8K)
    assert both["pass@1_ci95"] == both["pass@2_ci95"] == pytest.approx([0.342, 1], abs=5e-4)
    halves = vote_metrics([*answers("a", "4", "5"), *answers("b", "5", "4")], GSM8K)
    assert halves["pass@1_ci95"] == pytest.approx([0.095, 0.905], abs=5e-4)


def test_k_itself_is_among_the_ks():
    names = [
        name for name in vote_metrics(answers("a", "4", "4", "4"), GSM8K) if name[-1].isdigit()
    ]
    assert [name for name in names if "ci" not in name] == ["pass@1", "pass@2", "pass@3", "maj@3"]


def test_a_tie_goes_to_the_answer_drawn_first_and_the_unreadable_does_not_vote():
    assert majority(answers("a", None, None, "5", "4", "4", "5"))["answer"] == "5"
    assert majority(answers("a", None, None))["answer"] is None


def test_another_number_of_answers_is_refused():
    with pytest.raises(ValueError, match=r"\[1, 2\] answers each, expected one number"):
        vote_metrics([*answers("a", "4", "4"), *answers("b", "4")], GSM8K)
    with pytest.raises(ValueError, match=r"\[\] answers each"):
        vote_metrics([], GSM8K)


def test_answers_that_are_no_text_vote_too_and_a_mean_is_right_where_it_is_whole(slots):
    answers = ({"x": 1, "y": 2}, {"x": 3}, {"y": 2, "x": 1}, None)
    records = [
        {"id": "a", "answer": answer, "slot_f1": f1}
        for answer, f1 in zip(answers, (1.0, 0.5, 1.0, 0.0), strict=True)
    ]
    assert majority(records[1:] + records[:1]) == records[2]
    assert vote_metrics(records, slots)["pass@1"] == 0.5
    assert vote_metrics(records, slots)["maj@4"] == 1.0


def test_one_sample_asks_nothing(tmp_path):
    asking = Asking(folder=tmp_path, mesh=None)
    assert vote_all([], GSM8K, [], SAMPLED, asking, samples=1) == {}


def test_votes_are_sampled_again_for_every_answer(new_model, tokenizer, mesh, tmp_path):
    save_model(new_model(num_layers=1), tokenizer, tmp_path / "fresh", manifest={})
    candidates = [
        parse_candidate(f"x={tmp_path}/fresh"),
        Candidate(name="f", source="p.jsonl"),
    ]
    examples = [
        Example(id=f"{n}", prompt=f"{n} pens?", completion="", reference="4") for n in "123"
    ]
    asking, sampled = Asking(folder=tmp_path, mesh=mesh), replace(SAMPLED, temperature=1.5)
    votes = vote_all(candidates, GSM8K, examples, sampled, asking, samples=3)
    assert list(votes) == ["x"] and (votes["x"]["n"], votes["x"]["k"]) == (3, 3)
    _, *kept = read_jsonl(tmp_path / "x_sampled.jsonl")
    assert len({record["completion"] for record in kept}) == 9
    with pytest.raises(ValueError, match="temperature is 0"):
        vote_all(candidates, GSM8K, examples, replace(sampled, temperature=0.0), asking, samples=3)


@pytest.mark.parametrize(
    ("n", "solved", "k", "expected"),
    [
        (4, 1, 2, 1 / 2),  # 1 - C(3,2)/C(4,2) = 1 - 3/6
        (5, 2, 3, 9 / 10),  # 1 - C(3,3)/C(5,3)
        (8, 3, 1, 3 / 8),  # pass@1 is the share
        (8, 0, 8, 0.0),
        (8, 6, 3, 1.0),  # two wrong ones cannot fill a choice of three
    ],
)
def test_pass_at_k_by_hand(n, solved, k, expected):
    assert pass_at_k(n, solved, k) == pytest.approx(expected)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_counts_the_choices_with_a_right_one(n, data):
    solved, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    choices = list(combinations([True] * solved + [False] * (n - solved), k))
    assert pass_at_k(n, solved, k) == pytest.approx(sum(map(any, choices)) / len(choices))
