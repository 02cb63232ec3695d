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


@pytest.mark.slow
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


@pytest.mark.fast(1)
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


@pytest.mark.slow
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


SHAPES = np.float32([1e-2, 0.3, 1.0, 2.5, 9.0, 60.0, 1e4, 1e6, 1e8])


def test_gamma_of_any_shape_against_float64():
    """Values and slopes of the density and the entropy: log Γ of 1e4 is 1e5, of which float32 keeps two decimals."""
    a, z = np.meshgrid(SHAPES, np.linspace(-3, 3, 7))
    b = np.float32(0.7) * a ** np.float32(0.9)
    law = scipy.stats.gamma(np.float64(a), scale=1 / np.float64(b))
    x = np.float32(np.maximum(law.ppf(scipy.stats.norm.cdf(z)), 1e-37))
    a64, b64, x64 = (np.float64(part) for part in (a, b, x))

    @jax.jit
    def everything(x, a, b):
        slopes = jax.grad(lambda *args: Gamma(*args[1:]).log_prob(args[0]).sum(), (0, 1, 2))(x, a, b)
        return (
            Gamma(a, b).log_prob(x),
            slopes,
            Gamma(a, b).entropy(),
            jax.grad(lambda a: Gamma(a, b).entropy().sum())(a),
        )

    log_prob, (by_x, by_a, by_b), entropy, entropy_by_a = everything(x, a, b)
    off = np.abs(b64 * x64 - a64)  # how fast log p changes with the relative error of x
    np.testing.assert_array_less(np.abs(log_prob - law.logpdf(x64)), 3e-6 + 3e-7 * off + 3e-7 * np.abs(np.log(x64)))
    np.testing.assert_array_less(np.abs(by_x * x64 - (a64 - 1 - b64 * x64)), 2e-6 * (1 + a64 / 3))
    psi = scipy.special.digamma(a64)
    np.testing.assert_array_less(
        np.abs(by_a - (np.log(b64 * x64) - psi)), 1e-7 + 3e-6 * (1 + 1 / a64) / (1 + a64**0.5)
    )  # b x is rounded
    np.testing.assert_array_less(np.abs(by_b * b64 - (a64 - b64 * x64)), 1e-6 + 3e-7 * a64)
    exact = a64 - np.log(b64) + scipy.special.gammaln(a64) + (1 - a64) * psi
    np.testing.assert_allclose(entropy, exact, rtol=1e-6, atol=4e-6)
    np.testing.assert_allclose(entropy_by_a, 1 + (1 - a64) * scipy.special.polygamma(1, a64), rtol=2e-5, atol=1e-12)


