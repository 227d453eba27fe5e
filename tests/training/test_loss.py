import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.sft.peft_trainer import TrainingInput, _default_loss_fn

from nblib.training.loss import model_inputs, next_token_loss


class FixedLogits(nnx.Module):
    """A model that answers the same whatever it is asked."""

    def __init__(self, logits):
        self.logits = nnx.Param(jnp.asarray(logits))

    def __call__(self, tokens, positions, cache, attention_mask):
        return self.logits.get_value(), None


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


def test_bf16_logits_are_summed_in_fp32():
    # 3000 equal logits: the loss is their count's logarithm, 8.00637, which bf16 rounds to 8.
    logits = jnp.zeros((1, 2, 3000), jnp.bfloat16)
    loss = next_token_loss(FixedLogits(logits), TOKENS[:, :2], jnp.ones((1, 2)), None, None)
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(math.log(3000), abs=1e-5)


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


def test_equals_tunix_own_loss_in_value_and_gradient(new_model):
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, 544, (2, 12)).astype(np.int32)
    tokens[0, 9:] = 0
    mask = ((rng.random((2, 12)) < 0.5) & (tokens != 0)).astype(np.float32)
    inputs = model_inputs(TrainingInput(input_tokens=jnp.asarray(tokens), input_mask=mask))

    @nnx.jit
    def both(model):
        ours = nnx.value_and_grad(next_token_loss)(model, **inputs)
        theirs = nnx.value_and_grad(_default_loss_fn)(model, **inputs)
        return ours, theirs

    (loss, gradients), (their_loss, their_gradients) = both(new_model(num_layers=1))
    assert float(loss) == pytest.approx(float(their_loss), rel=1e-5)
    assert float(loss) > 1
    for gradient, theirs in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(their_gradients), strict=True
    ):
        np.testing.assert_allclose(gradient, theirs, atol=1e-5)


def test_batch_that_learns_nothing_has_no_gradient(new_model):
    # Rows that fill up a batch are all padding: attention over nothing must not give NaN.
    tokens = jnp.array([[2, 9, 7, 8], [0, 0, 0, 0]])
    inputs = model_inputs(TrainingInput(input_tokens=tokens, input_mask=jnp.zeros((2, 4))))
    step = nnx.jit(nnx.value_and_grad(next_token_loss))
    loss, gradients = step(new_model(num_layers=1), **inputs)
    assert float(loss) == 0.0
    assert not any(np.any(gradient) for gradient in jax.tree.leaves(gradients))
