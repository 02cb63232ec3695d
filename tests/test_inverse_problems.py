"""y = A x + tau n, and other likelihoods, against scipy, posteriors in closed form, and chains by quadrature."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from diffjax import conditioning, predictions, processes, reference, samplers, schedules
from diffjax.conditioning import operators, particles
from diffjax.errors import InputError
from diffjax.predictions import Prediction


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# Operators -------------------------------------------------------------------------------------------------------


def test_operators_against_scipy():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(6, 4, 3)).astype(np.float32), rng.normal(size=(3, 3))
    image = jnp.asarray(x)
    for edge, boundary in (("circular", "wrap"), ("zero", "fill")):
        want = [scipy.signal.convolve2d(x[..., c], kernel, "same", boundary) for c in range(3)]
        np.testing.assert_allclose(operators.blur(kernel, edge)(image), np.stack(want, -1), atol=1e-5)
    small = operators.downsample(2)(image)
    np.testing.assert_allclose(small[2, 1], x[4:6, 2:4].mean((0, 1)), rtol=1e-5)
    known = x > 0
    np.testing.assert_array_equal(operators.mask(known)(image), x[known])
    weights = (0.3, 0.6, 0.1)
    np.testing.assert_allclose(operators.grey(weights)(image), x @ np.array(weights)[:, None], rtol=1e-4, atol=1e-6)
    # |A x|² of M directions of variance 1/D is |x|² M/D times a chi-square of M over M.
    project = operators.project(jax.random.key(0), x.shape, 500)
    np.testing.assert_allclose(project(image + image), 2 * project(image), rtol=1e-5)
    share = float((project(image) ** 2).sum()) / (x**2).sum() * x.size / 500
    assert abs(share - 1) < 5 * np.sqrt(2 / 500)


def test_operators_name_what_is_wrong():
    with pytest.raises(InputError, match=r"boolean.*float"):
        operators.mask(np.ones(3))
    with pytest.raises(InputError, match=r"odd sides.*\(2, 3\)"):
        operators.blur(np.ones((2, 3)))
    with pytest.raises(InputError, match="'mirror'"):
        operators.blur(np.ones((3, 3)), "mirror")
    with pytest.raises(InputError, match="factor 3 must divide"):
        operators.downsample(3)(jnp.ones((8, 8, 1)))
    with pytest.raises(InputError, match="positive, not 0"):
        operators.project(jax.random.key(0), (3,), 0)
    with pytest.raises(InputError, match="2 weights"):
        operators.grey((0.5, 0.5))(jnp.ones((8, 8, 3)))
    for apply in (operators.blur(np.ones((3, 3))), operators.downsample(1)):
        with pytest.raises(InputError, match="an image is"):
            apply(jnp.ones((8, 8)))
    with pytest.raises(InputError, match=r"events of shape \(3,\), not \(4,\)"):
        operators.mask(np.ones(3, bool))(jnp.ones(4))


@pytest.mark.parametrize("apply", [jnp.abs, lambda x: x + 1.0, jnp.tanh, lambda x: x.sum() ** 2, lambda x: x / x.sum()])
def test_what_is_not_linear_is_refused(apply):
    with pytest.raises(InputError, match="must be linear"):
        conditioning.linear_operator(apply, jnp.zeros(3), 0.1, (3,))


def test_a_measurement_names_what_is_wrong():
    def total(x):
        return x[:2]

    for y in (jnp.zeros(3), jnp.zeros(()), jnp.zeros((4, 3))):
        with pytest.raises(InputError, match=r"gives \(2,\) of an event"):
            conditioning.linear_operator(total, y, 0.1, (3,))
    for noise in (-0.1, np.nan, np.inf, np.ones(2)):
        with pytest.raises(InputError, match="one number, at least 0"):
            conditioning.linear_operator(total, jnp.zeros(2), noise, (3,))
    with pytest.raises(InputError, match="5000 entries"):
        conditioning.linear_operator(total, jnp.zeros(2), 0.1, (5000,))
    seen = conditioning.linear_operator(total, jnp.zeros((4, 2)), 0.1, (3,))
    with pytest.raises(InputError, match=r"\(4, 5\).*\(3,\)"):
        seen.log_r(jnp.zeros((4, 5)))
    with pytest.raises(InputError, match="4 measurements for 2 samples"):
        seen.log_r(jnp.zeros((2, 3)))
    with pytest.raises(InputError, match="no density without noise"):
        conditioning.linear_operator(total, jnp.zeros(2), 0.0, (3,)).log_r(jnp.zeros((1, 3)))
    bits = processes.binomial(1 / np.arange(10, 0, -1))
    with pytest.raises(InputError, match="not a linear operator"):
        conditioning.given(bits, lambda xt, t: Prediction(xt, "logits"), seen)
    with pytest.raises(InputError, match="outside jit"):
        jax.jit(lambda a: conditioning.linear_operator(lambda x: a * x, jnp.zeros(3), 0.1, (3,)).y)(2.0)


# The exact posterior ---------------------------------------------------------------------------------------------

A, Y, TAU = np.array([[1.0, -0.5]]), np.array([1.0]), 0.5
MEANS, COVS = np.array([[-1.0, 0.0], [1.0, 0.5]]), np.array([[[1.0, 0.8], [0.8, 1.0]], [[0.5, 0.0], [0.0, 0.3]]])


def at_one_time(law, process):
    """The Predict of a mixture for a batch of one time: a few inverses a step, where the library's has one a sample."""

    def predict(xt, t):
        noised = law.at(process.schedule.alpha(t[0]), process.schedule.sigma(t[0]))
        centred = xt[:, None] - noised.means
        pull = jnp.einsum("kij,nkj->nki", jnp.linalg.inv(noised.covs), centred)
        log_joint = jnp.log(noised.weights) - 0.5 * (jnp.linalg.slogdet(noised.covs)[1] + (pull * centred).sum(-1))
        return Prediction(
            jnp.einsum("nk,nki->ni", jax.nn.softmax(log_joint), pull) * process.schedule.sigma(t[0]), "eps"
        )

    return predict


