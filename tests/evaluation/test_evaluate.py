from pathlib import Path

import pytest

from nblib.evaluation.evaluate import evaluate, evaluate_stages
from nblib.evaluation.generate import Decoding
from nblib.files import to_jsonable
from nblib.models.names import RefModel
from nblib.runs import RATES
from nblib.sources.rows import Row
from nblib.tasks.formats import HASH
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import for_format
from nblib.tokens.chat import render_prompt

# The contract of predictions.jsonl.
KEYS = {
    *("id", "stage", "prompt", "completion", "reference", "answer", "format", "tag_order"),
    *("extractable", "correct", "joint", "preamble", "truncated", "failure", "level"),
}
DECODING = Decoding(max_new_tokens=20, batch_size=2)


@pytest.fixture(scope="module")
def examples(eight):
    """Three learnt questions; the reference of the second is wrong on purpose."""
    numbers = {1: "3", 2: "99", 3: "7"}
    rows = [
        Row(
            id=f"pens/{n}",
            question=f"{n} pens and {n + 1}?",
            answer=f"Some steps.\n#### {number}",
            level=level,
        )
        for (n, number), level in zip(numbers.items(), (1, 1, 2), strict=True)
    ]
    return GSM8K.examples(rows)


@pytest.fixture(scope="module")
def stage(overfitted, tokenizer, examples, mesh):
    """The model writes "1 + 2 = 3", and in the hash form that is no answer."""
    task = for_format(GSM8K, HASH)
    return evaluate(overfitted[0], tokenizer, task, examples, DECODING, stage="base", mesh=mesh)


def test_one_record_an_example_with_the_contracts_keys(stage, examples):
    assert [record["id"] for record in stage.records] == ["pens/1", "pens/2", "pens/3"]
    for record, example in zip(stage.records, examples, strict=True):
        assert set(record) >= KEYS
        assert record["stage"] == "base"
        assert record["prompt"] == render_prompt(example.question)
        assert (record["reference"], record["level"]) == (example.answer, example.level)
    assert to_jsonable(stage.records)


def test_records_say_what_the_model_wrote(stage):
    assert [record["completion"] for record in stage.records] == [
        *("1 + 2 = 3", "2 + 3 = 5", "3 + 4 = 7")
    ]
    assert not any(record["truncated"] for record in stage.records)
    assert not any(record["format"] for record in stage.records)


def test_metrics_have_every_rate_interval_and_the_decoding(stage):
    assert stage.metrics["n"] == 3
    for rate in RATES:
        low, high = stage.metrics[f"{rate}_ci95"]
        assert low <= stage.metrics[rate] <= high
    assert stage.metrics["truncation_rate"] == 0.0
    assert stage.metrics["decoding"]["max_new_tokens"] == 20
    assert {level: metrics["n"] for level, metrics in stage.by_level.items()} == {1: 2, 2: 1}


def test_scores_are_the_tasks_own(overfitted, tokenizer, examples, mesh, monkeypatch):
    """Completions that are right, wrong and without form are told apart."""
    from nblib.evaluation import evaluate as module
    from nblib.evaluation.generate import Completion

    texts = (
        "<reasoning>1 + 2</reasoning><answer>3</answer>",
        "<reasoning>2 + 3</reasoning><answer>5</answer>",
        "7",
    )

    def written(model, tokenizer, prompts, decoding, *, mesh):
        assert all("<reasoning></reasoning>" in prompt for prompt in prompts)
        return tuple(
            Completion(prompt=prompt, text=text, tokens=9, truncated=text == "7")
            for prompt, text in zip(prompts, texts, strict=True)
        )

    monkeypatch.setattr(module, "generate", written)
    stage = evaluate(overfitted[0], tokenizer, GSM8K, examples, DECODING, stage="x", mesh=mesh)
    assert [record["joint"] for record in stage.records] == [True, False, False]
    assert stage.metrics["format_accuracy"] == pytest.approx(2 / 3)
    assert stage.metrics["answer_accuracy"] == pytest.approx(1 / 3)
    assert stage.metrics["truncation_rate"] == pytest.approx(1 / 3)
    assert stage.by_level[1]["answer_accuracy"] == pytest.approx(1 / 2)


def test_stages_in_their_order_and_none_when_not_wanted(
    overfitted, tokenizer, examples, mesh, stage
):
    ref = RefModel(
        name="tiny",
        folder=Path(),
        model=overfitted[0],
        tokenizer=tokenizer,
        sha256="aa11",
        root="tiny",
    )
    own = (for_format(GSM8K, HASH), DECODING)
    assert evaluate_stages(ref, {"a": own}, examples, mesh=mesh, enabled=False) == ()
    stages = evaluate_stages(ref, {"a": own, "b": own}, examples, mesh=mesh)
    assert [each.name for each in stages] == ["a", "b"]
    assert stages[0].metrics == stage.metrics
    assert {record["stage"] for record in stages[1].records} == {"b"}
