"""A score model of a mixture of Gaussians in the plane and the truth (Song & Ermon 2019, section 3 and figure 3).

Langevin dynamics at one noise level cannot move between modes that are far apart. So the weights of the modes are those
of its starting points. With decreasing noise levels it finds the weights of the data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import mcmc, samplers, sde
from diffjax.distances import energy_distance
from diffjax.predictions import Predict
from diffjax.processes import Gaussian
from diffjax.reference import GaussianMixture
from diffjax.zoo.figures import Arrows, Contours, Figure, Mark, Panels, Paths, Points

SHOWN = (1.0, 0.5, sde.TRAIN_FROM)  # times of the three noise levels in the pictures
NUM = 4000  # samples behind every number of the table
START = 8.0  # Langevin starts uniformly in the square of this half-width, as in the paper


class Toy(NamedTuple):
    """The data, and the settings of the dynamics to compare.

    mixture: its first component is the mode whose weight is measured
    std: of each component
    has_levels: whether the schedule has the noise levels that annealed Langevin dynamics goes through
    sigma_min: the lowest level
    step_size, steps, corrector_steps: of annealed Langevin dynamics, `steps` levels and `corrector_steps` at each
    snr: of the correctors
    """

    mixture: GaussianMixture
    std: float
    has_levels: bool
    sigma_min: float
    step_size: float
    steps: int
    corrector_steps: int
    snr: float


def truth(data: Any) -> GaussianMixture:
    """The mixture that `config.data` describes."""
    means = jnp.asarray(data.means, float)
    covs = jnp.broadcast_to(data.std**2 * jnp.eye(means.shape[1]), (len(means), *2 * means.shape[1:]))
    return GaussianMixture(jnp.asarray(data.weights, float), means, covs)


def of_config(config: Any) -> Toy:
    """The toy of `config.{data, sde, sampling}`."""
    setting, sampling, data = config.sde, config.sampling, config.data
    return Toy(
        truth(data),
        data.std,
        setting.name == "ve",
        setting.sigma_min,
        sampling.step_size,
        sampling.steps,
        sampling.corrector_steps,
        sampling.snr,
    )


def figures(toy: Toy, process: Gaussian, predict: Predict, key: Array) -> dict[str, Figure]:
    """True and learned densities and scores at three noise levels; Langevin dynamics without and with levels; the
    probability flow."""
    mixture = toy.mixture
    langevin_key, flow_key = jax.random.split(key)
    return {
        "scores": _scores(process, mixture, predict),
        "langevin": _langevin(toy, process, mixture, predict, langevin_key),
        "probability_flow": _flow(process, mixture, predict, flow_key),
    }


def table(toy: Toy, process: Gaussian, predict: Predict, key: Array, x: Array) -> dict[str, dict[str, float]]:
    """The first mode's weight and the energy distance of samples by several ways; log p of x (batch, 2) in nats."""
    mixture = toy.mixture
    data_key, other_key, likelihood_key, key = jax.random.split(key, 4)
    real = mixture.sample(data_key, NUM)
    rows = {"exact draws": _quality(mixture, mixture.sample(other_key, NUM), real)}
    for name, score in (("true score", mixture.predict(process.schedule)), ("learned score", predict)):
        for kind, draw in _ways(toy, process).items():
            rows[f"{kind}, {name}"] = _quality(mixture, jax.jit(draw, static_argnums=1)(key, score), real)
    flow = sde.log_prob(process, predict, likelihood_key, x)
    noised = mixture.at(process.schedule.alpha(sde.LIKELIHOOD_FROM), process.schedule.sigma(sde.LIKELIHOOD_FROM))
    exact = noised.log_prob(x)
    error = jnp.std(flow - exact, ddof=1) / jnp.sqrt(len(x))
    rows["log p by the flow"] = {
        "learned": float(flow.mean()),
        "true": float(exact.mean()),
        "difference": float((flow - exact).mean()),
        "standard error": float(error),
    }
    return rows


def plain_langevin(toy: Toy, process: Gaussian, key: Array, predict: Predict, start: Array) -> Array:
    """The path (num_steps, *start) of Langevin dynamics at the lowest level, with as many steps as the annealed one.

    A step relative to the variance of a component is the same as that of the annealed dynamics relative to the variance
    of its level.
    """
    score = sde.score(process, predict)
    h = toy.step_size / toy.sigma_min**2 * toy.std**2
    kernel = mcmc.langevin(None, h, score=lambda x: score(x, sde.TRAIN_FROM))
    return mcmc.run(kernel, key, start, toy.steps * toy.corrector_steps)[0].position


