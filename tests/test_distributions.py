"""Distributions against scipy.stats, mpmath-free float64 formulae and counts of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from diffjax.distributions import Bernoulli, DiscretizedLogistic, DiscretizedNormal, Gamma, Normal

NORMALS = [(0.0, 1.0, 0.3, 0.5), (-2.0, 1e-4, -2.001, 2e-4), (5.0, 30.0, -1.0, 7.0), (0.1, 0.3, 0.1, 0.3)]


def kl_normal(m1, v1, m2, v2):
    """KL by the textbook formula, in float64."""
    m1, v1, m2, v2 = (np.asarray(x, np.float64) for x in (m1, v1, m2, v2))
    return 0.5 * ((m1 - m2) ** 2 / v2 + v1 / v2 - 1 - np.log(v1 / v2))


@pytest.mark.parametrize(("m1", "v1", "m2", "v2"), NORMALS)
def test_normal_against_scipy(m1, v1, m2, v2):
    p, q = Normal(jnp.float32(m1), jnp.float32(v1)), Normal(jnp.float32(m2), jnp.float32(v2))
    ref = scipy.stats.norm(np.float64(p.mean), np.sqrt(np.float64(p.variance)))
    other = scipy.stats.norm(np.float64(q.mean), np.sqrt(np.float64(q.variance)))
    x = np.float32(ref.mean() + ref.std() * np.linspace(-6, 6, 25))
    np.testing.assert_allclose(p.log_prob(jnp.asarray(x)), ref.logpdf(np.float64(x)), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(p.entropy(), ref.entropy(), rtol=1e-6)

    def integrand(z):  # the definition of KL, by quadrature
        x = ref.mean() + ref.std() * z
        return scipy.stats.norm.pdf(z) * (ref.logpdf(x) - other.logpdf(x))

    kl, _ = scipy.integrate.quad(integrand, -12, 12, epsabs=1e-12)
    np.testing.assert_allclose(p.kl(q), kl, rtol=2e-5, atol=1e-7)


def test_normal_kl_of_nearly_equal_variances():
    # In a diffusion nearly all terms are such: v1/v2 - 1 - log(v1/v2) as written would be rounding noise of 1e-7.
    v2 = np.float32(0.37)
    v1 = v2 * np.float32(1) + np.float32([-3e-2, -1e-3, -1e-4, -1e-5, 0, 1e-5, 1e-4, 1e-3, 3e-2])
    kl = np.asarray(Normal(jnp.zeros(9), jnp.asarray(v1)).kl(Normal(jnp.zeros(9), jnp.full(9, v2))))
    r = (v1.astype(np.float64) - v2) / v2
    np.testing.assert_allclose(kl, kl_normal(0, v1, 0, v2), rtol=1e-6, atol=1e-7 * np.abs(r).max())
    assert (np.abs(kl - kl_normal(0, v1, 0, v2)) <= 1e-7 * np.abs(r)).all()
    assert (kl >= 0).all()


@pytest.mark.parametrize("ratio", [1e-30, 1e-8, 1e-6, 1e-4, 0.1, 0.4999, 0.5, 0.5001, 1.4999, 1.5001, 10.0, 1e8])
def test_normal_kl_of_very_different_variances(ratio):
    v1, v2 = np.float32(ratio) * np.float32(0.5), np.float32(0.5)
    kl = Normal(jnp.float32(0.1), v1).kl(Normal(jnp.float32(0.2), v2))
    np.testing.assert_allclose(kl, kl_normal(np.float32(0.1), v1, np.float32(0.2), v2), rtol=1e-6)


@pytest.mark.parametrize("ratio", [1e-12, 0.3, 0.5, 1.0, 1.0001, 1.5, 3.0, 1e6])
def test_normal_kl_gradient(ratio):
    got = jax.grad(lambda v: Normal(jnp.zeros(()), v).kl(Normal(jnp.zeros(()), jnp.float32(2.0))))(
        jnp.float32(2 * ratio)
    )
    np.testing.assert_allclose(got, 0.5 * (0.5 - 1 / (2 * ratio)), rtol=1e-5, atol=1e-7)


def test_normal_samples_have_the_stated_moments():
    n = 200_000
    mean, variance = jnp.array([[1.0], [-3.0]]), jnp.array([0.25, 4.0, 1e-6])
    dist = Normal(mean, variance)
    draws = np.asarray(jax.vmap(dist.sample)(jax.random.split(jax.random.key(0), n)), np.float64)
    assert draws.shape[1:] == dist.shape == (2, 3)
    std = np.sqrt(np.broadcast_to(variance, (2, 3)))
    assert (np.abs(draws.mean(0) - np.asarray(mean)) < 5 * std / np.sqrt(n)).all()
    assert (np.abs(draws.var(0) / std**2 - 1) < 5 * np.sqrt(2 / n) + 1e-3 * (std < 1e-2)).all()
    # Elements are independent: one draw broadcast over the shape would have the right moments too.
    corr = np.corrcoef(draws.reshape(n, 6).T) - np.eye(6)
    assert np.abs(corr).max() < 5 / np.sqrt(n) * 1.2


LOGITS = np.float32([-87.0, -40.0, -17.0, -3.0, -1e-3, 0.0, 0.5, 3.0, 17.0, 40.0, 87.0])


def test_bernoulli_against_scipy():
    p = Bernoulli(jnp.asarray(LOGITS))
    logits = LOGITS.astype(np.float64)
    prob = scipy.special.expit(logits)
    np.testing.assert_allclose(p.mean, prob, rtol=1e-5)
    np.testing.assert_allclose(p.variance, prob * scipy.special.expit(-logits), rtol=1e-5)
    # log P(0), log P(1), far beyond where 1 - P rounds to 1
    np.testing.assert_allclose(p.log_prob(jnp.ones(11)), scipy.special.log_expit(logits), rtol=1e-5)
    np.testing.assert_allclose(p.log_prob(jnp.zeros(11)), scipy.special.log_expit(-logits), rtol=1e-5)
    moderate = np.abs(LOGITS) < 5
    ref = scipy.stats.bernoulli(prob[moderate])
    np.testing.assert_allclose(np.asarray(p.entropy())[moderate], ref.entropy(), rtol=1e-5)
    # H -> |l| e^{-|l|} in the tails
    tail = np.abs(LOGITS) > 16
    l = np.abs(logits[tail])
    np.testing.assert_allclose(np.asarray(p.entropy())[tail], (l + 1) * np.exp(-l), rtol=1e-4)


def test_bernoulli_kl_at_every_pair_of_logits():
    a, b = (x.astype(np.float64) for x in np.meshgrid(LOGITS, LOGITS))
    le = scipy.special.log_expit
    want = scipy.special.expit(a) * (le(a) - le(b)) + scipy.special.expit(-a) * (le(-a) - le(-b))
    got = np.asarray(Bernoulli(jnp.asarray(a, jnp.float32)).kl(Bernoulli(jnp.asarray(b, jnp.float32))))
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7)
    grads = jax.grad(lambda a, b: Bernoulli(a).kl(Bernoulli(b)).sum(), (0, 1))(jnp.asarray(a), jnp.asarray(b))
    # d/da = σ'(a)(a - b), d/db = σ(b) - σ(a)
    slope = scipy.special.expit(a) * scipy.special.expit(-a)
    np.testing.assert_allclose(grads[0], slope * (a - b), rtol=1e-4, atol=1e-5)  # σ(17) rounds to 1
    np.testing.assert_allclose(grads[1], scipy.special.expit(b) - scipy.special.expit(a), rtol=1e-4, atol=1e-6)


def test_bernoulli_of_infinite_logits_is_a_point_mass():
    inf = jnp.inf
    l = jnp.array([inf, -inf, inf, -inf])
    x = jnp.array([1.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(Bernoulli(l).log_prob(x), [0, 0, -inf, -inf])
    np.testing.assert_array_equal(Bernoulli(l).entropy(), 0)
    a, b = jnp.array([inf, -inf, inf, -inf, 0.3, inf, -inf]), jnp.array([inf, -inf, -inf, inf, inf, 0.3, 0.3])
    le = scipy.special.log_expit
    want = [0, 0, inf, inf, inf, -le(np.float32(0.3)), -le(-np.float32(0.3))]
    np.testing.assert_allclose(Bernoulli(a).kl(Bernoulli(b)), want, rtol=1e-6)
    np.testing.assert_array_equal(Bernoulli(jnp.array([inf, -inf])).sample(jax.random.key(0)), [1, 0])
    # Next to point masses the gradients of finite logits are what they were: of log P(x) x - σ(l), of KL σ(b) - σ(a).
    grad = jax.grad(lambda l: Bernoulli(l).log_prob(jnp.array([1.0, 0.0, 1.0])).sum())(jnp.array([inf, -inf, 0.4]))
    np.testing.assert_allclose(grad, [0, 0, 1 - scipy.special.expit(0.4)], rtol=1e-6)
    a, b = jnp.array([inf, -inf, inf, 0.1]), jnp.array([inf, -inf, 0.3, 0.2])
    grads = jax.grad(lambda a, b: Bernoulli(a).kl(Bernoulli(b)).sum(), (0, 1))(a, b)
    slope = scipy.special.expit(0.1) * scipy.special.expit(-0.1) * (0.1 - 0.2)
    np.testing.assert_allclose(grads[0], [0, 0, 0, slope], rtol=1e-4)
    e = scipy.special.expit
    np.testing.assert_allclose(grads[1], [0, 0, e(0.3) - 1, e(0.2) - e(0.1)], rtol=1e-4)


def test_bernoulli_sample_frequencies():
    n = 100_000
    p = Bernoulli(jnp.array([-100.0, -2.0, 0.0, 1.0, 100.0]))
    draws = np.asarray(jax.vmap(p.sample)(jax.random.split(jax.random.key(1), n)))
    assert set(np.unique(draws)) == {0.0, 1.0}
    mean = np.asarray(p.mean, np.float64)
    assert (np.abs(draws.mean(0) - mean) <= 5 * np.sqrt(mean * (1 - mean) / n) + 1e-12).all()


# Discretised Normal ----------------------------------------------------------------------------------------------

MEANS = np.float32([-3.0, -1.0, -0.9961, -0.3, 0.0, 0.02, 0.77, 1.0, 1.5])
STDS = np.float32([1e-3, 3e-3, 1e-2, 0.1, 1.0, 10.0])


def bin_log_probs(mean, std, num_bins):
    """log P of every bin, (num_bins, *shape), in float64: each difference from the side where nothing cancels."""
    centre = np.linspace(-1.0, 1.0, num_bins).reshape(-1, *[1] * np.ndim(mean))
    edge = 1.0 / (num_bins - 1)
    low = np.where(centre < -1 + edge / 2, -np.inf, (centre - edge - mean) / std)
    high = np.where(centre > 1 - edge / 2, np.inf, (centre + edge - mean) / std)
    low, high = np.where(low + high > 0, -high, low), np.where(low + high > 0, -low, high)
    with np.errstate(divide="ignore"):
        a, b = scipy.special.log_ndtr(low), scipy.special.log_ndtr(high)
        return b + np.log1p(-np.exp(a - b))


@pytest.mark.parametrize("num_bins", [2, 17, 256])
def test_bins_against_float64_and_sum_to_one(num_bins):
    mean, std = (x.ravel() for x in np.meshgrid(MEANS, STDS))
    variance = np.float32(std) ** 2
    dist = DiscretizedNormal(jnp.asarray(mean), jnp.asarray(variance), num_bins)
    got = np.asarray(jax.jit(lambda x: dist.log_prob(x))(dist.bins[:, None]), np.float64)
    want = bin_log_probs(mean.astype(np.float64), np.sqrt(variance.astype(np.float64)), num_bins)
    assert (got <= 0).all()
    np.testing.assert_allclose(np.exp(got).sum(0), 1.0, atol=2e-5)
    # Float32 inputs limit this, not the formula: a half-width of 1/255 around x carries the rounding of x, 6e-8, over
    # std, and the slope of log P in its argument is about |x - mean|/std. The wide Normals lose 6e-8/width of Φ.
    z = np.abs(np.linspace(-1, 1, num_bins)[:, None] - mean) / std
    tolerance = 1e-4 + 2e-6 * z**2 + 3e-7 * (1 + z) / std + 2e-7 * std * num_bins
    assert (np.abs(got - want) <= tolerance).all(), np.abs(got - want).max()


def test_bin_probability_by_hand():
    # num_bins = 3: bins (-∞, -½], (-½, ½], (½, ∞); N(0, ½²) puts Φ(1) - Φ(-1) in the middle.
    p = np.exp(jax.jit(DiscretizedNormal(jnp.zeros(1), jnp.full(1, 0.25), 3).log_prob)(jnp.array([-1.0, 0.0, 1.0])))
    np.testing.assert_allclose(p, [0.15865525, 0.68268949, 0.15865525], rtol=1e-6)


@pytest.mark.parametrize("num_bins", [17, 256])
def test_discretized_gradient_is_finite_and_right(num_bins):
    mean, std = (jnp.asarray(x.ravel()) for x in np.meshgrid(np.append(MEANS, [-30.0, 30.0]), STDS))

    def total(mean, log_std):
        dist = DiscretizedNormal(mean, jnp.exp(2 * log_std), num_bins)
        return dist.log_prob(dist.bins[:, None])

    grads = jax.jit(jax.jacfwd(lambda shift, scale: total(mean + shift, jnp.log(std) + scale), (0, 1)))(0.0, 0.0)
    back = jax.jit(jax.grad(lambda m, s: total(m, s).sum(), (0, 1)))(mean, jnp.log(std))
    for g in (*grads, *back):
        assert np.isfinite(g).all()
    # against finite differences of the float64 formula, where the probability is not astronomically small
    m, s = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    h = 1e-5 * s
    slope = (bin_log_probs(m + h, s, num_bins) - bin_log_probs(m - h, s, num_bins)) / (2 * h)
    want = bin_log_probs(m, s, num_bins)
    check = (want > -50) & (s >= 1e-2) & (s <= 1)
    scale = 1 / np.broadcast_to(s, want.shape)
    assert check.sum() > 1000 * num_bins / 256
    assert (np.abs(np.asarray(grads[0]) - slope) / scale)[check].max() < 5e-3


@pytest.mark.parametrize(("num_bins", "mean", "std"), [(17, 0.3, 0.4), (17, -1.4, 0.5), (256, 0.1, 0.02)])
def test_discretized_sample_frequencies(num_bins, mean, std):
    n = 100_000
    dist = DiscretizedNormal(jnp.full(n, mean), jnp.full(n, std**2), num_bins)
    draws = np.asarray(jax.jit(dist.sample)(jax.random.key(2)))
    index = (draws + 1) * (num_bins - 1) / 2
    assert np.abs(index - index.round()).max() < 1e-4, "samples must sit on the bins"
    count = np.bincount(index.round().astype(int), minlength=num_bins)
    expected = n * np.exp(bin_log_probs(np.float64(mean), np.float64(std), num_bins))
    keep = expected > 5
    chi2 = ((count - expected)[keep] ** 2 / expected[keep]).sum()
    assert scipy.stats.chi2(keep.sum() - 1).sf(chi2) > 1e-6
    assert count[~keep].sum() < 5 * np.sqrt(expected[~keep].sum() + 1) + 5
    # a sample scores as the bin it fell in
    want = bin_log_probs(np.float64(mean), np.float64(std), num_bins)[index.round().astype(int)]
    np.testing.assert_allclose(jax.jit(dist.log_prob)(jnp.asarray(draws)), want, atol=2e-3)


def test_discretized_kl_and_entropy_are_sums_over_bins():
    mean, var = np.float64([[0.1, -1.2], [0.9, 0.0]]), np.float64([0.04, 0.5])
    p = DiscretizedNormal(jnp.asarray(mean, jnp.float32), jnp.asarray(var, jnp.float32), 17)
    q = DiscretizedNormal(jnp.float32(0.3), jnp.float32(0.2), 17)
    lp = bin_log_probs(mean, np.sqrt(var), 17)
    lq = bin_log_probs(np.full_like(mean, 0.3), np.sqrt(0.2), 17)
    entropy, kl, nothing = jax.jit(lambda p, q: (p.entropy(), p.kl(q), p.kl(p)))(p, q)
    np.testing.assert_allclose(entropy, -(np.exp(lp) * lp).sum(0), rtol=1e-4)
    np.testing.assert_allclose(kl, (np.exp(lp) * (lp - lq)).sum(0), rtol=1e-4)
    np.testing.assert_allclose(nothing, 0.0, atol=1e-7)


# Discretised logistic --------------------------------------------------------------------------------------------


def logistic_log_probs(mean, scale, num_bins):
    """As `bin_log_probs`, from scipy's cdf and survival function in float64, whichever side is small."""
    centre = np.linspace(-1.0, 1.0, num_bins).reshape(-1, *[1] * np.ndim(mean))
    edge = 1.0 / (num_bins - 1)
    low = np.where(centre < -1 + edge / 2, -np.inf, (centre - edge - mean) / scale)
    high = np.where(centre > 1 - edge / 2, np.inf, (centre + edge - mean) / scale)
    law = scipy.stats.logistic
    with np.errstate(divide="ignore"):
        above = np.log(law.sf(low) - law.sf(high))
        return np.where(low + high > 0, above, np.log(law.cdf(high) - law.cdf(low)))


