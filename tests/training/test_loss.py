import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.models.gemma3.model import RematConfig
from tunix.sft.peft_trainer import TrainingInput, _default_loss_fn

from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model
from nblib.tokens.batches import TokenizedExample, collate
from nblib.tokens.packing import pack
from nblib.training import loss as module
from nblib.training.loss import (
    entropy,
    label_log_probs,
    model_inputs,
    next_token_loss,
    score_positions,
)

BOS = 2


class FixedLogits(nnx.Module):
    """A model that answers the same whatever it is asked; its hidden states are the logits."""

    def __init__(self, logits):
        self.logits = nnx.Param(jnp.asarray(logits))
        self.layers = ()
        self.config = SimpleNamespace(remat_config=RematConfig.NONE)
        self.embedder = SimpleNamespace(decode=lambda hidden: hidden)

    def __call__(self, tokens, positions, cache, attention_mask, output_hidden_states):
        self.sow(nnx.Intermediate, "all_hidden_states", self.logits.get_value())
        return None, None


# Position 0 says 1/4 and 3/4, position 1 says 1/2 and 1/2; position 2 must never count.
LOGITS = [[[0.0, math.log(3)], [0.0, 0.0], [50.0, -50.0]]]
TOKENS = jnp.array([[0, 1, 0]])  # so 3/4 and then 1/2 is right


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([0, 1, 0], -math.log(3 / 4)),  # token 1, which position 0 predicts
        ([0, 0, 1], -math.log(1 / 2)),  # token 2, which position 1 predicts
        ([1, 1, 1], -math.log(3 / 8) / 2),  # token 0 is predicted by nothing
        ([1, 0, 0], 0.0),
        ([0, 0, 0], 0.0),
    ],
)
def test_loss_by_hand(mask, expected):
    loss = next_token_loss(FixedLogits(LOGITS), TOKENS, jnp.array([mask], jnp.float32), None, None)
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def inputs_of(tokens):
    return model_inputs(TrainingInput(input_tokens=tokens, input_mask=jnp.zeros(tokens.shape)))


def test_inputs_for_the_model():
    batch = TrainingInput(
        input_tokens=jnp.array([[2, 9, 7, 0]]), input_mask=jnp.array([[0.0, 0.0, 1.0, 0.0]])
    )
    inputs = model_inputs(batch)
    assert inputs["input_tokens"] is batch.input_tokens
    assert inputs["input_mask"] is batch.input_mask
    assert inputs["positions"].tolist() == [[0, 1, 2, 2]]
    assert inputs["attention_mask"].astype(int).tolist() == [
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    ]


def test_inputs_of_a_packed_row():
    inputs = inputs_of(jnp.array([[BOS, 8, 9, BOS, 7, 0]]))
    assert inputs["positions"].tolist() == [[0, 1, 2, 0, 1, 1]]
    assert inputs["attention_mask"].astype(int).tolist() == [
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [0, 0, 0, 1, 0, 0],
            [0, 0, 0, 1, 1, 0],
            [0, 0, 0, 1, 1, 0],
        ]
    ]


