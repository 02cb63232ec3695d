"""Every sampler of the registry reaches the law of the data and the laws on the way there, from its defaults alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax
from diffjax import losses, predictions, processes, registry, samplers, schedules, sde, time_sampling
from diffjax.errors import InputError
from diffjax.predictions import Prediction

M0, S2 = 0.7, 0.25  # mean and variance of the 1-D Gaussian data
N = 10_000
SCHEDULES = {
    "vp": schedules.vp(),
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(0.05, 5.0),
    "chain": schedules.linear(200, 5e-4, 0.1),
}
# Relative errors of the variance that a method has at these steps, beside chance: at the end, and on the way. First
# order in the steps; a corrector's own is snr² = 0.026 (`test_stochastic`); annealed Langevin's h/(2 target) is at most
# 0.1 with h = 0.2 sigma², which is what it is where sigma is large.
BIAS = {"predictor_corrector": (0.03, 0.03), "annealed_langevin": (0.03, 0.11), "probability_flow": (0.01, 0.001)}


def law(schedule, t):
    """Mean and variance of x_t."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha * M0, alpha**2 * S2 + sigma**2


def exact(schedule):
    def predict(xt, t):
        mean, variance = (schedules.broadcast_to(v, xt) for v in law(schedule, t))
        return Prediction((mean - xt) / variance, "score")

    return predict


def end_of_path(schedule):
    """What `consistency` needs: x_0 on the flow's path through x_t, on which (x - mean)/deviation is constant."""

    def predict(xt, t):
        mean, variance = (schedules.broadcast_to(v, xt) for v in law(schedule, t))
        return Prediction(M0 + np.sqrt(S2) * (xt - mean) / jnp.sqrt(variance), "x0")

    return predict


OF_CLASSES = ("tau_leaping", "remasking", "first_hitting")


def suits(name, schedule):
    return name not in OF_CLASSES and (name != "annealed_langevin" or schedule == "ve")


def grid(name, schedule):
    """Uneven times, and the index of one on the way."""
    if name == "probability_flow":
        return jnp.array([1.0, 0.3, 0.0]), 1
    if name == "annealed_langevin":
        return jnp.linspace(1.0, 0.0, 21), 10
    if schedule == "chain":
        return SCHEDULES["chain"].times[::-1], 140
    return jnp.append(jnp.linspace(1.0, 0.02, 150) ** 1.3, 0.0), 100


@pytest.mark.slow
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_every_sampler_reaches_the_moments_of_the_data(schedule):
    # From the exact law of x_1. Standard errors: √(v/n) of a mean, v √(2/n) of a variance.
    process = processes.gaussian(SCHEDULES[schedule])
    names = [name for name in samplers.SAMPLERS if suits(name, schedule)]

    def run(name, key):
        times, on_the_way = grid(name, schedule)
        mean, variance = law(process.schedule, 1.0)
        x1 = mean + jnp.sqrt(variance) * jax.random.normal(key, (N, 1))
        stepper, key = samplers.make(name, process, {}, denoise=True), jax.random.fold_in(key, 1)
        predict = (end_of_path if name == "consistency" else exact)(process.schedule)
        x, path = samplers.denoise(stepper, predict, key, x1, times, lambda state: (state.x.mean(), state.x.var()))
        return x, jnp.stack(path)[:, on_the_way - 1]

    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(lambda key: {name: run(name, key) for name in names})(jax.random.key(0))
    for name, (x, on_the_way) in found.items():
        assert x.dtype == np.float32
        times, index = grid(name, schedule)
        t = times[index - (name == "annealed_langevin")]  # whose step from t to s is made at t
        ends = np.float64(x)
        truths = (M0, S2), np.float64(law(process.schedule, t))
        for got, (mean, variance), bias in zip(
            ((ends.mean(), ends.var()), on_the_way), truths, BIAS.get(name, (0.02, 0.02)), strict=True
        ):
            assert abs(got[0] - mean) < 5 * np.sqrt(variance / N) + 0.01 * np.sqrt(variance), (name, got, mean)
            assert abs(got[1] / variance - 1) < 5 * np.sqrt(2 / N) + bias, (name, got, variance)


@pytest.mark.slow
def test_the_probability_flow_is_that_of_decode():
    for schedule in (SCHEDULES["ve"], SCHEDULES["chain"]):
        process, predict = processes.gaussian(schedule), exact(schedule)
        x = process.prior((16, 1)).sample(jax.random.key(0))
        got = samplers.denoise(samplers.probability_flow(process), predict, jax.random.key(1), x, jnp.array([1.0, 0.0]))
        np.testing.assert_array_equal(got, sde.decode(process, predict, x, denoise=True))


@pytest.mark.slow
def test_settings_reach_the_samplers():
    # x_s after one step from the same noise tells which sampler it was.
    process, x = processes.gaussian(SCHEDULES["ve"]), jnp.array([[0.3], [-2.0]])
    predict = exact(process.schedule)
    settings = {
        "eta": 0.5,
        "variance": "forward",
        "snr": 0.3,
        "corrector_steps": 2,
        "predictor": "heun",
        "step_size": 1e-4,
        "steps": 7,
    }
    heun = samplers.denoised(process, samplers.heun(process))
    want = {
        "ddim": samplers.ddim(process, 0.5),
        "ancestral": samplers.ancestral(process, "forward"),
        "predictor_corrector": samplers.predictor_corrector(process, heun, 0.3, 2),
        "annealed_langevin": samplers.annealed_langevin(process, 1e-4, 2),
        "dpmpp_2m": samplers.dpmpp_2m(process),
    }

    @jax.jit
    def ends(t, s):
        def end(stepper):
            return stepper.step(jax.random.key(0), predict, stepper.init(x), t, s).x

        made = {name: end(samplers.make(name, process, settings)) for name in want}
        last = {name: end(samplers.make(name, process, settings, denoise=True)) for name in want}
        return made, {name: end(stepper) for name, stepper in want.items()}, last

    made, right, last = ends(0.6, 0.5)
    for name in want:
        np.testing.assert_allclose(made[name], right[name], rtol=1e-6)
        np.testing.assert_allclose(last[name], right[name], rtol=1e-6)
    assert len({float(x[0, 0]) for x in made.values()}) == len(want)
    # To s = 0 `denoise` makes DDIM end on the estimate; it leaves a corrector, which does so by itself, as it is.
    made, right, last = ends(0.1, 0.0)
    mean, variance = law(process.schedule, 0.1)
    np.testing.assert_allclose(last["ddim"], M0 + S2 / variance * (x - mean), rtol=1e-5)
    assert np.abs(made["ddim"] - last["ddim"]).min() > 1e-4
    np.testing.assert_allclose(last["predictor_corrector"], right["predictor_corrector"], rtol=1e-6)


