"""Solvers of the reverse-time equation, and correctors, as steppers from t to s < t (Song et al. 2021).

    euler_maruyama       x_s = x_t - [f - g² ∇log p_t](t - s) + g √(t - s) z
    reverse_diffusion    x_s = (2 - a) x_t + G² ∇log p_t + G z,  q(x_t | x_s) = N(a x_s, G²)       (their eq. 46)
                         From alpha(t) = 0, where the equation is singular, both draw x_s from q(x_s | x̂_0)
    predictor_corrector  Langevin steps at t, then any stepper from t to s                       (their algorithm 1)

The last step, to s = 0, adds no noise; `denoised` also removes the noise that is left. `samplers.ancestral`, `ddim` and
`heun` are predictors as well. `still` does nothing: with it `predictor_corrector` only corrects. For a fair comparison,
end all of them the same way: `predictor_corrector(process, denoised(process, predictor))`.

A corrector's step is x + h ∇log p_t + √(2h) z (their algorithms 4 and 5), with

    h = 2 alpha²_{t|s} (snr E‖z‖ / mean ‖∇log p_t‖)²

alpha²_{t|s} is 1 for `ve` and 1 - β for `vp`. The mean is over the batch, as in the published code. With a separate
norm for each example, h would depend on x, and x + h ∇log p + √(2h) z would keep the density only with an extra term
∇h. Examples whose score is not finite are left out of the mean. For ‖z‖ the code has a batch mean, too. Here it is the
expectation, because a step whose length depends on its noise is not a Langevin step.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray

from diffjax.errors import InputError
from diffjax.mcmc.integrators import check_num_steps
from diffjax.mcmc.langevin import langevin
from diffjax.predictions import Predict, convert
from diffjax.processes import Binomial, Categorical, Gaussian, Process
from diffjax.samplers.driver import Noise, State, Stepper, at, normal, single, start
from diffjax.schedules import broadcast_to
from diffjax.sde import equations


def euler_maruyama(process: Gaussian) -> Stepper:
    """The Euler-Maruyama step of the reverse-time equation, of weak order 1.

    Raises:
        InputError: if the process is not Gaussian. The step raises it if the prediction has no score.
    """
    require_gaussian("euler_maruyama", process)

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        prediction = predict(state.x, t)
        # Coefficients in the type of x: the time's may be wider.
        squared = broadcast_to(equations.squared_diffusion(process.schedule, t), state.x)
        length = broadcast_to(t - s, state.x)
        score = convert(prediction, "score", process, state.x, t)
        mean = state.x - (equations.drift(process, state.x, t) - squared * score) * length
        x0 = convert(prediction, "x0", process, state.x, t)
        x = _noised(process, key, mean, squared * length, x0, t, s)
        return State(x, x0, _log_snr(process, t, x))

    return Stepper(process.prior, start, step)


def reverse_diffusion(process: Gaussian) -> Stepper:
    """The forward step of the chain, reversed; of weak order 1. It needs no derivative of the schedule.

    For `ve` and for a chain of betas this is the paper's sampler. For `vp` and `sub_vp`, q(x_t | x_s) is exact here,
    while the published code takes the chain's or Euler's.

    Raises:
        InputError: as `euler_maruyama`.
    """
    require_gaussian("reverse_diffusion", process)

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        prediction = predict(state.x, t)
        forward = process.transition(state.x, s, t)
        score = convert(prediction, "score", process, state.x, t)
        mean = 2.0 * state.x - forward.mean + forward.variance * score
        x0 = convert(prediction, "x0", process, state.x, t)
        x = _noised(process, key, mean, forward.variance, x0, t, s)
        return State(x, x0, _log_snr(process, t, x))

    return Stepper(process.prior, start, step)


def still(process: Process) -> Stepper:
    """x_s = x_t. With it, `predictor_corrector` only corrects. Its estimate of the end point is x_t."""

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        return State(state.x, state.x, _log_snr(process, t, state.x))

    return Stepper(process.prior, start, step)


def denoised(process: Gaussian, stepper: Stepper) -> Stepper:
    """The stepper, but the step to s = 0 goes to the estimate of x_0, by Tweedie's formula (x + sigma² ∇log p_t)/alpha.

    With `ve`, the last step of `euler_maruyama`, `ddim` and `heun` leaves noise of sigma(0) > 0 in the sample, while
    the paper's samplers end without noise. `still` leaves all the noise in, with any schedule.

    Raises:
        InputError: if the process is not Gaussian.
    """
    require_gaussian("denoised", process)

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        def last() -> State:
            x0 = convert(predict(state.x, t), "x0", process, state.x, t)
            return state._replace(x=x0, x0=x0, log_snr=_log_snr(process, t, x0))

        return jax.lax.cond(s == 0, last, lambda: stepper.step(key, predict, state, t, s))

    return stepper._replace(step=step)


def predictor_corrector(process: Gaussian, predictor: Stepper, snr: ArrayLike = 0.16, num_steps: int = 1) -> Stepper:
    """`num_steps` Langevin steps at t, each with its own h, then the predictor's step from t to s.

    Args:
        predictor: any stepper that reads only x of the state. `dpmpp_2m` does not: its last estimate is of another x.
        snr: the paper's signal-to-noise ratio, positive; 0.16 is its choice for CIFAR-10 with `ve`.

    Raises:
        InputError: if the process is not Gaussian, snr not positive and finite, or num_steps not a positive integer.
            The step raises it if the prediction has no score.
    """
    require_gaussian("predictor_corrector", process)
    check_num_steps("num_steps", num_steps)
    if not isinstance(snr, jax.core.Tracer) and not ((np.asarray(snr) > 0) & np.isfinite(snr)).all():
        raise InputError(f"snr must be positive and finite, not {snr}")

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        gradient = equations.score(process, predict)
        kept = (process.schedule.alpha(t) / process.schedule.alpha(s)) ** 2

        def correct(x: Array, key: PRNGKeyArray) -> tuple[Array, None]:
            norm = jnp.linalg.norm(gradient(x, t).reshape(x.shape[0], -1), axis=-1)
            sound = jnp.isfinite(norm)
            mean = jnp.mean(jnp.where(sound, norm, 0.0)) / jnp.mean(sound, dtype=x.dtype)
            h = broadcast_to(2.0 * kept * (snr * _noise_norm(math.prod(x.shape[1:]))) ** 2, mean) / mean**2
            return langevin_step(key, lambda x: gradient(x, t), x, h), None

        key, corrector_key = jax.random.split(single("predictor_corrector", key))
        x, _ = jax.lax.scan(correct, state.x, jax.random.split(corrector_key, int(num_steps)))
        return predictor.step(key, predict, state._replace(x=x), t, s)

    return predictor._replace(step=step)


def langevin_step(key: PRNGKeyArray, score: Callable[[Array], Array], x: Array, h: ArrayLike) -> Array:
    """x + h score(x) + √(2h) z, by the kernel of `mcmc`.

    The kernel's state is not carried on: its score was evaluated at the new x for another h or level. Compiled, a step
    still costs one evaluation, because unused results are not computed.
    """
    kernel = langevin(None, h, score=score)
    return kernel.step(key, kernel.init(x))[0].position


def require_gaussian(name: str, process: Process) -> None:
    if isinstance(process, Binomial):
        raise InputError(f"{name} needs a Gaussian process, not a binomial one: bits have no score; use ancestral")
    if isinstance(process, Categorical):
        raise InputError(
            f"{name} needs a Gaussian process, not a categorical one: classes have no score; use ancestral"
        )


def _noise_norm(size: int) -> float:
    """E‖z‖ of z ~ N(0, I)."""
    return math.sqrt(2.0) * math.exp(math.lgamma(0.5 * (size + 1)) - math.lgamma(0.5 * size))


def _noised(process: Gaussian, key: Noise, mean: Array, variance: Array, x0: Array, t: Array, s: Array) -> Array:
    """N(mean, variance), but the mean at s = 0; from alpha(t) = 0, where the equation is singular, q(x_s | x̂_0)."""
    z = normal(key, mean, t, s)
    (alpha_s, sigma_s), alpha_t = at(process.schedule, s, mean), process.schedule.alpha(t)
    exact, stepped = alpha_s * x0 + sigma_s * z, mean + jnp.sqrt(variance) * z
    return jnp.where(s == 0, jnp.where(alpha_t == 0, x0, mean), jnp.where(alpha_t == 0, exact, stepped))


def _log_snr(process: Process, t: Array, x: Array) -> Array:
    return process.schedule.log_snr(t).astype(x.dtype)