@pytest.mark.parametrize("num_bins", [2, 17, 256])
def test_logistic_bins_against_scipy_and_sum_to_one(num_bins):
    mean, scale = (x.ravel() for x in np.meshgrid(MEANS, STDS))
    dist = DiscretizedLogistic(jnp.asarray(mean), jnp.asarray(scale), num_bins)
    got = np.asarray(jax.jit(dist.log_prob)(dist.bins[:, None]), np.float64)
    want = logistic_log_probs(mean.astype(np.float64), scale.astype(np.float64), num_bins)
    assert (got <= 0).all()
    np.testing.assert_allclose(np.exp(got).sum(0), 1.0, atol=2e-5)
    # log P has a slope of at most 1/scale in x, whose rounding error is 6e-8 of up to 4.
    seen = want > -600
    assert seen.mean() > 0.7
    tolerance = 2e-6 * (1 + np.abs(want)) + 3e-7 / scale
    assert (np.abs(got - want) <= tolerance)[seen].all(), (np.abs(got - want) / tolerance)[seen].max()


def test_logistic_bins_far_in_the_tails_fall_by_their_distance():
    """There log P = -|x - m|/s plus a constant, long after both cdfs have rounded to 0 or 1."""
    scale = np.float32(1e-3)
    for mean, x in [(-1.0, 1.0), (1.0, -1.0), (-30.0, 0.0), (30.0, 0.0)]:
        dist = DiscretizedLogistic(jnp.float32(mean), scale, 17)
        open_end = abs(x) == 1
        distance = abs(x - mean) - 1 / 16
        want = -distance / scale + (0 if open_end else np.log1p(-np.exp(-(2 / 16) / scale)))
        np.testing.assert_allclose(dist.log_prob(jnp.float32(x)), want, rtol=1e-5)
        slope = jax.grad(lambda m, x=x: DiscretizedLogistic(m, scale, 17).log_prob(jnp.float32(x)))(jnp.float32(mean))
        np.testing.assert_allclose(slope, np.sign(x - mean) / scale, rtol=1e-5)