def mixture():
    return reference.GaussianMixture(jnp.array([0.4, 0.6]), jnp.asarray(MEANS), jnp.asarray(COVS))


def correlated():
    return reference.GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), jnp.asarray(COVS[:1]))


def measured(y=Y):
    return conditioning.linear_operator(lambda x: jnp.asarray(A) @ x, jnp.asarray(y), TAU, (2,))


@pytest.mark.slow
def test_the_mixture_s_posterior_by_quadrature(x64):
    side = np.linspace(-7, 7, 281)
    x = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    p = sum(w * scipy.stats.multivariate_normal(m, c).pdf(x) for w, m, c in zip((0.4, 0.6), MEANS, COVS, strict=True))
    joint = p * scipy.stats.norm.pdf(Y, x @ A[0], TAU) * (side[1] - side[0]) ** 2
    mean = joint @ x / joint.sum()
    cov = (x - mean).T @ (joint[:, None] * (x - mean)) / joint.sum()
    posterior = mixture().linear_posterior(A, Y, TAU)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-6)
    np.testing.assert_allclose(posterior.cov, cov, atol=1e-6)
    np.testing.assert_allclose(mixture().measured(A, TAU).log_prob(Y), np.log(joint.sum()), atol=1e-6)
    np.testing.assert_allclose(measured().log_r(x[::40]), scipy.stats.norm.logpdf(Y, x[::40] @ A[0], TAU), rtol=1e-9)


@pytest.mark.slow
def test_full_covariance_is_exact_for_gaussians_and_any_operator(x64):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    prior = reference.GaussianMixture(jnp.ones(1), jnp.asarray(rng.normal(size=(1, 4))), (root @ root.T + 0.1)[None])
    matrix = rng.normal(size=(3, 4))
    matrix[2] = matrix[0] - matrix[1]  # of rank 2: what is measured thrice is known better
    process, y = processes.gaussian(schedules.vp()), rng.normal(size=(2, 3))
    seen = conditioning.linear_operator(lambda x: jnp.asarray(matrix) @ x.reshape(-1), jnp.asarray(y), 0.3, (2, 2))

    def predict(xt, t):
        prediction = prior.predict(process.schedule)(xt.reshape(-1, 4), t)
        return Prediction(prediction.value.reshape(xt.shape), "eps", 0.1 * xt)

    xt, t = jnp.asarray(rng.normal(size=(2, 2, 2))), jnp.array([0.05, 0.7])
    got = jax.jit(conditioning.given(process, predict, seen))(xt, t)
    for i in range(2):
        exact = prior.linear_posterior(matrix, y[i], 0.3).predict(process.schedule)
        np.testing.assert_allclose(got.value[i].reshape(-1), exact(xt[i].reshape(1, 4), t[i]).value[0], atol=1e-7)
    np.testing.assert_allclose(got.log_var, 0.1 * xt, rtol=1e-12)


