"""A key per example: what an example draws is its own, whatever the batch; the distributions stay what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import randomness

KEYS = jax.random.split(jax.random.key(0), 6)


@pytest.mark.parametrize("draw", [randomness.normal, randomness.uniform])
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
