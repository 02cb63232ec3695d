"""Score matching against closed forms: minima on Gaussians, variances of the estimators, and Vincent's identity."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import losses, predictions, processes, randomness, reference, schedules
from diffjax.errors import InputError

S, D = 1.7, 3
N = 20_000
GAUSSIAN = S * jax.random.normal(jax.random.key(0), (N, D))
PROJECTIONS = ("rademacher", "gaussian", "sphere")

RNG = np.random.default_rng(0)
W, B, V = RNG.normal(size=(4, 6)), RNG.normal(size=6), RNG.normal(size=(6, 4))


def wavy(x):
    """A score on (batch, 2, 2) whose derivative is known, and is not symmetric."""
    w, b, v = (jnp.asarray(a, x.dtype) for a in (W, B, V))
    return (jnp.tanh(x.reshape(-1, 4) @ w + b) @ v).reshape(x.shape)


def wavy_by_hand(x):
    """Its value (batch, 4) and derivative (batch, 4, 4), [:, i, j] = ∂s_i/∂x_j, in float64."""
    h = np.tanh(np.float64(x).reshape(-1, 4) @ W + B)
    return h @ V, np.einsum("nk,jk,ki->nij", 1 - h**2, W, V)


def mean_and_error(values):
    values = np.float64(values)
    return values.mean(0), values.std(0) / np.sqrt(len(values))


# the exact loss


def test_exact_is_trace_and_norm():
    x = jax.random.normal(jax.random.key(1), (7, 2, 2))
    value, slope = wavy_by_hand(x)
    want = np.trace(slope, axis1=1, axis2=2) + 0.5 * (value**2).sum(1)
    np.testing.assert_allclose(losses.exact_score_matching(wavy, x), want, rtol=2e-5, atol=1e-5)


def test_exact_in_more_dimensions_than_are_done_at_once():
    a, x = RNG.normal(size=(35, 35)), RNG.normal(size=(2, 5, 7))
    with jax.enable_x64(True):
        score = lambda x: (x.reshape(-1, 35) @ a).reshape(x.shape)  # noqa: E731
        got = jax.jit(lambda x: losses.exact_score_matching(score, x))(jnp.asarray(x))
    np.testing.assert_allclose(got, np.trace(a) + 0.5 * ((x.reshape(2, 35) @ a) ** 2).sum(1), rtol=1e-12)


def test_exact_on_a_gaussian_with_linear_scores():
    # E[tr ∇(a x) + ½‖a x‖²] = a D + ½ a² D s², least at a = -1/s²: -D/(2 s²)
    best = -1 / S**2
    run = jax.jit(lambda a: losses.exact_score_matching(lambda x: a * x, GAUSSIAN))
    for a in (2 * best, best, 0.5 * best, 0.3):
        mean, error = mean_and_error(run(a))
        assert abs(mean - (a * D + 0.5 * a**2 * D * S**2)) < 5 * error
    mean, error = mean_and_error(run(best))
    assert abs(mean + D / (2 * S**2)) < 5 * error < 0.05 * D / (2 * S**2)
    slope, error = mean_and_error(jax.jacfwd(run)(best))
    assert abs(slope) < 5 * error


def test_exact_is_least_at_the_sample_covariance():
    # Of s(x) = W x + b over any sample, the loss is least at W = -C⁻¹, b = C⁻¹ m: -½ tr C⁻¹. One Newton step finds it.
    x = RNG.normal(size=(50, D)) @ RNG.normal(size=(D, D)) + 1.0
    precision = np.linalg.inv(np.cov(x.T, bias=True))
    with jax.enable_x64(True):

        def loss(p):
            w, b = p[:9].reshape(D, D), p[9:]
            return losses.exact_score_matching(lambda x: x @ w.T + b, jnp.asarray(x)).mean()

        @jax.jit
        def newton(p):
            found = p - jnp.linalg.solve(jax.hessian(loss)(p), jax.grad(loss)(p))
            return found, loss(found)

        found, least = newton(jnp.asarray(RNG.normal(size=12)))
        np.testing.assert_allclose(found[:9].reshape(D, D), -precision, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found[9:], precision @ x.mean(0), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(least, -0.5 * np.trace(precision), rtol=1e-10)


# the sliced loss


def quadratic_form_variance(a, projection):
    """Var v'Av for E vv' = I, from the fourth moments of v: of ±1, of a Gaussian, of the sphere of radius √D."""
    a = 0.5 * (a + a.T)
    total, dim = (a**2).sum(), len(a)
    return {
        "rademacher": 2 * (total - (np.diag(a) ** 2).sum()),
        "gaussian": 2 * total,
        "sphere": 2 * dim / (dim + 2) * (total - np.trace(a) ** 2 / dim),
    }[projection]


@pytest.mark.fast(1)
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("variance_reduced", [True, False])
def test_sliced_has_the_mean_of_exact_and_the_variance_of_its_formula(projection, variance_reduced):
    point = jax.random.normal(jax.random.key(2), (1, 2, 2))
    x = jnp.broadcast_to(point, (N, 2, 2))
    run = jax.jit(losses.sliced_score_matching, static_argnums=(0, 3, 4, 5))
    value, slope = (a[0] for a in wavy_by_hand(point))
    # without reduction the loss is v'(∇s + ½ss')v
    form = slope if variance_reduced else slope + 0.5 * np.outer(value, value)
    for num in (1, 3) if projection == "sphere" else (1,):
        draws = np.float64(run(wavy, jax.random.key(3), x, num, projection, variance_reduced))
        mean, error = mean_and_error(draws)
        assert abs(mean - (np.trace(slope) + 0.5 * (value**2).sum())) < 5 * error
        # the standard error of a variance, from the fourth moment
        square, error = mean_and_error((draws - draws.mean()) ** 2)
        want = quadratic_form_variance(form, projection) / num
        assert abs(square - want) < 5 * error < 0.2 * want


def test_sliced_agrees_with_exact_on_a_mixture():
    weights, means, variances = jnp.array([0.3, 0.7]), jnp.array([[1.5, 0.0], [-1.0, 1.0]]), jnp.array([0.3, 0.8])
    mixture = reference.GaussianMixture(weights, means, variances[:, None, None] * jnp.eye(2))
    x = mixture.sample(jax.random.key(4), N)

    def score(x):
        pull = (means - x[:, None]) / variances[:, None]
        share = jax.nn.softmax(jnp.log(weights / variances) - 0.5 * variances * (pull**2).sum(-1))
        return (share[..., None] * pull).sum(1)

    @jax.jit
    def gap(key):
        exact = losses.exact_score_matching(score, x)
        sliced = [losses.sliced_score_matching(score, key, x, 1, p, r) for p in PROJECTIONS for r in (True, False)]
        return exact + 0.5 * (score(x) ** 2).sum(1), jnp.stack(sliced, 1) - exact[:, None]

    identity, gaps = gap(jax.random.key(5))
    mean, error = mean_and_error(gaps)
    assert (np.abs(mean) < 5 * error).all() and (error < 0.05).all()
    # at the true score the loss is -½ E‖∇log p‖², so exact + ½‖s‖² has mean 0 (integration by parts)
    mean, error = mean_and_error(identity)
    assert abs(mean) < 5 * error < 0.2


def test_sliced_gradient_is_that_of_exact_on_average():
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(6), (1, 2, 2)), (4000, 2, 2))

    @jax.jit
    def slopes(p):
        exact = jax.grad(lambda p: losses.exact_score_matching(lambda x: wavy(p * x), x[:1])[0])
        one = jax.vmap(
            jax.grad(lambda p, k, x: losses.sliced_score_matching(lambda x: wavy(p * x), k, x[None])[0]), (None, 0, 0)
        )
        return exact(p), one(p, jax.random.split(jax.random.key(7), len(x)), x)

    want, got = slopes(0.8)
    mean, error = mean_and_error(got)
    assert abs(mean - want) < 5 * error


# the denoising loss


def test_denoising_floor_on_a_gaussian_at_many_noise_levels():
    # E = ½ D [a² σ² (s² + σ²) + 2 a σ² + 1] for s(x) = a x, least at a = -1/(s² + σ²): ½ D s²/(s² + σ²)
    levels = np.array([0.01, 0.3, 1.0, 5.0])
    sigma = jnp.tile(jnp.asarray(levels, jnp.float32), N // 4)
    best = -1 / (S**2 + levels**2)

    @jax.jit
    def run(factor, sigma):
        score = lambda x: -(factor / (S**2 + sigma**2))[:, None] * x  # noqa: E731
        return losses.denoising_score_matching(score, jax.random.key(8), GAUSSIAN, sigma)

    for factor in (0.5, 1.0, 1.5):
        mean, error = mean_and_error(run(factor, sigma).reshape(-1, 4))
        a = factor * best
        want = 0.5 * D * (a**2 * levels**2 * (S**2 + levels**2) + 2 * a * levels**2 + 1)
        assert (np.abs(mean - want) < 5 * error).all()
    mean, error = mean_and_error(run(1.0, sigma).reshape(-1, 4))
    assert (np.abs(mean - 0.5 * D * S**2 / (S**2 + levels**2)) < 5 * error).all()
    slope, error = mean_and_error(jax.jacfwd(run)(1.0, sigma).reshape(-1, 4))
    assert (np.abs(slope) < 5 * error).all()


def test_denoising_weight_and_one_level_for_all():
    x, key = GAUSSIAN[:6].reshape(3, 2, 3), jax.random.key(9)
    eps = np.float64(jax.random.normal(key, x.shape))
    noised = np.float64(x) + 0.4 * eps
    vincent = 0.5 * ((np.tanh(noised) + eps / 0.4) ** 2).sum((1, 2))
    for sigma in (0.4, jnp.full(3, 0.4)):
        got = [losses.denoising_score_matching(jnp.tanh, key, x, sigma, *w) for w in ((), (jnp.ones_like,))]
        np.testing.assert_allclose(got[0], 0.16 * vincent, rtol=1e-5)
        np.testing.assert_allclose(got[1], vincent, rtol=1e-5)


def test_denoising_keeps_its_digits_when_sigma_is_small():
    # (x + σ eps - x)/σ² in float32 would know eps to no digit at all
    x = 100 * GAUSSIAN[:6]
    got = losses.denoising_score_matching(jnp.zeros_like, jax.random.key(10), x, 1e-6)
    eps = np.float64(jax.random.normal(jax.random.key(10), x.shape))
    np.testing.assert_allclose(got, 0.5 * (eps**2).sum(1), rtol=1e-5)


def test_gradients_of_denoising_and_exact_agree_as_sigma_vanishes(monkeypatch):
    """By quadrature over a mixture and over the noise: no Monte Carlo error, in float64."""
    module = importlib.import_module("diffjax.losses.score_matching")
    x, dx = np.linspace(-9, 9, 601, retstep=True)
    z, wz = np.polynomial.hermite_e.hermegauss(24)
    p0 = np.array([0.8, -0.3, 0.5, 0.9])

    def density(var):
        return sum(w * np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v) for w, m, v in var)

    components = [(0.35, 1.2, 0.5), (0.65, -0.9, 0.8)]
    with jax.enable_x64(True):

        def score(p, x):
            return p[0] * jnp.tanh(p[1] * x + p[2]) - p[3] * x

        nodes, noise = (jnp.asarray(a).reshape(-1, 1) for a in np.meshgrid(x, z, indexing="ij"))
        monkeypatch.setattr(module, "normal", lambda *_: noise)
        weights = jnp.asarray(np.outer(density(components) * dx, wz / wz.sum()).ravel())

        def denoising(p, sigma):
            s = lambda x: score(p, x)  # noqa: E731
            return weights @ losses.denoising_score_matching(s, jax.random.key(0), nodes, sigma, jnp.ones_like)

        def exact(p, density):
            return density @ losses.exact_score_matching(lambda x: score(p, x), jnp.asarray(x)[:, None])

        denoising_slope, exact_slope = jax.jit(jax.grad(denoising)), jax.jit(jax.grad(exact))
        want = exact_slope(p0, density(components) * dx)
        gaps = []
        for sigma in (0.2, 0.1, 0.05):
            got = denoising_slope(p0, sigma)
            # Vincent's identity: at any σ it is the exact loss of the noised density
            noised = density([(w, m, v + sigma**2) for w, m, v in components]) * dx
            np.testing.assert_allclose(got, exact_slope(p0, noised), rtol=1e-9, atol=1e-9)
            gaps.append(np.asarray(got - want))
        gaps = np.array(gaps)
        assert (np.abs(gaps[-1]) > 1e-5).all()
        np.testing.assert_allclose(np.log2(gaps[:-1] / gaps[1:]), 2.0, atol=0.1)


# the loss of a process


def network(params, xt, t):
    return jnp.tanh(xt @ params["a"] + t[:, None] * params["b"]) @ params["c"] - xt


PARAMS = {"a": RNG.normal(size=(D, 5)), "b": RNG.normal(size=5), "c": RNG.normal(size=(5, D))}


@pytest.mark.fast(1)
@pytest.mark.parametrize("make", [schedules.vp, schedules.sub_vp, schedules.ve], ids=lambda f: f.__name__)
def test_simple_and_denoising_have_the_same_gradient(make):
    """½D L_simple is denoising score matching of alpha x_0 with λ = σ²: one key draws one noise in both."""
    with jax.enable_x64(True):
        process, key = processes.gaussian(make()), jax.random.key(11)
        t = jnp.array([1e-3, 0.1, 0.5, 0.9, 1.0])
        x0 = jnp.asarray(RNG.normal(size=(5, D)))
        alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
        other = jnp.array([0.3, 1.0, 2.0, 5.0, 0.7])  # some λ(t)

        def values(p):
            def weighted(*weight):
                predict = predictions.score(lambda x, t: network(p, x, t))
                return losses.weighted_score_matching(process, predict, key, x0, t, *weight)

            def denoising(*weight):
                score = lambda x: network(p, x, t)  # noqa: E731
                return losses.denoising_score_matching(score, key, alpha[:, None] * x0, sigma, *weight)

            eps = predictions.eps(lambda x, t: -sigma[:, None] * network(p, x, t))  # the same estimate, as noise
            ours = D / 2 * losses.simple(process, eps, key, x0, t), weighted(), weighted(lambda _: other)
            return jnp.stack(ours), jnp.stack([denoising(), denoising(), denoising(lambda _: other)])

        # per example, so that no level can hide behind a larger one
        params = jax.tree.map(jnp.asarray, PARAMS)
        for ours, theirs in jax.jit(lambda p: (values(p), jax.jacrev(values)(p)))(params):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs)


def test_likelihood_weighting_by_hand():
    # of vp g² is β(t) = 0.1 + 19.9 t and sigma² is 1 - exp(-0.1 t - 9.95 t²), Song et al. 2021, eq. 33
    t = np.array([0.01, 0.2, 0.6, 1.0])
    x0 = GAUSSIAN[:4]
    eps = np.float64(jax.random.normal(jax.random.key(12), x0.shape))
    rate = (0.1 * t + 9.95 * t**2)[:, None]
    alpha, sigma = np.exp(-0.5 * rate), np.sqrt(-np.expm1(-rate))
    xt = alpha * np.float64(x0) + sigma * eps
    want = 0.5 * (0.1 + 19.9 * t) * ((-np.tanh(xt) + eps / sigma) ** 2).sum(1)
    process = processes.gaussian(schedules.vp())
    for predict in (
        predictions.score(lambda x, t: -jnp.tanh(x)),
        predictions.eps(lambda x, t: process.schedule.sigma(t)[:, None] * jnp.tanh(x)),
    ):
        got = losses.weighted_score_matching(
            process, predict, jax.random.key(12), x0, jnp.asarray(t, jnp.float32), lambda t: 0.1 + 19.9 * t
        )
        np.testing.assert_allclose(got, want, rtol=1e-4)


# energies, keys, and bad input


def test_energy_network():
    # E = ½ x'Px has the score -Px, the trace -tr P; P from a non-symmetric A, as a network would have it
    a = RNG.normal(size=(6, 6))
    p = 0.5 * (a + a.T)
    x = jnp.asarray(RNG.normal(size=(5, 2, 3)), jnp.float32)
    score = losses.energy_score(lambda x: 0.5 * jnp.einsum("nij,ijkl,nkl->n", x, jnp.asarray(a.reshape(2, 3, 2, 3)), x))
    key, flat = jax.random.key(13), np.float64(x).reshape(5, 6)
    got = jax.jit(
        lambda x: (
            score(x).reshape(5, 6),
            losses.exact_score_matching(score, x),
            losses.sliced_score_matching(score, key, x),
            losses.denoising_score_matching(score, key, x, 0.5),
        )
    )(x)
    v = np.where(np.asarray(jax.random.uniform(key, (5, 1, 2, 3))) < 0.5, -1, 1).reshape(5, 6)
    eps = np.float64(jax.random.normal(key, x.shape)).reshape(5, 6)
    norm = 0.5 * ((flat @ p) ** 2).sum(1)
    want = (
        -flat @ p,
        -np.trace(p) + norm,
        -np.einsum("ni,ij,nj->n", v, p, v) + norm,
        0.5 * ((-0.5 * (flat + 0.5 * eps) @ p + eps) ** 2).sum(1),
    )
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_key_per_example_makes_an_example_independent_of_its_neighbours():
    x, keys = GAUSSIAN[:4].reshape(4, 3), randomness.each(jax.random.key(14), 4)

    @jax.jit
    def run(keys, x):
        sliced = [losses.sliced_score_matching(jnp.sin, keys, x, 2, projection, False) for projection in PROJECTIONS]
        return jnp.stack([*sliced, losses.denoising_score_matching(jnp.sin, keys, x, 0.5)])

    np.testing.assert_allclose(run(keys[2:], x[2:]), run(keys, x)[:, 2:], rtol=1e-6)
    same = run(keys, x[:1].repeat(4, 0))  # and not the same draw for all
    assert all(len(np.unique(row)) == 4 for row in same[1:])


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, [0.1, 0.1, 0.0, 1.0], np.ones(3), np.ones((4, 1))], ids=str)
def test_bad_sigma(sigma):
    with pytest.raises(InputError, match="sigma must be"):
        losses.denoising_score_matching(jnp.sin, jax.random.key(0), GAUSSIAN[:4], jnp.asarray(sigma))


def test_bad_projections_and_shapes():
    key, x = jax.random.key(0), GAUSSIAN[:4]
    with pytest.raises(InputError, match=r"projection must be .*not 'cauchy'"):
        losses.sliced_score_matching(jnp.sin, key, x, projection="cauchy")
    with pytest.raises(InputError, match="num_projections must be at least 1, not 0"):
        losses.sliced_score_matching(jnp.sin, key, x, 0)
    for wrong in (lambda x: x.sum(1), lambda x: x[:, :2], lambda x: x[:2]):
        for loss in (
            lambda s: losses.exact_score_matching(s, x),
            lambda s: losses.sliced_score_matching(s, key, x),
            lambda s: losses.denoising_score_matching(s, key, x, 0.5),
        ):
            with pytest.raises(InputError, match=r"shape of x, \(4, 3\), not"):
                loss(wrong)
    for wrong in (lambda x: x, lambda x: x.sum()):
        with pytest.raises(InputError, match=r"one number per example, \(4,\)"):
            losses.energy_score(wrong)(x)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_types_and_compilations(dtype, compilations):
    # 32 bits in and out under 64-bit mode, and of 16 bits the value of their data; eager calls compile once.
    x = jax.random.normal(jax.random.key(1), (3, 2, 2)).astype(dtype)
    value, slope = wavy_by_hand(x)
    want = np.trace(slope, axis1=1, axis2=2) + 0.5 * (value**2).sum(1)
    noise = np.float64(jax.random.normal(jax.random.key(0), x.shape, jnp.float32)).reshape(3, 4)
    score, _ = wavy_by_hand(np.float64(x).reshape(3, 4) + 0.5 * noise)
    denoised = 0.5 * ((0.5 * score + noise) ** 2).sum(1)

    def losses_of(score):
        exact = losses.exact_score_matching(score, x)
        sliced = losses.sliced_score_matching(score, jax.random.key(0), x)
        return exact, losses.denoising_score_matching(score, jax.random.key(0), x, 0.5), sliced

    with jax.enable_x64(dtype == "float32"), jax.numpy_dtype_promotion("strict"):
        got = losses_of(lambda x: wavy(x).astype(dtype))
        np.testing.assert_allclose(got[0], want, atol=0.2 if dtype == "bfloat16" else 0.02)
        np.testing.assert_allclose(got[1], denoised, rtol=0.02)
        assert {loss.dtype for loss in got} == {np.dtype(np.float32)}
        compilations.clear()
        losses.exact_score_matching(lambda x: wavy(x).astype(dtype), x)
        assert not compilations
