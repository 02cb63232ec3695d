"""Codebooks against k-means in numpy, gradients against the formula, and dead codes that come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import vector_quantization as vq
from diffjax.errors import InputError

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(60, 2)).astype(np.float32)
BOOK = RNG.normal(size=(5, 2)).astype(np.float32)
CODES = ((Z[:, None] - BOOK) ** 2).sum(-1).argmin(1)


def test_the_nearest_code():
    np.testing.assert_array_equal(vq.nearest(jnp.asarray(BOOK), jnp.asarray(Z)), CODES)
    np.testing.assert_array_equal(vq.nearest(jnp.asarray(BOOK), jnp.asarray(Z.reshape(4, 15, 2))), CODES.reshape(4, 15))


def test_the_gradient_goes_straight_through():
    """Of f(z_q) = Σ z_q³ with respect to z it is 3 e², at the code and not at z; the code gets none."""

    def f(z, book):
        return (vq.straight_through(z, book[vq.nearest(book, z)]) ** 3).sum()

    of_z, of_book = jax.grad(f, (0, 1))(jnp.asarray(Z), jnp.asarray(BOOK))
    np.testing.assert_allclose(of_z, 3 * BOOK[CODES] ** 2, rtol=1e-5)
    np.testing.assert_array_equal(of_book, 0.0)


def test_without_memory_a_step_is_one_of_k_means():
    book = vq.updated(vq.codebook(jnp.asarray(BOOK)), jnp.asarray(Z), jnp.asarray(CODES), 0.0)
    for k in range(5):
        np.testing.assert_allclose(book.vectors[k], Z[k == CODES].mean(0), atol=1e-4)
    np.testing.assert_allclose(book.counts, np.bincount(CODES, minlength=5))


def test_the_running_means_of_the_same_batch_in_closed_form():
    """N_k(t) = γ^t + (1 - γ^t) n_k and m_k likewise, so that e_k goes from the first vector to the mean."""
    decay, steps, book = 0.8, 7, vq.codebook(jnp.asarray(BOOK))
    for _ in range(steps):
        book = vq.updated(book, jnp.asarray(Z), jnp.asarray(CODES), decay)
    n, kept = np.bincount(CODES, minlength=5), decay**steps
    sums = np.stack([Z[k == CODES].sum(0) for k in range(5)])
    np.testing.assert_allclose(book.counts, kept + (1 - kept) * n, rtol=1e-5)
    want = (kept * BOOK + (1 - kept) * sums) / (kept + (1 - kept) * n)[:, None]
    np.testing.assert_allclose(book.vectors, want, atol=1e-4)


def test_dead_codes_come_back_as_vectors_of_the_batch():
    far = np.concatenate([BOOK[:3], [[50.0, 50.0], [-60.0, 40.0]]]).astype(np.float32)
    codes = vq.nearest(jnp.asarray(far), jnp.asarray(Z))
    assert not np.isin([3, 4], codes).any()
    book = vq.codebook(jnp.asarray(far))
    for _ in range(30):
        book = vq.updated(book, jnp.asarray(Z), vq.nearest(book.vectors, jnp.asarray(Z)), 0.8)
    dead = vq.restarted(book, jax.random.key(0), jnp.asarray(Z), 0.05)
    np.testing.assert_array_equal(dead.vectors[:3], book.vectors[:3])
    for vector in np.asarray(dead.vectors[3:]):
        assert (np.abs(Z - vector).sum(1) < 1e-6).any()
    assert np.isin([3, 4], vq.nearest(dead.vectors, jnp.asarray(Z))).all()
    assert (np.asarray(dead.counts) >= 0.05).all()


def test_perplexity_counts_what_is_used():
    np.testing.assert_allclose(vq.perplexity(jnp.full(7, 1 / 7)), 7.0, rtol=1e-5)
    np.testing.assert_allclose(vq.perplexity(jnp.array([1.0, 0.0, 0.0])), 1.0)
    np.testing.assert_allclose(vq.perplexity(jnp.array([0.5, 0.25, 0.25])), 2**1.5, rtol=1e-5)


def test_a_codebook_of_one_is_refused():
    with pytest.raises(InputError, match="a codebook of 1 says nothing of an example: give at least 2 codes"):
        vq.codebook(jnp.zeros((1, 2)))
