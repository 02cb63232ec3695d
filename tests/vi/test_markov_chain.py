"""Markov chain variational inference on a model whose posterior is Gaussian, so that inverse models can be perfect."""

from typing import NamedTuple

import gaussian
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffjax import vi
from diffjax.distributions import Normal
from diffjax.errors import InputError

X = gaussian.X.astype(np.float32)


def over_relaxed(i, a):
    """z_i moved by Adler's over-relaxation under p(z | x), which it leaves invariant and in detailed balance."""
    variance = 1 / gaussian.PRECISION[i, i]
    slope = -gaussian.PRECISION[i, 1 - i] * variance

    def transition(x, z):
        at = jnp.asarray(gaussian.mean(np.asarray(x)))
        centre = at[..., i] + slope * (z[..., 1 - i] - at[..., 1 - i])
        law = Normal(centre + a * (z[..., i] - centre), jnp.full(z.shape[:-1], variance * (1 - a**2)))
        return vi.Coordinate(z, i, law)

    return transition


STEPS = [(0, -0.5), (1, 0.0), (0, 0.4), (1, -0.7)]


def draw(initial, transitions, inverses, num=20_000, densities=None, x=X):
    def one(key):
        return vi.markov_chain(key, x, gaussian.log_joint, initial, transitions, inverses, densities)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num))


def initial(x):
    return Normal(jnp.asarray(gaussian.mean(np.asarray(x))) + 0.3, jnp.full((*x.shape[:-1], 2), 0.4))


def guess(i):
    """An inverse model that knows little."""

    def inverse(x, z):
        at = jnp.asarray(gaussian.mean(np.asarray(x)))
        return vi.Coordinate(z, i, Normal(1.3 * at[..., i] - 0.3 * z[..., i], jnp.full(z.shape[:-1], 0.2)))

    return inverse


@pytest.mark.fast(1)
@pytest.mark.parametrize("x", [X, X[1]], ids=["batch", "one example"])
def test_the_mean_weight_is_the_evidence(x):
    """With any inverse models, coordinates and whole vectors mixed."""

    def towards(shrink, variance):
        def law(x, z):
            at = jnp.asarray(gaussian.mean(np.asarray(x)))
            return Normal(at + shrink * (z - at) + 0.05, jnp.full(z.shape, variance))

        return law

    transitions = [over_relaxed(0, -0.5), towards(0.6, 0.3), over_relaxed(1, -0.7)]
    _, log_w = draw(initial, transitions, [guess(0), towards(0.4, 0.2), guess(1)], 40_000, x=x)
    assert (np.abs(gaussian.z_scores(log_w.reshape(40_000, -1), np.atleast_2d(x))) < 5).all()
    assert np.asarray(log_w).std(0).min() > 0.3


def test_a_density_that_is_not_the_one_drawn_from_is_seen():
    transitions, wrong = [over_relaxed(0, -0.5)], [over_relaxed(0, 0.0)]
    _, log_w = draw(initial, transitions, [guess(0)], densities=(initial, wrong))
    assert (np.abs(gaussian.z_scores(log_w, X)) > 5).all()


def test_from_the_posterior_in_detailed_balance_every_weight_is_the_evidence():
    transitions = [over_relaxed(i, a) for i, a in STEPS]
    _, log_w = draw(gaussian.Posterior, transitions, transitions, 200)
    np.testing.assert_allclose(log_w, np.tile(gaussian.log_evidence(X), (200, 1)), rtol=2e-5)


