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
from nblib.training.loss import model_inputs, next_token_loss

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


@pytest.mark.parametrize("chunk_positions", [1, 10, 1000])
@pytest.mark.parametrize("adapters", [False, True])
def test_equals_tunix_own_loss_in_value_and_gradient(new_model, mesh, chunk_positions, adapters):
    model = new_model(seed=1, num_layers=1)
    if adapters:
        model = get_lora_model(model, mesh, LoraConfig(rank=2, alpha=4.0))
    kind = nnx.DiffState(0, LORA_PARAMETER) if adapters else 0
    inputs = model_inputs(random_batch(chunk_positions, rows=2, length=12))

    @nnx.jit
    def both(model):
        ours = nnx.value_and_grad(next_token_loss, argnums=kind)
        theirs = nnx.value_and_grad(_default_loss_fn, argnums=kind)
        return ours(model, **inputs, chunk_positions=chunk_positions), theirs(model, **inputs)

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
    packed = collate(rows, range(2), 128, 3)  # the third row is empty
    alone = collate(examples, range(len(examples)), 48, len(examples))
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