def test_logistic_gradient_is_finite_and_right():
    num_bins = 17
    mean, scale = (jnp.asarray(x.ravel()) for x in np.meshgrid(np.append(MEANS, [-30.0, 30.0]), STDS))

    def table(mean, log_scale):
        dist = DiscretizedLogistic(mean, jnp.exp(log_scale), num_bins)
        return dist.log_prob(dist.bins[:, None])

    shifted = jax.jit(jax.jacfwd(lambda a, b: table(mean + a, jnp.log(scale) + b), (0, 1)))(0.0, 0.0)
    back = jax.jit(jax.grad(lambda m, s: table(m, s).sum(), (0, 1)))(mean, jnp.log(scale))
    m, s = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
    want = logistic_log_probs(m, s, num_bins)
    check = (want > -30) & (s >= 1e-2) & (s <= 1)
    assert check.sum() > 300
    h = 1e-5
    by_mean = [logistic_log_probs(m + sign * h * s, s, num_bins)[check] for sign in (1, -1)]
    by_scale = [logistic_log_probs(m, s * np.exp(sign * h), num_bins)[check] for sign in (1, -1)]
    for i, ((up, down), unit) in enumerate([(by_mean, s), (by_scale, np.ones_like(s))]):
        assert np.isfinite(shifted[i]).all()
        assert np.isfinite(back[i]).all()
        error = (np.asarray(shifted[i]) * unit)[check] - (up - down) / (2 * h)
        assert np.abs(error).max() < 2e-3
        np.testing.assert_allclose(back[i], np.asarray(shifted[i]).sum(0), rtol=1e-3, atol=1e-3 / np.min(s))