def wavy(process):
    return predictions.v(lambda x, t: jnp.sin(x) + 0.3 * jnp.roll(x, 1, axis=1) * schedules.broadcast_to(t, x))


def test_isotropic_guidance_is_the_pseudoinverse_guided_formula(x64):
    rng = np.random.default_rng(1)
    matrix, y, tau = rng.normal(size=(2, 3)), rng.normal(size=2), 0.4
    process = processes.gaussian(schedules.vp())
    predict = wavy(process)
    xt, t = jnp.asarray(rng.normal(size=(3, 3))), jnp.array([0.1, 0.4, 0.8])
    seen = conditioning.linear_operator(lambda x: jnp.asarray(matrix) @ x, jnp.asarray(y), tau, (3,))

    def log_normal(x, t):
        alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
        x0 = predictions.convert(predict(x[None], t[None]), "x0", process, x[None], t[None])[0]
        cov = sigma**2 / (alpha**2 + sigma**2) * matrix @ matrix.T + tau**2 * jnp.eye(2)
        return jax.scipy.stats.multivariate_normal.logpdf(jnp.asarray(y), matrix @ x0, cov)

    exact = conditioning.linear_operator(lambda x: jnp.asarray(matrix) @ x, jnp.asarray(y), 0.0, (3,))

    @jax.jit
    def all_three(xt, t):
        want = predictions.convert(predict(xt, t), "score", process, xt, t) + jax.vmap(jax.grad(log_normal))(xt, t)
        guide, known = (conditioning.given(process, predict, m, "isotropic")(xt, t) for m in (seen, exact))
        return want, *(predictions.convert(p, k, process, xt, t) for p, k in ((guide, "score"), (known, "x0")))

    want, got, x0 = all_three(xt, t)
    np.testing.assert_allclose(got, want, rtol=1e-8)
    # a measurement of each of several, made where y is traced
    ys = jnp.asarray(rng.normal(size=(4, 2)))
    many = conditioning.linear_operator(lambda x: jnp.asarray(matrix) @ x, ys, tau, (3,))
    each = jax.vmap(lambda y: conditioning.linear_operator(lambda x: jnp.asarray(matrix) @ x, y, tau, (3,)).seen.y)(ys)
    np.testing.assert_allclose(each, many.seen.y, rtol=1e-12)
    # without noise A x̂_0 is y
    np.testing.assert_allclose(x0 @ matrix.T, np.broadcast_to(y, (3, 2)), atol=1e-8)


@pytest.mark.slow
def test_masks_and_greys_are_inpainting_and_colourisation(x64):
    process, rng = processes.gaussian(schedules.cosine(20)), np.random.default_rng(2)
    predict, shape = wavy(process), (2, 2, 3)
    x, xt, t = rng.normal(size=shape), jnp.asarray(rng.normal(size=(4, *shape))), jnp.array([0.1, 0.3, 0.5, 0.9])
    known = rng.random(shape) < 0.5
    weights = (0.3, 0.6, 0.1)
    grey = operators.grey(weights)
    for covariance in ("full", "isotropic"):
        pairs = [
            (
                conditioning.given(process, predict, conditioning.inpainting(x, known), covariance),
                conditioning.linear_operator(operators.mask(known), x[known], 0.0, shape),
            ),
            (
                conditioning.colourisation(process, predict, grey(jnp.asarray(x)), weights, covariance),
                conditioning.linear_operator(grey, grey(jnp.asarray(x)), 0.0, shape),
            ),
        ]
        for want, seen in pairs:
            got = conditioning.given(process, predict, seen, covariance)
            np.testing.assert_allclose(got(xt, t).value, want(xt, t).value, atol=1e-7)


# Chains ----------------------------------------------------------------------------------------------------------

PROCESS = processes.gaussian(schedules.vp())
TIMES = np.linspace(1, 0, 16) ** 1.5


