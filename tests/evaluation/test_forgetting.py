"""What a training made worse: seen in the answers to other questions, and in perplexity."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from nblib.evaluation.forgetting import forgetting, perplexities
from nblib.evaluation.generate import Decoding
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


def test_forgetting_is_seen_in_answers_and_in_perplexity(models, examples, mesh, tmp_path):
    given = {"mesh": mesh, "folder": tmp_path}
    checks = [OutsideCheck(name="pens", task=HASH, examples=examples)]
    (found,) = forgetting(models, checks, DECODING, **given)
    assert (found.check, found.paired.n, found.paired.only_first) == ("pens", 3, 2)
    assert found.paired.metric == "lenient_accuracy"
    surprise = perplexities(models, HASH, examples, mesh=mesh)
    assert surprise["before"]["tokens"] == surprise["after"]["tokens"] > 10
    assert surprise["after"]["perplexity"] == pytest.approx(544)  # all pieces are as likely
    assert surprise["before"]["perplexity"] != pytest.approx(544, rel=0.01)


def test_one_model_is_not_compared_with_itself(models, examples, mesh, tmp_path):
    checks = [OutsideCheck(name="pens", task=HASH, examples=examples)]
    for same in ([models[0]] * 2, []):
        assert forgetting(same, checks, DECODING, mesh=mesh, folder=tmp_path) == ()
        assert perplexities(same, HASH, examples, mesh=mesh) == {}