def test_what_does_not_suit_is_said_in_one_sentence():
    bits, process = processes.binomial(schedules.linear(10)), processes.gaussian(SCHEDULES["vp"])
    assert isinstance(samplers.SAMPLERS["ancestral"](bits), samplers.Stepper)
    for name in samplers.SAMPLERS:
        if name != "ancestral":
            with pytest.raises(InputError, match=f"{name} needs a (Gaussian|categorical) process.*use ancestral"):
                samplers.make(name, bits, {})
    with pytest.raises(InputError, match="noise left at t = 0"):
        samplers.SAMPLERS["annealed_langevin"](process)
    with pytest.raises(InputError, match=r"sampling.sampler must be one of ancestral, ddim, .*, not 'eule'"):
        samplers.make("eule", process, {})
    with pytest.raises(InputError, match=r"sampling.predictor must be one of ancestral, .*none, not 'dpmpp_2m'"):
        samplers.make("predictor_corrector", process, {"predictor": "dpmpp_2m"})


# The other registries, and the names that moved ----------------------------------------------------------------------


def test_schedules_by_name():
    t = np.array([0.1, 0.5, 1.0])
    settings = {"num_steps": 50, "beta_max": 10.0, "sigma_min": 0.2, "beta_end": 0.3, "tau": 0.7}
    want = {
        "linear": schedules.linear(50, beta_end=0.3),
        "cosine": schedules.cosine(50),
        "sigmoid": schedules.sigmoid(50, tau=0.7),
        "vp": schedules.vp(beta_max=10.0),
        "sub_vp": schedules.sub_vp(beta_max=10.0),
        "ve": schedules.ve(sigma_min=0.2),
        "edm": schedules.edm(sigma_min=0.2),
        "straight": schedules.straight(),
        "log_linear": schedules.log_linear(),
    }
    assert list(want) == list(schedules.SCHEDULES) == [*schedules.CHAINS, *schedules.CONTINUOUS]
    for name, schedule in want.items():
        np.testing.assert_array_equal(
            schedules.make(name, settings, schedules.SCHEDULES).log_snr(t), schedule.log_snr(t)
        )
    with pytest.raises(InputError, match=r"sde.name must be one of linear, .*, not 'edn'"):
        schedules.make("edn", settings, schedules.SCHEDULES, "sde.name")


@pytest.mark.slow
def test_losses_by_name():
    process = processes.gaussian(schedules.cosine(8))
    predict = predictions.predictor("eps", lambda xt, t: jnp.concatenate([0.3 * xt, 0.2 * xt], -1), True)
    key, x0, t = jax.random.key(0), jax.random.normal(jax.random.key(1), (4, 3)), jnp.array([0.125, 0.5, 0.75, 1.0])
    s = t - 0.125

    @jax.jit
    def both():
        args = (process, predict, key, x0)
        want = {
            "simple": losses.simple(*args, t, "v"),
            "vlb": losses.vlb(*args, s, t, 8, "learned") / (3 * np.log(2)),
            "hybrid": losses.hybrid(*args, s, t, 8),
        }
        assert want.keys() == losses.LOSSES.keys()
        for name, make in losses.WEIGHTS.items():
            weight = make(0.3) if name == "edm" else make()
            want[name] = losses.weighted(*args, t, weight, "v")
        settings = {"sigma_data": 0.3}
        made = {name: losses.chain_loss(name, process, 8, "v", "learned", settings=settings) for name in want}
        return {name: loss(*args[1:], t) for name, loss in made.items()}, want

    got, want = both()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6)
    with pytest.raises(InputError, match=r"loss must be one of simple, .*, not 'l1'"):
        losses.chain_loss("l1", process, 8)


def test_time_samplers_by_name():
    for make in time_sampling.TIME_SAMPLERS.values():
        sampler = make(4)
        t, weights = sampler.sample(sampler.init(), jax.random.key(0), 64)
        assert (np.asarray(weights) == 1).all()
        np.testing.assert_array_equal(np.unique(np.asarray(t)), [0.25, 0.5, 0.75, 1.0])


def test_a_factory_takes_the_settings_that_it_names():
    assert registry.build(lambda x, power=2: x**power, 2, settings={"power": 3, "other": 1}) == 8
    assert registry.build(lambda x, power=2: x**power, 2, settings={"x": 5}) == 4


@pytest.mark.parametrize("name", ["annealed_langevin", "denoised", "euler_maruyama", "predictor_corrector", "still"])
def test_old_places_work_and_name_the_new_ones(name):
    with pytest.warns(DeprecationWarning, match=f"is now diffjax.samplers.{name}"):
        assert getattr(diffjax.sde, name) is getattr(samplers, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        diffjax.sde.nonsense  # noqa: B018
