"""The closed forms that everything is tested with, against scipy, finite differences, quadrature and enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from diffjax import processes, reference, schedules

W = np.array([0.2, 0.5, 0.3])
M = np.array([[1.0, -0.5, 0.0], [-1.0, 0.8, 2.0], [0.0, 0.0, -1.5]])
A = np.random.default_rng(0).normal(size=(3, 3, 3)) * 0.5
C = A @ A.transpose(0, 2, 1) + 0.3 * np.eye(3)
MIX = reference.GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in (W, M, C)))
W1, M1, C1 = np.array([0.3, 0.7]), np.array([[1.5], [-1.0]]), np.array([[[0.1]], [[0.4]]])
MIX1 = reference.GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in (W1, M1, C1)))


def density(x, w=W, m=M, c=C):
    return sum(wk * scipy.stats.multivariate_normal(mk, ck).pdf(x) for wk, mk, ck in zip(w, m, c, strict=True))


@pytest.mark.slow
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


@pytest.mark.slow
def test_score_against_finite_differences():
    x = np.random.default_rng(2).normal(size=(7, 3)) * 1.5
    got = MIX.score(jnp.asarray(x, jnp.float32))
    h = 1e-5
    for i in range(3):
        e = h * np.eye(3)[i]
        slope = (np.log(density(x + e)) - np.log(density(x - e))) / (2 * h)
        np.testing.assert_allclose(got[:, i], slope, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


# Observed mixtures -----------------------------------------------------------------------------------------------


def test_moments():
    mean = W @ M
    np.testing.assert_allclose(MIX.mean, mean, rtol=1e-5, atol=1e-6)
    cov = np.einsum("k,kij->ij", W, C + M[:, :, None] * M[:, None, :]) - np.outer(mean, mean)
    np.testing.assert_allclose(MIX.cov, cov, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_posterior_is_bayes_rule_on_densities():
    # p(x) r(x) must be Z times the posterior's density everywhere: y[1] is not observed, and NaN.
    y, precision = np.array([0.4, np.nan, -1.0]), np.array([2.0, 0.0, 0.5])
    post = MIX.posterior(jnp.asarray(y, jnp.float32), jnp.asarray(precision, jnp.float32))
    x = np.random.default_rng(3).normal(size=(50, 3))
    seen = precision > 0
    log_r = scipy.stats.norm.logpdf(y[seen], x[:, seen], precision[seen] ** -0.5).sum(1)
    log_z = np.log(density(x)) + log_r - np.asarray(post.log_prob(jnp.asarray(x, jnp.float32)), np.float64)
    np.testing.assert_allclose(log_z, log_z.mean(), atol=2e-3)
    got = MIX.log_evidence(jnp.asarray(y, jnp.float32), jnp.asarray(precision, jnp.float32))
    np.testing.assert_allclose(got, log_z.mean(), atol=1e-3)
    np.testing.assert_allclose(post.weights.sum(), 1.0, rtol=1e-6)


@pytest.mark.slow
def test_posterior_of_a_known_entry_is_the_conditional():
    y = 0.7  # of x[1]; by block formulas, component for component
    post = MIX.posterior(jnp.array([0.0, y, 0.0]), jnp.array([0.0, jnp.inf, 0.0]))
    rest = [0, 2]
    weights = W * scipy.stats.norm.pdf(y, M[:, 1], np.sqrt(C[:, 1, 1]))
    gain = C[:, rest, 1] / C[:, 1, 1, None]
    means = M[:, rest] + gain * (y - M[:, 1])[:, None]
    covs = C[:, rest][:, :, rest] - gain[:, :, None] * C[:, 1, rest][:, None, :]
    np.testing.assert_allclose(post.weights, weights / weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(post.means[:, rest], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(post.covs[:, rest][:, :, jnp.array(rest)], covs, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(post.means[:, 1], y, rtol=1e-6)
    np.testing.assert_allclose(post.covs[:, 1], 0, atol=1e-6)
    got = MIX.log_evidence(jnp.array([0.0, y, 0.0]), jnp.array([0.0, jnp.inf, 0.0]))
    np.testing.assert_allclose(got, np.log(weights.sum()), rtol=1e-5)
    # noise makes the point mass a density again
    x = post.at(0.9, 0.3).log_prob(jnp.zeros(3))
    assert np.isfinite(x)


@pytest.mark.slow
def test_expected_r_by_quadrature():
    x0, p = grid()
    schedule = schedules.vp()
    xt = np.linspace(-2, 2, 9)
    for y, precision in ((0.5, 1.0), (-0.3, 20.0), (1.2, np.inf)):
        log_r = MIX1.log_expected(schedule, jnp.array([y]), jnp.array([precision]))
        for t in (0.05, 0.3, 0.8):
            alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
            joint = scipy.stats.norm.pdf(xt[:, None], alpha * x0, sigma) * p
            if np.isinf(precision):  # the density of x_0 at y, given x_t
                q = density(np.array([[y]]), W1, M1, C1) * scipy.stats.norm.pdf(xt, alpha * y, sigma)
                want = q / joint.sum(1)
            else:
                want = joint @ scipy.stats.norm.pdf(y, x0, precision**-0.5) / joint.sum(1)
            got = log_r(jnp.asarray(xt[:, None], jnp.float32), t)
            np.testing.assert_allclose(got, np.log(want), rtol=1e-3, atol=2e-3)


# Mixtures of bits ------------------------------------------------------------------------------------------------

BITS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
WB = np.array([0.2, 0.5, 0.3])
PB = np.array([[0.1, 0.7, 0.9], [0.5, 0.2, 0.3], [1.0, 0.0, 0.6]])
MIXB = reference.BernoulliMixture(jnp.asarray(WB, jnp.float32), jnp.asarray(PB, jnp.float32))


def table(w=WB, p=PB):
    """P of all the states, by the definition."""
    return sum(wk * np.prod(np.where(BITS == 1, pk, 1 - pk), axis=1) for wk, pk in zip(w, p, strict=True))


def noising(keep, r):
    """[x_0, x_t], q(x_t | x_0) over all the states."""
    one = keep * np.eye(2) + (1 - keep) * np.array([[1 - r, r], [1 - r, r]])
    return np.kron(np.kron(one, one), one)


def test_bits_log_prob_and_sample():
    states = jnp.asarray(BITS, jnp.float32)
    np.testing.assert_allclose(np.exp(MIXB.log_prob(states)), table(), rtol=1e-5)
    only = reference.BernoulliMixture(jnp.ones(1), jnp.array([[1.0, 0.0, 0.5]]))
    np.testing.assert_array_equal(np.isneginf(only.log_prob(states)), table([1.0], np.array([[1.0, 0, 0.5]])) == 0)
    n = 100_000
    x = np.asarray(MIXB.sample(jax.random.key(0), n))
    counts = np.bincount((x @ [4, 2, 1]).astype(int), minlength=8)
    assert (np.abs(counts / n - table()) < 5 * np.sqrt(table() / n)).all()


def test_bits_noised_denoised_and_observed_by_enumeration():
    process = processes.binomial(1 / np.arange(6, 0, -1), 0.3)
    states = jnp.asarray(BITS, jnp.float32)
    observations = [([1.0, 0.0, 1.0], [0.0, 0.0, 0.0]), ([1.0, 0.0, 1.0], [3.0, 1.0, 0.0])]
    observations += [([np.nan, 0.0, 1.0], [0.0, np.inf, 2.0]), ([0.0, 1.0, 1.0], [np.inf, np.inf, 0.0])]

    @jax.jit
    def all_of_it(t, y, precision):
        noised, post = MIXB.at(process, t).log_prob(states), MIXB.posterior(y, precision).log_prob(states)
        expected = MIXB.log_expected(process, y, precision)(states, jnp.full(8, t))
        return noised, MIXB.predict(process)(states, t), MIXB.log_evidence(y, precision), post, expected

    for i, (y, precision) in itertools.product((1, 3, 6), observations):
        t, joint = i / 6, table()[:, None] * noising(1 - i / 6, 0.3)
        noised, prediction, evidence, post, expected = all_of_it(t, jnp.array(y), jnp.array(precision))
        np.testing.assert_allclose(np.exp(noised), joint.sum(0), rtol=1e-4)
        assert prediction.kind == "logits"
        np.testing.assert_allclose(
            jax.nn.sigmoid(prediction.value), (joint.T @ BITS) / joint.sum(0)[:, None], rtol=1e-4
        )
        off = np.where((np.array(y) == BITS) | (np.array(precision) == 0), 0.0, 0.5 * np.array(precision))
        r = np.exp(-off.sum(1))
        np.testing.assert_allclose(np.exp(evidence), table() @ r, rtol=1e-5)
        np.testing.assert_allclose(np.exp(post), table() * r / (table() @ r), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(np.exp(expected), (joint.T @ r) / joint.sum(0), rtol=1e-4, atol=1e-7)


def test_bits_of_a_point_mass():
    # Two sequences, each certain: x_t is one of them plus noise, and near t = 0 there is hardly a doubt.
    mix = reference.BernoulliMixture(jnp.full(2, 0.5), jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
    process = processes.binomial(np.full(100, 0.01), 0.5)
    logits = jax.jit(mix.predict(process))(jnp.array([[1.0, 0.0, 1.0]]), 0.01).value[0]
    odds = 2 * np.log(0.995 / 0.005)
    np.testing.assert_allclose(logits, [odds, -odds, np.inf], rtol=1e-4)


# Sharp observations, types, programs -----------------------------------------------------------------------------


def test_posterior_of_sharp_observations_has_their_variance():
    """By the information form in float64: in float32 C minus C C/(C + 1e-7) is 0."""
    post = jax.jit(lambda y, precision: MIX.posterior(y, precision))
    y = np.array([0.4, -0.7, 0.1])
    c, m = (np.float64(part) for part in (MIX.covs, MIX.means))
    for precision in ([1e7, 0.0, 0.0], [1e7, 1e7, 1e7], [1e4, 0.0, 1e10], [0.0, 3.0, 1e9]):
        got = post(jnp.asarray(y, jnp.float32), jnp.asarray(precision, jnp.float32))
        exact = np.linalg.inv(np.linalg.inv(c) + np.diag(precision))
        # Relative to the standard deviations of the entries, which differ by five decades.
        std = np.sqrt(np.diagonal(exact, axis1=1, axis2=2))
        np.testing.assert_allclose(
            got.covs / (std[:, :, None] * std[:, None, :]), exact / (std[:, :, None] * std[:, None]), atol=1e-3
        )
        means = np.einsum("kij,kj->ki", exact, np.einsum("kij,kj->ki", np.linalg.inv(c), m) + np.array(precision) * y)
        np.testing.assert_allclose(got.means, means, atol=5e-6)


def test_bits_after_hardly_any_time_and_other_things_than_bits():
    process = processes.binomial(schedules.vp(), 0.5)
    noised = reference.BernoulliMixture(jnp.ones(1), jnp.zeros((1, 2))).at(process, 1e-7)
    rate = 1e-7 * 0.1  # the least rate of `vp`
    np.testing.assert_allclose(noised.probs, rate / 2, rtol=1e-5)
    got = MIXB.log_prob(jnp.array([[1.0, 0.0, 1.0], [0.5, 0.0, 1.0], [2.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]))
    np.testing.assert_array_equal(np.isneginf(got), [False, True, True, True])


@pytest.mark.fast(1)
@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_mixtures_keep_the_type_of_their_parameters(promotion):
    """float32 though x64 is on; 16 bits of x count as float32; x in float64 gives float64."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        schedule, process = schedules.vp(), processes.binomial(schedules.vp(), 0.5)
        key, t = jax.random.key(0), jnp.float64(0.5)

        def normal(x):
            post = MIX.posterior(x[0], jnp.ones(3))
            own = (MIX.mean, MIX.cov, MIX.sample(key, 2), MIX.at(t, t), post, MIX.log_evidence(x[0], jnp.ones(3)))
            of_x = MIX.log_prob(x), MIX.score(x), MIX.predict(schedule)(x, t).value
            return own, (*of_x, MIX.log_expected(schedule, x[0], jnp.ones(3))(x, t))

        def bits(x):
            own = MIXB.sample(key, 2), MIXB.at(process, t), MIXB.posterior(x[0], jnp.ones(3))
            return own, MIXB.log_prob(x)

        for of_x, wanted in ((jnp.float32, jnp.float32), (jnp.bfloat16, jnp.float32), (jnp.float64, jnp.float64)):
            for law in (normal, bits):
                own, of = jax.eval_shape(law, jnp.ones((2, 3), of_x))
                assert {leaf.dtype for leaf in jax.tree.leaves(own)} == {jnp.dtype(jnp.float32)}, law
                assert {leaf.dtype for leaf in jax.tree.leaves(of)} == {jnp.dtype(wanted)}, (law, of_x)