@pytest.mark.slow
def test_with_the_exact_inverse_the_bound_misses_the_evidence_by_the_kl_of_the_last_state():
    """Whole chains are one Gaussian: its last block is q(z_T), its conditionals the inverse models, from numpy."""
    x, mean0, var0 = gaussian.X[0], gaussian.mean(gaussian.X[0]) + 1.0, 0.4
    mean, factor = [mean0], [np.sqrt(var0) * np.eye(2, 2 + len(STEPS))]  # z_t = mean + factor @ noise
    for t, (i, a) in enumerate(STEPS):
        variance = 1 / gaussian.PRECISION[i, i]
        row = np.zeros(2)
        row[i], row[1 - i] = a, -(1 - a) * gaussian.PRECISION[i, 1 - i] * variance
        step = np.eye(2)
        step[i] = row
        at = gaussian.mean(x)
        mean.append(at + step @ (mean[-1] - at))
        new = step @ factor[-1]
        new[i, 2 + t] = np.sqrt(variance * (1 - a**2))
        factor.append(new)

    def exact(t, i):
        cross, cov = factor[t][i] @ factor[t + 1].T, factor[t + 1] @ factor[t + 1].T
        weights = np.linalg.solve(cov, cross)
        rest = factor[t][i] @ factor[t][i] - weights @ cross

        def inverse(x, z):
            centre = mean[t][i] + (z - mean[t + 1]) @ jnp.asarray(weights)
            return vi.Coordinate(z, i, Normal(centre, jnp.full(z.shape[:-1], rest)))

        return inverse

    transitions = [over_relaxed(i, a) for i, a in STEPS]
    inverses = [exact(t, i) for t, (i, _) in enumerate(STEPS)]
    with jax.enable_x64(True):
        z, log_w = draw(Normal(jnp.asarray(mean0), jnp.full(2, var0)), transitions, inverses, 4000, x=x)
    z, log_w = np.asarray(z), np.asarray(log_w)
    last = stats.multivariate_normal(mean[-1], factor[-1] @ factor[-1].T)
    # Draw by draw: all but z_T cancels.
    np.testing.assert_allclose(log_w, gaussian.log_joint(x, z) - last.logpdf(z), rtol=1e-9)
    shift = gaussian.mean(x) - mean[-1]
    ratio = gaussian.PRECISION @ last.cov
    kl = 0.5 * (np.trace(ratio) - 2 - np.linalg.slogdet(ratio)[1] + shift @ gaussian.PRECISION @ shift)
    assert kl > 0.01
    gap = gaussian.log_evidence(x) - log_w
    assert abs(gap.mean() - kl) < 5 * gap.std() / len(gap) ** 0.5


def test_worse_inverse_models_loosen_the_bound():
    transitions = [over_relaxed(0, -0.5)]
    good = np.asarray(draw(gaussian.Posterior, transitions, transitions)[1])
    poor = np.asarray(draw(gaussian.Posterior, transitions, [guess(0)])[1])
    assert (poor.mean(0) + 5 * poor.std(0) / len(poor) ** 0.5 < good.mean(0)).all()


def test_a_coordinate_leaves_the_others_where_they_are():
    z = jax.random.normal(jax.random.key(0), (5, 3))
    law = vi.Coordinate(z, 1, Normal(jnp.full(5, 2.0), jnp.full(5, 0.5)))
    moved = law.sample(jax.random.key(1))
    np.testing.assert_array_equal(moved[:, [0, 2]], z[:, [0, 2]])
    assert (moved[:, 1] != z[:, 1]).all()
    np.testing.assert_allclose(law.log_prob(moved), stats.norm(2.0, 0.5**0.5).logpdf(moved[:, 1]), rtol=1e-5)


class Summed(NamedTuple):
    """A Law that sums over the batch too."""

    law: vi.Coordinate

    def log_prob(self, z):
        return self.law.log_prob(z).sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(inverses=[]), "transitions has 1 entries, inverses 0"),
        (dict(densities=(initial, [])), "densities 0"),
        (dict(log_joint=lambda x, z: jnp.ones(7)), "one number per example"),
        (dict(inverses=[lambda x, z: Summed(guess(0)(x, z))]), "keep the batch axes"),
        (dict(initial=Normal(jnp.zeros(2), jnp.ones(2)), transitions=[], inverses=[]), "leading axes"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    given = dict(log_joint=gaussian.log_joint, initial=initial, transitions=[over_relaxed(0, 0.0)], inverses=[guess(0)])
    given |= dict(densities=None) | change
    with pytest.raises(InputError, match=message):
        vi.markov_chain_log_weight(
            jax.random.key(0),
            X,
            given["log_joint"],
            given["initial"],
            given["transitions"],
            given["inverses"],
            given["densities"],
        )