def coefficients(t, s):
    """a, b and v of p(x_s | x_t) = N(a x_t + b x̂_0, v), "forward", from alpha and sigma alone."""
    alpha_t, sigma_t, alpha_s, sigma_s = (
        float(f(u)) for u in (t, s) for f in (PROCESS.schedule.alpha, PROCESS.schedule.sigma)
    )
    ratio = alpha_t / alpha_s
    v = sigma_t**2 - ratio**2 * sigma_s**2
    return ratio * sigma_s**2 / sigma_t**2, alpha_s * v / sigma_t**2, v


def chain_of_a_gaussian(mean, cov):
    """Mean and covariance of x_0 of the chain of kernels with the exact x̂_0, the last of which takes its mean."""
    m, c, eye = np.zeros(len(mean)), np.eye(len(mean)), np.eye(len(mean))
    for t, s in itertools.pairwise(TIMES):
        a, b, v = coefficients(t, s)
        alpha, sigma = float(PROCESS.schedule.alpha(t)), float(PROCESS.schedule.sigma(t))
        gain = alpha * cov @ np.linalg.inv(alpha**2 * cov + sigma**2 * eye)
        slope = a * eye + b * gain
        m, c = slope @ m + b * (mean - alpha * gain @ mean), slope @ c @ slope.T + (v * eye if s else 0)
    return m, c


def chain_of_a_mixture(predict):
    """Points x_0 and weights: the law of a chain in one dimension, its densities on a grid."""
    x = np.linspace(-6, 6, 601)
    p = scipy.stats.norm.pdf(x) * (x[1] - x[0])
    estimate = jax.jit(lambda t: predictions.convert(predict(jnp.asarray(x)[:, None], t), "x0", PROCESS, x[:, None], t))
    for t, s in itertools.pairwise(TIMES):
        a, b, v = coefficients(t, s)
        mean = a * x + b * np.asarray(estimate(jnp.full(len(x), t)))[:, 0]
        if s == 0:
            return mean, p
        p = (x[1] - x[0]) * scipy.stats.norm.pdf(x[:, None], mean, np.sqrt(v)) @ p


def unbiased(predict, log_r, log_twist, want, particles, runs, shape=(1,), variance="forward", thresholds=(0.5,)):
    """E[Ẑ Σ_k w_k f(x_k)] = E[r(x_0) f(x_0)] for every f, exactly, with any number of particles: within 5 errors."""

    def one(threshold, key):
        size = (particles, *shape)
        drawn = conditioning.twisted(PROCESS, predict, key, TIMES, size, log_r, log_twist, variance, threshold)
        x = drawn.x[:, 0]
        return jnp.stack([jnp.ones(len(x)), x, x**2]) @ jnp.exp(drawn.log_weights + drawn.log_evidence)

    each = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    for found in np.asarray(each(jnp.array(thresholds), jax.random.split(jax.random.key(0), runs))):
        error = found.std(0) / np.sqrt(runs)
        assert (np.abs(found.mean(0) - want) < 5 * error).all(), (found.mean(0), want, error)
        assert error[0] < 0.03 * want[0], (error, want)


def test_the_evidence_of_a_gaussian_chain_is_unbiased():
    mean = np.array([0.3, -0.2])
    values, vectors = np.linalg.eigh(COVS[0])

    def estimate(x, t):  # m + α C (α² C + σ² I)⁻¹ (x - α m)
        alpha, sigma = (schedules.broadcast_to(f(t), x) for f in (PROCESS.schedule.alpha, PROCESS.schedule.sigma))
        return mean + (x - alpha * mean) @ vectors * (alpha * values / (alpha**2 * values + sigma**2)) @ vectors.T

    predict, seen = predictions.x0(estimate), measured()
    m, c = chain_of_a_gaussian(mean, COVS[0])
    evidence = scipy.stats.norm.pdf(Y[0], A[0] @ m, np.sqrt(A[0] @ c @ A[0] + TAU**2))
    gain = c @ A[0] / (A[0] @ c @ A[0] + TAU**2)
    after, spread = m + gain * (Y[0] - A[0] @ m), c - np.outer(gain, A[0] @ c)
    want = evidence * np.array([1.0, after[0], spread[0, 0] + after[0] ** 2])
    twist = conditioning.expected(PROCESS, predict, seen, "isotropic")
    unbiased(predict, seen.log_r, twist, want, particles=8, runs=600, shape=(2,))


def line():
    return reference.GaussianMixture(jnp.array([0.4, 0.6]), jnp.array([[-1.0], [1.2]]), jnp.array([[[0.3]], [[0.5]]]))


