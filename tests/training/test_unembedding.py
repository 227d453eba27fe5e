import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nblib.training.unembedding import entropy, label_log_probs, score_positions

ROWS, LENGTH, WIDTH, VOCABULARY = 3, 11, 4, 29
RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.normal(size=(ROWS, LENGTH, WIDTH)), jnp.float32)
EMBEDDING = jnp.asarray(RNG.normal(size=(VOCABULARY, WIDTH)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, VOCABULARY, (ROWS, LENGTH)))
WEIGHTS = jnp.asarray(RNG.normal(size=(ROWS, LENGTH)), jnp.float32)


def both(logits, labels):
    return label_log_probs(logits, labels), entropy(logits)


def in_chunks(hidden, embedding, chunk_positions):
    scores = score_positions(
        both, lambda x: x @ embedding.T, hidden, LABELS, chunk_positions=chunk_positions
    )
    return sum(jnp.sum(WEIGHTS * score) for score in scores), scores


def at_once(hidden, embedding):
    log_probs = jax.nn.log_softmax(hidden @ embedding.T)
    one_hot = jax.nn.one_hot(LABELS, VOCABULARY)
    scores = jnp.sum(log_probs * one_hot, -1), -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
    return sum(jnp.sum(WEIGHTS * score) for score in scores), scores


@pytest.mark.parametrize("chunk_positions", [1, 3, 7, 15, 32, 33, 1000])
def test_chunks_of_any_size_give_what_all_logits_give(chunk_positions):
    grad = jax.value_and_grad(in_chunks, argnums=(0, 1), has_aux=True)
    (_, scores), gradients = grad(HIDDEN, EMBEDDING, chunk_positions)
    expected_grad = jax.value_and_grad(at_once, argnums=(0, 1), has_aux=True)
    (_, expected), expected_gradients = expected_grad(HIDDEN, EMBEDDING)
    for ours, theirs in zip((*scores, *gradients), (*expected, *expected_gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("chunk_positions", "size"),
    [(1, 1), (3, 1), (8, 2), (15, 4), (18, 6), (33, 11), (1000, 11)],
)
def test_logits_exist_a_chunk_at_a_time(chunk_positions, size):
    program = str(jax.make_jaxpr(jax.grad(lambda *x: in_chunks(*x, chunk_positions)[0]))(
        HIDDEN, EMBEDDING
    ))  # fmt: skip
    assert f"f32[{ROWS},{size},{VOCABULARY}]" in program
    other = {n for n in range(1, 2 * LENGTH) if f"f32[{ROWS},{n},{VOCABULARY}]" in program} - {size}
    assert other <= {LENGTH % size}  # the last chunk may be shorter


def test_no_logits_are_kept_for_the_backward_pass():
    def kept(loss):
        _, backward = jax.vjp(loss, HIDDEN, EMBEDDING)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    inputs = HIDDEN.size + EMBEDDING.size + LABELS.size
    assert kept(lambda *x: at_once(*x)[0]) > ROWS * LENGTH * VOCABULARY
    assert kept(lambda *x: in_chunks(*x, 6)[0]) < 2 * inputs < ROWS * LENGTH * VOCABULARY


def test_a_chunk_waits_for_the_one_before_forwards_and_backwards():
    # The compiler of a CPU drops what orders them; that of a TPU does as it is told.
    program = str(jax.make_jaxpr(jax.grad(lambda *x: in_chunks(*x, 6)[0]))(HIDDEN, EMBEDDING))
    chunks = -(-LENGTH // 2)
    assert program.count("= optimization_barrier") == 2 * (chunks - 1)


@pytest.mark.parametrize(("devices", "size"), [(1, 2), (3, 6), (2, 2)])
def test_a_chunk_counts_the_rows_of_one_device(devices, size):
    # Three rows are one each for three devices; two devices cannot share them evenly.
    same = np.array(jax.devices()[:1] * devices).reshape(devices, 1)
    with jax.sharding.Mesh(same, ("fsdp", "tp")):
        program = str(jax.make_jaxpr(lambda x: in_chunks(x, EMBEDDING, 8)[0])(HIDDEN))
    assert f"f32[{ROWS},{size},{VOCABULARY}]" in program


def test_by_hand():
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