def random_batch(seed, rows, length):
    """Rows of random tokens, some padded, with random masks."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(4, 544, (rows, length)).astype(np.int32)
    tokens[0, rng.integers(1, length) :] = 0
    mask = ((rng.random((rows, length)) < 0.5) & (tokens != 0)).astype(np.float32)
    return TrainingInput(input_tokens=jnp.asarray(tokens), input_mask=mask)


def assert_close(gradients, expected, atol=1e-5):
    leaves = zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True)
    assert max(np.abs(gradient).max() for gradient in jax.tree.leaves(expected)) > 1e-3
    for gradient, theirs in leaves:
        np.testing.assert_allclose(gradient, theirs, atol=atol)


@pytest.mark.parametrize(("chunk_positions", "adapters"), [(1, False), (10, True), (1000, True)])
def test_equals_tunix_own_loss_in_value_and_gradient(
    new_model, mesh, monkeypatch, chunk_positions, adapters
):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", chunk_positions)
    model = new_model(seed=1, num_layers=1)
    if adapters:
        model = get_lora_model(model, mesh, LoraConfig(rank=2, alpha=4.0))
    kind = nnx.DiffState(0, LORA_PARAMETER) if adapters else 0
    inputs = model_inputs(random_batch(chunk_positions, rows=2, length=12))

    @nnx.jit
    def both(model):
        ours = nnx.value_and_grad(next_token_loss, argnums=kind)
        theirs = nnx.value_and_grad(_default_loss_fn, argnums=kind)
        return ours(model, **inputs), theirs(model, **inputs)

    (loss, gradients), (their_loss, their_gradients) = both(model)
    assert float(loss) == pytest.approx(float(their_loss), rel=1e-5)
    assert float(loss) > 1
    assert_close(gradients, their_gradients)


def test_no_step_holds_the_logits_of_all_positions(new_model):
    model = new_model(num_layers=1)
    inputs = model_inputs(random_batch(0, rows=64, length=128))

    def largest_array(loss_fn):
        step = nnx.jit(nnx.value_and_grad(loss_fn))
        program = step.lower(model, **inputs).compile().as_text()
        shapes = re.findall(r"f32\[([\d,]+)\]", program)
        return max(math.prod(map(int, shape.split(","))) for shape in shapes)

    positions = 64 * 127
    assert largest_array(_default_loss_fn) >= positions * 544
    assert largest_array(next_token_loss) < 0.6 * positions * 544


@pytest.fixture(scope="module")
def examples():
    """Examples longer and shorter than the local layers' window of 16, with a prompt each."""
    rng = np.random.default_rng(0)
    made = []
    for index, length in enumerate((40, 9, 25, 31, 12, 20, 7)):
        tokens = rng.integers(6, 544, length).astype(np.int32)
        tokens[0] = BOS
        mask = (np.arange(length) >= length // 2).astype(np.float32)
        made.append(TokenizedExample(id=str(index), tokens=tokens, loss_mask=mask))
    return made


def test_a_packed_batch_is_worth_its_examples_alone(new_model, examples):
    rows = pack(examples, "on", max_length=128, seed=0)
    assert len(rows) == 2
    # The other five rows are empty: so both have one shape, which is compiled once.
    packed = collate(rows, range(2), 128, len(examples))
    alone = collate(examples, range(len(examples)), 128, len(examples))
    step = nnx.jit(lambda model, batch: nnx.value_and_grad(next_token_loss)(
        model, **model_inputs(batch)
    ))  # fmt: skip
    model = new_model()  # five local layers and a global one
    (loss, gradients), (expected, expected_gradients) = (
        step(model, batch) for batch in (packed, alone)
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert_close(gradients, expected_gradients)


def test_batch_that_learns_nothing_has_no_gradient(new_model):
    # Rows that fill up a batch are all padding: attention over nothing must not give NaN.
    tokens = jnp.array([[2, 9, 7, 8], [0, 0, 0, 0]])
    step = nnx.jit(nnx.value_and_grad(next_token_loss))
    loss, gradients = step(new_model(num_layers=1), **inputs_of(tokens))
    assert float(loss) == 0.0
    assert not any(np.any(gradient) for gradient in jax.tree.leaves(gradients))


ROWS, LENGTH, WIDTH, VOCABULARY = 3, 11, 4, 29
RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.normal(size=(ROWS, LENGTH, WIDTH)), jnp.float32)
EMBEDDING = jnp.asarray(RNG.normal(size=(VOCABULARY, WIDTH)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, VOCABULARY, (ROWS, LENGTH)))
WEIGHTS = jnp.asarray(RNG.normal(size=(ROWS, LENGTH)), jnp.float32)


def scores_of(logits, labels):
    return label_log_probs(logits, labels), entropy(logits)


def in_chunks(hidden, embedding):
    scores = score_positions(scores_of, lambda x: x @ embedding.T, hidden, LABELS)
    return sum(jnp.sum(WEIGHTS * score) for score in scores), scores


def at_once(hidden, embedding):
    log_probs = jax.nn.log_softmax(hidden @ embedding.T)
    one_hot = jax.nn.one_hot(LABELS, VOCABULARY)
    scores = jnp.sum(log_probs * one_hot, -1), -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
    return sum(jnp.sum(WEIGHTS * score) for score in scores), scores


@pytest.mark.parametrize("chunk_positions", [1, 15, 33])
def test_chunks_of_any_size_give_what_all_logits_give(monkeypatch, chunk_positions):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", chunk_positions)
    ours, theirs = (
        jax.jit(jax.value_and_grad(function, argnums=(0, 1), has_aux=True))(HIDDEN, EMBEDDING)
        for function in (lambda *x: in_chunks(*x), at_once)
    )
    ((_, scores), gradients), ((_, expected), expected_gradients) = ours, theirs
    for ours, theirs in zip((*scores, *gradients), (*expected, *expected_gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("chunk_positions", "size"),
    [(1, 1), (3, 1), (8, 2), (15, 4), (18, 6), (33, 11), (1000, 11)],
)
def test_logits_exist_a_chunk_at_a_time(monkeypatch, chunk_positions, size):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", chunk_positions)
    program = str(jax.make_jaxpr(jax.grad(lambda *x: in_chunks(*x)[0]))(
        HIDDEN, EMBEDDING
    ))  # fmt: skip
    assert f"f32[{ROWS},{size},{VOCABULARY}]" in program
    other = {n for n in range(1, 2 * LENGTH) if f"f32[{ROWS},{n},{VOCABULARY}]" in program} - {size}
    assert other <= {LENGTH % size}  # the last chunk may be shorter


def test_no_logits_are_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 6)

    def kept(loss):
        _, backward = jax.vjp(loss, HIDDEN, EMBEDDING)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    inputs = HIDDEN.size + EMBEDDING.size + LABELS.size
    assert kept(lambda *x: at_once(*x)[0]) > ROWS * LENGTH * VOCABULARY
    assert kept(lambda *x: in_chunks(*x)[0]) < 2 * inputs < ROWS * LENGTH * VOCABULARY


def test_a_chunk_waits_for_the_one_before_forwards_and_backwards(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 6)
    # The compiler of a CPU drops what orders them; that of a TPU does as it is told.
    program = str(jax.make_jaxpr(jax.grad(lambda *x: in_chunks(*x)[0]))(HIDDEN, EMBEDDING))
    chunks = -(-LENGTH // 2)
    assert program.count("= optimization_barrier") == 2 * (chunks - 1)


@pytest.mark.parametrize(("devices", "size"), [(1, 2), (3, 6), (2, 2)])
def test_a_chunk_counts_the_rows_of_one_device(monkeypatch, devices, size):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 8)
    # Three rows are one each for three devices; two devices cannot share them evenly.
    same = np.array(jax.devices()[:1] * devices).reshape(devices, 1)
    with jax.sharding.Mesh(same, ("fsdp", "tp")):
        program = str(jax.make_jaxpr(lambda x: in_chunks(x, EMBEDDING)[0])(HIDDEN))
    assert f"f32[{ROWS},{size},{VOCABULARY}]" in program


def test_scores_by_hand():
    logits = jnp.log(jnp.array([[[1.0, 3.0, 0.0], [5.0, 5.0, 5.0]]]))
    log_probs = label_log_probs(logits[..., :2], jnp.array([[1, 0]]))
    np.testing.assert_allclose(log_probs, [[math.log(3 / 4), math.log(1 / 2)]], atol=1e-6)
    expected = [[math.log(4) - 3 / 4 * math.log(3), math.log(2)]]
    np.testing.assert_allclose(entropy(logits[..., :2]), expected, atol=1e-6)


def test_bf16_is_scored_in_fp32():
    # 3000 equal logits: the logarithm of their count is 8.00637, which bf16 rounds to 8.
    logits = jnp.zeros((1, 1, 3000), jnp.bfloat16)
    for score in (-label_log_probs(logits, jnp.zeros((1, 1), jnp.int32)), entropy(logits)):
        assert score.dtype == jnp.float32
        assert float(score[0, 0]) == pytest.approx(math.log(3000), abs=1e-5)