def gamma_kl(a1, b1, a2, b2):
    """In float64, by log Γ(a₂) - log Γ(a₁) - (a₂ - a₁) ψ(a₁) = ∫ (a₂ - s) ψ'(s) ds, less the same of a log a."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    u = np.log(a1) + (nodes[:, None] + 1) / 2 * np.log1p((a2 - a1) / a1)  # s = exp(u)
    s = np.exp(u)
    inner = (a2 - s) * (scipy.special.polygamma(1, s) - 1 / s) * s
    far = (a1 / b1 - a2 / b2) / (a2 / b2)
    return (weights @ inner) / 2 * np.log1p((a2 - a1) / a1) + a2 * (far - np.log1p(far))


def test_gamma_kl_of_any_shapes_against_quadrature():
    base, relative = (grid.ravel() for grid in np.meshgrid(SHAPES, [-0.5, -1e-2, -1e-4, 1e-4, 1e-2, 0.3, 5.0, 100.0]))
    a1 = np.append(base, [1e4, 1e-2, 1e8]).astype(np.float32)
    a2 = np.append(base * (1 + relative), [1.01e4, 1e8, 1e-2]).astype(np.float32)
    b1 = a1
    # Means that are equal, that are half a standard deviation apart, and that are far apart.
    for b2 in (a2, a2 * np.float32(1 + 0.5 / np.sqrt(1 + a2)), np.full_like(a2, 3.0)):
        want = gamma_kl(*(np.float64(part) for part in (a1, b1, a2, b2)))
        got = KL_AND_SLOPES(a1, b1, a2, b2)[0]
        mean = np.float64(a1) / b1 / (np.float64(a2) / b2)
        inherited = 3e-7 * a2 * np.abs(mean - 1)  # of the rounding of a ratio of means
        np.testing.assert_array_less(np.abs(got - want), 1e-5 * want + inherited + 1e-12)
    np.testing.assert_allclose(Gamma(1e4, 1e4).kl(Gamma(1.01e4, 1.01e4)), 2.4835e-5, rtol=1e-4)


KL_AND_SLOPES = jax.jit(
    lambda a1, b1, a2, b2: (
        Gamma(a1, b1).kl(Gamma(a2, b2)),
        jax.grad(lambda *p: Gamma(*p[:2]).kl(Gamma(*p[2:])).sum(), (0, 1, 2, 3))(a1, b1, a2, b2),
    )
)


def test_gamma_kl_slopes_of_any_shapes():
    base, relative = (grid.ravel() for grid in np.meshgrid(SHAPES, [-0.5, -1e-2, 1e-2, 0.3, 5.0]))
    a1, a2 = base, (base * (1 + relative)).astype(np.float32)
    b1, b2 = a1, (a2 * np.float32(1.0) * (1 + 0.5 / np.sqrt(1 + a2))).astype(np.float32)
    got = KL_AND_SLOPES(a1, b1, a2, b2)[1]
    a1, b1, a2, b2 = (np.float64(part) for part in (a1, b1, a2, b2))
    digamma, trigamma = scipy.special.digamma, lambda a: scipy.special.polygamma(1, a)
    want = [
        (a1 - a2) * trigamma(a1) + (b2 - b1) / b1,
        a2 / b1 - a1 * b2 / b1**2,
        digamma(a2) - digamma(a1) + np.log(b1 / b2),
        a1 / b1 - a2 / b2,
    ]
    scale = [np.abs(a1 - a2) * trigamma(a1), a2 / b1, np.abs(np.log(a2 / a1)) + np.abs(1 / a2 - 1 / a1), a1 / b1]
    for slope, exact, size in zip(got, want, scale, strict=True):
        np.testing.assert_array_less(np.abs(slope - exact), 5e-6 * size + 3e-7)


@pytest.mark.slow
def test_gamma_outside_its_support():
    """log p is -inf, and of no slope: an integrator flies on, its end is rejected, and its neighbours are unharmed."""
    a, b = jnp.array([1.0, 1.0, 0.5, 0.5, 3.0, 3.0, 3.0]), jnp.float32(2.0)
    x = jnp.array([-1.0, 0.0, 0.0, -1e-30, 0.0, -5.0, jnp.inf])
    log_prob = Gamma(a, b).log_prob(x)
    law = scipy.stats.gamma(np.float64(a), scale=0.5)
    np.testing.assert_allclose(log_prob[:-1], law.logpdf(np.float64(x.at[-1].set(1.0)))[:-1], rtol=1e-6)
    assert log_prob[-1] == -jnp.inf
    both = jnp.append(x, 1.5)
    slopes = jax.grad(lambda x, a, b: Gamma(a, b).log_prob(x)[-1:].sum(), (0, 1, 2))(both, jnp.append(a, 2.0), b)
    np.testing.assert_allclose(slopes[0], [0] * 7 + [1 / 1.5 - 2], rtol=1e-5)
    np.testing.assert_allclose(slopes[1], [0] * 7 + [np.log(3) - scipy.special.digamma(2)], rtol=1e-5)
    np.testing.assert_allclose(slopes[2], 2 / 2 - 1.5, rtol=1e-5)
    slopes = jax.grad(lambda x, a: Gamma(a, b).log_prob(x).sum(), (0, 1))(both, jnp.append(a, 2.0))
    assert not np.any([slopes[0][:-1], slopes[1][:-1]])
    np.testing.assert_allclose(slopes[0][-1], 1 / 1.5 - 2, rtol=1e-5)


@pytest.mark.slow
def test_gamma_draws_that_underflow_have_a_finite_score():
    a = jnp.full(2000, 1e-2)
    x = Gamma(a, 50.0).sample(jax.random.key(0))
    least = float(np.finfo(np.float32).tiny)
    share, exact = float((x == least).mean()), scipy.stats.gamma(0.01, scale=1 / 50).cdf(least)
    assert abs(share - exact) < 5 * np.sqrt(exact * (1 - exact) / 2000)
    score = jax.grad(lambda a: Gamma(a, 50.0).log_prob(x).sum())(a)
    want = np.log(50 * np.float64(x)) - scipy.special.digamma(np.float64(a[0]))
    np.testing.assert_allclose(score, want, rtol=1e-4, atol=1e-4)
    assert np.isfinite(jax.grad(lambda a: Gamma(a, 50.0).sample(jax.random.key(0)).sum())(a)).all()


def test_gamma_draws_of_large_shapes_have_the_slope_of_their_quantile():
    """dx/da at a fixed quantile, by differences of scipy's; rate 1."""
    for shape in (3e4, 1e6, 1e8):
        x, slope = jax.jvp(lambda a: Gamma(a, 1.0).sample(jax.random.key(1)), (jnp.full(40, shape),), (jnp.ones(40),))
        z = (np.float64(x) - shape) / np.sqrt(shape)
        assert np.ptp(z) > 2
        quantile, h = scipy.stats.gamma(shape).cdf(np.float64(x)), shape**0.5
        up, down = (scipy.stats.gamma(shape + sign * h).ppf(quantile) for sign in (1, -1))
        np.testing.assert_allclose(slope, (up - down) / (2 * h), atol=0.02 / np.sqrt(shape))


