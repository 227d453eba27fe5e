from dataclasses import replace

import jax
import pytest
from flax import nnx

from nblib.evaluation.evaluate import evaluate
from nblib.evaluation.generate import Decoding
from nblib.evaluation.probe import Probe
from nblib.sources.rows import Row
from nblib.tasks.formats import HASH
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.scoring import score
from nblib.tasks.task import for_format
from nblib.training.compilations import CompilationCounter

NEW_TOKENS = 20


def last_number(completion, reference, *, truncated=False):
    """The model writes "1 + 2 = 3": its result counts as the answer."""
    answer = f"#### {completion.rpartition('= ')[2]}"
    return score(answer, reference, answer_format=HASH, truncated=truncated)


TASK = replace(for_format(GSM8K, HASH), score=last_number)


@pytest.fixture(scope="module")
def examples():
    """Three learnt questions; the reference of the second is wrong on purpose."""
    rows = [
        Row(
            id=f"pens/{n}",
            question=f"{n} pens and {n + 1}?",
            answer=f"Steps.\n#### {number}",
            level=1,
        )
        for n, number in {1: "3", 2: "99", 3: "7"}.items()
    ]
    return GSM8K.examples(rows)


@pytest.fixture
def model(overfitted):
    """A copy that a test may change."""
    return nnx.clone(overfitted[0])


@pytest.fixture
def probe(tokenizer, examples, mesh):
    return Probe(tokenizer, TASK, examples, max_new_tokens=NEW_TOKENS, mesh=mesh)


def forget_all(model):
    """Set all weights to 0, as an update would: in the same object."""
    nnx.update(model, jax.tree.map(lambda weight: 0 * weight, nnx.state(model)))


def test_accuracy_is_that_of_the_evaluation(probe, model, tokenizer, examples, mesh):
    decoding = Decoding(max_new_tokens=NEW_TOKENS, batch_size=2)
    stage = evaluate(model, tokenizer, TASK, examples, decoding, stage="x", mesh=mesh)
    assert probe(model) == stage.metrics["answer_accuracy"] == pytest.approx(2 / 3)


def test_changed_weights_of_the_same_model_are_seen(probe, model):
    assert probe(model) == pytest.approx(2 / 3)
    forget_all(model)
    assert probe(model) == 0


def test_another_model_is_asked_as_itself(probe, model):
    forgetful = nnx.clone(model)
    forget_all(forgetful)
    assert [probe(model), probe(forgetful), probe(model)] == pytest.approx([2 / 3, 0, 2 / 3])


def test_only_the_first_call_compiles(probe, new_model):
    model = new_model(num_layers=2)  # of a form that no other test has compiled
    first = CompilationCounter()
    probe(model)
    assert first.count > 0
    forget_all(model)
    second = CompilationCounter()
    probe(model)
    assert second.count == 0
