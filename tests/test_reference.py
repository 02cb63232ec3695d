"""The closed forms that everything is tested with, against scipy, finite differences and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

from diffjax import reference, schedules

W = np.array([0.2, 0.5, 0.3])
M = np.array([[1.0, -0.5, 0.0], [-1.0, 0.8, 2.0], [0.0, 0.0, -1.5]])
A = np.random.default_rng(0).normal(size=(3, 3, 3)) * 0.5
C = A @ A.transpose(0, 2, 1) + 0.3 * np.eye(3)
MIX = reference.GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in (W, M, C)))
W1, M1, C1 = np.array([0.3, 0.7]), np.array([[1.5], [-1.0]]), np.array([[[0.1]], [[0.4]]])
MIX1 = reference.GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in (W1, M1, C1)))


def density(x, w=W, m=M, c=C):
    return sum(wk * scipy.stats.multivariate_normal(mk, ck).pdf(x) for wk, mk, ck in zip(w, m, c, strict=True))


def test_log_prob_against_scipy():
    x = np.random.default_rng(1).normal(size=(4, 5, 3)) * 2
    got = MIX.log_prob(jnp.asarray(x, jnp.float32))
    assert got.shape == (4, 5)
    np.testing.assert_allclose(got, np.log(density(x)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(MIX.log_prob(jnp.asarray(x[1, 2], jnp.float32)), np.log(density(x[1, 2])), rtol=1e-4)
    # far from every component, where each density underflows
    far = np.array([60.0, -60.0, 60.0])
    want = scipy.special.logsumexp(
        [np.log(w) + scipy.stats.multivariate_normal(m, c).logpdf(far) for w, m, c in zip(W, M, C, strict=True)]
    )
    np.testing.assert_allclose(MIX.log_prob(jnp.asarray(far, jnp.float32)), want, rtol=1e-4)


def test_score_against_finite_differences():
    x = np.random.default_rng(2).normal(size=(7, 3)) * 1.5
    got = MIX.score(jnp.asarray(x, jnp.float32))
    h = 1e-5
    for i in range(3):
        e = h * np.eye(3)[i]
        slope = (np.log(density(x + e)) - np.log(density(x - e))) / (2 * h)
        np.testing.assert_allclose(got[:, i], slope, rtol=2e-3, atol=2e-3)


def test_samples():
    n = 100_000
    x = np.float64(MIX.sample(jax.random.key(0), n))
    mean = W @ M
    cov = np.einsum("k,kij->ij", W, C + M[:, :, None] * M[:, None, :]) - np.outer(mean, mean)
    assert (np.abs(x.mean(0) - mean) < 5 * np.sqrt(np.diag(cov) / n)).all()
    products = np.einsum("ni,nj->nij", x - mean, x - mean)
    assert (np.abs(products.mean(0) - cov) < 5 * products.std(0) / np.sqrt(n)).all()
    # the whole distribution in one dimension
    y = np.float64(MIX1.sample(jax.random.key(1), 20_000))[:, 0]

    def cdf(v):
        return sum(w * scipy.stats.norm.cdf(v, m[0], np.sqrt(c[0, 0])) for w, m, c in zip(W1, M1, C1, strict=True))

    assert scipy.stats.kstest(y, cdf).pvalue > 1e-6


def grid():
    """Points and weights of a fine quadrature over x_0, in one dimension."""
    x0 = np.linspace(-8, 8, 8001)
    return x0, density(x0[:, None], W1, M1, C1) * (x0[1] - x0[0])


def test_noised_marginal_is_the_convolution():
    x0, p = grid()
    xt = np.linspace(-3, 3, 13)
    for alpha, sigma in ((1.0, 0.0), (0.99, 0.14), (0.5, 0.8), (0.7, 2.5)):
        got = MIX1.at(alpha, sigma).log_prob(jnp.asarray(xt[:, None], jnp.float32))
        if sigma == 0:
            want = density(xt[:, None], W1, M1, C1)
        else:
            want = scipy.stats.norm.pdf(xt[:, None], alpha * x0, sigma) @ p
        np.testing.assert_allclose(got, np.log(want), rtol=1e-4, atol=1e-4)


def test_predict_is_the_mean_of_the_noise():
    x0, p = grid()
    schedule = schedules.vp()
    predict = MIX1.predict(schedule)
    for t in (0.02, 0.1, 0.4, 0.9):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        xt = alpha * np.array([1.4, -1.0, 0.3, 2.0, -2.0])
        joint = scipy.stats.norm.pdf(xt[:, None], alpha * x0, sigma) * p
        want = (joint * (xt[:, None] - alpha * x0) / sigma).sum(1) / joint.sum(1)
        prediction = predict(jnp.asarray(xt[:, None], jnp.float32), jnp.full(5, t))
        assert prediction.kind == "eps"
        np.testing.assert_allclose(prediction.value[:, 0], want, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(predict(jnp.asarray(xt[:, None], jnp.float32), t).value, prediction.value, rtol=1e-6)


def test_differentiable_and_vmappable():
    # d log p/d(mean of a single Gaussian) = C⁻¹(x - m), over a batch of mixtures
    means = jnp.array([[[0.3, 0.1]], [[-1.0, 0.5]]])
    cov = jnp.array([[0.5, 0.2], [0.2, 0.4]])
    x = jnp.array([0.7, -0.2])

    def log_prob(mean):
        return reference.GaussianMixture(jnp.ones(1), mean, cov[None]).log_prob(x)

    got = jax.jit(jax.vmap(jax.grad(log_prob)))(means)[:, 0]
    want = np.linalg.solve(np.float64(cov), (np.float64(x) - np.float64(means[:, 0])).T).T
    np.testing.assert_allclose(got, want, rtol=1e-4)
