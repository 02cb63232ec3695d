"""The probability flow against its closed form on Gaussian data, a sampler of fixed steps, and its own inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import predictions, processes, reference, samplers, schedules, sde
from diffjax.errors import InputError

COV = np.array([[0.5, 0.3], [0.3, 0.4]])
VALUES, VECTORS = np.linalg.eigh(COV)
VP = schedules.vp()
SCHEDULES = {"vp": VP, "sub_vp": schedules.sub_vp(), "ve": schedules.ve(), "chain": schedules.linear(50, 2e-3, 0.4)}


DATA = np.random.default_rng(0).multivariate_normal(np.zeros(2), COV, 20)


def gaussian(schedule):
    """The exact prediction for data of N(0, COV)."""

    def score(x, t):
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        return -(x @ VECTORS / (alpha**2 * VALUES + sigma**2)) @ VECTORS.T

    return predictions.score(score)


def moved(schedule, x, start, end):
    """(alpha_e² C + sigma_e² I)^½ (alpha_s² C + sigma_s² I)^-½ x, in float64."""
    std = [np.sqrt(float(schedule.alpha(t)) ** 2 * VALUES + float(schedule.sigma(t)) ** 2) for t in (start, end)]
    return np.float64(x) @ VECTORS * (std[1] / std[0]) @ VECTORS.T


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_gaussian_data_is_only_scaled_there_and_back(name):
    schedule = SCHEDULES[name]

    @jax.jit
    def run(x, start, end, save):
        process = processes.gaussian(schedule)
        return sde.transport(process, gaussian(schedule), x, start, end, rtol=1e-6, atol=1e-6, save=save)

    times = np.array([0.02, 0.1, 0.5, 0.9, 1.0])
    forth = run(DATA, times[0], times[-1], times)
    back = run(forth.x, times[-1], times[0], times[::-1])
    np.testing.assert_allclose(back.x, DATA, atol=1e-4)
    for path, way in ((forth, times), (back, times[::-1])):
        for t, saved in zip([*way, way[-1]], [*path.saved, path.x], strict=True):
            want = moved(schedule, DATA, times[0], t)
            np.testing.assert_allclose(saved, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.slow
def test_latents_of_a_chain_are_from_its_first_time_and_decode_to_the_mean_of_the_data_there():
    schedule, first = SCHEDULES["chain"], 1 / 50
    process, predict = processes.gaussian(schedule), gaussian(schedule)
    latents = jax.jit(lambda x: sde.encode(process, predict, x))(DATA)
    np.testing.assert_allclose(latents, moved(schedule, DATA, first, 1.0), atol=3e-4)
    back = jax.jit(lambda x: sde.decode(process, predict, x, denoise=True))(latents)
    alpha, sigma = float(schedule.alpha(first)), float(schedule.sigma(first))
    gain = alpha * COV @ np.linalg.inv(alpha**2 * COV + sigma**2 * np.eye(2))
    np.testing.assert_allclose(back, DATA @ gain, atol=3e-4)
    assert np.abs(DATA @ gain - DATA).max() > 5e-3


@pytest.mark.slow
def test_agrees_with_the_sampler_of_fixed_steps_and_counts_its_calls():
    mixture = reference.GaussianMixture(
        jnp.array([0.4, 0.6]), jnp.array([[1.0, 0.3], [-0.8, -0.4]]), jnp.stack([COV, 0.5 * np.eye(2)])
    )
    calls, exact = [], mixture.predict(VP)

    def predict(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return exact(x, t)

    process, x = processes.gaussian(VP), jax.random.normal(jax.random.key(2), (50, 2))
    got = jax.jit(lambda x: sde.transport(process, predict, x, 1.0, 0.05))(x)
    jax.effects_barrier()
    assert len(calls) == got.num_evaluations < 200
    times = jnp.linspace(1.0, 0.05, 401)
    run = jax.jit(lambda x: samplers.denoise(samplers.heun(process), exact, jax.random.key(0), x, times))
    np.testing.assert_allclose(got.x, run(x), atol=1e-4)


@pytest.mark.slow
def test_a_hard_example_is_not_hidden_by_easy_ones():
    """x' = -(w/β) x with w large in one example: as many steps as if it were alone, but for rounding."""

    def predict(x, t):
        speed = jnp.where(jnp.arange(len(x)) == 0, 300.0, 0.0)[:, None]
        return predictions.Prediction(-x * (1 - speed / (0.1 + 19.9 * t[:, None])), "score")

    process, x = processes.gaussian(VP), jnp.ones((400, 2))
    run = jax.jit(lambda x: sde.transport(process, predict, x, 0.5, 0.9))
    # The step's error is of order 5: in a mean over the batch 400 would be 400^(1/10) = 1.8 times fewer steps.
    alone, together = run(x[:1]), run(x)
    assert alone.num_evaluations > 100
    assert abs(together.num_evaluations / alone.num_evaluations - 1) < 0.1
    np.testing.assert_allclose(together.x[1:], 1.0, atol=1e-5)


