"""How often prompts are solved: the estimator by hand, the measurement, and its file."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.evaluation import pass_rates as module
from nblib.evaluation.generate import Completion, Decoding, generate
from nblib.evaluation.pass_rates import PassRates, keep_informative, pass_at_k, pass_rates
from nblib.files import read_jsonl, write_jsonl
from nblib.models.names import RefModel, get_gemma_ref_model
from nblib.tasks.formats import HASH
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example, for_format

SAMPLED = Decoding(temperature=1.0, max_new_tokens=16, batch_size=2, seed=5)
# What the stand-in for the model writes in each of four repetitions.
WRITTEN = {"always": "1111", "never": "0000", "half": "0110"}
RATES = PassRates(solved={"always": 4, "never": 0, "half": 2, "once": 1}, samples=4)


@pytest.fixture
def examples():
    return tuple(
        Example(id=id_, question=f"{id_}?", reasoning="r", answer="7", level=1) for id_ in WRITTEN
    )


@pytest.fixture
def ref():
    tokenizer = SimpleNamespace(encode=lambda prompts: [list(prompt) for prompt in prompts])
    return RefModel(
        name="tiny", folder=Path(), model=None, tokenizer=tokenizer, sha256="aa11", root="tiny"
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


def test_pass_at_k_names_what_is_wrong():
    with pytest.raises(ValueError, match="solved is 5, expected 0 to n = 4"):
        pass_at_k(4, 5, 1)
    with pytest.raises(ValueError, match="k is 0, expected 1 to n = 4"):
        pass_at_k(4, 1, 0)


def test_informative_are_those_solved_sometimes():
    assert RATES.informative() == ("half", "once")
    assert RATES.informative(lowest=0.5) == ("half",)
    assert RATES.informative(highest=0.5) == ("half", "once")
    assert RATES.informative(lowest=0.0, highest=0.25) == ("never", "once")
    for bounds in ((0.6, 0.4), (-0.1, None), (None, 1.2)):
        with pytest.raises(ValueError, match="must be shares in 0"):
            RATES.informative(*bounds)


@given(st.integers(1, 200), st.data())
def test_informative_is_exact_at_its_bounds(samples, data):
    counts = {str(c): c for c in {0, samples, data.draw(st.integers(0, samples)), samples - 1, 1}}
    rates = PassRates(solved=counts, samples=samples)
    assert set(rates.informative()) == {id_ for id_, c in counts.items() if 0 < c < samples}


def test_pass_at_over_all_prompts_and_one_line():
    assert RATES.pass_at(1) == pytest.approx((1 + 0 + 0.5 + 0.25) / 4)
    assert RATES.pass_at(2) == pytest.approx((1 + 0 + 5 / 6 + 1 / 2) / 4)
    assert RATES.summary() == (
        "never 25.0%, sometimes 50.0%, always 25.0% of 4 prompts; pass@1 0.438, pass@4 0.750"
    )


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"solved\['a'\] is 5, expected 0 to 4"):
        PassRates(solved={"a": 5}, samples=4)
    with pytest.raises(ValueError, match="samples is 0"):
        PassRates(solved={"a": 0}, samples=0)
    with pytest.raises(ValueError, match="solved is empty"):
        PassRates(solved={}, samples=4)


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


def test_file_has_a_header_and_a_record_a_prompt_and_is_used_again(
    ref, examples, seeds, tmp_path, capsys
):
    cache = tmp_path / "deep" / "rates.jsonl"
    rates = measure(ref, examples, cache)
    header, *rows = read_jsonl(cache)
    assert header["identity"]["model_sha256"] == "aa11"
    assert header["identity"]["decoding"]["max_new_tokens"] == 16
    assert rows[2] == {"id": "half", "solved": 2, "samples": 4}
    assert "used again" not in capsys.readouterr().out
    assert measure(ref, examples, cache) == rates
    assert len(seeds) == 4
    assert f"used again from {cache}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ref": {"sha256": "bb22"}}, "model_sha256"),
        ({"ref": {"name": "tuned"}}, "model"),  # `with_model` keeps the folder's hash
        ({"decoding": replace(SAMPLED, seed=6)}, "decoding"),
        ({"samples": 2}, "samples"),
        ({"task": for_format(GSM8K, HASH)}, "format, examples"),
        ({"answer": "8"}, "examples"),
    ],
)
def test_another_measurement_is_made_anew(ref, examples, seeds, tmp_path, capsys, change, named):
    cache = tmp_path / "rates.jsonl"
    measure(ref, examples, cache)
    before = cache.read_bytes()
    changed = dict(change)
    other = replace(ref, **changed.pop("ref", {}))
    asked = [replace(one, answer=changed.get("answer", one.answer)) for one in examples]
    changed.pop("answer", None)
    measure(other, asked, cache, **changed)
    assert f"is of another {named}; measured anew" in capsys.readouterr().out
    assert len(seeds) == 4 + change.get("samples", 4)
    assert cache.read_bytes() != before


def test_killed_measurement_leaves_no_file(ref, examples, seeds, tmp_path, monkeypatch):
    whole = module.generate

    def killed(*args, **kwargs):
        if len(seeds) == 2:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(module, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(ref, examples, tmp_path / "rates.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_file_is_left_alone(ref, examples, seeds, tmp_path):
    cache = tmp_path / "metrics.jsonl"
    for content in ([{"step": 1}], [], [[1]]):
        write_jsonl(cache, content)
        with pytest.raises(ValueError, match=r"metrics\.jsonl holds no pass rates"):
            measure(ref, examples, cache)
        assert read_jsonl(cache) == content
    assert seeds == []


def test_requests_that_make_no_sense(ref, examples, seeds, tmp_path):
    cache = tmp_path / "rates.jsonl"
    with pytest.raises(ValueError, match="temperature is 0"):
        measure(ref, examples, cache, decoding=Decoding())
    with pytest.raises(ValueError, match="samples is 0"):
        measure(ref, examples, cache, samples=0)
    with pytest.raises(ValueError, match="got 0 examples"):
        measure(ref, [], cache)
    with pytest.raises(ValueError, match="'always' repeats"):
        measure(ref, [*examples, examples[0]], cache)
    assert seeds == []


def test_the_embedded_model_writes_something_else_each_time(mesh, tmp_path, monkeypatch):
    """A real call: the hash form is its own, and 16 tokens are enough for these."""
    ref = get_gemma_ref_model("embedded", mesh)
    texts = []

    def listened(*args, **kwargs):
        completions = generate(*args, **kwargs)
        texts.append([completion.text for completion in completions])
        return completions

    monkeypatch.setattr(module, "generate", listened)
    asked = [
        Example(id=f"{n}", question=f"Tom has {n} pens and buys 2 more. How many pens does Tom "
                "have now?", reasoning="r", answer=f"{n + 2}", level=1)
        for n in (3, 5)
    ]  # fmt: skip
    rates = pass_rates(
        ref,
        for_format(GSM8K, HASH),
        asked,
        replace(SAMPLED, temperature=1.5),
        samples=2,
        mesh=mesh,
        cache=tmp_path / "rates.jsonl",
    )
    assert list(rates.solved) == ["3", "5"]
    assert texts[0] != texts[1]
    assert len(read_jsonl(tmp_path / "rates.jsonl")) == 3
