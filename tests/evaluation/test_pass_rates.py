"""How often prompts are solved: counted by hand, and with the embedded model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nblib.evaluation import answers as module
from nblib.evaluation.generate import Completion, Decoding, generate
from nblib.evaluation.pass_rates import PassRates, keep_informative, pass_rates
from nblib.files import read_jsonl
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example

SAMPLED = Decoding(temperature=1.0, max_new_tokens=16, batch_size=2, seed=5)
# What the stand-in for the model writes in each of four repetitions.
WRITTEN = {"always": "1111", "never": "0000", "half": "0110"}
RATES = PassRates(solved={"always": 4, "never": 0, "half": 2, "once": 1}, samples=4)


@pytest.fixture
def examples():
    return tuple(Example(id=id_, prompt=f"{id_}?", completion="", reference="7") for id_ in WRITTEN)


@pytest.fixture
def ref():
    tokenizer = SimpleNamespace(encode=lambda prompts: [list(prompt) for prompt in prompts])
    return RefModel(
        name="tiny",
        folder=Path(),
        model=None,
        tokenizer=tokenizer,
        mesh=None,
        sha256="aa11",
        root="tiny",
    )


@pytest.fixture
def seeds(monkeypatch):
    """Replace the model; returns the seeds with which it was asked."""
    asked = []

    def written(model, tokenizer, prompts, decoding, *, mesh):
        time = len(asked) % 4
        asked.append(decoding.seed)
        rights = [WRITTEN[id_] for prompt in prompts for id_ in WRITTEN if f"{id_}?" in prompt]
        return tuple(
            Completion(
                prompt=prompt,
                text=f"No form. <answer>{'7' if right[time] == '1' else '8'}</answer>",
                tokens=9,
                truncated=False,
            )
            for prompt, right in zip(prompts, rights, strict=True)
        )

    monkeypatch.setattr(module, "generate", written)
    return asked


def measure(ref, examples, cache, task=GSM8K, decoding=SAMPLED, samples=4):
    return pass_rates(ref, task, examples, decoding, samples=samples, mesh=None, cache=cache)


def test_pass_at_over_all_prompts_and_one_line():
    assert RATES.pass_at(1) == pytest.approx((1 + 0 + 0.5 + 0.25) / 4)
    assert RATES.pass_at(2) == pytest.approx((1 + 0 + 5 / 6 + 1 / 2) / 4)
    assert RATES.summary() == (
        "never 25.0%, sometimes 50.0%, always 25.0% of 4 prompts; pass@1 0.438, pass@4 0.750"
    )


def test_examples_are_kept_in_order_and_the_dropped_ones_counted(examples):
    always, never, half = examples
    once, other = replace(half, id="once"), replace(half, id="other")
    assert keep_informative([half, always, once, never], RATES) == ((half, once), 1, 1)
    assert keep_informative([half, always], RATES) == ((half,), 1, 0)
    with pytest.raises(ValueError, match="'other' has no pass rate"):
        keep_informative([half, other], RATES)


def test_right_answers_are_counted_over_fresh_repetitions(ref, examples, seeds, tmp_path):
    rates = measure(ref, examples, tmp_path / "rates.jsonl")
    assert rates == PassRates(solved={"always": 4, "never": 0, "half": 2}, samples=4)
    assert len(set(seeds)) == 4
    assert seeds[0] == SAMPLED.seed


def test_answers_are_kept_and_counted_again(ref, examples, seeds, tmp_path):
    cache = tmp_path / "deep" / "rates.jsonl"
    rates = measure(ref, examples, cache)
    assert len(read_jsonl(cache)) == 1 + 4 * 3
    assert measure(ref, examples, cache) == rates
    assert len(seeds) == 4


def test_right_is_what_the_reward_counts_as_right(ref, examples, seeds, tmp_path):
    """A verifier is for evaluation alone, and a mean is right where it is whole."""
    mean = replace(GSM8K.metric("answer_accuracy"), kind="mean")
    task = replace(
        GSM8K,
        metrics=tuple(mean if one.name == mean.name else one for one in GSM8K.metrics),
        verify=lambda completions, examples, scores: pytest.fail("asked"),
    )
    rates = measure(ref, examples, tmp_path / "rates.jsonl", task=task)
    assert rates.solved == {"always": 4, "never": 0, "half": 2}


def test_the_embedded_model_writes_something_else_each_time(mesh, tmp_path, monkeypatch):
    """A real call: the hash form is its own, and 16 tokens are enough for these."""
    ref = get_gemma_ref_model("embedded", mesh)
    texts = []

    def listened(*args, **kwargs):
        completions = generate(*args, **kwargs)
        texts.append([completion.text for completion in completions])
        return completions

    monkeypatch.setattr(module, "generate", listened)
    question = "Tom has {} pens and buys 2 more. How many pens does Tom have now?"
    asked = [
        Example(id=f"{n}", prompt=question.format(n), completion="", reference=f"{n + 2}")
        for n in (3, 5)
    ]
    rates = pass_rates(
        ref,
        GSM8K.variants["hash"],
        asked,
        replace(SAMPLED, temperature=1.5),
        samples=2,
        mesh=mesh,
        cache=tmp_path / "rates.jsonl",
    )
    assert list(rates.solved) == ["3", "5"]
    assert texts[0] != texts[1]
    assert len(read_jsonl(tmp_path / "rates.jsonl")) == 1 + 2 * 2
