"""A key per example: what an example draws is its own, whatever the batch; the distributions stay what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffjax import randomness

KEYS = jax.random.split(jax.random.key(0), 6)


@pytest.mark.fast(1)
@pytest.mark.parametrize("draw", [randomness.normal, randomness.uniform, randomness.logistic])
def test_an_example_s_draw_does_not_depend_on_its_neighbours(draw):
    whole = draw(KEYS, (6, 3, 2))
    np.testing.assert_array_equal(draw(KEYS[2:4], (2, 3, 2)), whole[2:4])
    assert len(np.unique(np.asarray(whole))) == 36


def test_split_keeps_the_form_and_makes_different_keys():
    for key, shape in ((jax.random.key(1), ()), (KEYS, (6,))):
        parts = randomness.split(key, 3)
        assert [part.shape for part in parts] == [shape] * 3
        data = np.concatenate([np.asarray(jax.random.key_data(part)).reshape(-1, 2) for part in parts])
        assert len(np.unique(data, axis=0)) == len(data)
    np.testing.assert_array_equal(
        jax.random.key_data(randomness.split(KEYS, 3)[1][4]), jax.random.key_data(jax.random.split(KEYS[4], 3)[1])
    )


def test_an_old_style_key_is_one_key():
    old = jax.random.PRNGKey(0)
    assert not randomness.per_example(old)
    np.testing.assert_array_equal(randomness.normal(old, (2, 3)), jax.random.normal(old, (2, 3)))


def test_draws_have_the_moments_of_their_distribution():
    keys = jax.random.split(jax.random.key(2), 20_000)
    z, u = randomness.normal(keys, (20_000,)), randomness.uniform(keys, (20_000,))
    n = len(keys)
    assert abs(float(z.mean())) < 5 / np.sqrt(n)
    assert abs(float((z**2).mean()) - 1) < 5 * np.sqrt(2 / n)
    assert abs(float(u.mean()) - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert z.dtype == jnp.float32


def test_logistic_draws_have_their_law_up_to_far_tails():
    n = 2**22
    draws = np.asarray(jax.jit(lambda key: randomness.logistic(key, (n,)))(jax.random.key(3)), np.float64)
    assert scipy.stats.kstest(draws[:100_000], scipy.stats.logistic.cdf).pvalue > 1e-6
    for edge in (8.0, 11.0, 13.0, 16.0):  # a uniform that is a multiple of 2^-23 has nothing beyond 15.9
        for tail in (draws > edge, draws < -edge):
            expected = n * scipy.stats.logistic.sf(edge)
            assert abs(tail.sum() - expected) < 5 * np.sqrt(expected) + 0.5


@pytest.mark.parametrize("word", [0, 1, 2**32 - 2, 2**32 - 1])
def test_the_outermost_logistic_draws(word, monkeypatch):
    """Of the 2^32 draws that there are the two outermost have probabilities 2^-33, half a step, beyond them."""
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.full(shape, word, dtype))
    draw = randomness.logistic(jax.random.key(0), ())
    want = -scipy.stats.logistic.ppf(2.0**-33) if word < 2 else 0.0
    np.testing.assert_allclose(draw, -want if word % 2 else want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_draws_have_the_type_that_was_asked_for(promotion):
    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        for draw in (randomness.normal, randomness.uniform, randomness.logistic):
            for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
                for key, shape in ((jax.random.key(0), (3, 2)), (KEYS, (6, 2))):
                    assert jax.eval_shape(lambda k, s=shape, d=dtype, f=draw: f(k, s, d), key).dtype == dtype
