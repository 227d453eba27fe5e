import math
import re
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.models.gemma3.model import RematConfig
from tunix.sft.peft_trainer import TrainingInput, _default_loss_fn
from tunix.sft.utils import make_causal_attn_mask

from nblib.models.lora import LORA_PARAMETER, LoraConfig, get_lora_model
from nblib.tokens.batches import TokenizedExample, collate
from nblib.tokens.packing import pack
from nblib.training import loss as module
from nblib.training.loss import (
    entropy,
    label_log_probs,
    model_inputs,
    next_token_loss,
    token_scores,
)

BOS = 2


class Unchanged(nnx.Module):
    """The unembedding where hidden states are logits."""

    def decode(self, hidden):
        return hidden


class FixedLogits(nnx.Module):
    """A model that answers every prompt alike; its hidden states are the logits."""

    def __init__(self, logits):
        self.logits = nnx.Param(jnp.asarray(logits))
        self.layers = ()
        self.config = SimpleNamespace(remat_config=RematConfig.NONE)
        self.embedder = Unchanged()

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
    assert inputs["segments"].tolist() == [[2, 2, 2, 0]]


def test_inputs_of_a_packed_row():
    inputs = inputs_of(jnp.array([[BOS, 8, 9, BOS, 7, 0]]))
    assert inputs["positions"].tolist() == [[0, 1, 2, 0, 1, 1]]
    assert inputs["segments"].tolist() == [[2, 2, 2, 3, 3, 0]]


def test_what_stands_before_the_first_bos_is_an_example_too():
    assert inputs_of(jnp.array([[8, 9, BOS, 7]]))["segments"].tolist() == [[1, 1, 2, 2]]


def random_batch(seed, rows, length):
    """Rows of random tokens, some padded, with random masks."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(4, 544, (rows, length)).astype(np.int32)
    tokens[0, rng.integers(1, length) :] = 0
    mask = ((rng.random((rows, length)) < 0.5) & (tokens != 0)).astype(np.float32)
    return TrainingInput(input_tokens=jnp.asarray(tokens), input_mask=mask)


def as_tunix_has_them(inputs):
    """The same inputs with Tunix's mask [B, T, T] in place of the segments."""
    segments = inputs["segments"]
    mask = make_causal_attn_mask(segments != 0) & (segments[:, :, None] == segments[:, None, :])
    others = {name: value for name, value in inputs.items() if name != "segments"}
    return {**others, "attention_mask": mask}


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
        return ours(model, **inputs), theirs(model, **as_tunix_has_them(inputs))

    (loss, gradients), (their_loss, their_gradients) = both(model)
    assert float(loss) == pytest.approx(float(their_loss), rel=1e-5)
    assert float(loss) > 1
    assert_close(gradients, their_gradients)


@pytest.mark.parametrize("adapters", [False, True])
def test_no_step_holds_the_logits_of_all_positions(new_model, mesh, adapters):
    model = new_model(num_layers=1)
    if adapters:
        model = get_lora_model(model, mesh, LoraConfig(rank=2, alpha=4.0))
    kind = nnx.DiffState(0, LORA_PARAMETER) if adapters else 0
    inputs = model_inputs(random_batch(0, rows=64, length=128))

    def largest_array(loss_fn, inputs):
        step = nnx.jit(nnx.value_and_grad(loss_fn, argnums=kind))
        program = step.lower(model, **inputs).compile().as_text()
        shapes = re.findall(r"f32\[([\d,]+)\]", program)
        return max(math.prod(map(int, shape.split(","))) for shape in shapes)

    positions = 64 * 127
    assert largest_array(_default_loss_fn, as_tunix_has_them(inputs)) >= positions * 544
    assert largest_array(next_token_loss, inputs) < 0.6 * positions * 544


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


COUNTED = jnp.asarray(RNG.random((ROWS, LENGTH)) < 0.5).at[1].set(False)
POSITIONS, TEMPERATURE = ROWS * LENGTH, 0.7


class Unembedding(nnx.Module):
    def __init__(self, embedding):
        self.embedding = nnx.Param(embedding)

    def decode(self, hidden):
        return hidden @ self.embedding[...].T


class Scored(nnx.Module):
    """As much of a model as is scored; adapters say that its embedding is frozen."""

    def __init__(self, embedding, *, adapters):
        self.embedder = Unembedding(embedding)
        if adapters:
            self.adapters = nnx.LoRAParam(jnp.zeros(1))


def worth(scores):
    """A figure of which no two positions have the same cotangent; the entropy has none."""
    log_probs, entropies = scores
    return jnp.sum(jnp.sin(WEIGHTS * log_probs)) + jnp.sum(jax.lax.stop_gradient(entropies))


def in_chunks(hidden, embedding, counted=COUNTED, *, adapters=False):
    model = Scored(embedding, adapters=adapters)
    scores = token_scores(model, hidden, LABELS, counted, temperature=TEMPERATURE)
    return worth(scores), scores


