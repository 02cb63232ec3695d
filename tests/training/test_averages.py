"""Power-function averages against exact fractions, quadrature, and paths whose every step is known."""

import shutil
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy.integrate import quad

from diffjax.errors import InputError
from diffjax.training.averages import WIDEST, exponent, inner_product, moved, posthoc_coefficients, share_of_step
from diffjax.training.checkpoint import Checkpointer
from diffjax.training.loop import train
from diffjax.training.posthoc import post_hoc

WIDTHS = (0.05, 0.1)


def profile(tau, t, gamma):
    return np.where(tau <= t, (gamma + 1) * (tau / t) ** gamma / t, 0.0)


def weights(num, t, gamma):
    """(num,), what the steps 1 ... num count in the average after t: the profile's integral over each step."""
    ends = np.minimum(np.arange(num + 1) / t, 1)
    return np.diff(ends ** (gamma + 1))


def stored(*times, widths=WIDTHS):
    return tuple(np.array([(t, exponent(width)) for t in times for width in widths]).T)


@pytest.mark.parametrize("width", [1e-6, 0.01, 0.05, 0.1, 0.25, WIDEST])
def test_the_exponent_has_its_width_to_the_last_digit(width):
    """In exact arithmetic: what Newton's method would still change is below the spacing of float64."""
    s = Fraction(exponent(width)) + 2
    a = 1 / Fraction(width) ** 2
    error = (s**3 + s**2 - a * (s - 1)) / (3 * s**2 + 2 * s - a)
    assert abs(error) < s / 2**52
    if width > 0.01:
        mean, square = (quad(lambda x, n=n: x**n * profile(x, 1, float(s) - 2), 0, 1)[0] for n in (1, 2))
        np.testing.assert_allclose((square - mean**2) ** 0.5, width, rtol=1e-7)


@pytest.mark.parametrize("width", [0, -0.1, 0.2887, float("nan"), True, "0.1"])
def test_a_width_that_no_average_has_is_refused(width):
    with pytest.raises(InputError, match=r"evaluation.ema_width = .* must be a share of training, at least 1e-6"):
        exponent(width, "evaluation.ema_width")


def test_inner_products_are_those_of_quadrature():
    for a, b in (
        ((3.0, 17.0), (5.0, 0.0)),
        ((5.0, 2.5), (3.0, 6.9)),
        ((4.0, 1.0), (4.0, 7.0)),
        ((2.0, 0.0), (9.0, 0.0)),
    ):
        shorter = min(a[0], b[0])
        want, _ = quad(lambda tau, a=a, b=b: profile(tau, *a) * profile(tau, *b), 0, shorter, epsabs=0, epsrel=1e-12)
        np.testing.assert_allclose(inner_product(*a, *b), want, rtol=1e-11)


@pytest.mark.parametrize("width", [0.03, 0.07, 0.2])
def test_coefficients_are_those_of_least_squares_on_quadrature_nodes(width):
    """Between snapshots all profiles are smooth, so that Gauss's rule is exact there to rounding."""
    ends = np.array([0.0, 20.0, 50.0, 80.0, 100.0])
    nodes, rule = np.polynomial.legendre.leggauss(60)
    half = np.diff(ends)[:, None] / 2
    tau, rule = (ends[:-1, None] + half * (1 + nodes)).ravel(), (half * rule).ravel()
    times, gammas = stored(*ends[1:])
    wanted = profile(tau, 100, exponent(width)) * rule**0.5
    columns = profile(tau[:, None], times, gammas) * rule[:, None] ** 0.5
    others, last = columns[:, :-1], columns[:, -1]  # the last coefficient is what the sum leaves
    x = np.linalg.lstsq(others - last[:, None], wanted - last, rcond=None)[0]
    x = np.append(x, 1 - x.sum())
    got, error = posthoc_coefficients(times, gammas, 100, exponent(width))
    np.testing.assert_allclose(got, x, atol=1e-8)
    np.testing.assert_allclose(error, np.linalg.norm(columns @ x - wanted) / np.linalg.norm(wanted), rtol=1e-6)


def test_an_average_that_is_stored_is_itself():
    times, gammas = stored(100, 250, 400)
    for i in range(6):
        x, error = posthoc_coefficients(times, gammas, times[i], gammas[i])
        np.testing.assert_allclose(x, np.eye(6)[i], atol=1e-12)
        assert error < 1e-7