def near(x):
    return jax.scipy.stats.norm.logpdf(0.5, x[:, 0], 0.5)


def squared(x):
    """y = x² + 0.8 n, y = 1.5: two modes."""
    return jax.scipy.stats.norm.logpdf(1.5, x[:, 0] ** 2, 0.8)


@pytest.mark.slow
def test_particles_of_a_mixture_given_a_nonlinear_function_are_unbiased():
    predict = line().predict(PROCESS.schedule)
    x, p = chain_of_a_mixture(predict)
    r = p * np.exp(squared(jnp.asarray(x)[:, None]))
    want = np.array([r.sum(), r @ x, r @ x**2])
    unbiased(predict, squared, None, want, particles=64, runs=300)


@pytest.fixture(scope="module")
def plain_draws():
    """What resampling and twists must not change: the chain itself, by plain draws of it."""
    stepper = samplers.ancestral(PROCESS, "posterior")
    predict = line().predict(PROCESS.schedule)
    return np.asarray(samplers.sample(stepper, predict, jax.random.key(1), TIMES, (400_000, 1)))[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["forward", "posterior"])
@pytest.mark.parametrize(("log_r", "twist"), [(near, "isotropic"), (near, "none"), (squared, "wrong")])
def test_any_twist_and_threshold_are_unbiased(log_r, twist, variance, plain_draws):
    predict = line().predict(PROCESS.schedule)
    seen = conditioning.denoising(jnp.array([0.5]), 0.5)
    twists = {
        "isotropic": conditioning.expected(PROCESS, predict, seen, "isotropic"),
        "none": lambda x, t: jnp.zeros(len(x)),
        "wrong": lambda x, t: 0.2 * jnp.sin(2 * x[:, 0]) - t,
    }
    if variance == "forward":
        x, p = chain_of_a_mixture(predict)
    else:
        x, p = plain_draws, np.full(len(plain_draws), 1 / len(plain_draws))
    r = p * np.exp(log_r(jnp.asarray(x)[:, None]))
    want = np.array([r.sum(), r @ x, r @ x**2])
    unbiased(predict, log_r, twists[twist], want, 32, 1000, variance=variance, thresholds=(0.0, 0.5, 1.0))


@pytest.mark.slow
def test_systematic_resampling():
    weights = np.array([0.0, 0.17, 0.53, 0.3, 0.0])
    keys = jax.random.split(jax.random.key(0), 4000)
    index = jax.vmap(lambda key: particles.systematic(key, jnp.log(weights)))(keys)
    counts = np.stack([np.bincount(row, minlength=5) for row in np.asarray(index)])
    assert (np.abs(counts - 5 * weights) < 1).all()
    assert (np.abs(counts.mean(0) - 5 * weights) < 5 * counts.std(0) / np.sqrt(4000) + 1e-9).all()
    np.testing.assert_allclose(particles.effective_number(jnp.log(weights) + 3), 1 / (weights**2).sum(), rtol=1e-5)


@pytest.mark.slow
def test_particles_keep_their_type_and_name_what_is_wrong():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        predict = predictions.x0(lambda x, t: 0.5 * x)
        seen = conditioning.linear_operator(lambda x: x[:1], jnp.ones(1, jnp.bfloat16), 0.5, (2,))
        times = jnp.linspace(1, 0, 4, dtype=jnp.float32)
        drawn = conditioning.twisted(PROCESS, predict, jax.random.key(0), times, (5, 2), seen.log_r)
        assert {a.dtype for a in drawn} == {np.dtype(np.float32)}
        assert drawn.ess.shape == (3,)
        assert all(jnp.isfinite(a).all() for a in drawn)
        np.testing.assert_allclose(jnp.exp(drawn.log_weights).sum(), 1.0, rtol=1e-6)

    def draw(process=PROCESS, log_r=near, times=TIMES, **settings):
        return conditioning.twisted(process, predict, jax.random.key(0), times, (5, 1), log_r, **settings)

    with pytest.raises(InputError, match="threshold must be in"):
        draw(threshold=2)
    with pytest.raises(InputError, match="decrease"):
        draw(times=TIMES[::-1])
    with pytest.raises(InputError, match=r"one number for each particle, \(5,\), not \(5, 1\)"):
        draw(log_r=lambda x: x)
    bits = processes.binomial(1 / np.arange(10, 0, -1))
    for call in (
        lambda: draw(process=bits),
        lambda: conditioning.plugged(bits, predict, near),
        lambda: conditioning.dps(samplers.ancestral(bits), bits, lambda x: x),
    ):
        with pytest.raises(InputError, match="Gaussian processes"):
            call()
    stepper = conditioning.dps(samplers.ancestral(PROCESS), PROCESS, lambda x: x.sum())
    with pytest.raises(InputError, match=r"batch axis of the samples, 5, not shape \(\)"):
        samplers.sample(stepper, predict, jax.random.key(0), TIMES, (5, 1))