def at_once(hidden, embedding):
    log_probs = jax.nn.log_softmax(hidden @ embedding.T / TEMPERATURE)
    one_hot = jax.nn.one_hot(LABELS, VOCABULARY)
    scores = jnp.sum(log_probs * one_hot, -1), -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
    scores = tuple(jnp.where(COUNTED, score, 0) for score in scores)
    return worth(scores), scores


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("chunk_positions", [1, 7, 33])
def test_chunks_of_any_size_give_what_all_logits_give(monkeypatch, chunk_positions, adapters):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", chunk_positions)
    wrt = 0 if adapters else (0, 1)
    ours, theirs = (
        jax.jit(jax.value_and_grad(function, argnums=wrt, has_aux=True))(HIDDEN, EMBEDDING)
        for function in (partial(in_chunks, adapters=adapters), at_once)
    )
    for leaf, expected in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-5)


def test_a_frozen_embedding_has_no_gradient_that_could_be_wrong():
    with pytest.raises(jax.errors.UnexpectedTracerError):
        jax.grad(lambda embedding: in_chunks(HIDDEN, embedding, adapters=True)[0])(EMBEDDING)


@pytest.mark.parametrize(("adapters", "times"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("learnt", [0, 1, 4, 5, 33])
def test_only_chunks_with_counted_positions_are_computed(monkeypatch, adapters, times, learnt):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 4)
    taken = []

    def noted(logits, labels):
        jax.debug.callback(lambda: taken.append(1))
        return label_log_probs(logits, labels)

    monkeypatch.setattr(module, "label_log_probs", noted)
    chosen = np.random.default_rng(0).permutation(POSITIONS).reshape(ROWS, LENGTH) < learnt
    step = jax.jit(jax.grad(lambda hidden, counted: in_chunks(
        hidden, EMBEDDING, counted, adapters=adapters
    )[0]))  # fmt: skip
    gradient = step(HIDDEN, jnp.asarray(chosen))
    jax.effects_barrier()
    # 33 positions make nine chunks of four; their logits are made again where nothing is frozen.
    assert len(taken) == times * math.ceil(learnt / 4)
    assert np.array_equal(np.any(np.asarray(gradient), axis=-1), chosen)


@pytest.mark.parametrize(
    ("chunk_positions", "size"), [(1, 1), (3, 3), (8, 7), (15, 11), (18, 17), (33, 33), (99, 33)]
)
@pytest.mark.parametrize("adapters", [False, True])
def test_logits_exist_a_chunk_at_a_time(monkeypatch, chunk_positions, size, adapters):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", chunk_positions)
    loss = partial(in_chunks, adapters=adapters)
    program = str(jax.make_jaxpr(jax.grad(lambda *x: loss(*x)[0]))(HIDDEN, EMBEDDING))
    found = {n for n in range(1, POSITIONS + 1) if f"f32[1,{n},{VOCABULARY}]" in program}
    assert found == {size} | {POSITIONS % size} - {0}  # the last chunk may be shorter


@pytest.mark.parametrize("adapters", [False, True])
def test_no_logits_are_kept_for_the_backward_pass(monkeypatch, adapters):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 6)

    def kept(loss):
        _, backward = jax.vjp(loss, HIDDEN)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    inputs = 2 * HIDDEN.size + EMBEDDING.size + 4 * LABELS.size
    assert kept(lambda x: at_once(x, EMBEDDING)[0]) > POSITIONS * VOCABULARY
    ours = kept(lambda x: in_chunks(x, EMBEDDING, adapters=adapters)[0])
    assert ours < inputs < POSITIONS * VOCABULARY


@pytest.mark.parametrize(("adapters", "passes"), [(True, 1), (False, 2)])
def test_a_chunk_waits_for_the_one_before_forwards_and_backwards(monkeypatch, adapters, passes):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 6)
    # The compiler of a CPU drops what orders them; that of a TPU keeps it.
    loss = partial(in_chunks, adapters=adapters)
    program = str(jax.make_jaxpr(jax.grad(lambda *x: loss(*x)[0]))(HIDDEN, EMBEDDING))
    chunks = -(-POSITIONS // 6)
    assert program.count("= optimization_barrier") == passes * (chunks - 1)


@pytest.mark.parametrize(
    ("devices", "logits"), [(1, "1,7"), (3, "3,6"), (2, "1,7")], ids=("one", "three", "two")
)
def test_each_device_scores_its_own_rows(monkeypatch, devices, logits):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 8)
    # Three rows are one each for three devices; two devices cannot share them evenly.
    same = np.array(jax.devices()[:1] * devices).reshape(devices, 1)
    with jax.sharding.Mesh(same, ("fsdp", "tp")):
        program = str(jax.make_jaxpr(lambda x: in_chunks(x, EMBEDDING)[0])(HIDDEN))
    assert f"f32[{logits},{VOCABULARY}]" in program


def test_a_tpu_has_chunks_of_its_own_size(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_POSITIONS", 4)
    monkeypatch.setattr(module, "TPU_CHUNK_POSITIONS", 11)
    monkeypatch.setattr(module, "current_platform", lambda: "tpu")
    program = str(jax.make_jaxpr(lambda x: in_chunks(x, EMBEDDING)[0])(HIDDEN))
    assert f"f32[1,11,{VOCABULARY}]" in program and f"f32[1,4,{VOCABULARY}]" not in program


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