def test_a_third_width_of_a_random_walk_comes_nearer_with_the_snapshots():
    """400 walks from 100. The error of one is Σ_k r_k θ_k, r the weights of the profile that is left over, so its
    standard deviation is that of the sums of r from each step on; five standard errors of an estimate of it are 18%.
    """
    num, walks, gammas = 256, 400, [exponent(width) for width in (*WIDTHS, 0.07)]
    path = 100 + np.random.default_rng(3).normal(size=(num, walks)).cumsum(0)

    def step(averages, now):
        t, params = now
        averages = [moved(x, params, share_of_step(gamma, t)) for x, gamma in zip(averages, gammas, strict=True)]
        return averages, averages

    start = [jnp.full(walks, 1e6)] * 3  # the first step forgets it
    _, kept = jax.lax.scan(step, start, (jnp.arange(1, num + 1), jnp.asarray(path, jnp.float32)))
    kept = np.stack(kept, 1, dtype=np.float64)  # (step, width, walk)
    for k, gamma in enumerate(gammas):
        np.testing.assert_allclose(kept[-1, k], weights(num, num, gamma) @ path, rtol=1e-5)

    spreads = []
    for snapshots in (2, 4, 8):
        steps = np.arange(1, snapshots + 1) * num // snapshots
        times, exponents = stored(*steps)
        x, error = posthoc_coefficients(times, exponents, num, gammas[2])
        wrong = x @ kept[steps - 1, :2].reshape(-1, walks) - kept[-1, 2]
        left = x @ [weights(num, t, gamma) for t, gamma in zip(times, exponents, strict=True)]
        left -= weights(num, num, gammas[2])
        spread = np.linalg.norm(left[::-1].cumsum())
        assert abs(np.sqrt(np.mean(wrong**2)) / spread - 1) < 5 / np.sqrt(2 * walks)
        length = inner_product(num, gammas[2], num, gammas[2]) ** 0.5
        assert np.all(np.abs(wrong) < error * length * np.linalg.norm(path - 100, axis=0) + 1e-3)
        spreads.append(spread)
    assert spreads[0] > 2 * spreads[1] > 4 * spreads[2]


def run(directory, **options):
    config = {**tiny.CONFIG, "ema_widths": WIDTHS, "keep_every": 4, "save_every": 4, **options}
    seen = {}
    state = train(
        tiny.mean,
        config | {"eval_every": 1},
        tiny.make_batches,
        directory,
        on_eval=lambda step, state: seen.__setitem__(step, np.asarray(state.params, np.float64)),
        devices=jax.devices()[: tiny.DEVICES],
    )
    return state, np.stack([seen[step] for step in sorted(seen)])


@pytest.mark.fast(1)
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_run_keeps_its_averages_resumes_them_and_makes_others(tmp_path, parallel):
    """Against weighted means of the parameters after each step."""
    state, path = run(tmp_path / "once", parallel=parallel)
    for average, width in zip(state.averages, WIDTHS, strict=True):
        assert average.dtype == np.float32
        np.testing.assert_allclose(average, weights(20, 20, exponent(width)) @ path, atol=1e-6)

    shutil.copytree(tmp_path / "once", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "20")
    resumed, _ = run(tmp_path / "killed", parallel=parallel)
    for got, want in zip(jax.tree.leaves(resumed), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(got, want)

    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with Checkpointer(tmp_path / "once", read_only=True) as checkpointer:
        for width, step, limit in ((0.07, 20, 0.03), (0.07, 16, 0.04), (0.15, 20, 0.1)):
            made = post_hoc(checkpointer, wanted, WIDTHS, width, step)
            assert made.steps == list(range(4, step + 1, 4)) and made.error < limit
            gamma = exponent(width)
            wrong = np.asarray(made.average) - weights(20, step, gamma) @ path
            length = inner_product(step, gamma, step, gamma) ** 0.5
            far = np.linalg.norm(path[:step] - path[:step].mean(0), axis=0)
            assert np.all(np.abs(wrong) < made.error * length * far + 1e-6)
        with pytest.raises(
            InputError, match=r"ema_width = 0.2 cannot be had from .* in 1 checkpoint\(s\): .* would be \d+%"
        ):
            post_hoc(checkpointer, wanted, WIDTHS, 0.2, 4)
        with pytest.raises(InputError, match=r"ema_width = 0.2 needs a checkpoint of a step after 0, .* up to 0 there"):
            post_hoc(checkpointer, wanted, WIDTHS, 0.2, 0)
        with pytest.raises(InputError, match=r"ema_width = 0.2 needs a run with training.ema_widths"):
            post_hoc(checkpointer, wanted, (), 0.2, 20)