# Other numbers at the edge of single precision -------------------------------------------------------------------


def test_normal_of_extreme_variances():
    v1, v2 = np.float32([1e-37, 1e30, 1e-30, 1e37, 2e-30, 1e30]), np.float32([1e2, 1e5, 1e-29, 3e36, 1e-30, 1e30])
    m1, m2 = np.float32([0, 0, 1e-15, 1e25, 3e-15, 1e15]), np.float32([1, 1e-3, 0, 0, 0, -1e15])
    got, slopes = jax.value_and_grad(lambda *p: Normal(*p[:2]).kl(Normal(*p[2:])).sum(), (0, 1, 2, 3))(m1, v1, m2, v2)
    each = Normal(m1, v1).kl(Normal(m2, v2))
    M1, V1, M2, V2 = (np.float64(part) for part in (m1, v1, m2, v2))
    np.testing.assert_allclose(each, kl_normal(M1, V1, M2, V2), rtol=1e-5)
    np.testing.assert_allclose(Normal(0.0, 1e-37).kl(Normal(0.0, 100.0)), kl_normal(0, 1e-37, 0, 100), rtol=1e-6)
    off = M1 - M2
    np.testing.assert_allclose(slopes[0], off / V2, rtol=1e-5)
    np.testing.assert_allclose(slopes[1], 0.5 * (1 / V2 - 1 / V1), rtol=1e-5, atol=1e-38)
    np.testing.assert_allclose(slopes[3] * V2, 0.5 * (1 - V1 / V2 - off**2 / V2), rtol=1e-4, atol=1e-6)
    assert np.isfinite(got)
    x = np.float32(M1 + 2 * np.sqrt(V1))
    law = scipy.stats.norm(M1, np.sqrt(V1))
    np.testing.assert_allclose(Normal(m1, v1).log_prob(x), law.logpdf(np.float64(x)), rtol=1e-5)
    np.testing.assert_allclose(Normal(m1, v1).entropy(), law.entropy(), rtol=1e-6)