def test_interpolation_runs_along_the_great_circle():
    interpolate = jax.jit(sde.interpolate_latents)
    a, b = np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 0.0]])
    weights = np.array([0.0, 0.25, 1.0])
    want = 2 * np.array([[[np.cos(w), 0], [np.sin(w), 0]] for w in np.pi / 2 * weights])
    np.testing.assert_allclose(interpolate(a, b, weights), want, atol=1e-6)
    # Whatever their lengths: the angle is that between directions.
    np.testing.assert_allclose(interpolate(3 * a, b, weights)[1], want[1] * [[3, 1], [1, 1]], atol=1e-5)
    np.testing.assert_allclose(interpolate(a, a, weights), np.stack([a] * 3), rtol=1e-6)
    # Of two latents of a high dimension the middle is as long as they are; their mean would be shorter by √2.
    u, v = np.random.default_rng(0).normal(size=(2, 5000))
    np.testing.assert_allclose(jnp.linalg.norm(interpolate(u, v, np.array([0.5]))), np.sqrt(5000), rtol=0.03)


@pytest.mark.parametrize(
    "schedule, start, end, save, match",
    [
        (VP, 0.0, 1.0, None, "start=0.0 must be a time"),
        (VP, 1.0, 1.1, None, "end=1.1"),
        (schedules.ve(), -0.1, 1.0, None, "start=-0.1"),
        (VP, 0.5, 0.5, None, "same time"),
        (VP, np.full(3, 0.5), 1.0, None, "shape"),
        (VP, 0.1, 1.0, np.array([0.5, 0.2]), "turning back"),
        (VP, 0.1, 0.9, np.array([0.5, 1.0]), "turning back"),
        (VP, 0.1, 1.0, np.array(0.5), "vector of times"),
    ],
)
def test_bad_times_are_named(schedule, start, end, save, match):
    def run(x):
        return sde.transport(processes.gaussian(schedule), gaussian(schedule), x, start, end, save=save).x

    for call in (run, jax.jit(run)):
        with pytest.raises(InputError, match=match):
            call(jnp.ones((3, 2)))


@pytest.mark.slow
def test_what_does_not_arrive_says_so_or_is_nan():
    predict = predictions.score(lambda x, t: -2 * x)

    def run(x):
        return sde.transport(processes.gaussian(VP), predict, x, 1e-3, 1.0, max_steps=3).x

    with pytest.raises(InputError, match=r"max_steps=3 did not bring the flow from 0.001 to 1.0"):
        run(jnp.ones((3, 2)))
    assert jnp.isnan(jax.jit(run)(jnp.ones((3, 2)))).all()


