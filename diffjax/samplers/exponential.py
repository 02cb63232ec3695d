"""Exponential integrators solve the linear part of the equation exactly, and extrapolate the estimate D of x_0.

With λ = log(alpha/sigma), half the log-SNR, h = λ_s - λ_t, the probability flow from t to s is

    x_s = (sigma_s/sigma_t) x_t + alpha_s ∫_0^h e^(v - h) D(λ_t + v) dv

    dpmpp_2m      D through the last two estimates, its integral by a midpoint       (Lu et al. 2022, algorithm 2)
    dpmpp_2s      D at the middle of the step, r = ½                                 (Lu et al. 2022, algorithm 1)
    dpmpp_3m      D is the parabola through the last three estimates: order 3
    unipc         the same of order p, and every step corrected once its end has been evaluated (Zhao et al. 2023)
    dpmpp_2m_sde  x_s = (sigma_s/sigma_t) e^-h x_t + alpha_s (1 - e^-2h) D + sigma_s √(1 - e^-2h) z, D of dpmpp_2m
                                                                                     (Lu et al. 2022, appendix D)

The first-order members have other names: `ddim` for the flow, `ancestral` for the equation with noise. D(λ) is a
polynomial in Newton's form, whose integral is exact. (The published code of the third-order step has half of the last
term, and is of second order.) In a step to s = 0 or from alpha = 0, h is infinite and no polynomial reaches that far.
Such a step goes to D, apart from the noise of a step from alpha = 0, and is of first order.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffjax.errors import InputError
from diffjax.predictions import Predict, convert
from diffjax.processes import Gaussian
from diffjax.samplers.driver import Noise, State, Stepper, at, normal, start
from diffjax.schedules import Schedule, sqrt, time_of


class Recent(NamedTuple):
    """A `State` and what multistep methods remember.

    before: (batch, *event), the corrected x before the last step; only `unipc` needs it.
    estimates: two earlier estimates of x_0, (batch, *event), the later one first; log_snrs: where they were made.
    log_snr, log_snrs: -inf where there is no estimate yet.
    """

    x: Float[Array, "batch *event"]
    x0: Float[Array, "batch *event"]
    log_snr: Float[Array, ""]
    before: Float[Array, "batch *event"]
    estimates: tuple[Array, Array]
    log_snrs: tuple[Array, Array]


def dpmpp_2m(process: Gaussian) -> Stepper:
    """DPM-Solver++(2M): second order from one evaluation a step; the first and the last step are of first order."""

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        x0 = _estimate(process, predict, state.x, t)
        h, log_snr = _step_length(process.schedule, state.x, t, s)
        x = _forwards(process.schedule, state.x, t, s, -jnp.expm1(-h) * _midpoint(state, x0, log_snr, h))
        return State(x, x0, log_snr)

    return Stepper(process.prior, start, step)


def dpmpp_2m_sde(process: Gaussian) -> Stepper:
    """SDE-DPM-Solver++(2M): the reverse-time equation with noise, one evaluation a step; order 2 in law but for noise.

    Without its correction it is `ancestral`, which is exact where D is constant.
    """

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        x0 = _estimate(process, predict, state.x, t)
        h, log_snr = _step_length(process.schedule, state.x, t, s)
        added = -jnp.expm1(-2.0 * h)  # of the variance at s
        _, sigma_s = at(process.schedule, s, state.x)
        noise = jnp.where(s == 0, 0.0, sigma_s * sqrt(added)) * normal(key, state.x, t, s)
        drift = added * _midpoint(state, x0, log_snr, h)
        return State(_forwards(process.schedule, state.x, t, s, drift, jnp.exp(-h)) + noise, x0, log_snr)

    return Stepper(process.prior, start, step)


def dpmpp_2s(process: Gaussian) -> Stepper:
    """DPM-Solver++(2S), r = ½: second order, two evaluations a step; one in a step from alpha = 0 or to s = 0."""

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule = process.schedule
        x0 = _estimate(process, predict, state.x, t)
        h, log_snr = _step_length(schedule, state.x, t, s)

        def at_middle() -> Array:
            middle = time_of(schedule, log_snr + h)  # λ_t + ½h, twice
            x = _forwards(schedule, state.x, t, middle, -jnp.expm1(-0.5 * h) * x0)
            return _estimate(process, predict, x, middle)

        direction = jax.lax.cond(jnp.isfinite(h), at_middle, lambda: x0)
        return State(_forwards(schedule, state.x, t, s, -jnp.expm1(-h) * direction), x0, log_snr)

    return Stepper(process.prior, start, step)


def dpmpp_3m(process: Gaussian) -> Stepper:
    """DPM-Solver++(3M): third order from one evaluation a step. The first two and the last have a lower order."""

    def step(key: Noise, predict: Predict, state: Recent, t: Array, s: Array) -> Recent:
        x0 = _estimate(process, predict, state.x, t)
        h, log_snr = _step_length(process.schedule, state.x, t, s)
        integral = _integral(h, [log_snr, state.log_snr, state.log_snrs[0]], [x0, state.x0, state.estimates[0]])
        x = _forwards(process.schedule, state.x, t, s, integral)
        return _remember(state, x, x0, log_snr)

    return Stepper(process.prior, _start, step)


def unipc(process: Gaussian, order: int = 2) -> Stepper:
    """UniPC of order p, 1 to 3: predictor of order p, corrector of order p + 1, one evaluation a step.

    The estimate at the predicted x_t is used twice (Zhao et al. 2023, algorithms 1 and 2). First it corrects x_t, by
    the polynomial through it and the p estimates before it. Then the predictor starts from there with it. The end is
    not corrected. Where one coefficient suffices, the paper sets it to ½; here it is that of the polynomial, so there
    is no B(h) to choose. With few steps, order 3 extrapolates too far: take 2.

    Raises:
        InputError: on another order.
    """
    if order not in (1, 2, 3):
        raise InputError(f"order must be 1, 2 or 3, not {order!r}")

    def step(key: Noise, predict: Predict, state: Recent, t: Array, s: Array) -> Recent:
        schedule = process.schedule
        x0 = _estimate(process, predict, state.x, t)
        h, log_snr = _step_length(schedule, state.x, t, s)
        # Repeat the last step, from the time r of the estimate before, with a polynomial that also passes through x0.
        r = time_of(schedule, state.log_snr)
        last = 0.5 * (log_snr - state.log_snr)
        places, estimates = [state.log_snr, *state.log_snrs], [state.x0, *state.estimates]
        # Estimates that do not exist yet come last: Newton's form ends before them.
        nodes, values = [places[0], log_snr, *places[1:order]], [estimates[0], x0, *estimates[1:order]]
        through = _integral(last, nodes, values)
        corrected = _forwards(schedule, state.before, r, t, through)
        x = jnp.where(jnp.isfinite(state.log_snr), corrected, state.x)
        ahead = _integral(h, [log_snr, *places][:order], [x0, *estimates][:order])
        return _remember(state, _forwards(schedule, x, t, s, ahead), x0, log_snr)._replace(before=x)

    return Stepper(process.prior, _start, step)


def _start(x: Array) -> Recent:
    nothing = jnp.zeros_like(x)
    never = jnp.full((), -jnp.inf, x.dtype)
    return Recent(x, nothing, never, x, (nothing, nothing), (never, never))


def _remember(state: Recent, x: Array, x0: Array, log_snr: Array) -> Recent:
    earlier, places = (state.x0, state.estimates[0]), (state.log_snr, state.log_snrs[0])
    return Recent(x, x0, log_snr, state.x, earlier, places)


def _estimate(process: Gaussian, predict: Predict, x: Array, t: Array) -> Array:
    return convert(predict(x, t), "x0", process, x, t)


def _step_length(schedule: Schedule, x: Array, t: Array, s: Array) -> tuple[Array, Array]:
    """h and the log-SNR at t. h is +inf for a step to s = 0 or from alpha = 0."""
    log_snr, log_snr_s = (jnp.asarray(schedule.log_snr(time), x.dtype) for time in (t, s))
    return 0.5 * (jnp.where(s == 0, jnp.inf, log_snr_s) - log_snr), log_snr


def _forwards(schedule: Schedule, x: Array, t: Array, s: Array, integral: Array, kept: Array | float = 1.0) -> Array:
    """(sigma_s/sigma_t) kept x + alpha_s integral. s = 0 is the data themselves, whatever alpha(0) and sigma(0) are."""
    (_, sigma_t), (alpha_s, sigma_s) = at(schedule, t, x), at(schedule, s, x)
    ratio = jnp.where(s == 0, 0.0, sigma_s / sigma_t)
    return ratio * kept * x + jnp.where(s == 0, 1.0, alpha_s) * integral


def _midpoint(state: State, x0: Array, log_snr: Array, h: Array) -> Array:
    """D at λ_t + ½h, extrapolated from the last two estimates; only the last one if there is no other or h = ∞."""
    last = 0.5 * (log_snr - state.log_snr)
    usable = jnp.isfinite(h) & jnp.isfinite(last)
    return x0 + jnp.where(usable, 0.5 * h / jnp.where(usable, last, 1.0), 0.0) * (x0 - state.x0)


def _integral(h: Array, log_snrs: list[Array], estimates: list[Array]) -> Array:
    """∫_0^h e^(v-h) D(λ_0 + v) dv, D the polynomial through the estimates.

    It is in Newton's form, Σ_k D[0..k] Π_{i<k} (v - v_i), with divided differences. A difference is 0 if one of its
    estimates does not exist (log-SNR infinite). Where h is infinite, all but D[0] are 0.
    """
    places = [0.5 * (log_snr - log_snrs[0]) for log_snr in log_snrs]  # v_i; v_0 = 0
    known = [jnp.isfinite(log_snr) & jnp.isfinite(h) for log_snr in log_snrs]
    differences, moments = list(estimates), _moments(h, len(estimates))
    total = moments[0] * estimates[0]
    product, sound = [jnp.ones_like(h)], known[0]  # the coefficients of 1, v, v², ... in Π_{i<k} (v - v_i)
    for k in range(1, len(estimates)):
        gaps = [places[i] - places[i + k] for i in range(len(estimates) - k)]
        differences = [
            (differences[i] - differences[i + 1]) / jnp.where(jnp.isfinite(gap) & (gap != 0), gap, 1.0)
            for i, gap in enumerate(gaps)
        ]
        place = jnp.where(known[k - 1], places[k - 1], 0.0)
        product = [a - place * b for a, b in zip([0.0 * h, *product], [*product, 0.0 * h], strict=True)]
        sound = sound & known[k]
        weight = sum(a * m for a, m in zip(product, moments, strict=False))
        total = total + jnp.where(sound, weight, 0.0) * differences[0]
    return total


def _moments(h: Array, num: int) -> list[Array]:
    """∫_0^h e^(v-h) v^k dv for k < num: M_0 = 1 - e^-h, M_k = h^k - k M_{k-1}, and for small h their series."""
    length = jnp.where(jnp.isfinite(h), h, 1.0)
    found = [-jnp.expm1(-h)]
    recursive = -jnp.expm1(-length)
    for k in range(1, num):
        recursive = length**k - k * recursive
        # h^(k+1) Σ_j (-h)^j k!/(k+1+j)!
        terms, series = 1.0 / (k + 1), jnp.zeros_like(length)
        for j in range(9):
            series = series + terms * (-length) ** j
            terms /= k + 2 + j
        found.append(jnp.where(length < 1.0, length ** (k + 1) * series, recursive))
    return found
