import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nblib.models import next_token as module
from nblib.models.next_token import next_token

ROWS = 200
KEYS = jax.random.split(jax.random.key(0), ROWS)
PAD = -jnp.inf


def chosen(logits, choice="top-p", *, top_p=1.0, temperature=1.0, keys=KEYS, done=None):
    """Return the tokens of rows [B, V], or of so many equal rows of [V] as there are keys."""
    rows = jnp.broadcast_to(jnp.asarray(logits), (len(keys), np.shape(logits)[-1]))
    rule = {"choice": choice, "temperature": temperature, "top_p": top_p}
    done = jnp.zeros(len(rows), bool) if done is None else done
    return np.asarray(next_token(rows, keys, done=done, **rule))


def of_sorted(logits, top_p, keys=KEYS):
    """Top-p as it is defined, with the noise of each rank: sort all, cut, draw."""
    ordered, ids = jax.lax.top_k(logits, logits.shape[-1])
    shares = jax.nn.softmax(ordered, axis=-1)
    ordered = jnp.where(jnp.cumsum(shares, axis=-1) - shares > top_p, -jnp.inf, ordered)
    rank = jax.vmap(jax.random.categorical)(keys, ordered)
    return np.asarray(jnp.take_along_axis(ids, rank[:, None], axis=-1)[:, 0])


def test_top_p_keeps_the_likeliest_tokens_that_reach_it():
    logits = jnp.log(jnp.array([0.0, 0.05, 0.5, 0.25, 0.2]))
    # Before the second token 0.5 is reached, before the third 0.75, before the fourth 0.95.
    kept = [set(chosen(logits, top_p=top_p)) for top_p in (0.4, 0.7, 0.9)]
    assert kept == [{2}, {2, 3}, {2, 3, 4}]
    assert set(chosen(logits, "any")) == {1, 2, 3, 4}
    assert set(chosen(logits, "greedy")) == {2}


def test_of_equally_likely_tokens_the_lower_ids_are_kept():
    assert set(chosen(jnp.array([PAD, 0.0, 0.0, 0.0, 0.0]), top_p=0.45)) == {1, 2}


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_top_p_draws_what_it_would_draw_from_the_sorted_vocabulary(monkeypatch, top_p):
    """Sets of every size, so that for some rows the first look is enough, for others the last."""
    monkeypatch.setattr(module, "_LIKELIEST", (4, 32))
    logits = jax.random.normal(jax.random.key(1), (ROWS, 400)) * jnp.linspace(8, 0.1, ROWS)[:, None]
    logits = logits.at[:, 0].set(PAD)
    assert chosen(logits, top_p=top_p).tolist() == of_sorted(logits, top_p).tolist()


def test_a_row_draws_the_same_beside_rows_that_need_a_longer_look(monkeypatch):
    monkeypatch.setattr(module, "_LIKELIEST", (4, 32))
    peaked, flat = jnp.arange(400.0)[None], jnp.zeros((1, 400))
    alone = chosen(peaked, top_p=0.9, keys=KEYS[:1])
    beside = chosen(jnp.concatenate([peaked, flat]), top_p=0.9, keys=KEYS[:2])
    assert beside[0] == alone[0]


def test_the_vocabulary_is_sorted_only_while_a_row_that_goes_on_needs_it(monkeypatch):
    monkeypatch.setattr(module, "_LIKELIEST", (4,))
    looked = []

    def top_k(scaled, count):
        jax.debug.callback(looked.append, count)
        return really(scaled, count)

    really = jax.lax.top_k
    monkeypatch.setattr(jax.lax, "top_k", top_k)
    peaked, flat = 9 * jnp.arange(50.0), jnp.zeros(50)
    for row, done in ((peaked, False), (flat, False), (flat, True)):
        rows = jnp.stack([peaked, row])
        chosen(rows, top_p=0.9, keys=KEYS[:2], done=jnp.array([False, done]))
        jax.effects_barrier()
        looked.append(None)
    assert looked == [4, None, 4, 50, None, 4, None]


@pytest.mark.parametrize("choice", ["greedy", "any", "top-p"])
def test_padding_is_never_chosen(choice):
    likeliest_is_padding = jnp.array([9.0, 1.0, 2.0, 0.0])
    found = set(chosen(likeliest_is_padding, choice, top_p=0.99))
    assert found == ({2} if choice == "greedy" else {1, 2, 3})


def test_temperature_sharpens():
    def share(temperature):
        return np.mean(chosen(jnp.array([PAD, 0.0, 1.0]), "any", temperature=temperature) == 2)

    assert share(0.1) > 0.99 > share(1.0) > share(10.0)