def test_normal_kl_keeps_its_digits_as_the_variances_meet():
    r = np.float32([-0.3, -0.19, -1e-2, -1e-4, 1e-6, 1e-3, 0.1, 0.21, 0.4])
    v2 = np.float32(0.5)
    v1 = v2 * (1 + r)
    u = (np.float64(v1) - v2) / v2
    series = sum((-u) ** k / k for k in range(2, 60))  # of u - log(1 + u), whose two terms agree to 12 digits
    np.testing.assert_allclose(Normal(0.0, v1).kl(Normal(0.0, v2)), 0.5 * series, rtol=1e-6)


@pytest.mark.parametrize("law", [DiscretizedNormal, DiscretizedLogistic])
def test_bins_of_wide_laws_by_quadrature(law):
    """At a standard deviation of 1e4 a bin is 8e-7 of it, and the probabilities below its edges agree to six digits."""
    normal = law is DiscretizedNormal
    scale, mean, off = (
        np.float32(part).ravel() for part in np.meshgrid([0.05, 0.3, 3.0, 300.0, 1e4, 1e6, 1e12], [0.0, -0.7], [0, 2])
    )
    mean = mean + off * scale  # two scales away, too
    parameter = scale**2 if normal else scale

    @jax.jit
    def everything(mean, parameter):
        dist = law(mean, parameter)
        x = dist.bins[1:-1, None]
        return x, dist.log_prob(x), jax.grad(lambda mean: law(mean, parameter).log_prob(x).sum())(mean)

    x, got, slope = (np.asarray(part, np.float64) for part in everything(mean, parameter))
    mean, scale = np.float64(mean), np.sqrt(np.float64(parameter)) if normal else np.float64(parameter)
    density = scipy.stats.norm(mean, scale) if normal else scipy.stats.logistic(mean, scale)
    nodes, weights = (part[:, None, None] / 255 for part in np.polynomial.legendre.leggauss(30))
    want = scipy.special.logsumexp(density.logpdf(x + nodes), b=weights, axis=0)
    z = (x - mean) / scale
    np.testing.assert_array_less(
        np.abs(got - want), 4e-6 + 3e-7 * z**2 + 3e-7 * np.abs(z) / scale + 3e-7 * np.abs(want)
    )
    wide = scale >= 0.3
    exact = (z if normal else np.tanh(z / 2)).sum(0)  # the middle's slope, up to width²
    np.testing.assert_allclose((slope * scale)[wide], exact[wide], rtol=1e-3, atol=5e-2)
    assert (wide.sum(), len(x)) == (24, 254)


def test_wide_bins_in_float64():
    with jax.enable_x64(True):
        dist = DiscretizedNormal(jnp.float64(0.3), jnp.float64(25.0))
        want = bin_log_probs(np.float64(0.3), np.float64(5.0), 256)
        np.testing.assert_allclose(dist.log_prob(dist.bins), want, rtol=1e-10)


def test_beyond_the_outermost_bins_there_is_nothing():
    x = jnp.array([-1.2, -1.0, 0.0, 1.0, 1.1, jnp.inf])
    for law in (DiscretizedNormal, DiscretizedLogistic):
        log_prob = jax.jit(jax.value_and_grad(lambda mean, x, law=law: law(mean, jnp.float32(0.5), 17).log_prob(x)))
        value, slope = jax.vmap(log_prob, (None, 0))(jnp.float32(0.2), x)
        np.testing.assert_array_equal(np.isneginf(value), [True, False, False, False, True, True])
        np.testing.assert_array_equal(slope == 0, np.isneginf(value))


def test_point_masses_among_the_bins():
    """Of a law so sharp that all other bins have no probability, not even a finite logarithm of it."""
    sharp = DiscretizedLogistic(jnp.float32(-30.0), jnp.float32(1.2e-38), 17)
    np.testing.assert_allclose([sharp.entropy(), sharp.kl(sharp)], 0, atol=1e-6)