# Bias ------------------------------------------------------------------------------------------------------------
# The example of `measurements`, by DDPM's algorithm 2 in numpy: 1000 steps, mean and covariance followed exactly.

BARS = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
CHAIN = processes.gaussian(schedules.linear(1000))


def ddpm_step(i):
    """x_{i-1} = slope x_i + pull x̂_0 + noise, for α² = alpha_bar and the larger variance β."""
    bar, before = BARS[i], BARS[i - 1]
    beta = 1 - bar / before
    slope = np.sqrt(1 - beta) * (1 - before) / (1 - bar)
    return bar, slope, np.sqrt(before) * beta / (1 - bar), beta if i > 1 else 0.0


def denoiser(bar, cov=COVS[0]):
    """K of x̂_0 = K x_t, and the covariance of x_0 given x_t."""
    k = np.sqrt(bar) * cov @ np.linalg.inv(bar * cov + (1 - bar) * np.eye(2))
    return k, cov - np.sqrt(bar) * k @ cov


def spread_of(method, bar):
    """What the method takes for the covariance of x_0 given x_t."""
    return {"full": denoiser(bar)[1], "isotropic": (1 - bar) * np.eye(2), "plugged": np.zeros((2, 2))}[method]


def guided_estimate(method, bar):
    """The guided x̂_0 as (matrix, shift): x̂_0 + σ²/α ∇ log N(y; A x̂_0, A S Aᵀ + tau²)."""
    k, _ = denoiser(bar)
    gain = (1 - bar) / np.sqrt(bar) * k.T @ A.T / (A @ spread_of(method, bar) @ A.T + TAU**2)
    return k - gain @ A @ k, gain @ Y


def exact_posterior():
    gain = COVS[0] @ A[0] / (A[0] @ COVS[0] @ A[0] + TAU**2)
    return gain * Y[0], COVS[0] - np.outer(gain, A[0] @ COVS[0])


def off(mean, cov, exact=None):
    """The errors of the mean in posterior standard deviations, and the trace of the covariance over the right one."""
    right, spread = exact_posterior() if exact is None else exact
    return [*(mean - right) / np.sqrt(np.diag(spread)), np.trace(cov) / np.trace(spread)]


@pytest.mark.parametrize(
    ("method", "want"), [("full", [0, 0, 1]), ("isotropic", [-0.29, -0.22, 1.09]), ("plugged", [0.58, 0.46, 0.83])]
)
def test_biases_on_a_gaussian_are_the_docstring_s(method, want):
    mean, cov = np.zeros(2), np.eye(2)
    for i in range(1000, 0, -1):
        bar, slope, pull, noise = ddpm_step(i)
        matrix, shift = guided_estimate(method, bar)
        step = slope * np.eye(2) + pull * matrix
        mean, cov = step @ mean + pull * shift, step @ cov @ step.T + noise * np.eye(2)
    np.testing.assert_allclose(off(mean, cov), want, atol=0.006)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "isotropic", "plugged"])
