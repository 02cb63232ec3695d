"""Draws told by one integer against the law they are of, and the prefixes of a progressive file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffjax import bounds
from diffjax.coding import progressive, relative
from diffjax.coding.progressive import Progressive
from diffjax.distributions import DiscretizedNormal, Normal
from diffjax.errors import InputError
from diffjax.predictions import x0 as predicts_x0
from diffjax.processes import gaussian
from diffjax.schedules import from_betas

NUM, GRID, STEPS = 1000, progressive.EXPONENTS, 10


def test_draws_have_their_law_and_cost_little_more_than_the_divergence():
    q, p = Normal(jnp.full((NUM, 1), 2.0), jnp.full((NUM, 1), 0.25)), Normal(jnp.zeros((NUM, 1)), jnp.ones((NUM, 1)))
    keys = jax.random.split(jax.random.key(0), NUM)
    index = np.asarray(relative.choose(keys, q, p, 4096))
    x = np.asarray(relative.candidate(keys, p, index))[:, 0]
    assert stats.kstest(x, stats.norm(2.0, 0.5).cdf).pvalue > 1e-6
    kl = float(q.kl(p)[0, 0]) / np.log(2)
    best = relative.best_exponent(index, 4096, GRID)
    law = relative.power_law(GRID[best], 4096, 1)
    cost = -np.log2(law.parameters[0][0])[index]
    assert kl < cost.mean() < kl + np.log2(kl + 1) + 5  # Li & El Gamal 2018
    # The law of the index, where p is q: the first candidate always.
    same = np.asarray(relative.choose(keys, p, p, 512))
    assert (same == 0).all()


@pytest.fixture(scope="module")
def made():
    """Steps small enough for 512 candidates, and a network that knows that all entries are 0.5, or all -0.5."""
    process = gaussian(from_betas(np.linspace(0.05, 0.6, STEPS)))
    rng = np.random.default_rng(0)
    levels = np.where(rng.random((100, 1)) < 0.5, 1, 3).astype(np.uint8) * np.ones((1, 4), np.uint8)

    def predict(params):
        def fn(xt, t):
            a, s = process.schedule.alpha(t)[:, None], process.schedule.sigma(t)[:, None]
            return 0.5 * jnp.tanh(0.5 * a * xt.sum(-1, keepdims=True) / s**2) * jnp.ones_like(xt)

        return predicts_x0(fn)

    def decoder(mean, variance):
        return DiscretizedNormal(mean, variance, 5)

    args = process, predict, (), jnp.arange(STEPS + 1) / STEPS, "posterior", decoder, (4,), 5
    return Progressive(*args, candidates=512), levels, args


@pytest.mark.slow
def test_every_prefix_is_an_image_and_the_whole_file_has_no_loss(made):
    codec, levels, args = made
    data = codec.encode(levels)
    parts = [codec.decode(prefix) for prefix in progressive.prefixes(data)]
    assert [part.steps for part in parts] == list(range(STEPS + 1))
    x0 = levels * 0.5 - 1.0
    errors = [float(np.sqrt(((part.image - x0) ** 2).mean())) for part in parts]
    assert parts[-1].whole and errors[-1] == 0.0
    process, predict, params, times, variance, decoder = args[:6]
    keys = jax.random.split(jax.random.key(1), 20)
    terms = jax.jit(
        jax.vmap(lambda key: bounds.diffusion(process, predict(params), key, x0, times, variance, decoder))
    )(keys)
    promised = np.sqrt(np.asarray(terms.squared_error.mean((0, 2)) / 4))[::-1]  # from x_T to x_1
    spread = np.asarray(terms.squared_error.mean(2) / 4).std(0)[::-1]
    assert (np.abs(np.array(errors[:-1]) ** 2 - promised**2) < 5 * spread + 1e-6).all()
    rate = np.asarray(terms.diffusion.mean((0, 2))).sum() / np.log(2)
    assert 8 * len(progressive.prefixes(data)[-2]) / 100 > rate  # no code is below its divergence
    # A cut anywhere gives the last whole segment before it.
    assert codec.decode(data[: len(data) - 1]).steps == STEPS - 1


def test_a_progressive_file_that_cannot_be_is_refused(made):
    codec, levels, _ = made
    with pytest.raises(InputError, match="begins with the number of examples"):
        codec.decode(b"abc")
    with pytest.raises(InputError, match="at most 128 examples, not 200"):
        codec.encode(np.concatenate([levels, levels]))
    with pytest.raises(InputError, match="has the value 5"):
        codec.encode(levels + np.uint8(2))
