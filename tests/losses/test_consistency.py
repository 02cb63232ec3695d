"""Consistency models on Gaussians, where the end of every path is known, and a small one trained on a mixture.

Of data N(0, S²) x_t has the deviation phi(t) = √(alpha² S² + sigma²), and the flow's path is x_t/phi(t) = constant.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from diffjax import losses, predictions, processes, reference, samplers, schedules
from diffjax.errors import InputError
from diffjax.losses.consistency_times import Curriculum, consistency_pairs
from diffjax.predictions import Prediction

S, KEY = 0.6, jax.random.key(0)
SCHEDULES = {
    "edm": schedules.edm(0.02, 20.0),
    "straight": schedules.straight(),
    "vp": schedules.vp(),
    "ve": schedules.ve(0.02, 9.0),
    "chain": schedules.cosine(50),
}


def phi(schedule, t):
    return np.sqrt(np.float64(schedule.alpha(t)) ** 2 * S**2 + np.float64(schedule.sigma(t)) ** 2)


def deviation(schedule, x, t):
    alpha, sigma = (schedules.broadcast_to(a, x) for a in (schedule.alpha(t), schedule.sigma(t)))
    return jnp.sqrt(alpha**2 * S**2 + sigma**2)


def exact_end(schedule, t_min, slope=0.0):
    """f(x, t) = x phi(t_min)/phi(t), times 1 + slope (t - t_min)."""

    def f(x, t):
        change = 1.0 + slope * schedules.broadcast_to(t - t_min, x)
        return Prediction(x * deviation(schedule, x, t_min) / deviation(schedule, x, t) * change, "x0")

    return f


def denoiser(schedule):
    def predict(x, t):
        alpha = schedules.broadcast_to(schedule.alpha(t), x)
        return Prediction(alpha * S**2 / deviation(schedule, x, t) ** 2 * x, "x0")

    return predict


def test_f_is_the_identity_at_t_min_whatever_the_network_says():
    x = jax.random.normal(KEY, (5, 3))

    def net(x, t):
        return 2.0 + jnp.sin(3.0 * x) + schedules.broadcast_to(t, x)

    def ends(t_min):
        found = {}
        for name, schedule in SCHEDULES.items():
            kinds = [predictions.predictor(kind, net) for kind in predictions.KINDS if name == "vp"]
            for i, predict in enumerate([predictions.preconditioned(net, schedule, S), predictions.v(net), *kinds]):
                f = losses.consistency_function(processes.gaussian(schedule), predict, t_min)
                found[name, i] = f(x, jnp.full(5, t_min)).value, f(x, jnp.full(5, 1.0)).value
        return found

    for name, (start, end) in jax.jit(lambda: ends(0.03))().items():
        np.testing.assert_allclose(start, x, rtol=1e-5, atol=3e-6, err_msg=str(name))
        assert np.isfinite(end).all(), name


def test_the_coefficients_of_f_are_the_formulas():
    t_min, t = 0.01, np.array([0.02, 0.3, 1.0])
    for schedule in (SCHEDULES["edm"], SCHEDULES["straight"]):
        alpha, sigma = np.float64(schedule.alpha(t)), np.float64(schedule.sigma(t))
        a0, s0 = float(schedule.alpha(t_min)), float(schedule.sigma(t_min))
        skip = (s0 * sigma + a0 * alpha * S**2) / (sigma**2 + alpha**2 * S**2)
        out = (a0 * sigma - s0 * alpha) * S / np.sqrt(sigma**2 + alpha**2 * S**2)
        x, said = np.array([[0.7], [-2.0], [0.3]]), np.array([[1.5], [0.4], [-0.9]])
        predict = predictions.preconditioned(lambda *_, said=said: jnp.asarray(said), schedule, S)
        f = losses.consistency_function(processes.gaussian(schedule), predict, t_min)
        want = skip[:, None] * x + out[:, None] * said
        np.testing.assert_allclose(f(jnp.asarray(x), jnp.asarray(t)).value, want, rtol=2e-5, atol=1e-6)
    # At alpha = 1 their c_out, and a c_skip that is theirs at t_min and for small t_min.
    sigma, s0 = 0.3 * 20.0, 0.01 * 20.0
    theirs = S**2 / ((sigma - s0) ** 2 + S**2), S * (sigma - s0) / np.sqrt(S**2 + sigma**2)
    np.testing.assert_allclose((s0 * sigma + S**2) / (sigma**2 + S**2) - theirs[0], 0.03, atol=0.01)
    np.testing.assert_allclose((sigma - s0) * S / np.sqrt(sigma**2 + S**2), theirs[1])


def test_distillation_of_an_exact_flow_is_0_to_the_order_of_the_teacher_s_step():
    """Errors at steps h, h/2, h/4 fall by 2^(order + 1) each, at alpha = 0 by more. The distance is |error|²/(2c)."""
    c, t_min, x0 = 1e4, 0.02, np.array([[0.5, -1.0]])
    starts = (schedules.straight(), 1.0), (schedules.straight(), 0.4), (schedules.edm(0.02, 5.0), 0.3)
    with jax.enable_x64(True):
        for schedule, t in starts:
            args = processes.gaussian(schedule), exact_end(schedule, t_min), denoiser(schedule), KEY, x0

            def distance(s, c, order, args=args, t=t):
                return losses.consistency_distillation(*args, np.array([s]), np.full(1, t), order=order, c=c)

            for order in (1, 2):
                error = np.sqrt(2 * c * np.concatenate([distance(t - h, c, order) for h in (0.04, 0.02, 0.01)]))
                slope = np.log2(error[:-1] / error[1:])
                assert (slope > order + 0.8).all()
                assert t == 1.0 or (slope < order + 1.4).all()
            # Of first order by hand: the step's end is alpha_s x̂_0 + sigma_s ê, both linear in x_t.
            s = t - 0.04
            noise = np.float64(jax.random.normal(KEY, (1, 2), np.float64))
            xt = np.float64(schedule.alpha(t)) * x0 + np.float64(schedule.sigma(t)) * noise
            along = schedule.alpha(s) * schedule.alpha(t) * S**2 + schedule.sigma(s) * schedule.sigma(t)
            along = np.float64(along) / phi(schedule, t) ** 2
            want = phi(schedule, t_min) * (along / phi(schedule, s) - 1 / phi(schedule, t)) * xt
            np.testing.assert_allclose(distance(s, 0.3, 1), np.sqrt((want**2).sum() + 0.09) - 0.3, rtol=1e-9)


def test_the_slope_of_training_is_its_closed_form_and_leaves_the_target_alone():
    """f = a_θ(t) x. E[slope] = a'_t (a_t E[x_t²] - a_s E[x_t x_s])/c for small errors; distillation has phi_s phi_t.

    In E[x_t x_s] = alpha_t alpha_s S² + sigma_t sigma_s lies all that the missing teacher changes: O((t - s)²).
    """
    schedule, t_min, num, c = schedules.straight(), 0.05, 40_000, 1e3
    process = processes.gaussian(schedule)
    x0 = S * jax.random.normal(jax.random.key(1), (num, 1))
    s, t = np.full(num, 0.5, np.float32), np.full(num, 0.7, np.float32)

    @jax.jit
    def slopes(slope):
        def f(theta):
            return exact_end(schedule, t_min, theta)

        trained = jax.jacfwd(lambda a: losses.consistency_training(process, f(a), KEY, x0, s, t, f(slope), c))(slope)
        own = jax.jacrev(lambda a: losses.consistency_training(process, f(a), KEY, x0, s, t, c=c).mean())(slope)
        taught = losses.consistency_distillation
        other = jax.jacrev(lambda a: taught(process, f(0.2), f(a), KEY, x0, s, t, f(a), c=c).mean())(slope)
        return trained, own, other

    each, own, other = slopes(0.4)
    a = [phi(schedule, t_min) / phi(schedule, time) * (1 + 0.4 * (time - t_min)) for time in (0.5, 0.7)]
    moved = phi(schedule, t_min) / phi(schedule, 0.7) * (0.7 - t_min)
    across = 0.3 * 0.5 * S**2 + 0.7 * 0.5
    want = moved * (a[1] * phi(schedule, 0.7) ** 2 - a[0] * across) / c
    each = np.float64(each)
    error = each.std() / np.sqrt(num)
    assert abs(each.mean() - want) < 5 * error < 0.2 * abs(want)
    np.testing.assert_allclose(own, each.mean(), rtol=1e-3)
    assert other == 0.0  # neither the teacher nor the target learns
    apart = [phi(schedule, 0.7) * phi(schedule, s) - (0.3 * (1 - s) * S**2 + 0.7 * s) for s in (0.5, 0.6)]
    assert 3.2 < apart[0] / apart[1] < 4.8  # O((t - s)²)


def test_training_is_finite_where_there_is_no_signal():
    process, x0 = processes.gaussian(schedules.straight()), jnp.ones((2, 3))

    @jax.jit
    def slope(a):
        predict = predictions.preconditioned(lambda x, t: a * x, process.schedule, S)
        f = losses.consistency_function(process, predict, 0.01)
        t = jnp.array([0.5, 1.0])
        return losses.consistency_training(process, f, KEY, x0, t - 0.1, t).sum()

    assert np.isfinite(slope(0.3)) and abs(jax.grad(slope)(0.3)) > 1e-3
    assert np.isfinite(jax.grad(slope)(0.3))


def test_the_distance_keeps_its_digits():
    error = np.array([[1e-6, 0.0, 0.0], [0.3, -0.4, 0.0], [30.0, 0.0, 40.0]], np.float32)
    norm = np.linalg.norm(np.float64(error), axis=1)
    for c in (None, 0.2):
        width = 0.00054 * np.sqrt(3) if c is None else c
        want = np.where(norm < 1e-3, norm**2 / (2 * width), np.sqrt(norm**2 + width**2) - width)
        np.testing.assert_allclose(losses.pseudo_huber(jnp.asarray(error), c), want, rtol=1e-5)


def test_noise_levels_are_drawn_as_the_paper_has_them():
    schedule, t_min, num, n = schedules.edm(0.02, 20.0), 0.001, 12, 20_000
    u = (np.arange(n) + 0.5) / n
    pairs = jax.jit(lambda num: consistency_pairs(schedule, jnp.asarray(u), num, t_min))(num)
    grid = (0.02 ** (1 / 7) + np.arange(num + 1) / num * (20.0 ** (1 / 7) - 0.02 ** (1 / 7))) ** 7
    s, t, weight = (np.float64(a) for a in pairs)
    i = np.abs(20.0 * s[:, None] - grid).argmin(1)
    np.testing.assert_allclose(20.0 * s, grid[i], rtol=1e-4)
    np.testing.assert_allclose(20.0 * t, grid[i + 1], rtol=1e-4)
    np.testing.assert_allclose(weight, 1 / np.diff(grid)[i], rtol=1e-3)
    assert s.min() == np.float32(t_min) and t.max() == 1.0
    share = np.diff(scipy.special.erf((np.log(grid) + 1.1) / (np.sqrt(2) * 2.0)))
    np.testing.assert_allclose(np.bincount(i, minlength=num) / n, share / share.sum(), atol=2e-4)
    # Without signal at the end the last time is 1 all the same, and no weight is infinite.
    ends = jax.jit(lambda u: consistency_pairs(schedules.straight(), u, num, 0.01))(jnp.array([0.0, 0.5, 0.9999999]))
    assert ends.s[0] == np.float32(0.01) and ends.t[-1] == 1.0
    assert np.isfinite(np.stack(ends)).all() and (np.stack(ends) > 0).all() and (ends.s < ends.t).all()


def test_the_number_of_levels_doubles():
    steps = np.array([0, 99, 100, 199, 250, 699, 700, 799, 5000])
    want = [10, 10, 20, 20, 40, 640, 1280, 1280, 1280]
    np.testing.assert_array_equal(Curriculum(800).intervals(steps), want)
    np.testing.assert_array_equal(Curriculum(90, 4, 20).intervals(jnp.array([0, 30, 60, 89])), [4, 8, 16, 16])
    assert Curriculum(50, 18, 18).intervals(49) == 18


@pytest.mark.slow
def test_samples_in_many_steps_have_the_law_of_those_in_one():
    """With the exact f to t_min x_s is of the law of the process at every s, and ends in that of t_min."""
    num = 20_000
    for schedule in (SCHEDULES["edm"], SCHEDULES["straight"]):
        t_min, times = 0.05, jnp.array([1.0, 0.6, 0.2, 0.0])
        x1 = phi(schedule, 1.0) * jax.random.normal(jax.random.key(2), (num, 1))
        stepper, f = samplers.consistency(processes.gaussian(schedule), t_min), exact_end(schedule, t_min)
        end, path = samplers.denoise(stepper, f, KEY, x1, times, lambda state: state.x)
        for x, time in zip(path, (0.6, 0.2, t_min), strict=True):
            assert abs(np.float64(x).std() / phi(schedule, time) - 1) < 5 / np.sqrt(2 * num)
        np.testing.assert_array_equal(end, path[-1])
    with jax.debug_nans(True):  # the step to 0 noises nothing, which would be from t_min back to 0
        stepper.step(KEY, f, stepper.init(x1), jnp.asarray(0.2), jnp.asarray(0.0))


@pytest.mark.slow
def test_a_small_model_is_constant_along_the_flow_of_a_mixture():
    """Trained alone on two clusters: its error of the path's end is below 0.15, of the data's deviation of 1.12."""
    import optax

    schedule, t_min, steps = schedules.edm(0.02, 5.0), 0.004, 2000
    process = processes.gaussian(schedule)
    mixture = reference.GaussianMixture(jnp.array([0.4, 0.6]), jnp.array([[-1.2], [0.8]]), jnp.full((2, 1, 1), 0.25))
    curriculum, width = Curriculum(steps, 8, 64), 32

    def model(params):
        def net(x, noise):
            h = jnp.stack([x[:, 0], noise, jnp.ones_like(noise)], 1)
            for w in params[:-1]:
                h = jnp.concatenate([jax.nn.silu(jnp.matmul(h, w)), jnp.ones((len(x), 1))], 1)
            return jnp.matmul(h, params[-1])

        return losses.consistency_function(process, predictions.preconditioned(net, schedule, 1.0), t_min)

    keys = jax.random.split(KEY, 3)
    sizes = [(3, width), (width + 1, width), (width + 1, 1)]
    params = [jax.random.normal(key, size) / size[0] ** 0.5 for key, size in zip(keys, sizes, strict=True)]
    tx = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def step(carry, i):
        params, state = carry
        data_key, time_key, noise_key = jax.random.split(jax.random.fold_in(KEY, i), 3)
        x0 = mixture.sample(data_key, 128)
        s, t, weight = consistency_pairs(schedule, jax.random.uniform(time_key, (128,)), curriculum.intervals(i), t_min)

        def loss(params):
            f = model(params)
            return (weight * losses.consistency_training(process, f, noise_key, x0, s, t, c=0.03)).mean()

        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def errors(params):
        (trained, _), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))
        x1 = 5.0 * jax.random.normal(jax.random.key(9), (512, 1))
        times = samplers.noise_levels(schedule, 100)[:-1]
        end, path = samplers.denoise(
            samplers.heun(process), mixture.predict(schedule), KEY, x1, times, lambda state: state.x
        )
        at = [(x1, 1.0)] + [(path[i], times[i + 1]) for i in (20, 40, 60, 80)]
        return jnp.stack([jnp.sqrt(((model(trained)(x, jnp.full(512, t)).value - end) ** 2).mean()) for x, t in at])

    found = np.asarray(errors(params))
    print(found)
    assert (found < 0.15).all()


def test_what_cannot_be_is_said():
    schedule = schedules.vp()
    process, f, x0, t = processes.gaussian(schedule), exact_end(schedule, 0.1), jnp.ones((2, 1)), np.array([0.5, 0.7])
    with pytest.raises(InputError, match=r"t_min must be a time in \(0, 1\), .* not 0"):
        losses.consistency_function(process, denoiser(schedule), 0.0)
    with pytest.raises(InputError, match=r"t_min must be a time in \[0, 1\), .* not 1"):
        samplers.consistency(process, 1.0)
    with pytest.raises(InputError, match="s must be earlier than t"):
        losses.consistency_training(process, f, KEY, x0, t, t)
    with pytest.raises(InputError, match=r"order must be 1 or 2, .* not 3"):
        losses.consistency_distillation(process, f, f, KEY, x0, t - 0.1, t, order=3)
    with pytest.raises(InputError, match=r"kind 'eps', not 'x0'.*consistency_function"):
        losses.consistency_training(process, predictions.eps(lambda x, t: x), KEY, x0, t - 0.1, t)
    with pytest.raises(InputError, match="c must be a positive number"):
        losses.pseudo_huber(x0, 0.0)
    with pytest.raises(InputError, match=r"initial=20 .* final=10"):
        Curriculum(100, 20, 10).intervals(0)
    with pytest.raises(InputError, match=r"eps.*says nothing about x_0 at t = 1"):
        straight = processes.gaussian(schedules.straight())
        teacher = predictions.eps(lambda x, t: x)
        losses.consistency_distillation(straight, f, teacher, KEY, x0, t, np.array([0.8, 1.0]))
    with pytest.raises(InputError, match="consistency is not that of one Brownian path"):
        samplers.denoise(samplers.consistency(process), f, KEY, x0, jnp.array([1.0, 0.0]), path=True)
