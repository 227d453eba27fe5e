"""What a training made worse: seen in the answers to other questions, and in perplexity."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from nblib.evaluation.answers import Decoding
from nblib.evaluation.candidates import Asking, Candidate
from nblib.evaluation.forgetting import Forgotten, measure_forgetting
from nblib.models.gemma3 import save_model
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import OutsideCheck

HASH = GSM8K.variants["hash"]
DECODING = Decoding(max_new_tokens=20, batch_size=2)


@pytest.fixture(scope="module")
def examples(pens):
    return HASH.examples(pens)


@pytest.fixture(scope="module")
def models(tmp_path_factory, overfitted, new_model, tokenizer):
    """A model that has learnt the questions, and one with zeros for weights."""
    zeros = new_model(num_layers=1)
    nnx.update(zeros, jax.tree.map(jnp.zeros_like, nnx.state(zeros)))
    paths = [tmp_path_factory.mktemp(name) / "export" for name in ("learnt", "zeros")]
    for model, path in zip((overfitted[0], zeros), paths, strict=True):
        save_model(model, tokenizer, path, manifest={})
    return list(map(str, paths))


@pytest.fixture
def measure(examples, mesh, tmp_path):
    """Measure with one check, the examples; the folder named is all that is left out."""

    def outside(count, seed, folder):
        return (OutsideCheck(name="pens", task=HASH, examples=examples[:count]),), (folder,)

    own = replace(HASH, outside=outside)

    def run(*sources, task=None, count=3):
        candidates = [Candidate(name=f"m{n}", source=one) for n, one in enumerate(sources)]
        candidates.insert(0, Candidate(name="file", source="p.jsonl"))
        asking = Asking(folder=tmp_path, mesh=mesh)
        given = {"count": count, "seed": 0, "folder": "none"}
        return measure_forgetting(candidates, task or own, examples, DECODING, asking, **given)

    return run


def test_forgetting_is_seen_in_answers_and_in_perplexity(measure, models):
    forgotten = measure(*models)
    (found,) = forgotten.checks
    assert (found.check, found.paired.n, found.paired.only_first) == ("pens", 3, 2)
    assert found.paired.metric == "lenient_accuracy" and found.p_holm == found.paired.p_value
    before, after = (forgotten.perplexity[name] for name in ("before", "after"))
    assert before["tokens"] == after["tokens"] > 10
    assert after["perplexity"] == pytest.approx(544)  # all pieces are as likely
    assert before["perplexity"] != pytest.approx(544, rel=0.01)
    assert forgotten.left_out == ("none",)


def test_so_many_questions_are_asked_and_solutions_read_and_a_task_may_have_no_check(
    measure, models
):
    forgotten = measure(*models, count=1)
    assert forgotten.checks[0].paired.n == 1
    alone = measure(*models, task=HASH, count=1)
    assert (alone.checks, alone.left_out) == ((), ())
    assert alone.perplexity == forgotten.perplexity


def test_one_model_is_not_compared_with_itself(measure, models):
    for same in ([models[0]] * 2, []):
        assert measure(*same) == Forgotten(left_out=("none",))