@pytest.mark.parametrize(("num_bins", "mean", "scale"), [(17, 0.3, 0.2), (17, -1.4, 0.3)])
def test_logistic_sample_frequencies(num_bins, mean, scale):
    n = 100_000
    dist = DiscretizedLogistic(jnp.full(n, mean), jnp.float32(scale), num_bins)
    index = (np.asarray(jax.jit(dist.sample)(jax.random.key(2))) + 1) * (num_bins - 1) / 2
    assert np.abs(index - index.round()).max() < 1e-4, "samples must sit on the bins"
    count = np.bincount(index.round().astype(int), minlength=num_bins)
    expected = n * np.exp(logistic_log_probs(np.float64(mean), np.float64(scale), num_bins))
    keep = expected > 5
    chi2 = ((count - expected)[keep] ** 2 / expected[keep]).sum()
    assert keep.sum() > 5
    assert scipy.stats.chi2(keep.sum() - 1).sf(chi2) > 1e-6
    np.testing.assert_allclose(dist.variance, scipy.stats.logistic(mean, scale).var(), rtol=1e-6)


def test_logistic_kl_and_entropy_are_sums_over_bins():
    mean, scale = np.float64([[0.1, -1.2], [0.9, 0.0]]), np.float64([0.1, 0.4])
    p = DiscretizedLogistic(jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32), 17)
    q = DiscretizedLogistic(jnp.float32(0.3), jnp.float32(0.2), 17)
    lp, lq = logistic_log_probs(mean, scale, 17), logistic_log_probs(np.full_like(mean, 0.3), 0.2, 17)
    np.testing.assert_allclose(p.entropy(), -(np.exp(lp) * lp).sum(0), rtol=1e-4)
    np.testing.assert_allclose(p.kl(q), (np.exp(lp) * (lp - lq)).sum(0), rtol=1e-4)