def test_bernoulli_beyond_its_bits():
    """On [0, 1] log p is linear, as the cross-entropy of a grey x; outside -inf, and no neighbour's slope is harmed."""
    logits, x = jnp.array([0.3, -jnp.inf, 2.0, 0.3, 5.0]), jnp.array([-0.1, 1.5, 0.25, 1.0, jnp.inf])
    log_p, log_q = scipy.special.log_expit(2.0), scipy.special.log_expit(-2.0)
    want = [-np.inf, -np.inf, 0.25 * log_p + 0.75 * log_q, scipy.special.log_expit(0.3), -np.inf]
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), want, rtol=1e-6)
    slopes = jax.grad(lambda x, l: Bernoulli(l).log_prob(x).sum(), (0, 1))(x, logits)
    np.testing.assert_allclose(slopes[0], [0, 0, 2.0, 0.3, 0], rtol=1e-5)  # at the ends of [0, 1] too
    expit = scipy.special.expit
    np.testing.assert_allclose(slopes[1], [0, 0, 0.25 - expit(2.0), 1 - expit(0.3), 0], rtol=1e-5)


@pytest.mark.slow
def test_rare_bits_are_drawn_as_rarely_as_they_are():
    """In float32 a uniform is a multiple of 2^-23, and 0 with that probability: 1200 times 1e-10."""
    n, rare = 2**24, np.array([1e-10, 1e-6, 1e-6, 1e-10])
    logits = jnp.asarray(np.log(rare) * [1, 1, -1, -1], jnp.float32)

    @jax.jit
    def count(key):
        return jnp.stack(
            [Bernoulli(jnp.full(n, l)).sample(k).sum() for l, k in zip(logits, jax.random.split(key, 4), strict=True)]
        )

    ones = np.asarray(count(jax.random.key(0)), np.float64)
    seen = np.where([True, True, False, False], ones, n - ones)
    assert (np.abs(seen - n * rare) <= 5 * np.sqrt(n * rare) + 0.5).all(), seen


# Types -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_what_comes_out_has_the_type_of_what_goes_in(x64, promotion):
    """float32 stays what it is while x64 is on, 16 bits count as float32, and x and the parameters need not agree."""
    f32, f64 = jnp.float32, jnp.float64
    cases = [(f32, f32, f32, f32), (f32, jnp.bfloat16, f32, f32), (jnp.float16, f32, f32, f32), (f32, int, f32, f32)]
    cases += [(f64, f32, f64, f64), (f64, f64, f64, f64), (f32, f64, f32, f64)] if x64 else []
    with jax.enable_x64(x64), jax.numpy_dtype_promotion(promotion):
        key = jax.random.key(0)
        for of_params, of_x, drawn, scored in cases:
            a, x = jnp.ones(2, of_params), jnp.ones(2, of_x)
            laws = [Normal(a, a), Gamma(a, a), Bernoulli(a), DiscretizedNormal(a, a, 3), DiscretizedLogistic(a, a, 3)]
            for law in laws:
                own = jax.eval_shape(lambda p: (p.sample(key), p.entropy(), p.kl(p)), law)
                assert {part.dtype for part in own} == {jnp.dtype(drawn)}, law
                assert jax.eval_shape(lambda p, x: p.log_prob(x), law, x).dtype == scored, law
                slopes = jax.eval_shape(jax.grad(lambda p, x: p.log_prob(x).sum()), law, x)
                assert {part.dtype for part in jax.tree.leaves(slopes)} == {a.dtype}, law


def test_sixteen_bits_count_as_the_numbers_they_are():
    """log p of bfloat16 data is that of the same numbers in float64, not one computed in 8 bits of mantissa."""
    x = jnp.asarray([0.3, 0.7, 1.1], jnp.bfloat16)
    exact = np.float64(x)
    np.testing.assert_allclose(Normal(0.2, 0.5).log_prob(x), scipy.stats.norm(0.2, 0.5**0.5).logpdf(exact), rtol=1e-6)
    np.testing.assert_allclose(
        Gamma(2.5, 1.5).log_prob(x), scipy.stats.gamma(2.5, scale=1 / 1.5).logpdf(exact), rtol=2e-6
    )
