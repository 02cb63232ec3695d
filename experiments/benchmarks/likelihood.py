"""log p by the probability flow: diffjax against the host-side solver of the papers' code, on the same network.

    python -m experiments.benchmarks.likelihood [--rounds=5] [--batch=16]

The other side follows the code of Song et al. 2021 (github.com/yang-song/score_sde, likelihood.py). It calls
scipy.integrate.solve_ivp, RK45, with one flat vector of all images and their log-determinants. Two functions are
jitted: the drift, and the gradient of its product with the probes. Both sides have rtol = atol = 1e-5, the same probes,
the VP process and the network of `configs/digits.py`. Many parameters of a new network are zero, so all are perturbed:
then there is a flow to follow. Everything is compiled first. Every round runs both sides, one after the other.

Printed: images a second (medians), evaluations of the network, the median over rounds of the ratio of rates (above 1 if
diffjax is faster), and the difference of each result from the other side's at a tolerance of 1e-6.
"""

from experiments.platform import set_cpu_flags

set_cpu_flags()

import statistics  # noqa: E402  (the flags come before jax)
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import scipy.integrate  # noqa: E402
from absl import app, flags  # noqa: E402
from jax import Array  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

from configs import digits  # noqa: E402
from diffjax import bounds, predictions, processes, schedules, sde  # noqa: E402
from diffjax.nets.unet import UNet  # noqa: E402
from diffjax.predictions import Predict  # noqa: E402

SPREAD = 0.05  # standard deviation of the perturbation of every parameter

_ROUNDS = flags.DEFINE_integer("rounds", 5, "runs of each side", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 16, "images", lower_bound=1)

Side = Callable[[Array, Array], tuple[np.ndarray, int]]  # (key, images) -> log p in nats, evaluations


def network() -> Predict:
    """The digits' U-Net as a prediction of the noise."""
    setting = digits.get_config().net
    net = UNet(setting.channels, tuple(setting.multipliers), setting.num_blocks, tuple(setting.attention), 1)
    params = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [leaf + SPREAD * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, drawn)
    # Not 999 t: with untrained weights such fast sinusoids make the flow rougher than that of any trained network.
    return predictions.eps(lambda x, t: net.apply({"params": params}, x, 100.0 * t))


def ours(process: processes.Gaussian, predict: Predict) -> Side:
    run = jax.jit(lambda key, x: sde.likelihood(process, predict, key, x))

    def side(key: Array, x: Array) -> tuple[np.ndarray, int]:
        got = run(key, x)
        return np.asarray(got.log_prob), int(got.num_evaluations)

    return side


def on_host(process: processes.Gaussian, predict: Predict, tolerance: float = 1e-5) -> Side:
    velocity = sde.velocity(process, predict)

    @jax.jit
    def drift(x: Array, t: Array) -> Array:
        return velocity(x, t)

    @jax.jit
    def divergence(x: Array, t: Array, u: Array) -> Array:
        gradient = jax.grad(lambda x: jnp.sum(velocity(x, t) * u))(x)
        return jnp.sum(gradient * u, axis=(1, 2, 3))

    def side(key: Array, x: Array) -> tuple[np.ndarray, int]:
        u = jax.random.rademacher(key, (1, *x.shape), x.dtype)[0]  # diffjax's first and only probe
        batch, size = len(x), x.size

        def slope(t: float, state: np.ndarray) -> np.ndarray:
            image, when = jnp.asarray(state[:size].reshape(x.shape), jnp.float32), jnp.full(batch, t, jnp.float32)
            parts = drift(image, when), divergence(image, when, u)
            return np.concatenate([np.asarray(part).reshape(-1) for part in parts])

        state = np.concatenate([np.asarray(x).reshape(-1), np.zeros(batch)])
        span = (sde.LIKELIHOOD_FROM, 1.0)
        solution = scipy.integrate.solve_ivp(slope, span, state, rtol=tolerance, atol=tolerance, method="RK45")
        latents, growth = solution.y[:size, -1].reshape(x.shape), solution.y[size:, -1]
        prior = process.prior(x.shape).log_prob(jnp.asarray(latents, jnp.float32)).sum((1, 2, 3))
        return np.asarray(prior) + growth, solution.nfev

    return side


def main(argv: list[str]) -> None:
    del argv
    process, predict = processes.gaussian(schedules.vp()), network()
    x = jnp.asarray(load_digits().images[: _BATCH.value, :, :, None] / 8.0 - 1.0, jnp.float32)
    sides = {"diffjax": ours(process, predict), "scipy on the host": on_host(process, predict)}
    results = {name: side(jax.random.key(0), x) for name, side in sides.items()}
    finer, _ = on_host(process, predict, tolerance=1e-6)(jax.random.key(0), x)

    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(_ROUNDS.value):
        for name, side in sides.items():
            start = time.perf_counter()
            side(jax.random.key(i), x)
            seconds[name].append(time.perf_counter() - start)

    for name, times in seconds.items():
        rate = _BATCH.value / statistics.median(times)
        ratios = sorted(other / mine for other, mine in zip(times, seconds["diffjax"], strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})"
        error = bounds.bits_per_dim(np.abs(results[name][0] - finer), x.shape[1:])
        print(
            f"{name:18s} {rate:8.2f} images/s {results[name][1]:5d} evaluations   diffjax / side: {spread}   "
            f"error {error.mean():.1e}, at most {error.max():.1e} bits/dim"
        )
    print(f"log p: {bounds.bits_per_dim(finer.mean(), x.shape[1:]):.4f} bits/dim")


if __name__ == "__main__":
    app.run(main)
