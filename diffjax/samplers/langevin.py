"""Annealed Langevin dynamics: Langevin steps at falling noise levels (Song & Ermon 2019 and 2020, their algorithms 1).

    at each level sigma:  num_steps times  x ← x + h ∇log p_sigma(x) + √(2h) z,  h = step_size · sigma²/sigma_min²
    at the end:           x ← x + sigma_min² ∇log p_sigma_min(x), the estimate of x_0

With `schedules.ve(sigma_min, sigma_max)` the L equidistant times `linspace(1, 0, L)` are the L geometric levels of the
papers; `noise_levels.level_times` has the times of any others. Every time is a level, s = 0 too: from t to s > 0 the
Langevin steps are at t. From t to s = 0 they are at t, and then at 0.

The step is that of the papers' code. The ε published there are the `step_size` here: for CIFAR-10 2e-5 (2019) and
6.2e-6 (2020). The text of the first paper has x + ½α ∇log p + √α z: half of this h for the same ε.

Langevin sampling at one level needs nothing new: `mcmc.run(mcmc.langevin(None, h, score=score), key, x, num_steps)`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray

from diffjax.errors import InputError
from diffjax.mcmc.hmc import check_step_size
from diffjax.mcmc.integrators import check_num_steps
from diffjax.predictions import Predict, convert
from diffjax.processes import Gaussian
from diffjax.samplers.driver import Noise, State, Stepper, single
from diffjax.samplers.stochastic import langevin_step, require_gaussian, still
from diffjax.schedules import VariancePreserving
from diffjax.sde import equations


def annealed_langevin(process: Gaussian, step_size: ArrayLike, num_steps: int, denoise: bool = True) -> Stepper:
    """`num_steps` Langevin steps at every noise level; the estimate of the end point is x itself.

    Args:
        step_size: ε > 0, the h of the lowest level; `noise_levels.step_size` chooses it.
        denoise: whether to end with the estimate of x_0, as Jolicoeur-Martineau et al. (2021) and NCSNv2 do.

    Raises:
        InputError: if the process is not Gaussian or has no noise left at t = 0 (the unit of the steps), or if
            step_size is not positive or num_steps not a positive integer. The step raises it if the prediction has no
            score.
    """
    require_gaussian("annealed_langevin", process)
    if isinstance(process.schedule, VariancePreserving):
        raise InputError(
            f"annealed_langevin needs noise left at t = 0, as of schedules.ve, and {type(process.schedule).__name__} "
            "has none: use ve, or predictor_corrector"
        )
    check_step_size(step_size)
    check_num_steps("num_steps", num_steps)
    num_steps = int(num_steps)  # numpy's short integers overflow

    def step(key: Noise, predict: Predict, state: State, t: Array, s: Array) -> State:
        schedule, gradient = process.schedule, equations.score(process, predict)

        def visit(x: Array, item: tuple[PRNGKeyArray, Array, Array]) -> tuple[Array, None]:
            key, level, due = item
            h = jnp.asarray((schedule.sigma(level) / schedule.sigma(jnp.zeros_like(level))) ** 2, x.dtype)
            h = jnp.asarray(step_size, x.dtype) * h
            return jax.lax.cond(due, lambda: langevin_step(key, lambda x: gradient(x, level), x, h), lambda: x), None

        # One loop over both levels, and not two loops, so that the network is compiled once.
        levels, due = jnp.repeat(jnp.stack([t, s]), num_steps), jnp.arange(2 * num_steps) < num_steps
        x, _ = jax.lax.scan(
            visit, state.x, (jax.random.split(single("annealed_langevin", key), 2 * num_steps), levels, due | (s == 0))
        )
        if denoise:
            x = jax.lax.cond(s == 0, lambda: convert(predict(x, s), "x0", process, x, s), lambda: x)
        return State(x, x, schedule.log_snr(t).astype(x.dtype))

    return still(process)._replace(step=step)