def _ways(toy: Toy, process: Gaussian) -> dict[str, Callable[[Array, Predict], Array]]:
    """Name -> (key, predict) -> samples (NUM, 2)."""
    levels, grid = jnp.linspace(1.0, 0.0, toy.steps), sde.times(process.schedule, 10 * toy.steps)

    def started(key: Array) -> Array:
        return jax.random.uniform(key, (NUM, 2), minval=-START, maxval=START)

    def plain(key: Array, predict: Predict) -> Array:
        start_key, key = jax.random.split(key)
        return plain_langevin(toy, process, key, predict, started(start_key))[-1]

    def annealed(key: Array, predict: Predict) -> Array:
        start_key, key = jax.random.split(key)
        stepper = samplers.annealed_langevin(process, toy.step_size, toy.corrector_steps, denoise=False)
        return samplers.denoise(stepper, predict, key, started(start_key), levels)

    def by(stepper: samplers.Stepper) -> Callable[[Array, Predict], Array]:
        return lambda key, predict: samplers.sample(stepper, predict, key, grid, (NUM, 2))

    def flow(key: Array, predict: Predict) -> Array:
        return sde.decode(process, predict, process.prior((NUM, 2)).sample(key))

    predictors = {
        "no predictor": samplers.still(process),
        "Euler-Maruyama": samplers.euler_maruyama(process),
        "reverse diffusion": samplers.reverse_diffusion(process),
        "ancestral": samplers.ancestral(process),
        "DDIM": samplers.ddim(process),
    }
    ways: dict[str, Callable[[Array, Predict], Array]] = {"plain Langevin": plain}
    if toy.has_levels:
        ways["annealed Langevin"] = annealed
    for name, stepper in predictors.items():
        if name != "no predictor":
            ways[name] = by(stepper)
        ways[f"{name} + Langevin"] = by(samplers.predictor_corrector(process, stepper, toy.snr))
    return ways | {"Heun": by(samplers.heun(process)), "flow by diffrax": flow}


def _quality(mixture: GaussianMixture, x: Array, real: Array) -> dict[str, float]:
    nearest = jnp.linalg.norm(x[:, None] - mixture.means, axis=-1).argmin(1)
    return {"weight": float((nearest == 0).mean()), "energy distance": float(energy_distance(x, real))}


def _scores(process: Gaussian, mixture: GaussianMixture, predict: Predict) -> Panels:
    side, fine = jnp.linspace(-1.0, 1.0, 17), jnp.linspace(-1.0, 1.0, 101)
    extent = 1.8 * float(jnp.abs(mixture.means).max())
    points = extent * jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    dense = extent * jnp.stack(jnp.meshgrid(fine, fine), -1)
    rows: list[list[Mark | list[Mark]]] = [[], []]
    for t in SHOWN:
        noised = mixture.at(process.schedule.alpha(t), process.schedule.sigma(t))
        name = f"sigma = {float(process.schedule.sigma(t)):.3g}"
        density = jnp.exp(noised.log_prob(dense))
        fields = {"true": noised.score(points), "learned": sde.score(process, predict)(points, t)}
        for row, (which, field) in zip(rows, fields.items(), strict=True):
            row.append([Contours(f"{which}, {name}", extent * fine, extent * fine, density), Arrows("", points, field)])
    return Panels(rows)


def _langevin(toy: Toy, process: Gaussian, mixture: GaussianMixture, predict: Predict, key: Array) -> Panels:
    """Samples, and the paths of twelve of them, with the learned score."""
    data_key, start_key, plain_key, key = jax.random.split(key, 4)
    start = jax.random.uniform(start_key, (1500, 2), minval=-START, maxval=START)
    levels = jnp.linspace(1.0, 0.0, toy.steps)

    @jax.jit
    def annealed(key: Array, start: Array) -> Array:
        stepper = samplers.annealed_langevin(process, toy.step_size, toy.corrector_steps, denoise=False)
        return samplers.denoise(stepper, predict, key, start, levels, lambda state: state.x)[1]

    @jax.jit
    def plain(key: Array, start: Array) -> Array:
        return plain_langevin(toy, process, key, predict, start)[:: toy.corrector_steps // 2 or 1]

    rows: list[list[Mark | list[Mark]]] = [[Points("data", mixture.sample(data_key, 1500))], [Points("start", start)]]
    dynamics = {"without levels": plain(plain_key, start)}
    if toy.has_levels:
        dynamics["with levels"] = annealed(key, start)
    for name, path in dynamics.items():
        paths = jnp.concatenate([start[None], path])[:, :12].swapaxes(0, 1)
        rows[0].append(Points(name, path[-1]))
        rows[1].append(Paths(name, paths))
    return Panels(rows, extent=2 * START)


def _flow(process: Gaussian, mixture: GaussianMixture, predict: Predict, key: Array) -> Panels:
    """The first coordinate against time, from the prior (t = 1) to the data, in its own standard deviations."""
    times = jnp.linspace(1.0, sde.sample_from(process.schedule), 101)
    latents = process.prior((60, 2)).sample(key)
    carry = jax.jit(lambda x: sde.transport(process, predict, x, 1.0, times[-1], save=times).saved)
    alpha, sigma = process.schedule.alpha(times), process.schedule.sigma(times)
    std = jnp.sqrt(alpha**2 * mixture.cov[0, 0] + sigma**2)
    path = (carry(latents)[..., 0] / std[:, None]).T
    graph = jnp.stack([jnp.broadcast_to(times, path.shape), path], -1)
    return Panels([[Paths("probability flow", graph)]], ("t", "x / standard deviation"))