# Gamma -----------------------------------------------------------------------------------------------------------

GAMMAS = [(0.3, 2.0, 0.5, 1.0), (1.0, 0.5, 3.0, 2.0), (7.5, 40.0, 7.0, 30.0), (60.0, 3.0, 50.0, 3.0)]


@pytest.mark.parametrize(("a1", "b1", "a2", "b2"), GAMMAS)
def test_gamma_against_scipy_and_quadrature(a1, b1, a2, b2):
    p, q = Gamma(jnp.float32(a1), jnp.float32(b1)), Gamma(jnp.float32(a2), jnp.float32(b2))
    ref, other = scipy.stats.gamma(a1, scale=1 / b1), scipy.stats.gamma(a2, scale=1 / b2)
    x = ref.ppf(np.linspace(0.01, 0.99, 25)).astype(np.float32)
    np.testing.assert_allclose(p.log_prob(jnp.asarray(x)), ref.logpdf(x.astype(np.float64)), rtol=1e-5, atol=6e-5)
    np.testing.assert_allclose([p.mean, p.variance], [ref.mean(), ref.var()], rtol=1e-6)
    np.testing.assert_allclose(p.entropy(), ref.entropy(), rtol=1e-5, atol=6e-5)

    def integrand(u):  # the definition of KL; in u = log x the density has no singularity
        x = np.exp(u)
        return x * ref.pdf(x) * (ref.logpdf(x) - other.logpdf(x))

    kl, _ = scipy.integrate.quad(integrand, np.log(ref.ppf(1e-12)), np.log(ref.isf(1e-14)), limit=200)
    np.testing.assert_allclose(p.kl(q), kl, rtol=1e-4, atol=6e-5)
    np.testing.assert_allclose(p.kl(p), 0, atol=1e-6)


def test_gamma_samples_and_their_derivatives():
    """Kolmogorov's distance of the draws; dx/da of each, by finite differences of the quantile function."""
    n, a, b = 20_000, jnp.array([0.6, 4.0]), jnp.array([2.0, 0.5])
    keys = jax.random.split(jax.random.key(3), n)

    @jax.jit
    def draw(a, b):
        return jax.vmap(Gamma(a, b).sample)(keys)

    (draws, by_a), by_b = jax.jvp(draw, (a, b), (jnp.ones(2), jnp.zeros(2))), jax.jvp(draw, (a, b), (a * 0, b))[1]
    for i in range(2):
        law = scipy.stats.gamma(float(a[i]), scale=1 / float(b[i]))
        assert scipy.stats.kstest(draws[:, i], law.cdf).pvalue > 1e-6
        x, slope = np.asarray(draws[:500, i], np.float64), np.asarray(by_a[:500, i])
        quantile, h = law.cdf(x), 1e-4
        up, down = (scipy.stats.gamma(float(a[i]) + d, scale=1 / float(b[i])).ppf(quantile) for d in (h, -h))
        np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=5e-3, atol=1e-4)
        np.testing.assert_allclose(by_b[:, i], -draws[:, i], rtol=1e-5)