def test_the_library_guides_by_these_formulas(method, x64):
    predict, seen = correlated().predict(CHAIN.schedule), measured()
    if method == "plugged":
        guide = conditioning.guided(CHAIN, predict, conditioning.plugged(CHAIN, predict, seen.log_r))
    else:
        guide = conditioning.given(CHAIN, predict, seen, method)
    xt = jnp.asarray(np.random.default_rng(3).normal(size=(3, 2)))
    index = np.array([1, 300, 900])
    t = jnp.asarray(index / 1000)
    got = jax.jit(lambda xt, t: predictions.convert(guide(xt, t), "x0", CHAIN, xt, t))(xt, t)
    parts = [guided_estimate(method, BARS[i]) for i in index]
    want = [matrix @ x + shift for (matrix, shift), x in zip(parts, np.asarray(xt), strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_step_of_dps_is_one_along_the_gradient_of_the_norm(x64):
    predict, seen, zeta = correlated().predict(CHAIN.schedule), measured(), 0.3
    stepper, key, xt = samplers.ancestral(CHAIN, "forward"), jax.random.key(0), jnp.array([[0.4, -1.0], [2.0, 0.5]])

    def stepped(stepper):
        return samplers.denoise(stepper, predict, key, xt, jnp.array([0.5, 0.4]))

    k, _ = denoiser(BARS[500])
    side = np.sign(Y[0] - np.asarray(xt) @ k.T @ A[0])
    pulled = stepped(conditioning.dps(stepper, CHAIN, seen.residual, zeta))
    np.testing.assert_allclose(pulled - stepped(stepper), zeta * side[:, None] * (A @ k), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zeta", "want"),
    [(0.01, [0.39, -0.08, 1.04, 0.16]), (0.1, [1.35, 1.25, 0.52, 0.03]), (1.0, [1.43, 1.38, 0.80, 2.95])],
)
def test_the_bias_of_dps_is_the_docstring_s(zeta, want):
    rng, n = np.random.default_rng(0), 20_000
    x = rng.normal(size=(n, 2))
    for i in range(1000, 0, -1):
        bar, slope, pull, noise = ddpm_step(i)
        k, _ = denoiser(bar)
        towards = np.sign(Y[0] - x @ k.T @ A[0])[:, None] * (A @ k)
        x = slope * x + pull * x @ k.T + np.sqrt(noise) * rng.normal(size=x.shape) + zeta * towards
    measured_too = np.var(x @ A[0]) / (A[0] @ exact_posterior()[1] @ A[0])
    np.testing.assert_allclose([*off(x.mean(0), np.cov(x.T)), measured_too], want, atol=0.03, rtol=0.03)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize(
    ("method", "want"),
    [
        ("full", [-0.04, -0.01, 1.06]),
        ("isotropic", [-0.05, -0.02, 1.09]),
        ("plugged", [0.31, 0.10, 0.86]),
        ("dps", [0.31, 0.16, 0.64]),
    ],
)
def test_biases_on_a_mixture_are_the_docstring_s(method, want):
    law, seen, n = mixture(), measured(), 10_000
    predict, stepper = at_one_time(law, CHAIN), samplers.ancestral(CHAIN, "forward")
    if method == "dps":
        stepper = conditioning.dps(stepper, CHAIN, seen.residual, 0.1)
    elif method == "plugged":
        predict = conditioning.guided(CHAIN, predict, conditioning.plugged(CHAIN, predict, seen.log_r))
    else:
        predict = conditioning.given(CHAIN, predict, seen, method)
    x = np.asarray(samplers.sample(stepper, predict, jax.random.key(0), CHAIN.schedule.times[::-1], (n, 2)))
    posterior = law.linear_posterior(A, Y, TAU)
    found = off(x.mean(0), np.cov(x.T), (np.asarray(posterior.mean), np.asarray(posterior.cov)))
    np.testing.assert_allclose(found, want, atol=5 / np.sqrt(n) + 0.005)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize(
    ("twist", "num", "want"),
    [
        *(("plugged", *row) for row in [(1, 0.60), (16, 0.15), (64, 0.06)]),
        *(("isotropic", *row) for row in [(1, -0.29), (16, -0.02), (64, -0.01)]),
    ],
)
def test_the_bias_of_particles_is_the_docstring_s(twist, num, want):
    process = processes.gaussian(schedules.linear(100, 1e-3, 0.2))
    predict, seen, runs = at_one_time(correlated(), process), measured(), 2000
    log_twist = None if twist == "plugged" else conditioning.expected(process, predict, seen, twist)
    times = process.schedule.times[::-1]

    def one(key):
        drawn = conditioning.twisted(process, predict, key, times, (num, 2), seen.log_r, log_twist, "forward")
        return jnp.exp(drawn.log_weights) @ drawn.x[:, 0]

    means = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), runs)))
    right, spread = exact_posterior()
    found = (means.mean() - right[0]) / np.sqrt(spread[0, 0])
    assert abs(found - want) < 5 * means.std() / np.sqrt(runs * spread[0, 0]) + 0.01, found
