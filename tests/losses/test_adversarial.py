"""Losses of a generator and a discriminator, against sums over a few points, integrals and distances in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from diffjax.evaluation.discrimination import ranking
from diffjax.evaluation.modes import coverage
from diffjax.losses.adversarial import GAMES, gradient_penalty, r1

P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
BEST = np.log(P / Q)


def loss_of_discriminator(name, logits):
    """E_p, E_q of the loss of D, on three points."""
    pairs = GAMES[name].discriminator(logits[:, None], logits[None, :])  # (x, y)
    return P @ pairs @ Q


def test_the_best_discriminator_gives_the_divergence_of_jensen_and_shannon():
    middle = (P + Q) / 2
    divergence = 0.5 * scipy.special.rel_entr(P, middle).sum() + 0.5 * scipy.special.rel_entr(Q, middle).sum()
    value, slope = jax.value_and_grad(lambda d: loss_of_discriminator("non_saturating", d))(jnp.asarray(BEST))
    np.testing.assert_allclose(value, 2 * np.log(2) - 2 * divergence, rtol=1e-6)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)


def test_the_best_critic_of_the_hinge_loss_gives_the_total_variation():
    """The least loss is 2 Σ min(p, q) = 2 - 2 TV, at D = sign(p - q) (Lim & Ye 2017, theorem 1)."""
    value = loss_of_discriminator("hinge", jnp.sign(P - Q))
    np.testing.assert_allclose(value, 2 * np.minimum(P, Q).sum(), rtol=1e-6)
    for other in np.random.default_rng(0).normal(size=(200, 3)):
        assert loss_of_discriminator("hinge", jnp.asarray(other)) >= value - 1e-6


def test_the_generator_s_gradient_is_that_of_two_divergences():
    """With the best D, that of KL(q ‖ p) - 2 JSD(p, q) (Arjovsky & Bottou 2017, theorem 2.5), here of q = N(θ, 1)."""
    x = np.linspace(-9.0, 9.0, 2001)
    dx, theta, p = x[1] - x[0], 0.7, scipy.stats.norm.pdf(x, -0.4, 1.5)

    def distance(theta):
        q = scipy.stats.norm.pdf(x, theta, 1.0)
        kl, middle = scipy.special.rel_entr(q, p).sum(), (p + q) / 2
        return dx * (kl - scipy.special.rel_entr(p, middle).sum() - scipy.special.rel_entr(q, middle).sum())

    want = (distance(theta + 1e-4) - distance(theta - 1e-4)) / 2e-4

    def critic(y):  # log p/q at the θ of now
        return jax.scipy.stats.norm.logpdf(y, -0.4, 1.5) - jax.scipy.stats.norm.logpdf(y, theta, 1.0)

    z, weight = x, scipy.stats.norm.pdf(x) * dx
    got = jax.grad(lambda at: weight @ GAMES["non_saturating"].generator(critic(at + jnp.asarray(z))))(theta)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_penalties_of_a_quadratic_critic():
    """D(x) = ½ x'Ax, ∇D = A x."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 3))
    a = a + a.T
    real, fake, u = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.random(5)

    def critic(x):
        return 0.5 * jnp.einsum("ni,ij,nj->n", x, a, x)

    between = u[:, None] * real + (1 - u[:, None]) * fake
    found = gradient_penalty(critic, *map(jnp.asarray, (real, fake, u)))
    np.testing.assert_allclose(found, (np.linalg.norm(between @ a, axis=1) - 1) ** 2, rtol=1e-4)
    np.testing.assert_allclose(r1(critic, jnp.asarray(real)), 0.5 * (real @ a * (real @ a)).sum(1), rtol=1e-5)
    assert np.isfinite(jax.grad(lambda x: gradient_penalty(critic, x, x, jnp.ones(5)).sum())(jnp.zeros((5, 3)))).all()


def test_the_best_linear_critic_of_two_gaussians():
    """Of N(m, S) and N(0, S) W_1 = |m|. D = a·x with penalty λ has a = (1 + |m|/2λ) m/|m| and gains |m| + |m|²/4λ."""
    m, weight = np.array([1.5, -2.0]), 10.0
    size = np.linalg.norm(m)
    z = np.random.default_rng(0).normal(size=(64, 2))
    real, fake = jnp.asarray(m + z), jnp.asarray(z)  # the same noise: the means differ by m exactly

    def loss(a):
        def critic(x):
            return jnp.einsum("ni,i->n", x, a)

        found = GAMES["wasserstein"].discriminator(critic(real), critic(fake))
        return (found + weight * gradient_penalty(critic, real, fake, jnp.full(64, 0.3))).mean()

    value, slope = jax.value_and_grad(loss)(jnp.asarray((1 + size / (2 * weight)) * m / size))
    np.testing.assert_allclose(slope, 0.0, atol=1e-4)
    np.testing.assert_allclose(-value, size + size**2 / (4 * weight), rtol=1e-5)


def test_the_area_under_the_curve():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0.8, 1.0, 4000), rng.normal(0.0, 1.0, 3000)
    share, error = ranking(real, fake)
    pairs = (real[:, None] > fake).mean()  # no ties
    np.testing.assert_allclose(share, pairs, rtol=1e-12)
    assert abs(share - scipy.stats.norm.cdf(0.8 / np.sqrt(2))) < 5 * error
    spread = np.std([ranking(rng.normal(0.8, 1.0, 400), rng.normal(size=300))[0] for _ in range(300)])
    usual = np.mean([ranking(rng.normal(0.8, 1.0, 400), rng.normal(size=300))[1] for _ in range(30)])
    assert abs(spread / usual - 1) < 5 / np.sqrt(2 * 300) + 0.02
    assert ranking(np.zeros(5), np.zeros(4))[0] == 0.5


def test_coverage_of_modes():
    """Of true draws exp(-r²/2s²) are farther than r from their mode."""
    rng, modes = np.random.default_rng(0), 5.0 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    which, n = rng.integers(0, 4, 20_000), 20_000
    found = coverage(modes[which] + 0.2 * rng.normal(size=(n, 2)), modes, 0.6)
    near = 1 - np.exp(-0.5 * 9)
    assert abs(found.near - near) < 5 * np.sqrt(near * (1 - near) / n) and found.covered == 4
    np.testing.assert_allclose(found.shares, near / 4, atol=5 * np.sqrt(0.25 * 0.75 / n))
    lost = coverage(modes[which % 2] + 0.2 * rng.normal(size=(n, 2)), modes, 0.6)
    assert lost.covered == 2 and lost.shares[2:].sum() == 0
    thin = np.concatenate([np.repeat(modes[:3], 100, 0), np.repeat(modes[3:], 7, 0)])  # 7 of 307 is below 1/40
    assert coverage(thin, modes, 0.6).covered == 3


@pytest.mark.parametrize("name", list(GAMES))
def test_each_side_gains_where_the_critic_rises(name):
    """D's loss falls with D(x) and rises with D(y); G's falls with D(y)."""
    game, d = GAMES[name], jnp.array([-0.5, 0.0, 0.5])
    assert (jax.vmap(jax.grad(lambda r: game.discriminator(r, 0.0 * r)))(d) < 0).all()
    assert (jax.vmap(jax.grad(lambda f: game.discriminator(0.0 * f, f)))(d) > 0).all()
    assert (jax.vmap(jax.grad(game.generator))(d) < 0).all()