@pytest.mark.slow
def test_a_row_that_is_not_finite_leaves_the_others_as_they_are():
    """NaN or infinity in the data, and a network that is NaN from some time on or beyond some value."""
    process, exact = processes.gaussian(VP), gaussian(VP)
    save = np.array([0.2, 0.6])

    @jax.jit
    def run(x, scale, beyond, until):
        def predict(x, t):
            lost = (t > until)[:, None] | (x > beyond[:, None])
            return predictions.Prediction(jnp.where(lost, jnp.nan, scale * exact(x, t).value), "score")

        return sde.transport(process, predict, x, 0.1, 1.0, save=save)

    never = np.full(20, np.inf)
    sound, want = run(DATA, 1.0, never, never), moved(VP, DATA, 0.1, 1.0)
    x, beyond, until = DATA.copy(), never.copy(), never.copy()
    x[3, 1], x[5, 0] = np.nan, -np.inf
    got = run(x, 1.0, never, never)
    assert got.num_evaluations == sound.num_evaluations  # the steps are those that the others need
    until[[7, 8]] = [0.5, 0.7]
    beyond[11] = 0.5 * (DATA[11].max() + want[11].max())
    assert 0 < DATA[11].max() < beyond[11]
    hard = run(x, 1.0, beyond, until)
    for result, lost in ((got, [3, 5]), (hard, [3, 5, 7, 8, 11])):
        assert jnp.isnan(result.x[np.array(lost)]).all()
        kept = np.delete(np.arange(20), lost)
        np.testing.assert_allclose(result.x[kept], want[kept], atol=1e-4)
        for t, saved in zip(save, result.saved, strict=True):
            np.testing.assert_allclose(saved[kept], moved(VP, DATA, 0.1, t)[kept], atol=5e-4)  # by interpolation
    # A row is lost only from where it was lost on.
    np.testing.assert_allclose(hard.saved[0][7], moved(VP, DATA, 0.1, 0.2)[7], atol=5e-4)
    assert jnp.isnan(hard.saved[1][7]).all()
    assert hard.num_evaluations < sound.num_evaluations + 500


@pytest.mark.slow
def test_eager_calls_compile_once(compilations):
    process = processes.gaussian(VP)

    def calls(values):
        def predict(x, t):  # new at each call, with other parameters
            alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
            return predictions.Prediction(-(x @ VECTORS / (alpha**2 * values + sigma**2)) @ VECTORS.T, "score")

        key = jax.random.key(0)
        latents = sde.encode(process, predict, DATA, start=0.02)
        return (
            latents,
            sde.decode(process, predict, latents, end=0.02),
            sde.decode(process, predict, latents, denoise=True),
            sde.log_prob(process, predict, key, DATA),
            sde.discrete_log_prob(process, predict, key, np.ones((20, 2), int), 3, "forward"),
        )

    calls(jnp.asarray(VALUES))
    compilations.clear()
    latents, back, *_ = calls(jnp.asarray(2 * VALUES))
    assert not compilations
    alpha, sigma = (np.float64(f([0.02, 1.0]))[:, None] for f in (VP.alpha, VP.sigma))
    std = np.sqrt(alpha**2 * 2 * VALUES + sigma**2)
    np.testing.assert_allclose(latents, DATA @ VECTORS * (std[1] / std[0]) @ VECTORS.T, atol=3e-4)
    np.testing.assert_allclose(back, DATA, atol=3e-4)


@pytest.mark.slow
@pytest.mark.parametrize("promotion", ["standard", "strict"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_narrow_types_become_float32_in_wide_mode(dtype, promotion):
    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        x, predict = jnp.asarray(DATA, dtype), predictions.score(lambda x, t: -2 * x)
        for schedule in (VP, SCHEDULES["chain"]):
            got = sde.encode(processes.gaussian(schedule), predict, x, 0.02)
            # dx/dL = -½ x + x, L the integrated rate.
            rate = 2 * np.log(schedule.alpha(0.02) / schedule.alpha(1.0))
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, np.asarray(x, np.float64) * np.exp(0.5 * rate), rtol=1e-3)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"rtol": 0.0}, "rtol must be a positive finite number, not 0.0"),
        ({"rtol": np.inf}, "rtol must be"),
        ({"atol": np.nan}, "atol must be a positive finite number, not nan"),
        ({"atol": -1e-5}, "atol must be"),
        ({"max_steps": 0}, "max_steps must be a positive integer"),
        ({"max_steps": True}, "max_steps must be a positive integer"),
        ({"max_steps": 10.0}, "max_steps must be a positive integer"),
    ],
)
def test_bad_numbers_are_named(arguments, match):
    with pytest.raises(InputError, match=match):
        sde.transport(processes.gaussian(VP), gaussian(VP), jnp.ones((3, 2)), 0.1, 1.0, **arguments)
